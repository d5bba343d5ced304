/*
 * Seals: the checksums of rows (XXH3), which tell a row that is whole from one in which a bit has
 * flipped.
 *
 * A row of the log has one seal of two halves. The upper half is over its numbers, so that a
 * reader can follow links without loading bodies. The lower half is over the rest: the channel's
 * name and the update itself. Where only the lower half is broken, the links still lead on.
 *
 * SQL sees them as functions on our connection; a plain sqlite3 does not need them:
 *
 *     has_numbers(SEAL_NUMBERS, seal)          has_content(seq, seal, SEAL_CONTENT)
 *     is_whole(SEAL_CHANNEL, seal)             of a channel
 *     is_sealed(key, value, seal)              of meta
 *     is_delivery(…), is_consumer(…), is_epoch(…), is_purge(…): all columns of their tables
 *     make_seal(SEAL_NUMBERS, SEAL_CONTENT)    make_channel_seal(SEAL_CHANNEL)
 */
#pragma once

#include "base/slice.h"
#include "inbox/store.h"
#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

/* The columns of each, for statements. */
#define SEAL_NUMBERS "seq, channel, ts, prev, skip, at, born, size"
#define SEAL_CONTENT "name, body, raw, method, query, headers"
#define SEAL_CHANNEL "id, name, total, head, mark, last_born"

/* Conditions on a row of update_log, and of channel. */
#define SEAL_HAS_NUMBERS "has_numbers(" SEAL_NUMBERS ", seal)"
#define SEAL_HAS_CONTENT "has_content(seq, seal, " SEAL_CONTENT ")"
#define SEAL_IS_WHOLE "is_whole(" SEAL_CHANNEL ", seal)"

/* The numbers of a row of the log. */
struct update_row {
    int64_t seq, channel, ts, prev, skip, at, born, size;
    int64_t seal;
};

/* A row of `channel`: what the log knows of a channel. */
struct channel_row {
    int64_t id; /* 0: none yet */
    uint64_t total;
    int64_t head, mark; /* seqs, 0 for none */
    int64_t last_born;
};

/* The seal of `row`, whose own is not looked at. `name`: the channel's, with its first update
 * only; else NULL. */
int64_t seal_update(const struct update_row *row, const struct slice *name,
                    const struct update *update);

bool seal_has_numbers(const struct update_row *row);
bool seal_has_content(const struct update_row *row, const struct slice *name,
                      const struct update *update);

int64_t seal_channel(const struct channel_row *channel, struct slice name);

/* That of a row of `delivery`. */
int64_t seal_delivery(int64_t channel, int64_t ts, const uint8_t id[DELIVERY_ID_BYTES],
                      int64_t born);

/* That of a row of `purge` and of `purge_job`: all its columns before the seal, of which it has up
 * to SEAL_PURGE_NUMBERS. */
enum { SEAL_PURGE_NUMBERS = 4 };
int64_t seal_purge(const int64_t *numbers, size_t count);

/* That of a row of `consumer`, and of `epoch`. */
int64_t seal_consumer(int64_t channel, struct slice name, int64_t ts, int64_t used);
int64_t seal_epoch(int64_t id, int64_t name, int64_t seq);

int64_t seal_meta(struct slice key, int64_t value);

/* Defines the SQL functions. False on failure. */
bool seal_define_functions(sqlite3 *db);
