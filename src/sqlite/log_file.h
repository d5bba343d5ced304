/*
 * The SQLite file under the log: its schema, opening, transactions.
 *
 *     channel(id, name, total, head, mark, last_born, seal)
 *     update_log(seq, channel, ts, prev, skip, at, born, size, seal,
 *                name, body, raw, method, query, headers)
 *     meta(key, value, seal)
 *
 * and lax (lax.h). Further tables are made by whoever needs them: delivery, consumer, epoch, purge,
 * purge_job.
 *
 * One connection, used by one thread. Whoever needs a statement prepares it here and uses it until
 * the file is closed, which finalizes them all. A function that returns false leaves SQLite's
 * reason behind: log_file_note_error() logs it, log_file_explain() tells whoever starts longline.
 */
#pragma once

#include "inbox/store.h"
#include "sqlite/log_state.h"
#include "sqlite/log_tail.h"
#include <sqlite3.h>

enum {
    LOG_SCHEMA_VERSION = 2,
    LOG_BUSY_MS = 10000, /* an administrator's sqlite3 may hold a lock for a moment */
    LOG_SKIP = 128,      /* a row's `skip` leads to an update whose ts is a multiple of this */
};

#define LOG_FILE_CHANNEL                                                                           \
    "CREATE TABLE channel ("                                                                       \
    "  id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE, total INTEGER NOT NULL,"                 \
    "  head INTEGER NOT NULL, mark INTEGER NOT NULL, last_born INTEGER NOT NULL, seal INTEGER);"

/* Numbers first: a reader follows links without loading bodies. */
#define LOG_FILE_UPDATE_LOG                                                                        \
    "CREATE TABLE update_log ("                                                                    \
    "  seq INTEGER PRIMARY KEY, channel INTEGER NOT NULL, ts INTEGER NOT NULL,"                    \
    "  prev INTEGER NOT NULL, skip INTEGER NOT NULL, at INTEGER NOT NULL, born INTEGER NOT NULL,"  \
    "  size INTEGER NOT NULL, seal INTEGER NOT NULL, name BLOB, body TEXT NOT NULL, raw,"          \
    "  method TEXT NOT NULL, query TEXT NOT NULL, headers TEXT);"

struct log_file {
    sqlite3 *db;
    int64_t version; /* of the schema: 1, which is to be upgraded, or LOG_SCHEMA_VERSION */
    int64_t page_bytes;
    int sync, sync_now; /* enum sync_mode: of the options, and of the last transaction */
    sqlite3_stmt *begin, *commit, *rollback, *page_count, *freelist_count;
    sqlite3_stmt *put_meta; /* meta.c's */
    sqlite3_stmt *mark;     /* lax.c's */
    struct log_tail tail;
    uint64_t commits, commit_ns, errors;
    const char *trouble;      /* why nothing can be written now; NULL: it can */
    const char *sync_trouble; /* why SYNC=interval cannot sync; NULL: it can */
    bool is_append_corrupt;   /* other writes may work all the same, and end no trouble */
    uint64_t error_logged_at; /* uv_hrtime() */
    const char *reason;       /* of the next error noted, where it is not SQLite's; or NULL */
    struct spare {
        int64_t least;   /* pages that were free at any time since then, at least */
        int64_t to_give; /* pages that are being given back */
        int64_t since_ms;
    } spare; /* log_file_give_back()'s */
};

/* Opens the file or creates it. False, with one line in `error`, when it cannot be opened, is
 * not ours or has another version. Call log_file_close() in either case. */
bool log_file_open(struct log_file *file, const struct store_options *options, char *error,
                   size_t error_size);
/* The same for reading only: nothing is changed or prepared. `is_alone`: nobody else uses the
 * file, and there is no write-ahead log; then no file is made beside it either. */
bool log_file_open_to_read(struct log_file *file, const char *path, bool is_alone, char *error,
                           size_t error_size);
void log_file_close(struct log_file *file);

/* Of a write-ahead log that was found: it is as the program before this one has left it; or a crash
 * has, and then it is made sure that it is on the disk. So it is where an older longline has left
 * it, which marks nothing. Where that fails, beginning tries again. */
void log_file_take_over(struct log_file *file, bool is_left);

bool log_file_prepare(struct log_file *file, sqlite3_stmt **statement, const char *sql);

bool log_file_begin(struct log_file *file);
/* Begins one that is as durable as `sync` (enum sync_mode) says, whatever SYNC says. */
bool log_file_begin_as(struct log_file *file, int sync);
/* Begins one whose loss does no harm: its commit is not synced, but for the head of a write-ahead
 * log that begins anew. It is marked. */
bool log_file_begin_lax(struct log_file *file);
bool log_file_commit(struct log_file *file);
/* A commit was made, by a transaction or without: for whoever hooks it. */
void log_file_committed(struct log_file *file, int frames);
/* Harmless when no transaction is open: some errors make SQLite roll back by itself. */
void log_file_roll_back(struct log_file *file);

/* Runs statements that give no rows. */
bool log_file_execute(struct log_file *file, const char *sql);

/*
 * Runs one statement once, with `a` as ?1 and `b` as ?2 where it has them. `number`, if not NULL,
 * gets the first column of the first row, and stays as it is when there is no row or it holds NULL.
 */
bool log_file_query(struct log_file *file, const char *sql, int64_t a, int64_t b, int64_t *number);

/* Runs one statement, with `a` as ?1, in a transaction of its own: what changes the file outside of
 * one would not know whether the write-ahead log is in doubt. A failure is logged with `doing`. */
bool log_file_change(struct log_file *file, const char *sql, int64_t a, const char *doing);

/* Bytes of the pages in use. Costs two queries. False on failure. */
bool log_file_used_bytes(const struct log_file *file, int64_t *bytes);

/* Of a log in memory: lets the system have some of the pages that have long been free, if they are
 * many; true while there are more. */
bool log_file_give_back(struct log_file *file, int64_t now_ms);

/* Whether something failed because of damage, perhaps of the schema: not of memory, the disk, or a
 * lock. */
bool log_file_is_damaged(const struct log_file *file);

/* Whether what failed was an allocation of ours: SQLite knows of no error. */
bool log_file_lacked_memory(const struct log_file *file);
/* Counts a failure and logs it, at most once a second. `doing` says what failed. */
void log_file_note_error(struct log_file *file, const char *doing);

const char *log_file_path(const struct store_options *options);

/* Writes "PATH `what`: SQLite's reason" to `error`. */
void log_file_explain(const struct log_file *file, const struct store_options *options,
                      const char *what, char *error, size_t error_size);
