/*
 * Purges: updates of a channel that are gone for good (struct store_purge).
 *
 *     purge(channel INTEGER PRIMARY KEY, upto, seq, seal)
 *     purge_job(id INTEGER PRIMARY KEY, channel, upto, seq, seal)
 *
 * A row of `purge` is a channel's floor: its updates up to `upto`, the newest of them the row `seq`
 * of the log at most, are purged. One transaction writes it and answers the purge; from then on
 * nobody reads them, wherever their rows are. It stays until the log has only newer rows.
 *
 * The same transaction leaves a job, which goes on after a crash: it deletes the rows in slices,
 * newest first along their links. `seq` is the next, 0 when none is left. Then the file is wiped
 * (wipe.h), for all jobs together, and the job is gone. The tables are made by the first purge.
 *
 * As the sweeper does, a job deletes nothing that the last checkpoint does not include.
 */
#pragma once

#include "sqlite/rows.h"
#include "sqlite/wipe.h"

struct purges {
    struct log_file *file;
    struct rows *rows;
    struct log_state *state;
    struct wipe wipe;
    sqlite3_stmt *put_floor, *put_job, *next_job, *last_job, *move_job, *end_jobs, *delete_row,
        *find_floors, *delete_floors;
    bool is_made, is_prepared; /* the tables: in the file; in this transaction at least */
    bool has_jobs;             /* perhaps */
    bool is_unreadable;        /* the jobs cannot be read, and that was logged */
    int64_t wiped_id;          /* jobs up to this one are done with once the wipe is */
    int64_t wait_until;        /* by the steady clock: then the next slice */
    int64_t rest_until;        /* the same: the next wipe; others delete meanwhile */
    int64_t tidied_at;         /* when floors were last begun to be tidied, by the log's clock */
    int64_t tidied_channel;    /* how far that has got; 0: it is not under way */
};

/* All that is passed in must stay. False on failure. */
bool purges_init(struct purges *purges, struct log_file *file, struct rows *rows,
                 struct log_state *state, struct wal *wal);
void purges_deinit(struct purges *purges);

/* What is purged: the updates of a channel up to `upto`, of which the newest is the row `seq` of
 * the log; 0: none has a row. */
struct purge_range {
    int64_t channel;
    uint64_t upto;
    int64_t seq;
    int64_t last_seq; /* no row of them is behind it */
};

/* Writes the floor and the job in the open transaction. False on failure. */
bool purges_add(struct purges *purges, const struct purge_range *range);
void purges_committed(struct purges *purges);
void purges_undone(struct purges *purges);

/* What to do now. PURGE_DELETE wants purges_delete() within a transaction, PURGE_END purges_end(),
 * PURGE_WIPE purges_wipe() outside of one. PURGE_WAIT: something later. Where the jobs cannot be
 * read, that is logged once. */
enum purge_step { PURGE_NOTHING, PURGE_WAIT, PURGE_DELETE, PURGE_WIPE, PURGE_END };
enum purge_step purges_due(struct purges *purges, int64_t now_ms);

/* Whether rows wait to be deleted that a checkpoint must include first. */
bool purges_need_checkpoint(struct purges *purges);

/* Deletes rows of the next job until `end_ns` (uv_hrtime()). */
bool purges_delete(struct purges *purges, uint64_t end_ns, int64_t *deleted);
/* Wipes for a slice. A failure is logged. */
void purges_wipe(struct purges *purges, int64_t now_ms, uint64_t end_ns);
/* Removes the jobs that were wiped. */
bool purges_end(struct purges *purges);
/* ... and that is committed. */
void purges_ended(struct purges *purges, int64_t now_ms);

/* A step has failed: the next is tried a moment later. */
void purges_failed(struct purges *purges, int64_t now_ms);

/* Once an hour, when no job is left, removes the floors that are below all rows of the log: each
 * call those of some channels, in a transaction of its own. */
void purges_tidy(struct purges *purges, int64_t log_ms);
