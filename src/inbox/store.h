/*
 * The store: updates in their channels' order, durable, and reading them back.
 *
 * An interface with one implementation per provider. All functions are called on the loop thread
 * and never block it. Each operation is answered by its `done`, on the loop thread, after the call
 * that started it has returned.
 *
 * A store may be this process's own (SQLite, memory). Its answers come in the order in which the
 * work was done, so the answer of a read never misses an update whose append was answered before.
 * Or it is shared with other processes (Redis). Then anybody may append at any time, answers come
 * in any order, and whoever wants to know of new updates watches their channel.
 *
 * The caller allocates an operation and owns it again from `done` on; in between it belongs to the
 * store. Channel names reach the store only here and are never logged.
 */
#pragma once

#include "base/buf.h"
#include "base/list.h"
#include "base/slice.h"
#include "base/utf8.h"
#include "inbox/position.h"
#include "inbox/update.h"
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

enum {
    CHANNEL_NAME_MAX_BYTES = 256,
    READ_MAX_UPDATES = 10000,
    READ_MAX_BYTES = 1 << 20, /* of bodies in one read; one update is read even when it is larger */
    APPEND_MAX_UPDATES = 10000,
    DELIVERY_ID_BYTES = 16,
    DELIVERY_KNOWN_MS = 24 * 3600 * 1000, /* how long a store knows an id, */
    DELIVERIES_MAX = 10000,               /* and of how many updates of a channel, at most */
    CONSUMER_NAME_MAX_BYTES = 64,
    CONSUMERS_MAX = 1000, /* names of a channel */
};

/* Why an operation failed. */
enum store_error {
    STORE_OK,
    STORE_FAILED, /* nothing was stored; the log says why */
    STORE_BUSY,   /* too much is under way in this process */
    STORE_CONSUMERS_FULL,
    /* Of Redis: */
    STORE_AWAY,
    STORE_UNSURE, /* no answer in time: stored, or not */
    STORE_NOT_REPLICATED,
    STORE_READ_ONLY,
    STORE_TOO_FEW_REPLICAS,
    STORE_LOADING,
    STORE_OUT_OF_MEMORY,
    STORE_CLUSTER_DOWN,
    STORE_REFUSED, /* the user or the password */
    STORE_DAMAGED, /* what is stored of the channel makes no sense */
};

/* What every operation begins with. */
struct store_op {
    struct list link; /* the store's, then free for the caller */
    void (*done)(struct store_op *op);
    void *context; /* the caller's */
};

/* What tells an update that comes again from a new one: an id that its sender gave the delivery. */
struct delivery {
    uint8_t id[DELIVERY_ID_BYTES]; /* a hash of the id */
    bool has_id;
    bool is_once;     /* an update whose id is known is not stored */
    uint64_t same_as; /* set by the store: the ts of the first update with the id; 0: this is it */
};

/* Stores updates of one channel, all or none, with a ts each in a row: `done` only when they are as
 * durable as SYNC says, or not stored at all. */
struct store_append {
    struct store_op op;
    struct update **updates; /* get ts, at_ms and born_ms; one that is not stored, the first's ts */
    struct update *only;     /* where `updates` points when there is one */
    struct delivery *deliveries; /* of each update, NULL: none has an id; from malloc() */
    uint32_t count;              /* 1 to APPEND_MAX_UPDATES */
    enum store_error error;
    uint64_t epoch; /* the channel's, see store_read; of a shared store 0 */
    void *owner;    /* the caller's */
    uint64_t hash;
    uint16_t name_len;
    char name[]; /* of the channel */
};

/* Whether it came as a batch, perhaps of one. */
static inline bool store_append_is_batch(const struct store_append *append) {
    return append->updates != &append->only;
}

/* Whether update number `i` was stored: not, if it had come before and is to be kept once. */
static inline bool store_append_is_stored(const struct store_append *append, uint32_t i) {
    const struct delivery *delivery = append->deliveries ? &append->deliveries[i] : NULL;
    return !delivery || !delivery->is_once || !delivery->same_as;
}

/* Memory that its updates and deliveries take. */
static inline size_t store_append_size(const struct store_append *append) {
    size_t bytes = append->deliveries ? append->count * sizeof *append->deliveries : 0;
    for (uint32_t i = 0; i < append->count; i++)
        bytes += update_size(append->updates[i]);
    return bytes;
}

/*
 * Reads the updates of a channel from a position on, oldest first.
 *
 * The epoch names the life of the channel's data. It becomes another when updates that somebody
 * has read may be gone while their ts are given again: the file was lost, or replaced by a backup;
 * Redis was flushed. A reader who says which epoch it has seen learns whether all of that is still
 * there.
 */
struct store_read {
    struct store_op op;
    int64_t position;    /* where it begins (position.h) */
    uint64_t seen_epoch; /* what the reader knows of `epoch`; 0: nothing, then it is not judged */
    uint32_t limit;      /* 1 to READ_MAX_UPDATES */
    bool wants_epoch;    /* a shared store makes one for a channel that has none */
    bool is_reset; /* of what the reader has seen, what is behind `after` is not there any more.
                            Then nothing else is read */
    enum store_error error;
    uint64_t epoch;          /* 0: the channel is unknown, or its epoch is */
    uint64_t after;          /* the position as a ts; it may be more than the total */
    uint64_t total;          /* the channel's newest ts, 0 for an unknown channel */
    uint64_t gone;           /* updates up to this ts are certainly gone */
    uint64_t end;            /* the read covers every update up to this ts */
    struct update **updates; /* `count` without a gap, with one reference each; from malloc() */
    uint32_t count;
    void *owner;
    uint64_t hash;
    uint16_t name_len;
    char name[];
};

static inline bool is_consumer_name(struct slice name) {
    return name.len && name.len <= CONSUMER_NAME_MAX_BYTES && !slice_has_control(name) &&
           utf8_is_valid(name);
}

/* Where a consumer of a channel is: it has confirmed all updates up to `ts`. */
struct store_cursor {
    uint64_t ts;
    int64_t used_ms; /* by store_now_ms() */
    uint8_t name_len;
    char name[CONSUMER_NAME_MAX_BYTES];
};

enum cursors_action { CURSORS_LOAD, CURSORS_SAVE, CURSORS_FORGET };

/*
 * Loads the cursors of a channel; saves some; or forgets some by their names.
 *
 * A cursor that is saved never goes back. It is durable within a second, not sooner: that must cost
 * no fsync of its own. Loading finds what was saved before. The store forgets those that were not
 * used for its ttl_ms, and all of a channel that it forgets; those of a channel that it does not
 * know are not saved. Names beyond CONSUMERS_MAX of a shared store are left out, the others saved;
 * that is STORE_CONSUMERS_FULL.
 */
struct store_cursors {
    struct store_op op;
    enum cursors_action action;
    struct store_cursor *list; /* from malloc(), the operation's; loading sets it */
    uint32_t count;
    enum store_error error;
    void *owner; /* the caller's */
    uint64_t hash;
    uint16_t name_len;
    char name[]; /* of the channel */
};

/*
 * Purges a channel: its updates up to `upto` are gone for good. `done` when no read returns them
 * any more, which is as durable as SYNC says. Their bytes are overwritten where they lie within
 * seconds (of Redis: in its memory). The channel's total and epoch, its consumers and the ids of
 * its deliveries stay. Of a channel that the store does not know nothing is done, and `gone` is 0.
 *
 * An update whose append was answered before is among `all that there are`. As the answers of a
 * store of our own come in the order of its work, no read that is answered later returns what is
 * purged.
 */
struct store_purge {
    struct store_op op;
    uint64_t upto; /* UINT64_MAX: all that there are */
    enum store_error error;
    uint64_t gone; /* set: updates up to this ts are certainly gone, as store_read.gone */
    void *owner;   /* the caller's */
    uint64_t hash;
    uint16_t name_len;
    char name[]; /* of the channel */
};

/* A watched channel: the store reports its new updates. Embedded in whatever wants to know. The
 * name must stay valid. */
struct store_watch {
    struct list link; /* the store's */
    void *place;      /* the store's, and so is state */
    const char *name;
    uint16_t name_len;
    uint8_t state;
};

/* What a shared store tells of watched channels. */
struct store_events {
    void *context;
    /* The watch of a channel, NULL when there is none. */
    struct store_watch *(*find)(void *context, struct slice channel);
    /* From now on the store reports every new update; earlier ones must be read. */
    void (*watched)(struct store_watch *watch);
    /* Updates may go unreported until the next `watched`. */
    void (*lost)(struct store_watch *watch);
    /* A new update, perhaps one that was read already. It is valid during the call. */
    void (*news)(struct store_watch *watch, struct update *update);
    /* The channel was purged, here or by another process: updates up to `gone` are gone. */
    void (*purged)(struct store_watch *watch, uint64_t gone);
};

struct store_stats {
    uint64_t commits, commit_ns, errors, reads, updates, bytes, swept;
    uint64_t damaged;    /* updates found damaged since the start */
    const char *trouble; /* why nothing can be stored now, a static text; NULL: it can */
    uint64_t up, reconnects, watches; /* of a shared store */
};

struct store_options {
    const char *path; /* NULL: in memory */
    int sync;         /* enum sync_mode */
    uint64_t channel_max_updates;
    int64_t ttl_ms;
    uint64_t max_bytes;                           /* 0: none */
    int64_t (*wall_ms)(void), (*steady_ms)(void); /* base/clock.h; tests move them */
    void (*at_work)(void); /* opening takes long, and gets on; NULL: nobody wants to know */
    struct slice left;     /* what store_leave() said; empty: it was closed, or has crashed */
};

struct store;

struct store_ops {
    void (*append)(struct store *store, struct store_append *append);
    void (*read)(struct store *store, struct store_read *read);
    void (*cursors)(struct store *store, struct store_cursors *cursors);
    void (*purge)(struct store *store, struct store_purge *purge);
    void (*stats)(struct store *store, struct store_stats *stats);
    int64_t (*now_ms)(const struct store *store);
    void (*close)(struct store *store, void (*closed)(void *context), void *context);
    void (*leave)(struct store *store, struct buf *left, void (*closed)(void *context),
                  void *context); /* NULL: closes */
    enum store_error (*health)(struct store *store, struct buf *line);
    void (*settle)(struct store *store, void (*settled)(void)); /* NULL: there is nothing to do */
    /* Of a shared store; else NULL. */
    void (*listen)(struct store *store, const struct store_events *events);
    void (*watch)(struct store *store, struct store_watch *watch);
    void (*unwatch)(struct store *store, struct store_watch *watch);
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

static inline void store_cursors(struct store *store, struct store_cursors *cursors) {
    store->ops->cursors(store, cursors);
}

static inline void store_purge(struct store *store, struct store_purge *purge) {
    store->ops->purge(store, purge);
}

static inline void store_stats(struct store *store, struct store_stats *stats) {
    store->ops->stats(store, stats);
}

/* The clock by which its updates age: update->born_ms. */
static inline int64_t store_now_ms(const struct store *store) {
    return store->ops->now_ms(store);
}

/* Answers what is under way, makes everything durable, closes, frees, and calls `closed` on the
 * loop. No operation may be started after this. */
static inline void store_close(struct store *store, void (*closed)(void *context), void *context) {
    store->ops->close(store, closed, context);
}

/* The same for a store that the next program opens at once: it is as durable as all that was
 * answered must be, and what takes longer is left to that. `left` gets what it wants to hear of it:
 * to a start that hears nothing, it is a store that has crashed. It must stay until `closed`. */
static inline void store_leave(struct store *store, struct buf *left, void (*closed)(void *context),
                               void *context) {
    if (store->ops->leave)
        store->ops->leave(store, left, closed, context);
    else
        store->ops->close(store, closed, context);
}

/* Does now, beside its operations, what leaving would have to do, so that that takes less time, and
 * calls `settled` on the loop, now or later; not once it is being closed. One at a time. */
static inline void store_settle(struct store *store, void (*settled)(void)) {
    if (store->ops->settle)
        store->ops->settle(store, settled);
    else
        settled();
}

static inline bool store_is_shared(const struct store *store) {
    return store->ops->watch != NULL;
}

/* Sets who hears of watched channels. Before the first watch. */
static inline void store_listen(struct store *store, const struct store_events *events) {
    store->ops->listen(store, events);
}

/* `watched` follows, now or whenever the store can. */
static inline void store_watch(struct store *store, struct store_watch *watch) {
    store->ops->watch(store, watch);
}

static inline void store_unwatch(struct store *store, struct store_watch *watch) {
    store->ops->unwatch(store, watch);
}

/* Whether the store works. `line` (if not NULL) gets what it promises, what is wrong with it, or
 * why it does not work. */
static inline enum store_error store_health(struct store *store, struct buf *line) {
    return store->ops->health(store, line);
}
