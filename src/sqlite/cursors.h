/*
 * Cursors: where the named consumers of a channel are (struct store_cursors).
 *
 *     consumer(channel, name, ts, used, seal)
 *
 * The table is made when the first cursor is saved. What is saved waits in memory, one cursor for
 * each name, until a transaction takes it along: the next append, or else one of its own that is
 * not synced. Loading looks at both. A transaction that fails leaves it waiting.
 *
 * With a bound on the bytes of the file, cursors take a 16th of them at most: beyond it, those of
 * further names are not written until others have expired.
 *
 * Where the table is damaged, all cursors are forgotten, and it is made anew; where even that is
 * not possible, none is written any more. Updates are stored all the same.
 */
#pragma once

#include "base/table.h"
#include "sqlite/log_file.h"

enum { CURSORS_BUCKETS = 256 };

struct cursors {
    struct log_file *file;
    sqlite3_stmt *load, *find, *put, *delete, *find_channel, *delete_old;
    int64_t ttl_ms;
    int64_t max_rows;                     /* INT64_MAX: no bound, and `rows` means nothing */
    int64_t rows, rows_before;            /* now, and when the transaction began */
    struct table table;                   /* what waits, by channel and name */
    struct list waiting;                  /* the same, that which came first first */
    struct list buckets[CURSORS_BUCKETS]; /* the same, by channel % CURSORS_BUCKETS */
    size_t written;                       /* of `waiting`, in the open transaction */
    int64_t waiting_since;                /* by the steady clock; 0: nothing waits */
    int64_t begun_at, next_channel; /* of the last look for what is old; 0: none is under way */
    bool is_prepared, is_made;      /* the table: in this transaction, in one that was committed */
    bool is_damaged, is_stuck;      /* the table goes first; or cannot */
    bool is_writing;                /* in the open transaction */
    bool is_held;                   /* a transaction with some of them failed */
    bool has_told_of_bound, has_told_of_damage;
};

/* `file` must stay. If the file has more cursors than the bound on its bytes leaves room for, those
 * that were used least lately are deleted. False on failure. */
bool cursors_init(struct cursors *cursors, struct log_file *file,
                  const struct store_options *options);
void cursors_deinit(struct cursors *cursors);

/* Does the operation, for the channel with this id. `now_ms`: of the steady clock; `log_ms`: of the
 * log's. False on failure, also when too many wait: then as many as the operation has, or more,
 * should be written. */
bool cursors_do(struct cursors *cursors, int64_t channel, int64_t now_ms, int64_t log_ms,
                struct store_cursors *op);

/* Whether something waits that an append may take along. */
static inline bool cursors_may_ride(const struct cursors *cursors) {
    return !list_empty(&cursors->waiting) && !cursors->is_held && !cursors->is_damaged;
}

/* Whether what waits should not wait for an append any more. */
bool cursors_are_due(const struct cursors *cursors, int64_t now_ms);

/* Writes up to `max` of what waits in the open transaction, which also makes a table anew that was
 * damaged. False on failure, then the transaction must be undone. */
bool cursors_write(struct cursors *cursors, size_t max);
void cursors_committed(struct cursors *cursors);
void cursors_undone(struct cursors *cursors);

/* Deletes a slice of those not used for ttl_ms, and of channels that are forgotten, if a look is
 * due or under way, in a transaction of its own. A failure is logged. */
void cursors_forget_some(struct cursors *cursors, int64_t log_ms);
