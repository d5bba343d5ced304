#include "sqlite/deliveries.h"
#include "base/log.h"
#include "sqlite/seal.h"
#include "sqlite/sql.h"

#include <stddef.h>

enum {
    SLICE_CHANNELS = 16,
    SLICE_ROWS = 256, /* of a channel */
    PERIOD_MS = 3600 * 1000,
    ROW_BYTES = 128,    /* in both trees, with the room that pages leave */
    SHARE = 8,          /* of the bound on bytes */
    PUSHED_OUT_MAX = 2, /* for one that comes, until there are no more than the bound */
    /* Who has most, of a few channels in turn: */
    PUSHED_OUT_LOOKS = 4,
    PUSHED_OUT_COUNT = 32 /* more ids than that are not counted */
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
        log_file_prepare(file, &deliveries->count_some,
                         "SELECT count(*) FROM (SELECT 1 FROM delivery WHERE channel = ?1"
                         " LIMIT ?2)") &&
        log_file_prepare(file, &deliveries->delete_old,
                         "DELETE FROM delivery WHERE channel = ?1 AND born < ?2 AND ts IN"
                         " (SELECT ts FROM delivery WHERE channel = ?1 ORDER BY ts LIMIT ?3)") &&
        log_file_prepare(file, &deliveries->delete_first,
                         "DELETE FROM delivery WHERE channel = ?1 AND ts ="
                         " (SELECT min(ts) FROM delivery WHERE channel = ?1)");
    return deliveries->is_prepared;
}

static void unprepare(struct deliveries *deliveries) {
    sqlite3_stmt **statements[] = {&deliveries->find,          &deliveries->put,
                                   &deliveries->delete_excess, &deliveries->find_channel,
                                   &deliveries->count_some,    &deliveries->delete_old,
                                   &deliveries->delete_first};
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

/* Deletes all when there are too many: the sweeper would delete updates to make room for them. */
static bool count_rows(struct deliveries *deliveries) {
    struct log_file *file = deliveries->file;
    if (!log_file_query(file, "SELECT count(*) FROM delivery", 0, 0, &deliveries->rows))
        return false;
    if (deliveries->rows > deliveries->max_rows &&
        log_file_change(file, "DELETE FROM delivery", 0, "deleting ids of deliveries"))
        deliveries->rows = 0;
    deliveries->rows_before = deliveries->rows;
    return true;
}

bool deliveries_init(struct deliveries *deliveries, struct log_file *file, uint64_t max_bytes) {
    int64_t is_there = 0;
    *deliveries = (struct deliveries){
        .file = file,
        .max_rows = max_bytes ? (int64_t)(max_bytes / SHARE / ROW_BYTES) : INT64_MAX,
    };
    if (!log_file_query(file, "SELECT 1 FROM sqlite_schema WHERE name = 'delivery_id'", 0, 0,
                        &is_there))
        return false;
    deliveries->is_made = is_there;
    bool is_bounded = max_bytes != 0;
    if (!is_there || (prepare(deliveries) && (!is_bounded || count_rows(deliveries))))
        return true;
    if (!log_file_is_damaged(file))
        return false;
    give_up(deliveries);
    return true;
}

/* --- An update -------------------------------------------------------------------------------- */

/* Sets same_as if the id is known. The row that says so may be old, or damaged: `has_row` says
 * that there is one. */
static bool find(struct deliveries *deliveries, int64_t channel, int64_t now_ms,
                 struct delivery *delivery, bool *has_row) {
    sqlite3_stmt *find = deliveries->find;
    sqlite3_bind_int64(find, 1, channel);
    sqlite3_bind_blob(find, 2, delivery->id, sizeof delivery->id, SQLITE_STATIC);
    int status = sqlite3_step(find);
    *has_row = status == SQLITE_ROW;
    if (*has_row) {
        int64_t ts = sqlite3_column_int64(find, 0), born = sqlite3_column_int64(find, 1);
        bool is_whole =
            sqlite3_column_int64(find, 2) == seal_delivery(channel, ts, delivery->id, born);
        if (is_whole && born > now_ms - DELIVERY_KNOWN_MS)
            delivery->same_as = (uint64_t)ts;
    }
    sqlite3_reset(find);
    return *has_row || status == SQLITE_DONE;
}

static bool find_next_channel(struct deliveries *deliveries, int64_t from, int64_t *channel) {
    sqlite3_bind_int64(deliveries->find_channel, 1, from);
    return sql_get(deliveries->find_channel, channel);
}

static bool count_some(struct deliveries *deliveries, int64_t channel, int64_t *count) {
    sqlite3_bind_int64(deliveries->count_some, 1, channel);
    sqlite3_bind_int64(deliveries->count_some, 2, PUSHED_OUT_COUNT);
    return sql_get(deliveries->count_some, count);
}

/* Of `own` and those whose turn it is, finds the channel that has most ids; among equals it is
 * another, unless they have too many to count. */
static bool find_loudest(struct deliveries *deliveries, int64_t own, int64_t *channel) {
    int64_t most, count, next = deliveries->next_to_push_out;
    *channel = own;
    if (!count_some(deliveries, own, &most))
        return false;
    for (int i = 0; i < PUSHED_OUT_LOOKS && most < PUSHED_OUT_COUNT; i++) {
        if (!find_next_channel(deliveries, next, &next) ||
            (!next && !find_next_channel(deliveries, 0, &next)) ||
            !count_some(deliveries, next, &count))
            return false;
        if (count >= most && next != own) {
            most = count;
            *channel = next;
        }
        deliveries->next_to_push_out = ++next;
    }
    return true;
}

/* Pushes out the oldest id of the channel, or of another that has at least as many. */
static bool push_one_out(struct deliveries *deliveries, int64_t own) {
    int64_t channel;
    if (!find_loudest(deliveries, own, &channel))
        return false;
    sqlite3_bind_int64(deliveries->delete_first, 1, channel);
    if (!sql_run(deliveries->delete_first))
        return false;
    deliveries->rows -= sqlite3_changes(deliveries->file->db);
    return true;
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
    if (!sql_run(deliveries->delete_excess))
        return false;
    deliveries->rows -= sqlite3_changes(deliveries->file->db);
    return true;
}

static bool note(struct deliveries *deliveries, int64_t channel, int64_t ts, int64_t born_ms,
                 struct delivery *delivery) {
    if (!deliveries->is_prepared &&
        (!log_file_execute(deliveries->file, schema) || !prepare(deliveries)))
        return false;
    bool has_row;
    if (!find(deliveries, channel, born_ms, delivery, &has_row))
        return false;
    if (delivery->same_as)
        return true;
    if (!put(deliveries, channel, ts, born_ms, delivery))
        return false;
    deliveries->rows += !has_row;
    for (int i = 0; i < PUSHED_OUT_MAX && deliveries->rows > deliveries->max_rows; i++)
        if (!push_one_out(deliveries, channel))
            return false;
    return true;
}

bool deliveries_note(struct deliveries *deliveries, int64_t channel, int64_t ts, int64_t born_ms,
                     struct delivery *delivery) {
    delivery->same_as = 0;
    if (deliveries->is_stuck || note(deliveries, channel, ts, born_ms, delivery))
        return true;
    if (sqlite3_errcode(deliveries->file->db) == SQLITE_CORRUPT)
        give_up(deliveries);
    return false;
}

void deliveries_committed(struct deliveries *deliveries) {
    deliveries->is_made |= deliveries->is_prepared;
    deliveries->rows_before = deliveries->rows;
}

void deliveries_undone(struct deliveries *deliveries) {
    deliveries->rows = deliveries->rows_before;
    if (!deliveries->is_made)
        unprepare(deliveries); /* the table may be gone with the transaction */
}

/* --- What is old ------------------------------------------------------------------------------ */

/* Deletes what is old of the next channel, or a part of it, and moves on. */
static bool forget_next(struct deliveries *deliveries, int64_t cutoff_ms) {
    int64_t channel;
    if (!find_next_channel(deliveries, deliveries->next_channel, &channel))
        return false;
    deliveries->next_channel = channel;
    if (!channel)
        return true;
    sqlite3_bind_int64(deliveries->delete_old, 1, channel);
    sqlite3_bind_int64(deliveries->delete_old, 2, cutoff_ms);
    sqlite3_bind_int64(deliveries->delete_old, 3, SLICE_ROWS);
    if (!sql_run(deliveries->delete_old))
        return false;
    int64_t deleted = sqlite3_changes(deliveries->file->db);
    deliveries->rows -= deleted;
    if (deleted < SLICE_ROWS)
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
    if (forget_slice(deliveries, now_ms - DELIVERY_KNOWN_MS)) {
        deliveries_committed(deliveries);
        return;
    }
    if (sqlite3_errcode(deliveries->file->db) == SQLITE_CORRUPT)
        give_up(deliveries);
    deliveries->next_channel = 0;
    log_file_note_error(deliveries->file, "forgetting old deliveries");
    log_file_roll_back(deliveries->file);
    deliveries_undone(deliveries);
}
