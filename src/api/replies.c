#include "api/replies.h"
#include "api/api.h"

#include <assert.h>

void lines_add(struct lines *lines, const char *name, uint64_t number) {
    size_t len = strlen(name);
    assert(lines->len + len + 24 <= sizeof lines->text);
    char *at = (char *)memcpy(lines->text + lines->len, name, len) + len;
    *at++ = ':';
    *at++ = ' ';
    at += format_number(at, number);
    *at++ = '\r';
    *at++ = '\n';
    lines->len = (size_t)(at - lines->text);
}

void lines_add_limit(struct lines *lines, struct exchange *exchange) {
    int32_t quota = ask_of(exchange)->quota;
    if (quota < 0)
        return;
    lines_add(lines, "X-RateLimit-Limit", limiter_limit(api.limiter));
    lines_add(lines, "X-RateLimit-Remaining", (uint64_t)quota);
}

void reply_error_in(struct exchange *exchange, uint64_t line, enum http_error error) {
    struct lines lines = {.len = 0};
    lines_add_limit(&lines, exchange);
    if (http_error_status(error) == HTTP_SERVICE_UNAVAILABLE)
        lines_add(&lines, "Retry-After", 1);
    unsigned flags = exchange_flags(exchange);
    exchange_reply(exchange, reply_new_error(error, line, flags, lines_slice(&lines)));
}

void reply_error(struct exchange *exchange, enum http_error error) {
    reply_error_in(exchange, 0, error);
}

enum http_error store_http_error(enum store_error error) {
    static const enum http_error errors[] = {
        [STORE_FAILED] = ERROR_STORE,
        [STORE_BUSY] = ERROR_BUSY,
        [STORE_CONSUMERS_FULL] = ERROR_CONSUMERS,
        [STORE_AWAY] = ERROR_STORE_AWAY,
        [STORE_UNSURE] = ERROR_STORE_UNSURE,
        [STORE_NOT_REPLICATED] = ERROR_STORE_NOT_REPLICATED,
        [STORE_READ_ONLY] = ERROR_STORE_READ_ONLY,
        [STORE_TOO_FEW_REPLICAS] = ERROR_STORE_TOO_FEW_REPLICAS,
        [STORE_LOADING] = ERROR_STORE_LOADING,
        [STORE_OUT_OF_MEMORY] = ERROR_STORE_OUT_OF_MEMORY,
        [STORE_CLUSTER_DOWN] = ERROR_STORE_CLUSTER_DOWN,
        [STORE_REFUSED] = ERROR_STORE_REFUSED,
        [STORE_DAMAGED] = ERROR_STORE_DAMAGED,
    };
    return errors[error];
}

void reply_store_error(struct exchange *exchange, enum store_error error) {
    reply_error(exchange, store_http_error(error));
}

void reply_made(struct exchange *exchange, struct reply *reply) {
    if (reply)
        exchange_reply(exchange, reply);
    else
        reply_error(exchange, ERROR_BUSY);
}

void reply_with(struct exchange *exchange, enum http_status status, const char *content_type,
                struct slice headers, struct slice body) {
    reply_made(exchange, reply_new(status, exchange_flags(exchange), content_type, headers, body));
}

void reply_buf(struct exchange *exchange, enum http_status status, const char *content_type,
               struct buf *body) {
    struct lines lines = {.len = 0};
    lines_add_limit(&lines, exchange);
    if (body->failed)
        reply_error(exchange, ERROR_BUSY);
    else
        reply_with(exchange, status, content_type, lines_slice(&lines),
                   (struct slice){body->data, body->len});
    buf_deinit(body);
}
