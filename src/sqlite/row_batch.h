/*
 * The rows that are to be appended, as a table that SQL can read: one INSERT … SELECT appends all
 * of them. That costs SQLite a third less than a statement for each row, with its fifteen values
 * bound one by one (docs/decisions/2026-11-29-cost-of-a-push.md).
 *
 *     row_batch(SEAL_NUMBERS, seal, SEAL_CONTENT)
 */
#pragma once

#include "sqlite/seal.h"

struct new_row {
    struct update_row row;
    struct slice name; /* the channel's, with its first update; else `data` is NULL */
    const struct update *update;
};

struct row_batch {
    sqlite3_vtab table;
    sqlite3_vtab_cursor cursor; /* there is never more than one */
    const struct new_row *rows;
    size_t count, at;
};

/* Makes the table on `db`, over `batch`, which must stay as long. False on failure. */
bool row_batch_define(struct row_batch *batch, sqlite3 *db);
