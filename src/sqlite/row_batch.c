#include "sqlite/row_batch.h"
#include "base/list.h"
#include "sqlite/sql.h"

#include <assert.h>
#include <stddef.h>

enum { NUMBERS = sizeof(struct update_row) / sizeof(int64_t) }; /* the seal among them */

static_assert(offsetof(struct update_row, seal) == sizeof(int64_t) * (NUMBERS - 1), "columns");

static int connect_table(sqlite3 *db, void *batch, UNUSED int count,
                         UNUSED const char *const *arguments, sqlite3_vtab **table,
                         UNUSED char **error) {
    *table = &((struct row_batch *)batch)->table;
    return sqlite3_declare_vtab(db, "CREATE TABLE x(" SEAL_NUMBERS ", seal, " SEAL_CONTENT ")");
}

static int disconnect_table(UNUSED sqlite3_vtab *table) {
    return SQLITE_OK;
}

static int plan(UNUSED sqlite3_vtab *table, UNUSED sqlite3_index_info *info) {
    return SQLITE_OK;
}

static struct row_batch *batch_of(sqlite3_vtab_cursor *cursor) {
    return container_of(cursor, struct row_batch, cursor);
}

static int open_cursor(sqlite3_vtab *table, sqlite3_vtab_cursor **cursor) {
    *cursor = &container_of(table, struct row_batch, table)->cursor;
    return SQLITE_OK;
}

static int close_cursor(UNUSED sqlite3_vtab_cursor *cursor) {
    return SQLITE_OK;
}

static int rewind_cursor(sqlite3_vtab_cursor *cursor, UNUSED int number, UNUSED const char *text,
                         UNUSED int count, UNUSED sqlite3_value **values) {
    batch_of(cursor)->at = 0;
    return SQLITE_OK;
}

static int move_on(sqlite3_vtab_cursor *cursor) {
    batch_of(cursor)->at++;
    return SQLITE_OK;
}

static int is_at_end(sqlite3_vtab_cursor *cursor) {
    return batch_of(cursor)->at >= batch_of(cursor)->count;
}

/* The bytes stay until the statement has run: SQLite need not copy them. */
static void give_bytes(sqlite3_context *context, struct slice bytes) {
    sqlite3_result_blob64(context, bytes.len ? bytes.data : "", bytes.len, SQLITE_STATIC);
}

static void give_text(sqlite3_context *context, struct slice text) {
    sqlite3_result_text64(context, text.len ? text.data : "", text.len, SQLITE_STATIC, SQLITE_UTF8);
}

/* A column of SEAL_CONTENT; NULL where nothing is given. */
static void give_content(sqlite3_context *context, const struct new_row *row, int column) {
    const struct update *update = row->update;
    switch (column) {
    case 0:
        if (row->name.data)
            give_bytes(context, row->name);
        break;
    case 1: give_text(context, update_body(update)); break;
    case 2:
        if (update->has_raw)
            give_bytes(context, update_raw(update));
        break;
    case 3: give_text(context, update_method(update)); break;
    case 4: give_text(context, update_query(update)); break;
    default:
        if (update->headers_len)
            give_text(context, update_headers(update));
    }
}

static int give_column(sqlite3_vtab_cursor *cursor, sqlite3_context *context, int column) {
    const struct row_batch *batch = batch_of(cursor);
    const struct new_row *row = &batch->rows[batch->at];
    if (column < NUMBERS)
        sqlite3_result_int64(context, ((const int64_t *)&row->row)[column]);
    else
        give_content(context, row, column - NUMBERS);
    return SQLITE_OK;
}

static int give_rowid(sqlite3_vtab_cursor *cursor, sqlite3_int64 *rowid) {
    *rowid = (sqlite3_int64)batch_of(cursor)->at;
    return SQLITE_OK;
}

bool row_batch_define(struct row_batch *batch, sqlite3 *db) {
    static const sqlite3_module module = {
        .xConnect = connect_table,
        .xBestIndex = plan,
        .xDisconnect = disconnect_table,
        .xOpen = open_cursor,
        .xClose = close_cursor,
        .xFilter = rewind_cursor,
        .xNext = move_on,
        .xEof = is_at_end,
        .xColumn = give_column,
        .xRowid = give_rowid,
    };
    *batch = (struct row_batch){0};
    return sqlite3_create_module(db, "row_batch", &module, batch) == SQLITE_OK;
}
