// park: how much memory a parked poll takes.
#include "bench.h"
#include "modes.h"

#include <stdio.h>

void run_park(struct options *options) {
    if (!options->channels)
        options->channels = options->polls;
    struct bench bench;
    bench_init(&bench, options);
    struct memory before = processes_memory(&options->processes);
    bench_park(&bench);
    struct memory after = processes_memory(&options->processes);
    double polls = (double)options->polls;
    printf("{\"mode\": \"park\", \"polls\": %zu, \"channels\": %zu, \"rss_before_bytes\": %llu, "
           "\"rss_after_bytes\": %llu, \"rss_per_poll_bytes\": %.0f, "
           "\"pss_per_poll_bytes\": %.0f}\n",
           options->polls, options->channels, (unsigned long long)before.rss_bytes,
           (unsigned long long)after.rss_bytes,
           ((double)after.rss_bytes - (double)before.rss_bytes) / polls,
           ((double)after.pss_bytes - (double)before.pss_bytes) / polls);
}
