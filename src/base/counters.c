#include "base/counters.h"

struct counters counters;

static uint64_t *const growing[] = {
    &counters.connections_accepted,
    &counters.accept_failures,
    &counters.pushes,
    &counters.push_bytes,
    &counters.polls,
    &counters.streams_cut,
    &counters.updates_delivered,
    &counters.rate_limited,
    &counters.purges,
    &counters.upgrades,
    &counters.filter_looks,
};

enum { GROWING = sizeof growing / sizeof *growing };

void counters_save(struct pack *out) {
    for (int i = 0; i < GROWING; i++)
        pack_number(out, *growing[i]);
    for (int i = 0; i < COUNTERS_STATUSES_MAX; i++)
        pack_number(out, counters.replies[i]);
}

void counters_restore(struct unpack *in) {
    for (int i = 0; i < GROWING; i++)
        *growing[i] += unpack_number(in);
    for (int i = 0; i < COUNTERS_STATUSES_MAX; i++)
        counters.replies[i] += unpack_number(in);
}
