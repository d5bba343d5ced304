/*
 * The sweeper: deletes updates past the bounds on age, bytes and count, in slices, each within
 * somebody else's transaction.
 *
 * The oldest rows, past the bound on age or bytes, go from the old end of the log. Rows past the
 * bound on their channel's count lie anywhere: once enough of them have gathered (struct
 * log_excess), a pass walks the log and deletes them. Nothing is deleted that the last checkpoint
 * does not include.
 */
#pragma once

#include "sqlite/log_file.h"

enum sweep { SWEEP_NOTHING, SWEEP_AGE, SWEEP_BYTES, SWEEP_COUNT };

struct sweeper {
    struct log_file *file;
    struct log_state *state;
    const struct store_options *options;
    sqlite3_stmt *find_oldest, *find_kept, *find_slice_end, *delete_oldest, *delete_excess;
    struct {
        bool is_known;
        int64_t seq, born; /* of the oldest row that is whole; seq 0: there is none */
    } oldest;
    bool is_held;                     /* it must not delete now */
    bool is_end_stuck, is_pass_stuck; /* damage is in the way: nothing is deleted there any more */
};

/* All that is passed in must stay. False on failure. */
bool sweeper_init(struct sweeper *sweeper, struct log_file *file, struct log_state *state,
                  const struct store_options *options);

/* What to delete now, if anything. Updates born before `cutoff_ms` are past the bound on age. */
enum sweep sweeper_due(struct sweeper *sweeper, int64_t cutoff_ms, bool is_idle);

/* Whether a checkpoint would let the sweeper delete something. None may be open. */
bool sweeper_needs_checkpoint(struct sweeper *sweeper, int64_t cutoff_ms, bool is_idle);

/* Deletes a slice of at most `max_rows` rows within the open transaction. False on failure: then
 * the transaction must be undone, log_state with it. */
bool sweeper_sweep(struct sweeper *sweeper, enum sweep sweep, int64_t cutoff_ms, int64_t max_rows);

/* The log has been appended to. */
void sweeper_appended(struct sweeper *sweeper);
/* Rows may be gone, or be back again: somebody else has deleted some, or a transaction that may
 * have deleted some has been undone. */
void sweeper_changed(struct sweeper *sweeper);

/* --- Decisions, for the tests ----------------------------------------------------------------- */

/* How many deletable rows are worth a pass over a log of `rows`. */
int64_t sweep_threshold(int64_t rows, bool is_idle);

/* How many of the oldest rows hold the bytes above `max_bytes`, from 1 to `max_rows`. */
int64_t sweep_rows_over(int64_t used_bytes, int64_t max_bytes, int64_t rows, int64_t max_rows);
