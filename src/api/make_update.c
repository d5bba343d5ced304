#include "api/make_update.h"
#include "api/body.h"
#include "api/headers.h"

enum { SCRATCH_KEEP_BYTES = 65536 }; /* from one request to the next */

/* `text` and `headers` are empty, and get what their names say. */
static enum http_error build(const struct request *request, struct slice query,
                             bool capture_headers, struct buf *text, struct buf *headers,
                             struct update **update) {
    struct slice raw = request_slice(request, request->body), body = raw;
    struct fields fields;
    fields_init(&fields, query);
    enum http_error error = ERROR_BUSY;
    if (!fields.failed)
        error = body_write(text, &body, request_header(request, HEADER_CONTENT_TYPE), &fields);
    fields_deinit(&fields);
    if (error)
        return error;
    if (capture_headers)
        headers_write(headers, request);
    if (text->failed || headers->failed)
        return ERROR_BUSY;
    if (text->len)
        body = (struct slice){text->data, text->len};
    struct update_parts parts = {
        .body = body,
        .raw = raw,
        .query = query,
        .headers = {headers->data, headers->len},
        .method = slice_of(llhttp_method_name(request->parser.method)),
        .has_raw = !slice_equal(body, raw),
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
    enum http_error error = build(request, query, capture_headers, &text, &headers, update);
    buf_reset(&text, SCRATCH_KEEP_BYTES);
    buf_reset(&headers, SCRATCH_KEEP_BYTES);
    return error;
}
