#include "sqlite/epochs.h"
#include "base/config.h"
#include "base/log.h"
#include "sqlite/seal.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>

/* --- What a channel says ---------------------------------------------------------------------- */

static uint64_t say(int64_t name, int64_t channel) {
    int64_t key[] = {name, ~name};
    uint64_t hash;
    _Static_assert(sizeof key == crypto_shorthash_KEYBYTES, "a key of two names");
    crypto_shorthash((unsigned char *)&hash, (const unsigned char *)&channel, sizeof channel,
                     (const unsigned char *)key);
    return hash ? hash : 1;
}

uint64_t epochs_of(struct epochs *epochs, int64_t channel) {
    size_t place = (size_t)channel % EPOCHS_SAID;
    if (epochs->said[place].channel != channel) {
        epochs->said[place].channel = channel;
        epochs->said[place].hash = say(epochs->list[epochs->count - 1].name, channel);
    }
    return epochs->said[place].hash;
}

bool epochs_find(const struct epochs *epochs, int64_t channel, uint64_t seen, int64_t *seq) {
    *seq = INT64_MAX;
    for (size_t i = epochs->count - 1; i > 0; i--) {
        if (epochs->list[i].seq < *seq)
            *seq = epochs->list[i].seq;
        if (say(epochs->list[i - 1].name, channel) == seen)
            return true;
    }
    return false;
}

/* --- Loading ---------------------------------------------------------------------------------- */

/* The next row of `rows`. False when it is damaged. */
static bool take_row(struct epochs *epochs, sqlite3_stmt *rows) {
    struct epoch epoch = {sqlite3_column_int64(rows, 0), sqlite3_column_int64(rows, 1),
                          sqlite3_column_int64(rows, 2)};
    int64_t last_id = epochs->count ? epochs->list[epochs->count - 1].id : INT64_MIN;
    bool is_whole = sqlite3_column_int64(rows, 3) == seal_epoch(epoch.id, epoch.name, epoch.seq) &&
                    epoch.id > last_id && epochs->count < EPOCHS_MAX;
    if (is_whole)
        epochs->list[epochs->count++] = epoch;
    return is_whole;
}

/* False on failure; is_damaged when its rows make no sense. */
static bool load(struct epochs *epochs) {
    sqlite3_stmt *rows = NULL;
    if (!log_file_prepare(epochs->file, &rows,
                          "SELECT id, name, seq, seal FROM epoch ORDER BY id")) {
        epochs->is_damaged = log_file_is_damaged(epochs->file);
        return epochs->is_damaged;
    }
    int status;
    while ((status = sqlite3_step(rows)) == SQLITE_ROW && !epochs->is_damaged)
        epochs->is_damaged = !take_row(epochs, rows);
    sqlite3_finalize(rows);
    epochs->is_damaged |= (status & 0xff) == SQLITE_CORRUPT;
    return epochs->is_damaged || status == SQLITE_DONE;
}

static bool load_if_there(struct epochs *epochs) {
    int64_t is_there = 0;
    if (!log_file_query(epochs->file, "SELECT 1 FROM sqlite_schema WHERE name = 'epoch'", 0, 0,
                        &is_there) ||
        (is_there && !load(epochs)))
        return false;
    if (!epochs->is_damaged)
        return true;
    log_error("the data file is damaged", "table", "epoch", "meaning",
              "consumers that ask for the epoch begin anew", NULL);
    epochs->count = 0;
    return true;
}

/* --- A new one -------------------------------------------------------------------------------- */

static void add(struct epochs *epochs, int64_t last_seq) {
    int64_t id = epochs->count ? epochs->list[epochs->count - 1].id + 1 : 1, name;
    if (epochs->count == EPOCHS_MAX) {
        epochs->count--;
        memmove(epochs->list, epochs->list + 1, epochs->count * sizeof *epochs->list);
    }
    randombytes_buf(&name, sizeof name);
    epochs->list[epochs->count++] = (struct epoch){id, name, last_seq};
    epochs->is_unsaved = true;
}

static bool save(const struct epochs *epochs) {
    static const char schema[] =
        "CREATE TABLE IF NOT EXISTS epoch ("
        "  id INTEGER PRIMARY KEY, name INTEGER NOT NULL, seq INTEGER NOT NULL,"
        "  seal INTEGER NOT NULL)";
    struct epoch now = epochs->list[epochs->count - 1];
    char sql[256];
    snprintf(sql, sizeof sql,
             "INSERT INTO epoch (id, name, seq, seal) VALUES (%lld, %lld, %lld, %lld);"
             "DELETE FROM epoch WHERE id <= %lld",
             (long long)now.id, (long long)now.name, (long long)now.seq,
             (long long)seal_epoch(now.id, now.name, now.seq), (long long)(now.id - EPOCHS_MAX));
    return (!epochs->is_damaged || log_file_execute(epochs->file, "DROP TABLE epoch")) &&
           log_file_execute(epochs->file, schema) && log_file_execute(epochs->file, sql);
}

bool epochs_save(struct epochs *epochs) {
    if (!epochs->is_unsaved || save(epochs))
        return true;
    struct log_file *file = epochs->file;
    if (sqlite3_errcode(file->db) != SQLITE_CORRUPT || sqlite3_get_autocommit(file->db))
        return false;
    log_error("the epoch cannot be stored", "meaning",
              "the data file is damaged; consumers that ask for the epoch begin anew at each start",
              NULL);
    epochs->is_unsaved = false;
    return true;
}

bool epochs_open(struct epochs *epochs, struct log_file *file, int64_t last_seq, bool goes_on) {
    *epochs = (struct epochs){.file = file, .list = malloc(EPOCHS_MAX * sizeof *epochs->list)};
    if (!epochs->list || !load_if_there(epochs))
        return false;
    if (goes_on && epochs->count)
        return true;
    add(epochs, last_seq);
    if (log_file_begin_as(file, SYNC_ALWAYS) && epochs_save(epochs) && log_file_commit(file)) {
        epochs_committed(epochs);
        return true;
    }
    log_file_note_error(file, "beginning a new epoch"); /* the first append tries again */
    log_file_roll_back(file);
    return true;
}

void epochs_deinit(struct epochs *epochs) {
    free(epochs->list);
}
