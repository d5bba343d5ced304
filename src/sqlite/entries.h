/*
 * What the log knows of its channels, in memory: one entry for each that has changed since its row
 * was written (dirty), and for those used lately (clean).
 *
 * A dirty entry stays until a checkpoint has written its row; it is in `dirty`, or in the
 * checkpoint's own list once one has taken it. Clean entries are a cache of bounded size.
 */
#pragma once

#include "base/list.h"
#include "base/table.h"
#include "sqlite/known_names.h"
#include "sqlite/rows.h"

struct entry {
    struct table_node node;
    struct list link;
    struct channel_row now;
    struct channel_row before; /* at the start of `transaction` */
    uint64_t floor;            /* updates up to this ts are purged (purges.h) */
    uint64_t transaction;
    bool is_dirty;
    bool was_dirty; /* as `before` */
    uint16_t name_len;
    char name[];
};

struct entries {
    struct rows *rows;
    struct known_names names; /* of all rows of `channel`, and more */
    struct table table;
    struct list clean; /* used last at the end */
    struct list dirty;
    size_t clean_count;
    size_t dirty_count;   /* of all dirty ones, those that a checkpoint has taken among them */
    int64_t dirty_since;  /* when the first of `dirty` changed; 0: none */
    uint64_t transaction; /* counts them, from 1 */
};

/* `rows` must stay. False when memory is out. */
bool entries_init(struct entries *entries, struct rows *rows);
/* Frees all entries, also those that a checkpoint has taken. */
void entries_deinit(struct entries *entries);

static inline struct slice entry_name(const struct entry *entry) {
    return (struct slice){entry->name, entry->name_len};
}

/*
 * Finds the entry of a channel, or makes it from its row. For a channel that is not known, `*entry`
 * is a new one without an id if `create`, else NULL. False on failure.
 */
bool entries_find(struct entries *entries, uint64_t hash, struct slice name, bool create,
                  struct entry **entry);

/* A transaction begins. */
void entries_begin(struct entries *entries);

/* `entry` is about to change within the transaction. `now_ms`: of the steady clock. */
void entries_touch(struct entries *entries, struct entry *entry, int64_t now_ms);

/* Puts a channel's entry back as it was before the transaction, if that has touched it. */
void entries_undo(struct entries *entries, uint64_t hash, struct slice name);

/* Moves all of `dirty` to the end of `taken`; they stay dirty. */
void entries_take_dirty(struct entries *entries, struct list *taken);

/* The row of `entry` is written and committed. */
void entries_set_clean(struct entries *entries, struct entry *entry);

/* Frees clean entries beyond their bound. Pointers to entries do not outlive it. */
void entries_trim(struct entries *entries);

/* Frees the entry of a channel whose row is about to be deleted. False if that must not happen: the
 * entry is dirty, so the row lags behind the log. */
bool entries_forget(struct entries *entries, uint64_t hash, struct slice name);
