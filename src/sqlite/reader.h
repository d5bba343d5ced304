/*
 * Reading a channel's updates: from its head back along `skip` and `prev` to the oldest one wanted,
 * then loaded oldest first.
 *
 * A link is followed only where it makes sense: to an earlier row of the same channel with the ts
 * that it must have. Around a damaged row the reader finds its way by `skip`, or by a search of the
 * log. What it gives never has a gap: it ends before a damaged update, and begins behind those that
 * it finds first.
 */
#pragma once

#include "sqlite/damage.h"
#include "sqlite/rows.h"

struct reader {
    struct rows *rows;
    struct damage *damage;
    int64_t channel_max; /* only so many of the newest updates are kept */
    int64_t raised_seq;  /* log_state.raised_seq */
};

/* What is read. */
struct reader_channel {
    const struct channel_row *row;
    uint64_t floor; /* updates up to this ts are purged (purges.h) */
};

/*
 * Does one read of a channel, bounded by its limit and READ_MAX_BYTES, of updates born at
 * `cutoff_ms` or later. Sets after, total, gone, end, updates and count, which begin as zero. False
 * on failure: then there are no updates.
 */
bool reader_read(const struct reader *reader, const struct reader_channel *channel,
                 int64_t cutoff_ms, struct store_read *read);

/* The ts of the channel's newest update up to `seq`, 0 for none; also where all of that was deleted
 * so long ago that nobody knows. False on failure. */
bool reader_find_ts(const struct reader *reader, const struct reader_channel *channel, int64_t seq,
                    struct slice name, uint64_t *ts);

/* The seq of the channel's update `upto`; where that is not kept, 0, or that of one before it.
 * False on failure. */
bool reader_find_seq(const struct reader *reader, const struct reader_channel *channel,
                     uint64_t upto, struct slice name, int64_t *seq);

/* Updates of the channel up to this ts are purged, or past the bound on their count. */
uint64_t reader_gone(const struct reader *reader, const struct reader_channel *channel);

/* The ts from which a read of a channel with `total` updates begins, after the update `after` and
 * those that are gone; more than `total` when there is nothing to read. For the tests. */
int64_t read_first_ts(int64_t after, int64_t total, int64_t gone);
