/*
 * Deliveries: which update of a channel was the first with an id (struct delivery), so that the
 * store knows it when it comes again.
 *
 *     delivery(channel, ts, id, born, seal)
 *
 * The table is made when the first id comes; a file without one stays as it was. An id is known for
 * DELIVERY_KNOWN_MS after its first update, while that is among the newest DELIVERIES_MAX of its
 * channel, whether the update itself is still kept or not.
 *
 * With a bound on the bytes of the file, ids take an eighth of them at most: beyond it, each that
 * comes pushes out the oldest of its own channel, or of one that has as many: a loud channel pushes
 * out nothing of a quiet one.
 *
 * Where the table is damaged, ids are no longer looked at: the transaction that finds it fails, and
 * without them it succeeds.
 */
#pragma once

#include "inbox/store.h"
#include "sqlite/log_file.h"

struct deliveries {
    struct log_file *file;
    sqlite3_stmt *find, *put, *delete_excess, *find_channel, *count_some, *delete_old,
        *delete_first;
    int64_t max_rows;          /* INT64_MAX: no bound, and `rows` means nothing */
    int64_t rows, rows_before; /* now, and when the transaction began */
    int64_t next_to_push_out;  /* the channel */
    bool is_prepared;
    bool is_made;         /* the table, in a transaction that was committed */
    bool is_stuck;        /* damage is in the way */
    int64_t begun_at;     /* the last look for what is old */
    int64_t next_channel; /* where it goes on; 0: none is under way */
};

/* `file` must stay. `max_bytes` is the bound on its bytes, 0: none. If it has more ids than that
 * leaves room for, all are deleted. False on failure. */
bool deliveries_init(struct deliveries *deliveries, struct log_file *file, uint64_t max_bytes);

/*
 * Looks for the delivery's id, and sets same_as; notes it, for the update `ts`, if it is new. It
 * does so in the open transaction. False on failure.
 */
bool deliveries_note(struct deliveries *deliveries, int64_t channel, int64_t ts, int64_t born_ms,
                     struct delivery *delivery);

/* The transaction was committed, or undone. */
void deliveries_committed(struct deliveries *deliveries);
void deliveries_undone(struct deliveries *deliveries);

/* Deletes a slice of what is old, if a look is due or under way, in a transaction of its own. A
 * failure is logged. */
void deliveries_forget_some(struct deliveries *deliveries, int64_t now_ms);
