/*
 * The SQLite file under the log: its schema, opening, replay, transactions, `meta`.
 *
 *     channel(id, name, total, head, mark, last_at)
 *     update_log(seq, channel, ts, prev, skip, at, size, name, body, raw, method, query, headers)
 *     meta(key, value)
 *
 * One connection, used by one thread. Whoever needs a statement prepares it here and uses it until
 * the file is closed, which finalizes them all. A function that returns false leaves SQLite's
 * reason behind: log_file_note_error() logs it, log_file_explain() tells whoever starts longline.
 */
#pragma once

#include "inbox/store.h"
#include "sqlite/log_state.h"
#include <sqlite3.h>

enum {
    LOG_SCHEMA_VERSION = 1,
    LOG_SKIP = 128, /* a row's `skip` leads to an update whose ts is a multiple of this */
};

struct log_file {
    sqlite3 *db;
    int64_t page_bytes;
    sqlite3_stmt *begin, *commit, *rollback, *put_meta, *page_count, *freelist_count;
    uint64_t commits, commit_ns, errors;
    uint64_t error_logged_at; /* uv_hrtime() */
};

/* Opens the file or creates it. False, with one line in `error`, when it cannot be opened, is
 * not ours or has another version. Call log_file_close() in either case. */
bool log_file_open(struct log_file *file, const struct store_options *options, char *error,
                   size_t error_size);
void log_file_close(struct log_file *file);

/* Brings the rows of `channel` up to the end of the log, in one transaction, and fills `state`.
 * After a failure the file can only be closed. */
bool log_file_replay(struct log_file *file, int64_t channel_max, struct log_state *state);

bool log_file_prepare(struct log_file *file, sqlite3_stmt **statement, const char *sql);

bool log_file_begin(struct log_file *file);
bool log_file_commit(struct log_file *file);
/* Harmless when no transaction is open: some errors make SQLite roll back by itself. */
void log_file_roll_back(struct log_file *file);

/* Writes to `meta` what a start cannot count cheaply, as of the last seq. */
bool log_file_put_counts(struct log_file *file, const struct log_state *state);

/* Writes to `meta` that the rows of `channel` include the log up to `seq`; and the counts. */
bool log_file_put_checkpoint(struct log_file *file, const struct log_state *state, int64_t seq,
                             int64_t channel_max);

/* Bytes of the pages in use; 0 on failure. Costs two queries. */
int64_t log_file_used_bytes(const struct log_file *file);

/* Counts a failure and logs it, at most once a second. `doing` says what failed. */
void log_file_note_error(struct log_file *file, const char *doing);

/* Writes "PATH `what`: SQLite's reason" to `error`. */
void log_file_explain(const struct log_file *file, const struct store_options *options,
                      const char *what, char *error, size_t error_size);
