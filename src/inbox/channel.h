/*
 * A channel in memory: its newest updates, and who waits for the next.
 *
 * The inbox's own; what is done with it is decided there. `recent` is a ring of the newest updates without a gap up to
 * `total`. The memory of all channels is counted in metrics.cache_bytes.
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
    struct table_node node;
    struct list polls;     /* loading: all that wait for the load; else parked, by cursor */
    struct list use_link;  /* in inbox->by_use */
    struct list wake_link; /* in inbox->waking */
    uint64_t total;
    uint64_t gone; /* updates up to this ts are certainly not kept any more */
    struct update **recent;
    struct watched *watched; /* of a shared store, where somebody waits; else NULL */
    uint32_t recent_first, recent_count, recent_cap;
    uint32_t reads; /* store reads under way that need it */
    bool is_loaded; /* total is known */
    uint16_t name_len;
    char name[];
};

/* In no list and no table, without a total; NULL when memory is out. */
struct channel *channel_new(uint64_t hash, struct slice name);
/* Takes it out of its lists; it must be out of its table. */
void channel_free(struct channel *channel);

bool channel_equal(const struct table_node *node, const void *name, size_t len);

/* The update `index` of those in memory, the oldest is 0. */
static inline struct update *channel_recent(const struct channel *channel, uint32_t index) {
    return channel->recent[(channel->recent_first + index) & (channel->recent_cap - 1)];
}

/* Adds the newest update. When memory is out all are dropped: they are read from the store later. */
void channel_remember(struct channel *channel, struct update *update);
/* Drops the oldest until `max` are left. */
void channel_trim(struct channel *channel, uint64_t max);
void channel_drop_recents(struct channel *channel);
