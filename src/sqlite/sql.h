/*
 * Small steps with a prepared statement. Each leaves it reset, so that none stays open over a
 * COMMIT. Only sql_column() does not: its bytes are SQLite's, valid until the reset.
 */
#pragma once

#include "base/slice.h"
#include <sqlite3.h>
#include <stdint.h>

/* What SQLite hands over to a function of ours that has no use for it. */
#define UNUSED __attribute__((unused))

/* Runs a statement that gives no rows. False on failure. */
static inline bool sql_run(sqlite3_stmt *statement) {
    int status = sqlite3_step(statement);
    sqlite3_reset(statement);
    return status == SQLITE_DONE;
}

/* The first column of the first row goes to `number`: 0 when there is no row, or it holds NULL.
 * False on failure. */
static inline bool sql_get(sqlite3_stmt *statement, int64_t *number) {
    int status = sqlite3_step(statement);
    *number = status == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
    sqlite3_reset(statement);
    return status == SQLITE_ROW || status == SQLITE_DONE;
}

/* Binds bytes that must stay until the statement has run. No bytes are an empty blob, not NULL. */
static inline void sql_bind_bytes(sqlite3_stmt *statement, int index, struct slice bytes) {
    sqlite3_bind_blob64(statement, index, bytes.len ? bytes.data : "", bytes.len, SQLITE_STATIC);
}

/* As sql_bind_bytes(), as text. */
static inline void sql_bind_text(sqlite3_stmt *statement, int index, struct slice text) {
    sqlite3_bind_text64(statement, index, text.len ? text.data : "", text.len, SQLITE_STATIC,
                        SQLITE_UTF8);
}

/* A column of the current row as bytes; NULL is empty. */
static inline struct slice sql_column(sqlite3_stmt *statement, int column) {
    const void *data = sqlite3_column_blob(statement, column);
    return (struct slice){data ? data : "", (size_t)sqlite3_column_bytes(statement, column)};
}
