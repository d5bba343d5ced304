#include "api/make_update.h"
#include "api/body.h"
#include "api/coding.h"
#include "api/headers.h"
#include "http/budget.h"

enum { SCRATCH_KEEP_BYTES = 65536 }; /* from one request to the next */

/* What a push brings, and what becomes of it. The buffers are empty at first. */
struct making {
    const struct request *request;
    struct slice query;
    struct slice raw; /* the request's body, inflated */
    bool is_opaque;   /* in a coding that is not known, or broken */
    struct buf inflated, *text, *headers;
};

/* Undoes the body's codings. */
static enum http_error inflate_body(struct making *making) {
    const struct request *request = making->request;
    making->raw = request_slice(request, request->body);
    if (!request->counts[HEADER_CONTENT_ENCODING] || !making->raw.len)
        return HTTP_NO_ERROR;
    struct slice codings = request_header(request, HEADER_CONTENT_ENCODING);
    if (request->counts[HEADER_CONTENT_ENCODING] > 1) {
        making->is_opaque = true;
        return HTTP_NO_ERROR;
    }
    switch (coding_undo(&making->inflated, making->raw, codings, request->body_max_bytes)) {
    case CODING_NONE: return HTTP_NO_ERROR;
    case CODING_OPAQUE: making->is_opaque = true; return HTTP_NO_ERROR;
    case CODING_TOO_LARGE: return ERROR_BODY_SIZE;
    case CODING_NO_MEMORY: return ERROR_BUSY;
    case CODING_UNDONE: break;
    }
    making->raw = (struct slice){making->inflated.data, making->inflated.len};
    return budget_has(3 * making->raw.len) ? HTTP_NO_ERROR : ERROR_BUSY;
}

static enum http_error write_body(struct making *making, struct slice *body) {
    struct fields fields;
    fields_init(&fields, making->query, SLICE(""));
    enum http_error error = ERROR_BUSY;
    if (!fields.failed && making->is_opaque)
        error = body_write_bytes(making->text, *body, &fields);
    else if (!fields.failed)
        error = body_write(making->text, body, request_header(making->request, HEADER_CONTENT_TYPE),
                           &fields);
    fields_deinit(&fields);
    return error;
}

static enum http_error build(struct making *making, bool capture_headers, struct update **update) {
    enum http_error error = inflate_body(making);
    struct slice body = making->raw;
    if (!error)
        error = write_body(making, &body);
    if (error)
        return error;
    const struct buf *text = making->text, *headers = making->headers;
    if (capture_headers)
        headers_write(making->headers, making->request);
    if (text->failed || headers->failed)
        return ERROR_BUSY;
    if (text->len)
        body = (struct slice){text->data, text->len};
    struct update_parts parts = {
        .body = body,
        .raw = making->raw,
        .query = making->query,
        .headers = {headers->data, headers->len},
        .method = slice_of(llhttp_method_name(making->request->parser.method)),
        .has_raw = !slice_equal(body, making->raw),
    };
    struct update *built = update_new(&parts);
    if (!built)
        return ERROR_BUSY;
    *update = built;
    return HTTP_NO_ERROR;
}

enum http_error make_update(const struct request *request, struct slice query, bool capture_headers,
                            struct update **update) {
    static struct buf text, headers;
    struct making making = {.request = request, .query = query, .text = &text, .headers = &headers};
    enum http_error error = build(&making, capture_headers, update);
    buf_deinit(&making.inflated);
    buf_reset(&text, SCRATCH_KEEP_BYTES);
    buf_reset(&headers, SCRATCH_KEEP_BYTES);
    return error;
}
