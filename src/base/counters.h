/*
 * What the process counts, for its metrics (api/report.h). Plain numbers of the loop thread; what
 * the store counts stands in inbox/store.h.
 */
#pragma once

#include "base/pack.h"
#include <stdint.h>

enum { COUNTERS_STATUSES_MAX = 32 };

struct counters {
    uint64_t connections_accepted, accept_failures;
    uint64_t replies[COUNTERS_STATUSES_MAX]; /* by enum http_status; then all others */
    uint64_t pushes, push_bytes;             /* acknowledged */
    uint64_t polls, polls_parked;            /* answered; parked now */
    uint64_t streams, streams_cut;           /* open now; closed as their clients are too slow */
    uint64_t updates_delivered;
    uint64_t channels_resident, cache_bytes;
    uint64_t rate_limited;
    uint64_t purges;
    uint64_t upgrades;     /* into another program, so far */
    uint64_t filter_looks; /* at an update, to find out whether a filter wants it */
};

extern struct counters counters;

/* Writes those that only grow, and goes on with them in another process. */
void counters_save(struct pack *out);
void counters_restore(struct unpack *in);
