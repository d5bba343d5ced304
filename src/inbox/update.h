/*
 * An update: what a push leaves behind. Immutable, and shared by everyone who still needs it.
 *
 * It holds the text that is delivered and the request as it came. The reference count belongs to
 * the loop thread. The store thread reads an update, and sets its ts, at_ms and born_ms, only while
 * the loop waits for it to be stored.
 */
#pragma once

#include "base/slice.h"
#include <stdbool.h>
#include <stdint.h>

struct update {
    uint64_t ts;     /* its id in its channel, from 1; set by the store */
    int64_t at_ms;   /* when it was stored, by the wall clock; set by the store */
    int64_t born_ms; /* the same by the store's clock, from which its age counts; 0: unknown */
    uint32_t refs;
    uint32_t body_len, raw_len, query_len, headers_len;
    uint16_t method_len;
    bool has_raw; /* else the request's body is the same bytes as `body` */
    char data[];  /* body, raw, query, headers, method; see update_origin() of the last */
};

/* The JSON text that is delivered. */
static inline struct slice update_body(const struct update *update) {
    return (struct slice){update->data, update->body_len};
}

/* The request's body as it came. */
static inline struct slice update_raw(const struct update *update) {
    return update->has_raw ? (struct slice){update->data + update->body_len, update->raw_len}
                           : update_body(update);
}

static inline struct slice update_query(const struct update *update) {
    return (struct slice){update->data + update->body_len + update->raw_len, update->query_len};
}

/* The headers as a JSON object, names in lower case; empty when they were not kept. */
static inline struct slice update_headers(const struct update *update) {
    return (struct slice){update_query(update).data + update->query_len, update->headers_len};
}

/*
 * The request's method as it is stored: behind it, each after a blank, stand the sender's address,
 * the path below the channel, and the update that this one is the same as, with 20 digits:
 * `PUT 203.0.113.7 /v1 =00000000000000000041`. Each may be missing; an address that is not known is
 * `-`. At first, updates were stored with the method alone.
 */
static inline struct slice update_method(const struct update *update) {
    return (struct slice){update_headers(update).data + update->headers_len, update->method_len};
}

/* Where a request came from, and to what path below its channel; empty when it is not known, or
 * when there is none. */
struct origin {
    struct slice method, from, path;
    uint64_t same_as; /* the ts of the first update of this delivery; 0: it came once */
};

/* Reads what update_method() describes. */
struct origin origin_read(struct slice text);

static inline struct origin update_origin(const struct update *update) {
    return origin_read(update_method(update));
}

/* What stands behind the method of an update whose delivery has an id, until the store knows. */
#define UPDATE_SAME_AS_NONE " =00000000000000000000"

/* Writes `ts` in that place. Only the store may, before the update is anybody else's. */
void update_set_same_as(struct update *update, uint64_t ts);

/* Memory it takes. */
static inline size_t update_size(const struct update *update) {
    return sizeof *update + update->body_len + update->raw_len + update->query_len +
           update->headers_len + update->method_len;
}

struct update_parts {
    struct slice body, raw, query, headers, method;
    bool has_raw;
};

/* A new update with one reference, its parts copied; NULL when memory is out. */
struct update *update_new(const struct update_parts *parts);

static inline struct update *update_ref(struct update *update) {
    update->refs++;
    return update;
}

/* Frees it with the last reference. */
void update_unref(struct update *update);
