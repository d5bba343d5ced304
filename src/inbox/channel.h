/*
 * A channel in memory: its newest updates, and who waits for the next.
 *
 * The inbox's own (parts.h), which decides what is done with it. `recent` is a ring of the newest
 * updates, without a gap up to `total`; before the first poll there are none. The memory of all
 * channels is counted in counters.cache_bytes.
 */
#pragma once

#include "base/list.h"
#include "base/slice.h"
#include "base/table.h"
#include "inbox/update.h"
#include <stdbool.h>
#include <stdint.h>

struct watched;

struct channel {
    struct table_node node; /* in inbox->channels */
    struct list polls;      /* parked, in the order of their cursors */
    struct list loading;    /* polls that wait for its first read */
    struct list use_link;   /* in inbox->by_use, or inbox->only_pushed */
    struct list wake_link;  /* in inbox->waking */
    uint64_t total;         /* its newest ts */
    uint64_t gone;          /* updates up to this ts are certainly not kept any more */
    uint64_t purged;        /* the same, because they were purged since the channel is in memory */
    uint64_t epoch;         /* of its data (store.h); 0: not known */
    struct update **recent;
    struct watched *watched;     /* follow.c's; NULL where nobody waits */
    struct consumers *consumers; /* consumers.c's; NULL where nobody has a name */
    struct views *views;         /* views.c's; NULL where nobody has a filter */
    uint32_t recent_first, recent_count, recent_cap;
    uint32_t used_ms;    /* when it was last used */
    uint32_t pins;       /* what is under way for it: it stays in memory meanwhile */
    bool is_loaded;      /* total is known */
    bool is_loading;     /* it is being read for the first time, for all who poll it meanwhile */
    bool is_fetched;     /* that read was begun */
    bool is_polled;      /* since it is in memory: from then on its updates stay there */
    bool is_only_pushed; /* it is in inbox->only_pushed */
    bool has_parked;     /* polls, in its views */
    bool wants_epoch;    /* somebody does, */
    bool lacks_epoch;    /* and the store has none */
    uint16_t name_len;
    char name[];
};

/* Whether polls wait on it. */
static inline bool channel_has_polls(const struct channel *channel) {
    return !list_empty(&channel->polls) || !list_empty(&channel->loading) || channel->has_parked;
}

/* Whether it must stay in memory. */
static inline bool channel_is_in_use(const struct channel *channel) {
    return channel->pins || channel_has_polls(channel);
}

/* Whether an epoch is that of another life of its data; not if either is not known. */
static inline bool channel_is_another_life(const struct channel *channel, uint64_t epoch) {
    return channel->epoch && epoch && channel->epoch != epoch;
}

/* In no list and no table, without a total; NULL when memory is out. */
struct channel *channel_new(uint64_t hash, struct slice name);
/* Takes it out of its lists; it must be out of its table. */
void channel_free(struct channel *channel);

bool channel_equal(const struct table_node *node, const void *name, size_t len);

/* The update `index` of those in memory, the oldest is 0. */
static inline struct update *channel_recent(const struct channel *channel, uint32_t index) {
    return channel->recent[(channel->recent_first + index) & (channel->recent_cap - 1)];
}

/* Adds the newest update. When memory is out all are dropped: they are read from the store
 * later. */
void channel_remember(struct channel *channel, struct update *update);
/* Drops the oldest until `max` are left. */
void channel_trim(struct channel *channel, uint64_t max);
void channel_drop_recents(struct channel *channel);
