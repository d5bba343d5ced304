#include "http/reply.h"
#include "base/json.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const char common_headers[] =
    "X-Content-Type-Options: nosniff\r\n"
    "Access-Control-Allow-Origin: *\r\n"
    "Access-Control-Expose-Headers: X-Total-Updates, X-Updates, X-Duplicate, X-Ignored, "
    "Retry-After, "
    "X-RateLimit-Limit, X-RateLimit-Remaining\r\n";

/* Instead of the length of a body that is not known. */
#define STREAMED SIZE_MAX

static char *put(char *at, struct slice text) {
    return text.len ? (char *)memcpy(at, text.data, text.len) + text.len : at;
}

/* The head up to the common headers; returns its end. */
static char *put_start(char *at, enum http_status status, const char *content_type, size_t body_len,
                       bool close) {
    const char *reason = http_status_reason(status);
    at = put(at, SLICE("HTTP/1.1 "));
    at += format_number(at, (uint64_t)http_status_code(status));
    *at++ = ' ';
    at = put(at, (struct slice){reason, strlen(reason)});
    if (content_type) {
        at = put(at, SLICE("\r\nContent-Type: "));
        at = put(at, (struct slice){content_type, strlen(content_type)});
    }
    if (content_type && body_len != STREAMED) {
        at = put(at, SLICE("\r\nContent-Length: "));
        at += format_number(at, body_len);
    }
    return put(at, close ? SLICE("\r\nConnection: close\r\n") : SLICE("\r\n"));
}

static struct slice cache_line(unsigned flags) {
    return flags & REPLY_REVALIDATED ? SLICE("Cache-Control: no-cache\r\n")
                                     : SLICE("Cache-Control: no-store\r\n");
}

/* The Date header of this second. */
static struct slice date_line(void) {
    static _Thread_local char line[48];
    static _Thread_local size_t len;
    static _Thread_local time_t written_at = -1;
    time_t now = time(NULL);
    if (now != written_at) {
        struct tm tm;
        len =
            strftime(line, sizeof line, "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", gmtime_r(&now, &tm));
        written_at = now;
    }
    return (struct slice){line, len};
}

struct reply *reply_new_uninitialized(enum http_status status, unsigned flags,
                                      const char *content_type, struct slice headers,
                                      size_t body_len, char **body) {
    char start[256];
    size_t start_len =
        (size_t)(put_start(start, status, content_type, body_len, flags & REPLY_CLOSE) - start);
    bool has_body = content_type && !(flags & REPLY_HEAD);
    struct slice date = date_line(), cache = cache_line(flags);
    size_t size = start_len + date.len + cache.len + sizeof common_headers - 1 + headers.len + 2 +
                  (has_body ? body_len : 0);
    struct reply *reply = malloc(sizeof *reply + size);
    if (!reply)
        return NULL;
    *reply = (struct reply){
        .refs = 1, .status = (uint8_t)status, .close = flags & REPLY_CLOSE, .len = size};
    char *at = put(reply->data, (struct slice){start, start_len});
    at = put(at, date);
    at = put(at, cache);
    at = put(at, (struct slice){common_headers, sizeof common_headers - 1});
    at = put(at, headers);
    at = put(at, SLICE("\r\n"));
    *body = has_body ? at : NULL;
    return reply;
}

struct reply *reply_new(enum http_status status, unsigned flags, const char *content_type,
                        struct slice headers, struct slice body) {
    char *at;
    struct reply *reply =
        reply_new_uninitialized(status, flags, content_type, headers, body.len, &at);
    if (reply && at && body.len)
        memcpy(at, body.data, body.len);
    return reply;
}

static struct reply *out_of_memory(void) {
    static const char text[] = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n"
                               "Connection: close\r\n\r\n";
    static _Alignas(struct reply) char memory[sizeof(struct reply) + sizeof text];
    struct reply *reply = (struct reply *)memory;
    if (!reply->refs) {
        *reply = (struct reply){
            .refs = 1, .status = HTTP_SERVICE_UNAVAILABLE, .close = true}; /* never freed */
        reply->len = sizeof text - 1;
        put(reply->data, (struct slice){text, reply->len});
    }
    return reply_ref(reply);
}

struct reply *reply_new_error(enum http_error error, uint64_t line, unsigned flags,
                              struct slice headers) {
    char body[256], where[32] = "";
    enum http_status status = http_error_status(error);
    if (line)
        snprintf(where, sizeof where, "Line %" PRIu64 ": ", line);
    int len = snprintf(body, sizeof body,
                       "{\"ok\":false,\"error_code\":%d,\"error_description\":\"%s%s\"}",
                       http_status_code(status), where, http_error_description(error));
    struct reply *reply = reply_new(status, flags, "application/json; charset=utf-8", headers,
                                    (struct slice){body, (size_t)len});
    return reply ? reply : out_of_memory();
}

void reply_unref(struct reply *reply) {
    if (--reply->refs == 0)
        free(reply);
}

/* --- Streams ---------------------------------------------------------------------------------- */

enum { CHUNK_FRAME_BYTES = 16 + 2 + 2 }; /* its length in hexadecimal, and the ends of two lines */

/* Bytes of a body, as a chunk if they are to be one; returns their end. */
static char *put_piece(char *at, struct slice body, unsigned flags) {
    if (flags & REPLY_CHUNKED)
        at += sprintf(at, "%zx\r\n", body.len);
    at = put(at, body);
    return flags & REPLY_CHUNKED ? put(at, SLICE("\r\n")) : at;
}

/* A part that begins with `head`. */
static struct reply *new_part(struct slice head, struct slice body, unsigned flags) {
    bool has_body = !(flags & REPLY_HEAD);
    size_t room = head.len + (has_body ? body.len + CHUNK_FRAME_BYTES + 1 : 0);
    struct reply *reply = malloc(sizeof *reply + room);
    if (!reply)
        return NULL;
    *reply = (struct reply){.refs = 1, .status = HTTP_OK, .is_part = true};
    char *at = put(reply->data, head);
    if (has_body)
        at = put_piece(at, body, flags);
    reply->len = (size_t)(at - reply->data);
    return reply;
}

struct reply *reply_new_stream(unsigned flags, const char *content_type, struct slice headers,
                               struct slice body) {
    char text[2048], *at = put_start(text, HTTP_OK, content_type, STREAMED, flags & REPLY_CLOSE);
    struct slice date = date_line();
    assert(headers.len + date.len + sizeof common_headers + 256 < sizeof text - 256);
    if (flags & REPLY_CHUNKED)
        at = put(at, SLICE("Transfer-Encoding: chunked\r\n"));
    at = put(at, date);
    at = put(at, SLICE("Cache-Control: no-store, no-transform\r\nX-Accel-Buffering: no\r\n"));
    at = put(at, (struct slice){common_headers, sizeof common_headers - 1});
    at = put(at, headers);
    at = put(at, SLICE("\r\n"));
    struct reply *reply = new_part((struct slice){text, (size_t)(at - text)}, body, flags);
    if (reply && flags & REPLY_HEAD) {
        reply->is_part = false; /* it is all */
        reply->close = flags & REPLY_CLOSE;
    }
    return reply;
}

struct reply *reply_new_part(struct slice body, unsigned flags) {
    return new_part(SLICE(""), body, flags);
}
