#include "api/make_update.h"
#include "api/body.h"
#include "api/coded.h"
#include "api/coding.h"
#include "api/headers.h"
#include "api/wish.h"

enum { SCRATCH_KEEP_BYTES = 65536 }; /* from one request to the next */

/* --- The payload ------------------------------------------------------------------------------ */

struct payload payload_of(const struct request *request) {
    uint32_t count = request->counts[HEADER_CONTENT_ENCODING];
    struct payload payload = {
        .bytes = request_slice(request, request->body),
        .content_type = request_header(request, HEADER_CONTENT_TYPE),
        .codings = SLICE(""),
        .is_opaque = count > 1 && request->body.len,
    };
    if (count == 1 && payload.bytes.len)
        payload.codings = request_header(request, HEADER_CONTENT_ENCODING);
    return payload;
}

enum http_error payload_inflate(struct payload *payload, size_t max) {
    if (!payload->codings.len)
        return HTTP_NO_ERROR;
    switch (coding_undo(&payload->inflated, payload->bytes, payload->codings, max)) {
    case CODING_NONE: break;
    case CODING_OPAQUE: payload->is_opaque = true; break;
    case CODING_TOO_LARGE: payload_deinit(payload); return ERROR_BODY_SIZE;
    case CODING_NO_MEMORY: payload_deinit(payload); return ERROR_BUSY;
    case CODING_UNDONE:
        payload->coded = payload->bytes;
        payload->bytes = (struct slice){payload->inflated.data, payload->inflated.len};
        break;
    }
    payload->codings = SLICE("");
    return HTTP_NO_ERROR;
}

void payload_deinit(struct payload *payload) {
    buf_deinit(&payload->inflated);
}

/* --- Updates ---------------------------------------------------------------------------------- */

static void write_method(struct buf *out, const struct request *request, const struct sent *sent,
                         bool has_ids) {
    buf_puts(out, llhttp_method_name(request->parser.method));
    if (sent->from.len || sent->path.len) {
        struct slice from = sent->from.len ? sent->from : SLICE("-");
        buf_putc(out, ' ');
        buf_append(out, from.data, from.len);
    }
    if (sent->path.len) {
        buf_putc(out, ' ');
        buf_append(out, sent->path.data, sent->path.len);
    }
    if (has_ids)
        buf_puts(out, UPDATE_SAME_AS_NONE);
}

bool update_maker_init(struct update_maker *maker, const struct request *request,
                       const struct sent *sent, bool capture_headers) {
    struct slice query = sent->query;
    maker->query = query;
    maker->source = (struct delivery_source){0};
    delivery_source_init(&maker->source, request, query);
    write_method(&maker->method, request, sent, maker->source.is_any);
    struct buf scratch = {0};
    fields_init(&maker->fields, wish_strip(query, &scratch), SLICE(""));
    maker->fields.failed |= scratch.failed;
    buf_deinit(&scratch);
    if (capture_headers)
        headers_write(&maker->headers, request);
    return !maker->fields.failed && !maker->headers.failed && !maker->method.failed &&
           !maker->source.failed;
}

void update_maker_deinit(struct update_maker *maker) {
    fields_deinit(&maker->fields);
    buf_deinit(&maker->method);
    buf_deinit(&maker->headers);
    buf_deinit(&maker->text);
    delivery_source_deinit(&maker->source);
}

size_t update_maker_size(const struct update_maker *maker) {
    return sizeof *maker + fields_size(&maker->fields) + maker->method.cap + maker->headers.cap +
           maker->text.cap;
}

/* The body as it came, or in plain bytes: see coded.h. */
static struct slice raw_of(const struct update_maker *maker, const struct payload *payload,
                           struct slice body) {
    struct slice headers = {maker->headers.data, maker->headers.len};
    bool is_kept = payload->coded.len && coded_is_kept(headers, body.len, payload->bytes.len);
    return is_kept ? payload->coded : payload->bytes;
}

enum http_error update_maker_make(struct update_maker *maker, const struct payload *payload,
                                  struct update **update) {
    struct slice body = payload->bytes;
    enum http_error error = HTTP_NO_ERROR;
    buf_reset(&maker->text, SCRATCH_KEEP_BYTES);
    fields_unplace(&maker->fields);
    if (payload->is_opaque)
        body_write_bytes(&maker->text, body, &maker->fields);
    else
        error = body_write(&maker->text, &body, payload->content_type, &maker->fields);
    if (error)
        return error;
    if (maker->text.failed)
        return ERROR_BUSY;
    if (maker->text.len)
        body = (struct slice){maker->text.data, maker->text.len};
    if (maker->source.is_any)
        maker->delivery = delivery_next(&maker->source, body);
    if (maker->source.failed)
        return ERROR_BUSY;
    struct slice raw = raw_of(maker, payload, body);
    struct update_parts parts = {
        .body = body,
        .raw = raw,
        .query = maker->query,
        .headers = {maker->headers.data, maker->headers.len},
        .method = {maker->method.data, maker->method.len},
        .has_raw = !slice_equal(body, raw),
    };
    struct update *made = update_new(&parts);
    if (!made)
        return ERROR_BUSY;
    *update = made;
    return HTTP_NO_ERROR;
}

enum http_error make_update(const struct request *request, const struct payload *payload,
                            const struct sent *sent, bool capture_headers, struct update **update,
                            struct delivery *delivery) {
    static struct update_maker maker; /* for its buffers */
    enum http_error error = ERROR_BUSY;
    maker.delivery.has_id = false;
    if (update_maker_init(&maker, request, sent, capture_headers))
        error = update_maker_make(&maker, payload, update);
    *delivery = maker.delivery;
    fields_deinit(&maker.fields);
    delivery_source_deinit(&maker.source);
    buf_reset(&maker.method, SCRATCH_KEEP_BYTES);
    buf_reset(&maker.headers, SCRATCH_KEEP_BYTES);
    buf_reset(&maker.text, SCRATCH_KEEP_BYTES);
    return error;
}
