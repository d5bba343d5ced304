/*
 * What the handlers of the API have in common: the state of a request under way, header lines,
 * errors.
 */
#pragma once

#include "api/wanted.h"
#include "base/buf.h"
#include "http/conn.h"
#include "http/reply.h"
#include "inbox/inbox.h"

/* What a request under way is. */
enum ask_kind {
    ASK_NOTHING, /* none, or one that is answered at once */
    ASK_UPDATES,
    ASK_CONSUMERS,  /* the list of them */
    ASK_FORGET,     /* ... one of them */
    ASK_LARGE_PAGE, /* the poll is answered, its page is being written */
    ASK_STREAM,
    ASK_STREAM_PAGE,  /* the same of a stream */
    ASK_STREAM_LATER, /* it was handed over, and goes on when all is sent (handover.h) */
    ASK_MANY,         /* a poll of many channels */
    ASK_PURGE,
    ASK_PUSH,
    ASK_BATCH,      /* a push whose updates are being made, */
    ASK_LARGE_PUSH, /* or whose one update is */
};

/* What a handler keeps of a request under way, in its exchange's `state`. */
struct ask {
    union {
        struct poll poll; /* to ASK_STREAM_PAGE; while a page is written, that uses its link */
        struct later *later;
        struct many *many;
        struct store_purge *purge;
        struct { /* from ASK_PUSH on */
            union {
                struct store_append *push; /* NULL until it is with the store */
                struct batch *batch;
                struct large_push *large_push;
            };
            struct wanted *wanted; /* the reply to the push, if it is a handshake's; else NULL */
        };
    };
    int32_t quota;      /* requests left in the client's window; -1: not counted */
    uint8_t kind;       /* enum ask_kind */
    bool is_full : 1;   /* a poll with view=full */
    bool has_begun : 1; /* a stream */
    bool is_beat : 1;   /* its poll has ended for a heartbeat */
    uint8_t feed : 2;   /* enum feed: how a stream has its updates; else FEED_NONE */
    uint8_t beats;      /* of a stream, so far */
};

_Static_assert(sizeof(struct ask) <= EXCHANGE_STATE_BYTES, "an ask fits into its exchange");

static inline struct ask *ask_of(struct exchange *exchange) {
    return (struct ask *)exchange->state;
}

static inline struct exchange *ask_exchange(struct ask *ask) {
    return (struct exchange *)((char *)ask - offsetof(struct exchange, state));
}

#define REPLY_JSON "application/json; charset=utf-8"
#define REPLY_TEXT "text/plain; charset=utf-8"

/* Header lines in the making, for those that are numbers. */
struct lines {
    char text[256];
    size_t len;
};

/* Adds `name: number`. */
void lines_add(struct lines *lines, const char *name, uint64_t number);

/* Adds what the rate limit says of this request; nothing when there is no limit. */
void lines_add_limit(struct lines *lines, struct exchange *exchange);

static inline struct slice lines_slice(const struct lines *lines) {
    return (struct slice){lines->text, lines->len};
}

void reply_error(struct exchange *exchange, enum http_error error);

/* The same for an error in a line of the request's body; 0: it is no single line's. */
void reply_error_in(struct exchange *exchange, uint64_t line, enum http_error error);

/* The error that clients see for the store's. */
enum http_error store_http_error(enum store_error error);

void reply_store_error(struct exchange *exchange, enum store_error error);

/* Sends a reply that has just been made; NULL: there was no memory for it. */
void reply_made(struct exchange *exchange, struct reply *reply);

void reply_with(struct exchange *exchange, enum http_status status, const char *content_type,
                struct slice headers, struct slice body);

/* Replies with what was written to `body`, and what the rate limit says; frees it. */
void reply_buf(struct exchange *exchange, enum http_status status, const char *content_type,
               struct buf *body);
