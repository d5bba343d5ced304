/*
 * The end of the write-ahead log: how far it is on the disk, and what must not come back.
 *
 * After a sync that failed, Linux may have dropped what was to be written, and report success the
 * next time. So from then on the log is in doubt:
 *
 *   - A commit that has failed is cut off at once, or the next start would replay what was refused.
 *   - Before anything else is committed, the frames that no sync has covered are read again,
 *     compared with their checksums, written again, and synced together with the cut.
 *
 * A log that a crash has left is in doubt, too: nobody knows whether its last sync failed.
 *
 * Embedded in a log_file, whose thread uses it.
 */
#pragma once

#include "sqlite/wal_format.h"

#include <sqlite3.h>

struct log_tail {
    sqlite3 *db;
    struct wal_end end;  /* behind the last commit */
    int64_t durable;     /* frames that a sync has covered */
    bool is_in_doubt;    /* nothing may be committed that must be durable */
    bool must_be_cut;    /* a commit has failed */
    bool is_unknown;     /* the header could not be read behind the last commit: which log it is */
    bool is_left;        /* by the program before this one, which has not synced all of it */
    const char *trouble; /* why it stays in doubt; NULL: it was not tried */
};

/* `end` is that of the log that was found; if there is one, it is in doubt. `db` is NULL where the
 * database is in memory. */
void log_tail_init(struct log_tail *tail, sqlite3 *db, const struct wal_end *end);

/* The log was left as it should be, but not synced. */
void log_tail_is_left(struct log_tail *tail);

/* The log has `frames` by a commit. */
void log_tail_committed(struct log_tail *tail, int64_t frames, bool is_synced);
/* Whether it is known where the log ends: until then, nothing may be committed. */
bool log_tail_is_known(struct log_tail *tail);
/* A commit has failed: log_tail_cut() must follow when it is rolled back. */
void log_tail_failed(struct log_tail *tail);
void log_tail_cut(struct log_tail *tail);

/* All of it was copied into the database; `is_empty`: and it was cut to nothing. */
void log_tail_copied(struct log_tail *tail, bool is_empty);

/* Syncs it; an SQLite result. While it is in doubt, success proves nothing. */
int log_tail_sync(struct log_tail *tail);

/* Makes sure that all of it is on the disk, if that is in doubt. False, with `trouble`, if it
 * cannot. */
bool log_tail_secure(struct log_tail *tail);
