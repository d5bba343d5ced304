/*
 * What the files of the room of update_log.h share: update_log.c does its operations,
 * update_log_life.c opens, leaves and closes it.
 */
#pragma once

#include "sqlite/checkpoint.h"
#include "sqlite/cursors.h"
#include "sqlite/deliveries.h"
#include "sqlite/entries.h"
#include "sqlite/epochs.h"
#include "sqlite/forget.h"
#include "sqlite/log_clock.h"
#include "sqlite/log_file.h"
#include "sqlite/purges.h"
#include "sqlite/reader.h"
#include "sqlite/rows.h"
#include "sqlite/sweeper.h"
#include "sqlite/update_log.h"
#include "sqlite/wal.h"

enum {
    NEW_ROWS_MAX = 128,    /* of an append, given to SQLite at once */
    STEP_ROWS = 128,       /* of maintenance, between two looks at the time */
    IDLE_ROWS = 1024,      /* of maintenance in a transaction of its own, at most */
    TIME_MS = 3600 * 1000, /* from one note of the time to the next */
};

struct update_log {
    struct store_options options;
    struct log_file file;
    struct rows rows;
    struct log_state state;
    struct entries entries;
    struct checkpoint checkpoint;
    struct sweeper sweeper;
    struct forget forget;
    struct deliveries deliveries;
    struct epochs epochs;
    struct cursors cursors;
    struct purges purges;
    struct wal wal;
    struct log_clock clock;
    struct damage damage;
    struct reader reader;
    int64_t time_put_at, told_at;          /* the steady clock */
    int settled;                           /* checkpoints, by update_log_settle() */
    struct new_row new_rows[NEW_ROWS_MAX]; /* of the open transaction, not yet with SQLite */
    size_t new_count;
};

/* --- Time: nobody else in this room asks a clock ---------------------------------------------- */

struct log_moment {
    int64_t steady_ms; /* for what is due, and when */
    int64_t wall_ms;
    int64_t log_ms;    /* log_clock.h: for what ages */
    int64_t cutoff_ms; /* updates born before are past the bound on age */
};

struct log_moment log_look_at_clock(const struct update_log *log);

/* Notes in the file, within the open transaction, what time it is. */
bool log_put_time(struct update_log *log, struct log_moment moment);

/* --- Transactions ----------------------------------------------------------------------------- */

/* What undoes a transaction in memory; the entries undo themselves. */
struct log_transaction {
    struct log_state before;
    struct checkpoint_slice written;
    struct store_append *culprit; /* that cannot be stored, whatever becomes of the others */
};

/* `begin_file` is one of log_file.h's. False on failure; log_roll_back() must follow. */
bool log_begin_as(struct update_log *log, struct log_transaction *t,
                  bool (*begin_file)(struct log_file *file));
bool log_commit(struct update_log *log, struct log_transaction *t);
void log_roll_back(struct update_log *log, struct log_transaction *t, const char *doing);

/* Writes cursors for which no append comes, or that wait for room. It costs no sync. */
bool log_write_cursors(struct update_log *log, size_t max);

/* --- Slices ----------------------------------------------------------------------------------- */

/* How much is done in one transaction: at least `min_rows`, then until the time is up. What keeps
 * the log in order is done within append transactions as well, so that it keeps up with any load:
 * the more is appended, the more is done. */
struct slice_bound {
    size_t min_rows, max_rows;
    uint64_t end_ns; /* uv_hrtime() */
};

struct slice_bound slice_when_idle(void);
bool slice_may_go_on(const struct slice_bound *bound, size_t rows);
