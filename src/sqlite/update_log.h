/*
 * The log of updates in an SQLite file, used by one thread. It ties together the file (log_file.h),
 * its rows (rows.h), what is in memory of the channels (entries.h), and what keeps it in order:
 * checkpoint, sweeper, forget, wal.
 *
 * Invariants:
 *  1. Appends are sequential in seq, the only key. seq, channel ids and ts are never reused.
 *  2. `prev` is the seq of the channel's previous update; `skip` that of its newest earlier update
 *     whose ts is a multiple of LOG_SKIP: a reader finds any ts in few steps. Updates of a channel
 *     are deleted oldest first, so a missing prev means that nothing older is left. Those up to the
 *     channel's floor are purged (purges.h): nobody reads them, and they may go in any order.
 *  3. A row of `channel` may lag behind the log. meta's checkpoint is a seq up to which all rows
 *     are complete; opening replays the log from there. The first update of a channel carries its
 *     name, so that the replay can make its row. What the checkpoint does not include is never
 *     deleted.
 *  4. What changed since the checkpoint is in memory (dirty entries). A checkpoint is written in
 *     slices, by update_log_maintain() or within append transactions. A row written early is
 *     harmless: the replay applies only what is newer than the row's head.
 *  5. A transaction that fails leaves no trace: entries and log_state are put back as they were.
 *  6. Retention: reads apply the bounds on count and age exactly; the sweeper deletes later.
 *  7. A seq of the current epoch (epochs.h) is given to one update only, whatever happens to the
 *     file: before the first append the file has a new epoch, unless it is as the last clean close
 *     left it.
 */
#pragma once

#include "inbox/store.h"

struct update_log;

/* `goes_on`: the file is as a clean update_log_close() left it. NULL on failure, with one line in
 * `error`. */
struct update_log *update_log_open(const struct store_options *options, bool goes_on, char *error,
                                   size_t error_size);

/* Stores the appends of `batch` in one transaction and sets `error` of each: all are stored, or
 * none is. They must not be answered before this returns. Does some maintenance along the way. */
void update_log_append(struct update_log *log, struct list *batch);

/* Copies a write-ahead log that has grown too large. For after the answers of appends. */
void update_log_bound_wal(struct update_log *log);

/* Does one read, bounded by READ_MAX_UPDATES and READ_MAX_BYTES. */
void update_log_read(struct update_log *log, struct store_read *read);

/* Does one purge: what it purges is not read any more. Its rows and their bytes go with
 * update_log_purge_some(). */
void update_log_purge(struct update_log *log, struct store_purge *purge);

/* Goes on with what purges have left, for a slice; true while there is more to do at once. Part of
 * idle maintenance; for between appends, too. */
bool update_log_purge_some(struct update_log *log);

/* Does one operation on the cursors of a channel's consumers. */
void update_log_cursors(struct update_log *log, struct store_cursors *cursors);

/* Does a slice of what leaving it would have to do; true while there is more. */
bool update_log_settle(struct update_log *log);

/* Does a slice of maintenance; true while there is more to do at once. `is_idle`: there is nothing
 * else to do, so be thorough. */
bool update_log_maintain(struct update_log *log, bool is_idle);

/* Sets `bytes` of `stats`, which costs two queries. */
void update_log_count_bytes(const struct update_log *log, struct store_stats *stats);

/* Sets what `stats` has of the log, but for `bytes`. */
void update_log_stats(const struct update_log *log, struct store_stats *stats);

/* The log's own clock, from any thread: updates age by it (log_clock.h). */
int64_t update_log_now_ms(const struct update_log *log);

/* Writes a checkpoint, closes and frees. True if all that it has answered for is in the file.
 * `is_left`: the next program opens it at once. Then nothing waits for the disk: all that was
 * answered is durable already, and the rest stays in the write-ahead log. */
bool update_log_close(struct update_log *log, bool is_left);
