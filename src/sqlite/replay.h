/*
 * The replay: what a start learns from the log behind the last checkpoint.
 *
 * It changes entries in memory only. The start writes them with a checkpoint, or goes on without
 * where there is no room on the disk.
 *
 * A damaged row behind the checkpoint may be the newest of its channel, and its id must not be
 * given again. If a later row links to it, or the channel's row includes it, there is nothing to
 * do. Otherwise two of its three links to its channel (channel, ts, prev) tell which it belongs to.
 * Where they do not, or where the only copy of a channel's name is damaged, the start is refused.
 */
#pragma once

#include "sqlite/entries.h"
#include "sqlite/log_state.h"

/* Brings `entries`, which must be empty, to the end of the log, and fills `state` and `time`. False
 * with one line in `error` on failure. */
bool replay_log(struct log_file *file, struct entries *entries, const struct store_options *options,
                struct log_state *state, struct log_time *time, char *error, size_t error_size);
