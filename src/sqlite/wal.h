/*
 * The write-ahead log: when it is copied into the database, and with SYNC=interval when it is
 * synced.
 *
 * SQLite's own copying is off; it would hold up an append at any time. Whoever reads the file keeps
 * a part of the log from being copied and its space from being used again; it is synced all the
 * same. When SQLite begins it anew, it cuts it down to the size at which we would have copied it.
 */
#pragma once

#include "sqlite/log_file.h"

struct wal {
    struct log_file *file;
    const struct store_options *options;
    int64_t pages;          /* as of the last commit; 0 after a copy */
    uint64_t commits;       /* so far */
    bool is_unsynced;       /* something was committed since the last sync */
    bool is_pinned;         /* the last copy had to leave something: somebody reads, or it failed */
    bool has_copied_a_part; /* of the log as it is, for somebody reads: that is not synced */
    bool must_copy_all;     /* the sync behind it has failed */
    int64_t copied_at, synced_at;
};

/* Both must stay. From now on commits are noted. False on failure. */
bool wal_init(struct wal *wal, struct log_file *file, const struct store_options *options);

/* Syncs if SYNC=interval wants it, and copies if there is much; for when there is time. */
void wal_maintain(struct wal *wal, int64_t now_ms);

/* Copies if there is too much, whatever else waits; not all the time while somebody reads. */
void wal_bound(struct wal *wal, int64_t now_ms);

/* Copies what can be copied now; true when that was all. A failure is logged. */
bool wal_copy(struct wal *wal, int64_t now_ms);

/* The same, and cuts the log to nothing; false while somebody reads, and on failure. */
bool wal_truncate(struct wal *wal, int64_t now_ms);

/* Whether a write-ahead log of `bytes` has reached `bound`, or a quarter of the bound on the data
 * (`max_bytes`, 0: none) where that is less. For the tests. */
bool wal_is_over(int64_t bytes, int64_t bound, int64_t max_bytes);
