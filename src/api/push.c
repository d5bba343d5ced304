#include "api/push.h"
#include "api/api.h"
#include "api/body.h"
#include "api/headers.h"
#include "api/replies.h"
#include "base/log.h"
#include "http/budget.h"

enum { SCRATCH_KEEP_BYTES = 65536 };

enum http_error push_build(const struct request *request, struct slice query, bool capture_headers,
                           struct update **update) {
    /* Kept from one request to the next. */
    static struct buf text, headers;
    buf_reset(&text, SCRATCH_KEEP_BYTES);
    buf_reset(&headers, SCRATCH_KEEP_BYTES);

    struct slice raw = request_slice(request, request->body), body = raw;
    struct fields fields;
    fields_init(&fields, query);
    enum http_error error = ERROR_BUSY;
    if (!fields.failed)
        error = body_write(&text, &body, request_header(request, HEADER_CONTENT_TYPE), &fields);
    fields_deinit(&fields);
    if (error)
        return error;
    if (capture_headers)
        headers_write(&headers, request);
    if (text.failed || headers.failed)
        return ERROR_BUSY;
    if (text.len)
        body = (struct slice){text.data, text.len};
    struct update_parts parts = {
        .body = body,
        .raw = raw,
        .query = query,
        .headers = {headers.data, headers.len},
        .method = slice_of(llhttp_method_name(request->parser.method)),
        .has_raw = !slice_equal(body, raw),
    };
    struct update *built = update_new(&parts);
    if (!built)
        return ERROR_BUSY;
    *update = built;
    return HTTP_NO_ERROR;
}

static bool is_identity(const struct request *request) {
    struct slice coding = slice_trim(request_header(request, HEADER_CONTENT_ENCODING));
    return !coding.len || slice_equal_nocase(coding, SLICE("identity"));
}

void push_handle(struct exchange *exchange, const struct request *request, struct slice channel,
                 struct slice query) {
    if (!is_identity(request)) {
        reply_error(exchange, ERROR_CONTENT_ENCODING);
        return;
    }
    /* The body is counted already; its update may take twice as much while it is made. */
    if (!budget_has(2 * (size_t)request->body.len)) {
        reply_error(exchange, ERROR_BUSY);
        return;
    }
    struct update *update;
    enum http_error error = push_build(request, query, api.capture_headers, &update);
    if (error) {
        reply_error(exchange, error);
        return;
    }
    size_t size = update_size(update);
    struct ask *ask = ask_of(exchange);
    ask->push = inbox_push(api.inbox, channel, update, exchange);
    if (!ask->push)
        reply_error(exchange, ERROR_BUSY);
    else
        budget_take(size);
    log_debug("push", "channel", log_secret(channel).text, "bytes", log_number(size).text, NULL);
}

void push_done(void *owner, const struct update *update, enum store_error error) {
    budget_give(update_size(update));
    struct exchange *exchange = owner;
    if (!exchange)
        return;
    ask_of(exchange)->push = NULL;
    if (error) {
        reply_store_error(exchange, error);
        return;
    }
    struct lines lines = {.len = 0};
    lines_add(&lines, "X-Total-Updates", update->ts);
    lines_add_limit(&lines, exchange);
    reply_with(exchange, HTTP_OK, REPLY_TEXT, lines_slice(&lines), SLICE("OK"));
}
