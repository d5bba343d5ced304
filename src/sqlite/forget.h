/*
 * Forgetting channels: once an hour, those without an update for a year (or DATA_TTL, if that is
 * longer) lose their row, and their counter with it.
 *
 * The look over all channels goes in slices. A row that lags behind the log, whose entry is dirty,
 * is left alone: its channel may have a newer update.
 */
#pragma once

#include "sqlite/entries.h"
#include "sqlite/log_state.h"

struct forget {
    struct log_file *file;
    struct entries *entries;
    sqlite3_stmt *find_old, *delete_channel;
    int64_t age_ms;   /* of the last update */
    int64_t begun_at; /* the last look */
    int64_t next_id;  /* where its next slice begins; 0: none is under way */
};

/* `file` and `entries` must stay. False on failure. */
bool forget_init(struct forget *forget, struct log_file *file, struct entries *entries,
                 int64_t ttl_ms);

/* Does a slice, if a look is due or under way, in a transaction of its own. A failure is logged. */
void forget_some(struct forget *forget, const struct log_state *state, int64_t now_ms);
