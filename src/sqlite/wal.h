/*
 * The write-ahead log: when it is copied into the database.
 *
 * SQLite's own copying is off; it would hold up an append at any time. With SYNC=interval a copy is
 * also what syncs.
 */
#pragma once

#include "sqlite/log_file.h"

struct wal {
    struct log_file *file;
    const struct store_options *options;
    int64_t pages;    /* as of the last commit; 0 after a copy */
    bool is_unsynced; /* something was committed since the last copy */
    int64_t copied_at;
};

/* Both must stay. From now on commits are noted. */
void wal_init(struct wal *wal, struct log_file *file, const struct store_options *options);

/* Copies if there is much, or if SYNC=interval wants a sync; for when there is time. */
void wal_maintain(struct wal *wal, int64_t now_ms);

/* Copies if there is too much, whatever else waits. */
void wal_bound(struct wal *wal, int64_t now_ms);

/* Copies what can be copied now. A failure is logged. */
void wal_copy(struct wal *wal, int64_t now_ms);

/* Whether a write-ahead log of `bytes` has reached `bound`, or a quarter of the bound on the data
 * (`max_bytes`, 0: none) where that is less. For the tests. */
bool wal_is_over(int64_t bytes, int64_t bound, int64_t max_bytes);
