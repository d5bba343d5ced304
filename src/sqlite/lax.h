/*
 * Commits that are not synced, although SYNC=always.
 *
 * Nothing is lost with them, and a power cut may leave any part of them in the write-ahead log. So
 * whoever reads the log at the next start (wal_repair.h) must know them: each changes the one row
 * of the table `lax`, so one of its frames is that table's page.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct log_file;

/* The row has one of these in turn: SQLite does not write what stays as it is. */
#define LAX_MARK "longline: this commit is not synced"
#define LAX_OTHER_MARK "LONGLINE: THIS COMMIT IS NOT SYNCED"

/* The table with its row. A file of an older longline gets it when it is first needed. */
#define LAX_TABLE                                                                                  \
    "CREATE TABLE lax (id INTEGER PRIMARY KEY, mark TEXT NOT NULL);"                               \
    "INSERT INTO lax (id, mark) VALUES (1, '" LAX_MARK "');"
#define LAX_IS_WHOLE "id = 1 AND mark IN ('" LAX_MARK "', '" LAX_OTHER_MARK "')"

/* Makes the table, in a commit that is synced, unless it is there. False on failure. */
bool lax_prepare(struct log_file *file);

/* Marks the open transaction. False on failure. */
bool lax_mark(struct log_file *file);

/* Whether that is the table's page. */
bool lax_is_mark(const unsigned char *page, size_t page_bytes);
