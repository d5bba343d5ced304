#include "sqlite/rows.h"
#include "sqlite/sql.h"

bool rows_init(struct rows *rows, struct log_file *file) {
    return log_file_prepare(
               file, &rows->insert_update,
               "INSERT INTO update_log (seq, channel, ts, prev, skip, at, size, name, body, raw,"
               " method, query, headers)"
               " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)") &&
           log_file_prepare(file, &rows->load_numbers,
                            "SELECT ts, prev, skip, at, size FROM update_log WHERE seq = ?1") &&
           log_file_prepare(
               file, &rows->load_update,
               "SELECT body, raw, method, query, headers FROM update_log WHERE seq = ?1") &&
           log_file_prepare(file, &rows->find_channel,
                            "SELECT id, total, head, mark, last_at FROM channel WHERE name = ?1") &&
           log_file_prepare(file, &rows->put_channel,
                            "INSERT INTO channel (id, name, total, head, mark, last_at)"
                            " VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
                            " ON CONFLICT (id) DO UPDATE"
                            " SET total = ?3, head = ?4, mark = ?5, last_at = ?6");
}

/* --- update_log ------------------------------------------------------------------------------- */

static void bind_update(sqlite3_stmt *insert, const struct update *update) {
    sql_bind_text(insert, 9, update_body(update));
    if (update->has_raw)
        sql_bind_bytes(insert, 10, update_raw(update));
    else
        sqlite3_bind_null(insert, 10);
    sql_bind_text(insert, 11, update_method(update));
    sql_bind_text(insert, 12, update_query(update));
    if (update->headers_len)
        sql_bind_text(insert, 13, update_headers(update));
    else
        sqlite3_bind_null(insert, 13);
}

bool rows_insert_update(struct rows *rows, int64_t channel_id, const struct update_row *row,
                        const struct slice *name, const struct update *update) {
    sqlite3_stmt *insert = rows->insert_update;
    sqlite3_bind_int64(insert, 1, row->seq);
    sqlite3_bind_int64(insert, 2, channel_id);
    sqlite3_bind_int64(insert, 3, row->ts);
    sqlite3_bind_int64(insert, 4, row->prev);
    sqlite3_bind_int64(insert, 5, row->skip);
    sqlite3_bind_int64(insert, 6, row->at);
    sqlite3_bind_int64(insert, 7, row->size);
    if (name)
        sql_bind_bytes(insert, 8, *name);
    else
        sqlite3_bind_null(insert, 8);
    bind_update(insert, update);
    return sql_run(insert);
}

static enum row_status row_status(int status) {
    return status == SQLITE_ROW ? ROW_FOUND : status == SQLITE_DONE ? ROW_MISSING : ROW_FAILED;
}

enum row_status rows_load_numbers(struct rows *rows, int64_t seq, struct update_row *row) {
    sqlite3_stmt *load = rows->load_numbers;
    sqlite3_bind_int64(load, 1, seq);
    enum row_status status = row_status(sqlite3_step(load));
    if (status == ROW_FOUND)
        *row = (struct update_row){
            .seq = seq,
            .ts = sqlite3_column_int64(load, 0),
            .prev = sqlite3_column_int64(load, 1),
            .skip = sqlite3_column_int64(load, 2),
            .at = sqlite3_column_int64(load, 3),
            .size = sqlite3_column_int64(load, 4),
        };
    sqlite3_reset(load);
    return status;
}

struct update *rows_load_update(struct rows *rows, const struct update_row *row) {
    sqlite3_stmt *load = rows->load_update;
    sqlite3_bind_int64(load, 1, row->seq);
    struct update *update = NULL;
    if (sqlite3_step(load) == SQLITE_ROW) {
        struct update_parts parts = {
            .body = sql_column(load, 0),
            .raw = sql_column(load, 1),
            .has_raw = sqlite3_column_type(load, 1) != SQLITE_NULL,
            .method = sql_column(load, 2),
            .query = sql_column(load, 3),
            .headers = sql_column(load, 4),
        };
        update = update_new(&parts);
    }
    sqlite3_reset(load);
    if (update) {
        update->ts = (uint64_t)row->ts;
        update->at_ms = row->at;
    }
    return update;
}

/* --- channel ---------------------------------------------------------------------------------- */

enum row_status rows_find_channel(struct rows *rows, struct slice name,
                                  struct channel_row *channel) {
    sqlite3_stmt *find = rows->find_channel;
    sql_bind_bytes(find, 1, name);
    enum row_status status = row_status(sqlite3_step(find));
    if (status == ROW_FOUND)
        *channel = (struct channel_row){
            .id = sqlite3_column_int64(find, 0),
            .total = (uint64_t)sqlite3_column_int64(find, 1),
            .head = sqlite3_column_int64(find, 2),
            .mark = sqlite3_column_int64(find, 3),
            .last_at = sqlite3_column_int64(find, 4),
        };
    sqlite3_reset(find);
    return status;
}

bool rows_put_channel(struct rows *rows, struct slice name, const struct channel_row *channel) {
    sqlite3_stmt *put = rows->put_channel;
    sqlite3_bind_int64(put, 1, channel->id);
    sql_bind_bytes(put, 2, name);
    sqlite3_bind_int64(put, 3, (int64_t)channel->total);
    sqlite3_bind_int64(put, 4, channel->head);
    sqlite3_bind_int64(put, 5, channel->mark);
    sqlite3_bind_int64(put, 6, channel->last_at);
    return sql_run(put);
}
