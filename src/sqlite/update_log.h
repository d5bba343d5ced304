/*
 * The log of updates in an SQLite file, used by one thread.
 *
 *     channel(id, name, total, head, mark, last_at)
 *     update_log(seq, channel, ts, prev, skip, at, size, name, body, raw, method, query, headers)
 *
 * Invariants:
 *  1. Appends are sequential in seq, the only key. seq, channel ids and ts are never reused.
 *  2. `prev` is the seq of the channel's update before; `skip` that of its newest update before whose ts is
 *     a multiple of LOG_SKIP: a reader finds any ts in few steps. Updates of a channel are deleted oldest
 *     first, so a missing prev means that nothing older is left.
 *  3. A row of `channel` may lag behind the log. meta's checkpoint is a seq up to which all rows are
 *     included; opening replays the log from there. `name` stands in the log with the first update of a
 *     channel, so that the replay can make its row. What is not included yet is never deleted.
 *  4. What changed since the checkpoint is in memory (struct entry, dirty). A checkpoint is written in
 *     slices, by update_log_maintain() or within append transactions; a row written early is harmless, as
 *     the replay applies only what is newer than the row's head.
 *  5. A transaction that fails leaves no trace: its entries are put back as they were.
 *  6. Retention: reads apply both bounds exactly; the sweeper deletes what is past them later.
 */
#pragma once

#include "inbox/store.h"

enum { LOG_SKIP = 128, LOG_SCHEMA_VERSION = 1 };

struct update_log;

/* NULL on failure, with one line in `error`. Of the options all are used. */
struct update_log *update_log_open(const struct store_options *options, char *error,
                                   size_t error_size);

/* Stores the appends of `batch` in one transaction and sets `ok` of each: all true or all false. Only
 * when this returns may they be answered. Takes some maintenance along. */
void update_log_append(struct update_log *log, struct list *batch);

/* Does one read, bounded by READ_MAX_UPDATES and READ_MAX_BYTES. */
void update_log_read(struct update_log *log, struct store_read *read);

/* Does a slice of checkpoint and sweeping; true while more is to be done at once. `is_idle`: there is
 * nothing else to do, so that it may be thorough. */
bool update_log_maintain(struct update_log *log, bool is_idle);

/* Sets `bytes` of `stats`, which costs two queries. */
void update_log_count_bytes(const struct update_log *log, struct store_stats *stats);

/* Sets updates, swept, errors, commits and commit_ns of `stats`. */
void update_log_stats(const struct update_log *log, struct store_stats *stats);

/* Writes the checkpoint, closes and frees. */
void update_log_close(struct update_log *log);
