#include "reply.h"
#include "json.h"

#include <stdio.h>
#include <stdlib.h>

static const char common_headers[] = "Cache-Control: no-store\r\n"
                                     "X-Content-Type-Options: nosniff\r\n"
                                     "Access-Control-Allow-Origin: *\r\n"
                                     "Access-Control-Expose-Headers: X-Total-Updates, Retry-After, "
                                     "X-RateLimit-Limit, X-RateLimit-Remaining\r\n";

static size_t put(char *at, const char *bytes, size_t len) {
    memcpy(at, bytes, len);
    return len;
}

struct reply *reply_new_uninitialized(enum http_status status, unsigned flags, const char *content_type,
                                      struct slice headers, size_t body_len, char **body) {
    char head[256];
    int head_len = snprintf(head, sizeof head, "HTTP/1.1 %d %s\r\n", http_status_code(status),
                            http_status_reason(status));
    if (content_type)
        head_len += snprintf(head + head_len, sizeof head - (size_t)head_len,
                             "Content-Type: %s\r\nContent-Length: %zu\r\n", content_type, body_len);
    if (flags & REPLY_CLOSE)
        head_len += snprintf(head + head_len, sizeof head - (size_t)head_len, "Connection: close\r\n");
    bool has_body = content_type && !(flags & REPLY_HEAD);
    size_t size = (size_t)head_len + sizeof common_headers - 1 + headers.len + 2 + (has_body ? body_len : 0);
    struct reply *reply = malloc(sizeof *reply + size);
    if (!reply)
        return NULL;
    *reply = (struct reply){.refs = 1, .status = (uint8_t)status, .close = flags & REPLY_CLOSE, .len = size};
    char *at = reply->data;
    at += put(at, head, (size_t)head_len);
    at += put(at, common_headers, sizeof common_headers - 1);
    if (headers.len)
        at += put(at, headers.data, headers.len);
    at += put(at, "\r\n", 2);
    *body = has_body ? at : NULL;
    return reply;
}

struct reply *reply_new(enum http_status status, unsigned flags, const char *content_type, struct slice headers,
                        struct slice body) {
    char *at;
    struct reply *reply = reply_new_uninitialized(status, flags, content_type, headers, body.len, &at);
    if (reply && at && body.len)
        memcpy(at, body.data, body.len);
    return reply;
}

static struct reply *out_of_memory(void) {
    static struct {
        struct reply reply;
        char text[96];
    } fixed = {.reply = {.close = true, .status = HTTP_SERVICE_UNAVAILABLE}};
    fixed.reply.refs = 2; /* never the last */
    fixed.reply.len = (size_t)snprintf(fixed.reply.data, sizeof fixed.text,
                                       "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n"
                                       "Connection: close\r\n\r\n");
    return &fixed.reply;
}

struct reply *reply_new_error(enum http_error error, unsigned flags, struct slice headers) {
    char body[256];
    enum http_status status = http_error_status(error);
    int len = snprintf(body, sizeof body, "{\"ok\":false,\"error_code\":%d,\"error_description\":\"%s\"}",
                       http_status_code(status), http_error_description(error));
    struct reply *reply = reply_new(status, flags, "application/json; charset=utf-8", headers,
                                    (struct slice){body, (size_t)len});
    return reply ? reply : out_of_memory();
}

void reply_unref(struct reply *reply) {
    if (--reply->refs == 0)
        free(reply);
}
