#include "sqlite/forget.h"
#include "sqlite/seal.h"
#include "sqlite/sql.h"

enum {
    SLICE_IDS = 65536,
    PERIOD_MS = 3600 * 1000,
    YEAR_DAYS = 365,
};

bool forget_init(struct forget *forget, struct log_file *file, int64_t ttl_ms) {
    int64_t year_ms = (int64_t)YEAR_DAYS * 86400 * 1000;
    *forget = (struct forget){.file = file, .age_ms = ttl_ms > year_ms ? ttl_ms : year_ms};
    return log_file_prepare(file, &forget->delete_channels,
                            "DELETE FROM channel WHERE id BETWEEN ?1 AND ?2 AND last_born < ?3"
                            " AND " SEAL_IS_WHOLE
                            " AND id NOT IN (SELECT channel FROM update_log WHERE seq > ?4)");
}

bool forget_some(struct forget *forget, const struct log_state *state, int64_t now_ms) {
    if (!forget->next_id && now_ms - forget->begun_at < PERIOD_MS)
        return false;
    if (!forget->next_id)
        forget->begun_at = now_ms;
    sqlite3_bind_int64(forget->delete_channels, 1, forget->next_id);
    sqlite3_bind_int64(forget->delete_channels, 2, forget->next_id + SLICE_IDS - 1);
    sqlite3_bind_int64(forget->delete_channels, 3, now_ms - forget->age_ms);
    sqlite3_bind_int64(forget->delete_channels, 4, state->checkpoint_seq);
    forget->next_id += SLICE_IDS;
    if (forget->next_id > state->last_channel_id)
        forget->next_id = 0;
    if (!sql_run(forget->delete_channels)) {
        log_file_note_error(forget->file, "forgetting old channels");
        return false;
    }
    return sqlite3_changes(forget->file->db) > 0;
}
