#include "sqlite/rows.h"
#include "base/log.h"
#include "sqlite/sql.h"

enum { PROBES_MAX = 100000 }; /* of one row each, in a search through damaged pages */

#define NUMBERS_AFTER_SEQ "channel, ts, prev, skip, at, born, size"
#define LOG_COLUMNS "seq, " NUMBERS_AFTER_SEQ ", seal, " SEAL_CONTENT

bool rows_init(struct rows *rows, struct log_file *file) {
    rows->file = file;
    /* OR FAIL: only the transaction as a whole is undone, so a statement needs no journal. */
    return row_batch_define(&rows->batch, file->db) &&
           log_file_prepare(file, &rows->newest_seq, "SELECT max(seq) FROM update_log") &&
           log_file_prepare(file, &rows->append_rows,
                            "INSERT OR FAIL INTO update_log (" LOG_COLUMNS
                            ") SELECT NULL, " NUMBERS_AFTER_SEQ ", seal, " SEAL_CONTENT
                            " FROM row_batch") &&
           log_file_prepare(file, &rows->insert_rows,
                            "INSERT OR FAIL INTO update_log (" LOG_COLUMNS ") SELECT " LOG_COLUMNS
                            " FROM row_batch") &&
           log_file_prepare(file, &rows->load_numbers,
                            "SELECT " SEAL_NUMBERS ", seal FROM update_log WHERE seq = ?1") &&
           log_file_prepare(file, &rows->load_update,
                            "SELECT " SEAL_CONTENT " FROM update_log WHERE seq = ?1") &&
           log_file_prepare(file, &rows->list_older,
                            "SELECT seq, channel FROM update_log WHERE seq < ?1 AND seq >= ?2"
                            " ORDER BY seq DESC") &&
           log_file_prepare(file, &rows->oldest_seq,
                            "SELECT seq FROM update_log WHERE " SEAL_HAS_NUMBERS
                            " ORDER BY seq LIMIT 1") &&
           log_file_prepare(file, &rows->find_channel,
                            "SELECT " SEAL_CHANNEL ", seal FROM channel WHERE name = ?1") &&
           log_file_prepare(file, &rows->put_channel,
                            "INSERT INTO channel (" SEAL_CHANNEL ", seal)"
                            " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"
                            " ON CONFLICT (id) DO UPDATE SET"
                            " total = ?3, head = ?4, mark = ?5, last_born = ?6, seal = ?7");
}

static enum row_status row_status(int status) {
    switch (status & 0xff) { /* without SQLite's details */
    case SQLITE_ROW: return ROW_FOUND;
    case SQLITE_DONE: return ROW_MISSING;
    case SQLITE_CORRUPT: return ROW_DAMAGED;
    default: return ROW_FAILED;
    }
}

/* --- update_log ------------------------------------------------------------------------------- */

/* Behind the row before the first, SQLite gives the same seqs itself, without a search for each
 * whether it is free. Where that row is gone, they must be given. */
bool rows_append(struct rows *rows, struct new_row *new_rows, size_t count) {
    int64_t newest;
    if (!sql_get(rows->newest_seq, &newest))
        return false;
    for (size_t i = 0; i < count; i++) {
        struct new_row *new = &new_rows[i];
        new->row.seal = seal_update(&new->row, new->name.data ? &new->name : NULL, new->update);
    }
    rows->batch.rows = new_rows;
    rows->batch.count = count;
    bool ok =
        sql_run(newest && newest == new_rows->row.seq - 1 ? rows->append_rows : rows->insert_rows);
    rows->batch.count = 0;
    return ok;
}

enum row_status rows_load_numbers(struct rows *rows, int64_t seq, struct update_row *row) {
    sqlite3_stmt *load = rows->load_numbers;
    sqlite3_bind_int64(load, 1, seq);
    enum row_status status = row_status(sqlite3_step(load));
    if (status == ROW_FOUND) {
        *row = (struct update_row){
            .seq = sqlite3_column_int64(load, 0),
            .channel = sqlite3_column_int64(load, 1),
            .ts = sqlite3_column_int64(load, 2),
            .prev = sqlite3_column_int64(load, 3),
            .skip = sqlite3_column_int64(load, 4),
            .at = sqlite3_column_int64(load, 5),
            .born = sqlite3_column_int64(load, 6),
            .size = sqlite3_column_int64(load, 7),
            .seal = sqlite3_column_int64(load, 8),
        };
        if (!seal_has_numbers(row))
            status = ROW_DAMAGED;
    }
    sqlite3_reset(load);
    return status;
}

static struct update *take_update(sqlite3_stmt *load, const struct update_row *row) {
    struct update_parts parts = {
        .body = sql_column(load, 1),
        .raw = sql_column(load, 2),
        .has_raw = sqlite3_column_type(load, 2) != SQLITE_NULL,
        .method = sql_column(load, 3),
        .query = sql_column(load, 4),
        .headers = sql_column(load, 5),
    };
    struct update *update = update_new(&parts);
    if (!update)
        return NULL;
    update->ts = (uint64_t)row->ts;
    update->at_ms = row->at;
    update->born_ms = row->born;
    return update;
}

enum row_status rows_load_update(struct rows *rows, const struct update_row *row,
                                 struct update **update) {
    sqlite3_stmt *load = rows->load_update;
    sqlite3_bind_int64(load, 1, row->seq);
    enum row_status status = row_status(sqlite3_step(load));
    *update = status == ROW_FOUND ? take_update(load, row) : NULL;
    if (*update) {
        struct slice name = sql_column(load, 0);
        bool has_name = sqlite3_column_type(load, 0) != SQLITE_NULL;
        if (!seal_has_content(row, has_name ? &name : NULL, *update)) {
            update_unref(*update);
            *update = NULL;
            status = ROW_DAMAGED;
        }
    } else if (status == ROW_FOUND) {
        /* Memory is out, or SQLite found only now that a body's pages are not what they should
         * be. */
        status =
            sqlite3_errcode(sqlite3_db_handle(load)) == SQLITE_CORRUPT ? ROW_DAMAGED : ROW_FAILED;
    }
    sqlite3_reset(load);
    return status;
}

/* --- Searching -------------------------------------------------------------------------------- */

/* The newest row of `channel` in [from_seq, *seq); moves `*seq` to the last row looked at. */
static enum row_status list_older(struct rows *rows, int64_t channel, int64_t *seq,
                                  int64_t from_seq) {
    sqlite3_stmt *list = rows->list_older;
    sqlite3_bind_int64(list, 1, *seq);
    sqlite3_bind_int64(list, 2, from_seq);
    int status;
    bool is_found = false;
    while (!is_found && (status = sqlite3_step(list)) == SQLITE_ROW) {
        int64_t listed = sqlite3_column_int64(list, 0);
        if (listed >= *seq) { /* not in order */
            status = SQLITE_CORRUPT;
            break;
        }
        *seq = listed;
        is_found = sqlite3_column_int64(list, 1) == channel;
    }
    sqlite3_reset(list);
    return row_status(status);
}

/* Where no list gets through, looks at one row after the other, until one is sound, or `*probes`
 * are used up. */
static enum row_status probe_older(struct rows *rows, int64_t *seq, int64_t from_seq, int *probes,
                                   struct update_row *row) {
    enum row_status status = ROW_DAMAGED;
    while (status == ROW_DAMAGED && *seq > from_seq && --*probes >= 0)
        status = rows_load_numbers(rows, --*seq, row);
    return status;
}

enum row_status rows_find_older(struct rows *rows, int64_t channel, int64_t seq, int64_t from_seq,
                                struct update_row *row) {
    int probes = PROBES_MAX;
    while (seq > from_seq && probes > 0) {
        enum row_status status = list_older(rows, channel, &seq, from_seq);
        if (status == ROW_FOUND)
            status = rows_load_numbers(rows, seq, row);
        else if (status == ROW_DAMAGED)
            status = probe_older(rows, &seq, from_seq, &probes, row);
        else
            return status;
        if (status == ROW_FAILED || (status == ROW_FOUND && row->channel == channel))
            return status;
    }
    return ROW_MISSING;
}

bool rows_find_oldest(struct rows *rows, int64_t *seq) {
    return sql_get(rows->oldest_seq, seq) || sqlite3_errcode(rows->file->db) == SQLITE_CORRUPT;
}

/* --- channel ---------------------------------------------------------------------------------- */

enum row_status rows_find_channel(struct rows *rows, struct slice name,
                                  struct channel_row *channel) {
    sqlite3_stmt *find = rows->find_channel;
    sql_bind_bytes(find, 1, name);
    enum row_status status = row_status(sqlite3_step(find));
    if (status == ROW_FOUND) {
        *channel = (struct channel_row){
            .id = sqlite3_column_int64(find, 0),
            .total = (uint64_t)sqlite3_column_int64(find, 2),
            .head = sqlite3_column_int64(find, 3),
            .mark = sqlite3_column_int64(find, 4),
            .last_born = sqlite3_column_int64(find, 5),
        };
        if (seal_channel(channel, sql_column(find, 1)) != sqlite3_column_int64(find, 6))
            status = ROW_DAMAGED;
    }
    if (status == ROW_DAMAGED)
        rows->file->reason = "a channel's row is damaged; a restart makes it again";
    sqlite3_reset(find);
    return status;
}

bool rows_prepare_floor(struct rows *rows) {
    return rows->find_floor ||
           (log_file_prepare(rows->file, &rows->find_floor,
                             "SELECT upto FROM purge WHERE channel = ?1"
                             " AND is_purge(channel, upto, seq, seal)") &&
            log_file_prepare(rows->file, &rows->find_job_floor,
                             "SELECT max(upto) FROM purge_job WHERE channel = ?1"
                             " AND is_purge(id, channel, upto, seq, seal)"));
}

void rows_unprepare_floor(struct rows *rows) {
    sqlite3_finalize(rows->find_floor);
    sqlite3_finalize(rows->find_job_floor);
    rows->find_floor = rows->find_job_floor = NULL;
}

static bool get_floor(struct rows *rows, sqlite3_stmt *find, int64_t channel, int64_t *upto) {
    sqlite3_bind_int64(find, 1, channel);
    if (sql_get(find, upto))
        return true;
    if (sqlite3_errcode(rows->file->db) != SQLITE_CORRUPT)
        return false;
    if (!rows->has_told_damage)
        log_error("the data file is damaged", "table", "purge", "meaning",
                  "it may not say any more how far a channel was purged", NULL);
    rows->has_told_damage = true;
    *upto = 0;
    return true;
}

bool rows_find_floor(struct rows *rows, int64_t channel, uint64_t *floor) {
    int64_t upto = 0, of_jobs = 0;
    if (rows->find_floor && (!get_floor(rows, rows->find_floor, channel, &upto) ||
                             !get_floor(rows, rows->find_job_floor, channel, &of_jobs)))
        return false;
    *floor = (uint64_t)(of_jobs > upto ? of_jobs : upto);
    return true;
}

bool rows_put_channel(struct rows *rows, struct slice name, const struct channel_row *channel) {
    sqlite3_stmt *put = rows->put_channel;
    sqlite3_bind_int64(put, 1, channel->id);
    sql_bind_bytes(put, 2, name);
    sqlite3_bind_int64(put, 3, (int64_t)channel->total);
    sqlite3_bind_int64(put, 4, channel->head);
    sqlite3_bind_int64(put, 5, channel->mark);
    sqlite3_bind_int64(put, 6, channel->last_born);
    sqlite3_bind_int64(put, 7, seal_channel(channel, name));
    return sql_run(put);
}
