/*
 * Forgetting channels: once an hour, those without an update for a year (or DATA_TTL, if that is
 * longer) lose their row, and their counter with it.
 *
 * The look over all channels goes in slices. A row that lags behind the log is left alone: its
 * channel may have a newer update.
 */
#pragma once

#include "sqlite/log_file.h"

struct forget {
    struct log_file *file;
    sqlite3_stmt *delete_channels;
    int64_t age_ms;   /* of the last update */
    int64_t begun_at; /* the last look */
    int64_t next_id;  /* where its next slice begins; 0: none is under way */
};

/* `file` must stay. False on failure. */
bool forget_init(struct forget *forget, struct log_file *file, int64_t ttl_ms);

/* Does a slice, if a look is due or under way, in a transaction of its own. True when rows of
 * `channel` are gone: then clean entries may be wrong. A failure is logged. */
bool forget_some(struct forget *forget, const struct log_state *state, int64_t now_ms);
