/*
 * The table `meta`: what a start could not find out cheaply, or not at all.
 *
 *     meta(key, value, seal)
 *
 * If the seal of a value is broken, that is logged, and all of them count as unknown: they only
 * make sense together. Then a start looks at the whole log, or assumes what deletes nothing.
 */
#pragma once

#include "sqlite/log_clock.h"
#include "sqlite/log_file.h"

/* False on failure. What is unknown is as in a new file, except that a log with rows may have been
 * kept by any bound on a channel's updates. */
bool meta_get(struct log_file *file, struct log_meta *meta);

/* Within the open transaction. False on failure. */
bool meta_put_counts(struct log_file *file, const struct log_state *state);
bool meta_put_time(struct log_file *file, const struct log_time *time);
/* The rows of `channel` include the log up to `seq`; and the counts. What is damaged goes. */
bool meta_put_checkpoint(struct log_file *file, const struct log_state *state, int64_t seq);

/* Seals the values of a file that had no seals. */
bool meta_upgrade(struct log_file *file, int64_t raised_seq);
