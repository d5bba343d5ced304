/*
 * The rows of both tables: the one place that reads and writes them, column by column.
 *
 * Only deleting happens elsewhere (sweeper.h, forget.h), by conditions.
 */
#pragma once

#include "sqlite/log_file.h"

/* A row of `channel`: what the log knows of a channel. */
struct channel_row {
    int64_t id; /* 0: none yet */
    uint64_t total;
    int64_t head, mark; /* seqs, 0 for none */
    int64_t last_at;
};

/* The numbers of a row of the log. */
struct update_row {
    int64_t seq, ts, prev, skip, at, size;
};

enum row_status { ROW_FOUND, ROW_MISSING, ROW_FAILED };

struct rows {
    sqlite3_stmt *insert_update, *load_numbers, *load_update, *find_channel, *put_channel;
};

bool rows_init(struct rows *rows, struct log_file *file);

/* Appends `update` to the log. `name`: the channel's, with its first update; else NULL. False on
 * failure. */
bool rows_insert_update(struct rows *rows, int64_t channel_id, const struct update_row *row,
                        const struct slice *name, const struct update *update);

enum row_status rows_load_numbers(struct rows *rows, int64_t seq, struct update_row *row);

/* The update itself, with one reference; NULL on failure. */
struct update *rows_load_update(struct rows *rows, const struct update_row *row);

enum row_status rows_find_channel(struct rows *rows, struct slice name,
                                  struct channel_row *channel);

/* Inserts the row of a channel or replaces it. False on failure. */
bool rows_put_channel(struct rows *rows, struct slice name, const struct channel_row *channel);
