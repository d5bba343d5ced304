/*
 * The process's counters. The loop thread owns them; what the store thread counts lies in store.h and
 * is read under its lock.
 */
#pragma once

#include "base/buf.h"
#include "http/status.h"
#include <stdint.h>

struct metrics {
    uint64_t connections; /* open now */
    uint64_t connections_accepted;
    uint64_t requests[HTTP_STATUS_COUNT]; /* by the reply's status */
    uint64_t pushes, push_bytes;          /* acknowledged */
    uint64_t polls, polls_parked;         /* answered; parked now */
    uint64_t updates_delivered;
    uint64_t channels_resident, cache_bytes;
    uint64_t buffer_bytes; /* see BUFFER_SIZE */
    uint64_t rate_limited;
};

extern struct metrics metrics;

struct store_stats;

/* Sets the start of the uptime. */
void metrics_init(void);

/* Writes everything in Prometheus's text format. */
void metrics_write(struct buf *out, const struct store_stats *store);
