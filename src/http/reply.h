/*
 * A reply: its bytes, head and body, built once and shared by every connection that sends it.
 *
 * Built on any thread, reference-counted on the loop thread. The memory of unsent replies counts
 * into BUFFER_SIZE.
 */
#pragma once

#include "base/slice.h"
#include "http/status.h"
#include <stdint.h>

enum {
    REPLY_CLOSE = 1,       /* Connection: close; the connection ends with this reply */
    REPLY_HEAD = 2,        /* to a HEAD request: the body is announced, not sent */
    REPLY_REVALIDATED = 4, /* caches may keep it and ask whether it has changed; else no-store */
    REPLY_CHUNKED = 8,     /* of a stream: its body comes in chunks; else up to the close */
};

struct reply {
    uint32_t refs;
    uint32_t pending; /* connections that have not sent all of it */
    uint8_t status;   /* enum http_status */
    bool close;
    bool is_part;   /* of a stream */
    uint32_t saved; /* its number among those that are handed over (handover.h); 0: it has none */
    size_t len;
    char data[];
};

/*
 * Builds a reply. `headers` are further header lines, each with its CRLF; `content_type` is NULL if
 * there is no body. Returns NULL when memory is out. The caller owns one reference.
 */
struct reply *reply_new(enum http_status status, unsigned flags, const char *content_type,
                        struct slice headers, struct slice body);

/*
 * The same in two steps, for a large body that is written in place: the caller fills in `body_len`
 * bytes at `*body`, which is NULL if no body is sent.
 */
struct reply *reply_new_uninitialized(enum http_status status, unsigned flags,
                                      const char *content_type, struct slice headers,
                                      size_t body_len, char **body);

/*
 * The reply of an error, a JSON object; never NULL (a static one when memory is out). It names the
 * line of the request's body that is at fault, from 1; 0: it is no single line's.
 */
struct reply *reply_new_error(enum http_error error, uint64_t line, unsigned flags,
                              struct slice headers);

/* The head of a stream, and the first of its body, which must not be empty. NULL when memory is
 * out. */
struct reply *reply_new_stream(unsigned flags, const char *content_type, struct slice headers,
                               struct slice body);

/* More of its body; with REPLY_CHUNKED the end, when `body` is empty. */
struct reply *reply_new_part(struct slice body, unsigned flags);

static inline struct reply *reply_ref(struct reply *reply) {
    reply->refs++;
    return reply;
}

void reply_unref(struct reply *reply);
