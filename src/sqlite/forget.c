#include "sqlite/forget.h"
#include "base/hash.h"
#include "sqlite/seal.h"
#include "sqlite/sql.h"

enum {
    SLICE_IDS = 1024,
    PERIOD_MS = 3600 * 1000,
    YEAR_DAYS = 365,
};

bool forget_init(struct forget *forget, struct log_file *file, struct entries *entries,
                 int64_t ttl_ms) {
    int64_t year_ms = (int64_t)YEAR_DAYS * 86400 * 1000;
    *forget = (struct forget){
        .file = file, .entries = entries, .age_ms = ttl_ms > year_ms ? ttl_ms : year_ms};
    return log_file_prepare(file, &forget->find_old,
                            "SELECT id, name FROM channel WHERE id BETWEEN ?1 AND ?2"
                            " AND last_born < ?3 AND " SEAL_IS_WHOLE " ORDER BY id LIMIT 1") &&
           log_file_prepare(file, &forget->delete_channel, "DELETE FROM channel WHERE id = ?1");
}

/* Finds the next old channel from `*id` on and deletes its row, unless that lags behind the log;
 * moves `*id` behind it, beyond `last_id` when there is none. A transaction is open once a row is
 * deleted. False on failure. */
static bool forget_next(struct forget *forget, int64_t *id, int64_t last_id, int64_t cutoff_ms) {
    sqlite3_bind_int64(forget->find_old, 1, *id);
    sqlite3_bind_int64(forget->find_old, 2, last_id);
    sqlite3_bind_int64(forget->find_old, 3, cutoff_ms);
    int status = sqlite3_step(forget->find_old);
    bool may_delete = false;
    int64_t found = last_id;
    if (status == SQLITE_ROW) {
        found = sqlite3_column_int64(forget->find_old, 0);
        struct slice name = sql_column(forget->find_old, 1);
        may_delete = entries_forget(forget->entries, hash_of(name), name);
    }
    sqlite3_reset(forget->find_old);
    *id = found + 1;
    if (!may_delete)
        return status == SQLITE_ROW || status == SQLITE_DONE;
    sqlite3_bind_int64(forget->delete_channel, 1, found);
    bool is_first = sqlite3_get_autocommit(forget->file->db);
    return (!is_first || log_file_begin(forget->file)) && sql_run(forget->delete_channel);
}

void forget_some(struct forget *forget, const struct log_state *state, int64_t now_ms) {
    if (!forget->next_id && now_ms - forget->begun_at < PERIOD_MS)
        return;
    if (!forget->next_id)
        forget->begun_at = now_ms;
    int64_t id = forget->next_id, last_id = id + SLICE_IDS - 1;
    forget->next_id = last_id < state->last_channel_id ? last_id + 1 : 0;
    bool ok = true;
    while (ok && id <= last_id)
        ok = forget_next(forget, &id, last_id, now_ms - forget->age_ms);
    if (ok && (sqlite3_get_autocommit(forget->file->db) || log_file_commit(forget->file)))
        return;
    log_file_note_error(forget->file, "forgetting old channels");
    log_file_roll_back(forget->file);
}
