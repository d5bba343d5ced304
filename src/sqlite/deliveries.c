#include "sqlite/deliveries.h"
#include "base/log.h"
#include "sqlite/seal.h"
#include "sqlite/sql.h"

#include <stddef.h>

enum {
    SLICE_CHANNELS = 16,
    SLICE_ROWS = 256, /* of a channel */
    PERIOD_MS = 3600 * 1000,
};

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS delivery ("
    "  channel INTEGER NOT NULL, ts INTEGER NOT NULL, id BLOB NOT NULL, born INTEGER NOT NULL,"
    "  seal INTEGER NOT NULL, PRIMARY KEY (channel, ts)) WITHOUT ROWID;"
    "CREATE UNIQUE INDEX IF NOT EXISTS delivery_id ON delivery (channel, id);";

static bool prepare(struct deliveries *deliveries) {
    struct log_file *file = deliveries->file;
    deliveries->is_prepared =
        log_file_prepare(file, &deliveries->find,
                         "SELECT ts, born, seal FROM delivery WHERE channel = ?1 AND id = ?2") &&
        log_file_prepare(file, &deliveries->put,
                         "INSERT OR REPLACE INTO delivery (channel, ts, id, born, seal)"
                         " VALUES (?1, ?2, ?3, ?4, ?5)") &&
        log_file_prepare(file, &deliveries->delete_excess,
                         "DELETE FROM delivery WHERE channel = ?1 AND ts <= ?2") &&
        log_file_prepare(file, &deliveries->find_channel,
                         "SELECT min(channel) FROM delivery WHERE channel >= ?1") &&
        log_file_prepare(file, &deliveries->delete_old,
                         "DELETE FROM delivery WHERE channel = ?1 AND born < ?2 AND ts IN"
                         " (SELECT ts FROM delivery WHERE channel = ?1 ORDER BY ts LIMIT ?3)");
    return deliveries->is_prepared;
}

static void unprepare(struct deliveries *deliveries) {
    sqlite3_stmt **statements[] = {&deliveries->find, &deliveries->put, &deliveries->delete_excess,
                                   &deliveries->find_channel, &deliveries->delete_old};
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++) {
        sqlite3_finalize(*statements[i]);
        *statements[i] = NULL;
    }
    deliveries->is_prepared = false;
}

/* From now on ids are not looked at. */
static void give_up(struct deliveries *deliveries) {
    deliveries->is_stuck = true;
    log_error("deliveries that come again are not recognized", "meaning",
              "the data file is damaged; see longline check", NULL);
}

bool deliveries_init(struct deliveries *deliveries, struct log_file *file) {
    int64_t is_there = 0;
    *deliveries = (struct deliveries){.file = file};
    if (!log_file_query(file, "SELECT 1 FROM sqlite_schema WHERE name = 'delivery_id'", 0, 0,
                        &is_there))
        return false;
    deliveries->is_made = is_there;
    if (is_there && !prepare(deliveries))
        give_up(deliveries);
    return true;
}

/* --- An update -------------------------------------------------------------------------------- */

/* Sets same_as if the id is known. The row that says so may be old, or damaged. */
static bool find(struct deliveries *deliveries, int64_t channel, int64_t now_ms,
                 struct delivery *delivery) {
    sqlite3_stmt *find = deliveries->find;
    sqlite3_bind_int64(find, 1, channel);
    sqlite3_bind_blob(find, 2, delivery->id, sizeof delivery->id, SQLITE_STATIC);
    int status = sqlite3_step(find);
    if (status == SQLITE_ROW) {
        int64_t ts = sqlite3_column_int64(find, 0), born = sqlite3_column_int64(find, 1);
        bool is_whole =
            sqlite3_column_int64(find, 2) == seal_delivery(channel, ts, delivery->id, born);
        if (is_whole && born > now_ms - DELIVERY_KNOWN_MS)
            delivery->same_as = (uint64_t)ts;
    }
    sqlite3_reset(find);
    return status == SQLITE_ROW || status == SQLITE_DONE;
}

static bool put(struct deliveries *deliveries, int64_t channel, int64_t ts, int64_t born_ms,
                const struct delivery *delivery) {
    sqlite3_stmt *put = deliveries->put;
    sqlite3_bind_int64(put, 1, channel);
    sqlite3_bind_int64(put, 2, ts);
    sqlite3_bind_blob(put, 3, delivery->id, sizeof delivery->id, SQLITE_STATIC);
    sqlite3_bind_int64(put, 4, born_ms);
    sqlite3_bind_int64(put, 5, seal_delivery(channel, ts, delivery->id, born_ms));
    if (!sql_run(put))
        return false;
    if (ts <= DELIVERIES_MAX)
        return true;
    sqlite3_bind_int64(deliveries->delete_excess, 1, channel);
    sqlite3_bind_int64(deliveries->delete_excess, 2, ts - DELIVERIES_MAX);
    return sql_run(deliveries->delete_excess);
}

static bool note(struct deliveries *deliveries, int64_t channel, int64_t ts, int64_t born_ms,
                 struct delivery *delivery) {
    if (!deliveries->is_prepared &&
        (!log_file_execute(deliveries->file, schema) || !prepare(deliveries)))
        return false;
    return find(deliveries, channel, born_ms, delivery) &&
           (delivery->same_as || put(deliveries, channel, ts, born_ms, delivery));
}

bool deliveries_note(struct deliveries *deliveries, int64_t channel, int64_t ts, int64_t born_ms,
                     struct delivery *delivery) {
    delivery->same_as = 0;
    if (deliveries->is_stuck || note(deliveries, channel, ts, born_ms, delivery))
        return true;
    if (sqlite3_errcode(deliveries->file->db) != SQLITE_CORRUPT ||
        sqlite3_get_autocommit(deliveries->file->db))
        return false;
    give_up(deliveries);
    delivery->same_as = 0;
    return true;
}

void deliveries_committed(struct deliveries *deliveries) {
    deliveries->is_made |= deliveries->is_prepared;
}

void deliveries_undone(struct deliveries *deliveries) {
    if (!deliveries->is_made)
        unprepare(deliveries); /* the table may be gone with the transaction */
}

/* --- What is old ------------------------------------------------------------------------------ */

/* Deletes what is old of the next channel, or a part of it, and moves on. */
static bool forget_next(struct deliveries *deliveries, int64_t cutoff_ms) {
    int64_t channel;
    sqlite3_bind_int64(deliveries->find_channel, 1, deliveries->next_channel);
    if (!sql_get(deliveries->find_channel, &channel))
        return false;
    deliveries->next_channel = channel;
    if (!channel)
        return true;
    sqlite3_bind_int64(deliveries->delete_old, 1, channel);
    sqlite3_bind_int64(deliveries->delete_old, 2, cutoff_ms);
    sqlite3_bind_int64(deliveries->delete_old, 3, SLICE_ROWS);
    if (!sql_run(deliveries->delete_old))
        return false;
    if (sqlite3_changes(deliveries->file->db) < SLICE_ROWS)
        deliveries->next_channel++;
    return true;
}

static bool forget_slice(struct deliveries *deliveries, int64_t cutoff_ms) {
    if (!log_file_begin(deliveries->file))
        return false;
    for (int i = 0; i < SLICE_CHANNELS && deliveries->next_channel; i++)
        if (!forget_next(deliveries, cutoff_ms))
            return false;
    return log_file_commit(deliveries->file);
}

void deliveries_forget_some(struct deliveries *deliveries, int64_t now_ms) {
    if (!deliveries->is_made || deliveries->is_stuck ||
        (!deliveries->next_channel && now_ms - deliveries->begun_at < PERIOD_MS))
        return;
    if (!deliveries->next_channel) {
        deliveries->begun_at = now_ms;
        deliveries->next_channel = 1;
    }
    if (forget_slice(deliveries, now_ms - DELIVERY_KNOWN_MS))
        return;
    if (sqlite3_errcode(deliveries->file->db) == SQLITE_CORRUPT)
        give_up(deliveries);
    deliveries->next_channel = 0;
    log_file_note_error(deliveries->file, "forgetting old deliveries");
    log_file_roll_back(deliveries->file);
}
