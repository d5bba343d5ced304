#include "sqlite/wal.h"
#include "base/config.h"
#include "sqlite/sql.h"

#include <stdio.h>
#include <string.h>

enum {
    IDLE_BYTES = 4 << 20,
    MAX_BYTES = 64 << 20,
    SYNC_INTERVAL_MS = 1000,
    PINNED_MS = 500, /* from one vain copy to the next */
};

static int on_commit(void *context, UNUSED sqlite3 *db, UNUSED const char *name, int pages) {
    struct wal *wal = context;
    wal->pages = pages;
    wal->commits++;
    wal->is_unsynced = true;
    log_file_committed(wal->file, pages);
    return SQLITE_OK;
}

static int64_t at_most_a_quarter(int64_t bound, int64_t max_bytes) {
    int64_t quarter = max_bytes / 4;
    return quarter && quarter < bound ? quarter : bound;
}

bool wal_init(struct wal *wal, struct log_file *file, const struct store_options *options) {
    *wal = (struct wal){.file = file, .options = options};
    sqlite3_wal_hook(file->db, on_commit, wal);
    char limit[64];
    snprintf(limit, sizeof limit, "PRAGMA journal_size_limit = %lld",
             (long long)at_most_a_quarter(MAX_BYTES, (int64_t)options->max_bytes));
    return log_file_execute(file, limit);
}

bool wal_is_over(int64_t bytes, int64_t bound, int64_t max_bytes) {
    return bytes >= at_most_a_quarter(bound, max_bytes);
}

static bool is_over(const struct wal *wal, int64_t bound) {
    return wal_is_over(wal->pages * wal->file->page_bytes, bound, (int64_t)wal->options->max_bytes);
}

static bool is_sync_due(const struct wal *wal, int64_t now_ms) {
    return wal->options->sync == SYNC_INTERVAL && wal->is_unsynced &&
           now_ms - wal->synced_at >= SYNC_INTERVAL_MS;
}

/* A failure stays the log's trouble, for commits succeed without a sync. It ends when the log was
 * written again and copied. */
static void sync_file(struct wal *wal) {
    int status = log_tail_sync(&wal->file->tail);
    wal->is_unsynced = status != SQLITE_OK;
    wal->file->sync_trouble = status == SQLITE_OK ? NULL : sqlite3_errstr(status);
    if (status != SQLITE_OK) {
        wal->file->reason = wal->file->sync_trouble;
        log_file_note_error(wal->file, "sync of the write-ahead log");
    }
}

/*
 * What SQLite could copy in part only, it counts as copied, and does not sync before all is copied.
 * If that sync fails, the system may have dropped the first part as well. So all must be copied
 * again: the count of frames, nBackfill in https://www.sqlite.org/walformat.html, goes back to 0.
 */
static bool copy_all_again(struct wal *wal) {
    enum { REGION_BYTES = 32768, COUNT = 96 / sizeof(uint32_t), CHECKPOINT_LOCK = 1 };
    sqlite3_file *file = NULL;
    void volatile *region = NULL;
    sqlite3_file_control(wal->file->db, "main", SQLITE_FCNTL_FILE_POINTER, &file);
    const sqlite3_io_methods *methods = file->pMethods;
    if (methods->xShmLock(file, CHECKPOINT_LOCK, 1, SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE) !=
        SQLITE_OK)
        return false;
    bool ok = methods->xShmMap(file, 0, REGION_BYTES, 0, &region) == SQLITE_OK && region;
    if (ok)
        ((uint32_t volatile *)region)[COUNT] = 0;
    methods->xShmLock(file, CHECKPOINT_LOCK, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);
    wal->must_copy_all = !ok;
    return ok;
}

/* Whether the log may be copied: while that is under way, a power cut leaves a database that needs
 * all of it. */
static bool is_sure(struct wal *wal) {
    if (wal->must_copy_all && !copy_all_again(wal))
        return false;
    if (wal->options->sync == SYNC_NEVER || log_tail_secure(&wal->file->tail))
        return true;
    wal->file->reason = wal->file->tail.trouble;
    log_file_note_error(wal->file, "sync of the write-ahead log");
    return false;
}

static bool copy(struct wal *wal, int mode, int64_t now_ms) {
    int pages = 0, copied = 0;
    bool ok = is_sure(wal);
    int status =
        ok ? sqlite3_wal_checkpoint_v2(wal->file->db, NULL, mode, &pages, &copied) : SQLITE_BUSY;
    ok = status == SQLITE_OK;
    if (!ok && status != SQLITE_BUSY) {
        wal->file->tail.is_in_doubt = true; /* it may have been the sync */
        log_file_note_error(wal->file, "checkpoint of the write-ahead log");
        wal->must_copy_all = wal->has_copied_a_part;
        if (wal->must_copy_all)
            copy_all_again(wal);
    }
    wal->is_pinned = !ok || copied < pages;
    if (ok || (status == SQLITE_BUSY && copied > 0))
        wal->has_copied_a_part = copied > 0 && copied < pages;
    if (ok && !wal->is_pinned) { /* it syncs both files */
        wal->is_unsynced = false;
        wal->file->sync_trouble = NULL;
        log_tail_copied(&wal->file->tail, mode == SQLITE_CHECKPOINT_TRUNCATE);
    }
    wal->pages = 0;
    wal->copied_at = now_ms;
    return ok && !wal->is_pinned;
}

bool wal_copy(struct wal *wal, int64_t now_ms) {
    return copy(wal, SQLITE_CHECKPOINT_PASSIVE, now_ms);
}

/* Whoever reads would hold it up. */
bool wal_truncate(struct wal *wal, int64_t now_ms) {
    sqlite3_busy_timeout(wal->file->db, 0);
    bool ok = copy(wal, SQLITE_CHECKPOINT_TRUNCATE, now_ms);
    sqlite3_busy_timeout(wal->file->db, LOG_BUSY_MS);
    return ok;
}

static void copy_if_over(struct wal *wal, int64_t bound, int64_t now_ms) {
    if (is_over(wal, bound) && (!wal->is_pinned || now_ms - wal->copied_at >= PINNED_MS))
        wal_copy(wal, now_ms);
}

void wal_maintain(struct wal *wal, int64_t now_ms) {
    if (is_sync_due(wal, now_ms)) {
        wal->synced_at = now_ms;
        if (wal->file->sync_trouble || wal->file->tail.is_in_doubt)
            wal_copy(wal, now_ms);
        else
            sync_file(wal);
    }
    copy_if_over(wal, IDLE_BYTES, now_ms);
}

void wal_bound(struct wal *wal, int64_t now_ms) {
    copy_if_over(wal, MAX_BYTES, now_ms);
}
