/*
 * Reading a channel's updates: from its head back along `skip` and `prev` to the oldest one wanted,
 * then loaded oldest first.
 */
#pragma once

#include "sqlite/rows.h"

/* What retention hides from readers. */
struct read_bounds {
    int64_t channel_max; /* only so many of the newest updates */
    int64_t cutoff_ms;   /* only updates from then on */
};

/*
 * Does one read of a channel, bounded by its limit and READ_MAX_BYTES. Sets total, gone, updates
 * and count, which begin as zero. False on failure: then there are no updates.
 */
bool reader_read(struct rows *rows, const struct channel_row *channel,
                 const struct read_bounds *bounds, struct store_read *read);

/* The ts from which a read of a channel with `total` updates begins, past the bound on their
 * count and after `after_ts` (-K: the last K); more than `total` when there is nothing to read.
 * For the tests. */
int64_t read_first_ts(int64_t after_ts, int64_t total, int64_t channel_max);
