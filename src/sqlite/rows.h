/*
 * The rows of both tables: the one place that reads and writes them, column by column, and that
 * checks and makes their seals.
 *
 * Only deleting (sweeper.h, forget.h) and what a start does (upgrade.h, recover.h, replay.h) happen
 * elsewhere, by conditions.
 */
#pragma once

#include "sqlite/log_file.h"
#include "sqlite/row_batch.h"

/* ROW_DAMAGED: its seal is broken, or SQLite says that the page is not as it should be. */
enum row_status { ROW_FOUND, ROW_MISSING, ROW_DAMAGED, ROW_FAILED };

struct rows {
    struct log_file *file;
    struct row_batch batch;
    sqlite3_stmt *newest_seq, *append_rows, *insert_rows, *load_numbers, *load_update, *list_older,
        *oldest_seq;
    sqlite3_stmt *find_channel, *put_channel;
    sqlite3_stmt *find_floor, *find_job_floor; /* NULL: nothing was ever purged */
    bool has_told_damage;                      /* of the tables of purges */
};

/* `file` must stay, and `rows` where it is. False on failure. */
bool rows_init(struct rows *rows, struct log_file *file);

/* Appends rows, whose seqs follow each other, to the log, and sets their seals. False on failure:
 * then some of them may be there until the transaction is undone. */
bool rows_append(struct rows *rows, struct new_row *new_rows, size_t count);

enum row_status rows_load_numbers(struct rows *rows, int64_t seq, struct update_row *row);

/* The update itself, with one reference. ROW_FAILED also when memory is out. */
enum row_status rows_load_update(struct rows *rows, const struct update_row *row,
                                 struct update **update);

/* Searches the log, without links, for the newest readable row of `channel` before `seq`, down to
 * `from_seq`. Reads whatever lies in between. */
enum row_status rows_find_older(struct rows *rows, int64_t channel, int64_t seq, int64_t from_seq,
                                struct update_row *row);

/* The seq of the oldest row with sound numbers; 0 for none, and where damage hides it. False on
 * failure. */
bool rows_find_oldest(struct rows *rows, int64_t *seq);

enum row_status rows_find_channel(struct rows *rows, struct slice name,
                                  struct channel_row *channel);

/* From now on there are the tables `purge` and `purge_job`. False on failure. */
bool rows_prepare_floor(struct rows *rows);
/* They are not there after all. */
void rows_unprepare_floor(struct rows *rows);

/* Up to which ts the updates of a channel are purged, by its id; 0: none. Each table speaks for
 * itself where the other is damaged: without a job no row of what is purged is left. False on
 * failure. */
bool rows_find_floor(struct rows *rows, int64_t channel, uint64_t *floor);

/* Inserts the row of a channel or replaces it. False on failure. */
bool rows_put_channel(struct rows *rows, struct slice name, const struct channel_row *channel);
