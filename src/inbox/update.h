/*
 * An update: what a push leaves behind, immutable, shared by everyone who still needs it.
 *
 * It holds the text that is delivered and the request as it came. The reference count belongs to the
 * loop thread; the store thread only reads an update (and sets ts and at_ms) while the loop waits for it.
 */
#pragma once

#include "base/slice.h"
#include "http/request.h"
#include <stdint.h>

enum { UPDATE_HEADERS_MAX_BYTES = 8192 };

struct update {
    uint64_t ts;   /* its id in its channel, from 1; set by the store */
    int64_t at_ms; /* when it was stored, milliseconds since the epoch; set by the store */
    uint32_t refs;
    uint32_t body_len, raw_len, query_len, headers_len;
    uint16_t method_len;
    bool has_raw; /* else the request's body is the same bytes as `body` */
    char data[];  /* body, raw, query, headers, method */
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

static inline struct slice update_method(const struct update *update) {
    return (struct slice){update_headers(update).data + update->headers_len, update->method_len};
}

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

/*
 * Builds the update of a complete push: the first that fits of JSON, nothing, form, text, bytes (see
 * docs/protocol.md), with the query merged in. `query` is what follows the `?` of the target. On an
 * error `*update` is untouched; running out of memory is ERROR_BUSY. Loop thread only.
 */
enum http_error update_build(const struct request *request, struct slice query,
                             bool capture_headers, struct update **update);
