/*
 * The store: updates in their channels' order, durable, and reading them back.
 *
 * An interface with one implementation a provider. All functions are called on the loop thread and
 * never block it; each operation is answered by its `done`, on the loop thread, after the call that
 * started it has returned. Answers
 * come in the order in which the store did the work, so that a read's answer never misses an update
 * whose append was answered before.
 *
 * The caller allocates an operation and owns it again from `done` on; in between it belongs to the store.
 * Channel names reach the store only here and are never logged.
 */
#pragma once

#include "list.h"
#include "slice.h"
#include "update.h"
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

enum {
    CHANNEL_NAME_MAX_BYTES = 256,
    READ_MAX_UPDATES = 10000,
    READ_MAX_BYTES = 1 << 20, /* of bodies in one read; one update is read even when it is larger */
};

/* What every operation begins with. */
struct store_op {
    struct list link; /* the store's, then free for the caller */
    void (*done)(struct store_op *op);
};

/* Stores one update: `done` only when it is as durable as SYNC says, or not stored at all. */
struct store_append {
    struct store_op op;
    struct update *update; /* gets ts and at_ms */
    bool ok;
    void *owner; /* the caller's */
    uint64_t hash;
    uint16_t name_len;
    char name[]; /* of the channel */
};

/* Reads the updates of a channel after a ts, oldest first. */
struct store_read {
    struct store_op op;
    int64_t after_ts; /* -K: the last K */
    uint32_t limit;   /* 1 to READ_MAX_UPDATES */
    bool ok;
    uint64_t total;          /* the channel's newest ts, 0 for an unknown channel */
    uint64_t gone;           /* updates up to this ts are certainly not kept any more */
    struct update **updates; /* `count` of them with one reference each, the array from malloc() */
    uint32_t count;
    void *owner;
    uint64_t hash;
    uint16_t name_len;
    char name[];
};

struct store_stats {
    uint64_t commits, commit_ns, errors, reads, updates, bytes, swept;
};

struct store_options {
    const char *path; /* NULL: in memory */
    int sync;         /* enum sync_mode */
    uint64_t channel_max_updates;
    int64_t ttl_ms;
    uint64_t max_bytes;        /* 0: none */
    int64_t (*clock_ms)(void); /* wall clock; tests move it */
};

struct store;

struct store_ops {
    void (*append)(struct store *store, struct store_append *append);
    void (*read)(struct store *store, struct store_read *read);
    void (*stats)(struct store *store, struct store_stats *stats);
    void (*close)(struct store *store, void (*closed)(void *context), void *context);
};

/* What every implementation begins with. */
struct store {
    const struct store_ops *ops;
};

static inline void store_append(struct store *store, struct store_append *append) {
    store->ops->append(store, append);
}

static inline void store_read(struct store *store, struct store_read *read) {
    store->ops->read(store, read);
}

static inline void store_stats(struct store *store, struct store_stats *stats) {
    store->ops->stats(store, stats);
}

/* Answers what is under way, makes everything durable, closes, frees, and calls `closed` on the loop.
 * No operation may be started any more. */
static inline void store_close(struct store *store, void (*closed)(void *context), void *context) {
    store->ops->close(store, closed, context);
}

/* The wall clock, milliseconds since the epoch. */
int64_t store_clock_ms(void);

/* Opens the SQLite store (with path NULL: the memory provider, the same code). NULL on failure, and
 * `error` holds one line. */
struct store *store_sqlite_open(uv_loop_t *loop, const struct store_options *options, char *error,
                                size_t error_size);
