#include "sqlite/wal.h"
#include "base/config.h"

#include <assert.h>
#include <string.h>

enum {
    IDLE_BYTES = 4 << 20,
    MAX_BYTES = 64 << 20,
    SYNC_INTERVAL_MS = 1000,
};

static int on_commit(void *context, sqlite3 *db, const char *name, int pages) {
    struct wal *wal = context;
    assert(db == wal->file->db && strcmp(name, "main") == 0);
    wal->pages = pages;
    wal->is_unsynced = true;
    return SQLITE_OK;
}

void wal_init(struct wal *wal, struct log_file *file, const struct store_options *options) {
    *wal = (struct wal){.file = file, .options = options};
    sqlite3_wal_hook(file->db, on_commit, wal);
}

bool wal_is_over(int64_t bytes, int64_t bound, int64_t max_bytes) {
    int64_t quarter = max_bytes / 4;
    return bytes >= (quarter && quarter < bound ? quarter : bound);
}

static bool is_over(const struct wal *wal, int64_t bound) {
    return wal_is_over(wal->pages * wal->file->page_bytes, bound, (int64_t)wal->options->max_bytes);
}

static bool is_sync_due(const struct wal *wal, int64_t now_ms) {
    return wal->options->sync == SYNC_INTERVAL && wal->is_unsynced &&
           now_ms - wal->copied_at >= SYNC_INTERVAL_MS;
}

void wal_copy(struct wal *wal, int64_t now_ms) {
    if (sqlite3_wal_checkpoint_v2(wal->file->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL) ==
        SQLITE_OK)
        wal->is_unsynced = false;
    else
        log_file_note_error(wal->file, "checkpoint of the write-ahead log");
    wal->pages = 0;
    wal->copied_at = now_ms;
}

void wal_maintain(struct wal *wal, int64_t now_ms) {
    if (is_sync_due(wal, now_ms) || is_over(wal, IDLE_BYTES))
        wal_copy(wal, now_ms);
}

void wal_bound(struct wal *wal, int64_t now_ms) {
    if (is_over(wal, MAX_BYTES))
        wal_copy(wal, now_ms);
}
