/*
 * Where the log ends and what it holds, in numbers.
 *
 * Besides the entries of the channels (entries.h), this is all that a transaction changes in
 * memory. So a transaction that fails puts one struct back.
 */
#pragma once

#include "sqlite/log_clock.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Rows past the bound on their channel's count: every append to a full channel makes one. A pass of
 * the sweeper sees only what the last checkpoint includes, so they move through four stages.
 */
struct log_excess {
    int64_t fresh;         /* since the last checkpoint was opened */
    int64_t in_checkpoint; /* the open checkpoint will include them */
    int64_t ready;         /* included: a pass would delete them */
    int64_t in_pass;       /* the open pass deletes them */
};

/* A pass of the sweeper over the log, in slices. */
struct log_pass {
    int64_t next_seq; /* where the next slice begins */
    int64_t end_seq;  /* the last seq of the pass */
    int64_t enough;   /* it may end when so many rows or fewer are left of what it came for */
    bool is_open;
};

struct log_state {
    int64_t last_seq;
    int64_t last_channel_id;
    int64_t checkpoint_seq; /* rows of `channel` include every update up to here */
    int64_t last_born;      /* of the newest row: `born` never goes back, even if the clock does */
    int64_t channel_max;    /* the bound on a channel's updates */
    int64_t raised_seq;     /* rows up to here were kept by a lower bound on a channel's updates */
    int64_t rows;
    uint64_t swept; /* rows deleted since the start */
    struct log_excess excess;
    struct log_pass pass;
};

static inline int64_t log_excess_total(const struct log_excess *excess) {
    return excess->fresh + excess->in_checkpoint + excess->ready + excess->in_pass;
}

static inline void log_excess_checkpoint_opened(struct log_excess *excess) {
    excess->in_checkpoint += excess->fresh;
    excess->fresh = 0;
}

static inline void log_excess_checkpoint_done(struct log_excess *excess) {
    excess->ready += excess->in_checkpoint;
    excess->in_checkpoint = 0;
}

static inline void log_excess_pass_opened(struct log_excess *excess) {
    excess->in_pass = excess->ready;
    excess->ready = 0;
}

/* The pass has seen all rows, or has left some to the next one. */
static inline void log_excess_pass_done(struct log_excess *excess, bool has_seen_all) {
    if (!has_seen_all)
        excess->ready += excess->in_pass;
    excess->in_pass = 0;
}

/* Rows past the bound are gone. A pass also finds some that only a later checkpoint includes. */
static inline void log_excess_deleted(struct log_excess *excess, int64_t rows) {
    int64_t *const stages[] = {&excess->in_pass, &excess->ready, &excess->in_checkpoint,
                               &excess->fresh};
    for (size_t i = 0; i < sizeof stages / sizeof *stages; i++) {
        int64_t taken = rows < *stages[i] ? rows : *stages[i];
        *stages[i] -= taken;
        rows -= taken;
    }
}

/* What the last process left in `meta`; zeros where that is not known. */
struct log_meta {
    int64_t checkpoint;   /* log_state.checkpoint_seq */
    int64_t last_channel; /* log_state.last_channel_id, as of the checkpoint */
    int64_t channel_max;  /* its bound on a channel's updates */
    int64_t raised_seq;   /* log_state.raised_seq */
    int64_t counted_seq;  /* rows and excess are those of the log up to here */
    int64_t rows, excess;
    struct log_time time;
    bool is_damaged;
};

/* What the log and the rows of `channel` say themselves. */
struct log_found {
    int64_t last_seq;               /* the highest, 0 for none */
    int64_t last_born;              /* of the newest row that is whole, 0 for none */
    int64_t last_channel_id;        /* the highest in either table */
    int64_t rows_after, full_after; /* rows behind counted_seq; those appended to a full channel */
};

/* The state after a replay. */
struct log_state log_state_at_start(const struct log_meta *meta, const struct log_found *found,
                                    int64_t channel_max);
