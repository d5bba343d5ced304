// fanout: every poll on one channel, one publish, again and again.
#include "bench.h"
#include "modes.h"

#include <stdio.h>
#include <time.h>

// The CPU time of this client. If it comes near the wall time, it is the client that is measured.
static uint64_t own_cpu_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

// Publishes once and waits until every subscriber has the update. Returns the wakes per second.
static uint64_t wake_all(struct bench *bench, struct client_conn *publisher) {
    size_t polls = bench->options->polls;
    size_t received = bench->received + polls, acknowledged = bench->acknowledged + 1;
    bench->published_ns[0] = now_ns();
    bench_push(bench, publisher, 0);
    while (bench->received < received || bench->acknowledged < acknowledged)
        bench_turn(bench);
    double seconds = (double)(bench->received_ns - bench->published_ns[0]) / 1e9;
    return (uint64_t)((double)polls / seconds);
}

void run_fanout(struct options *options) {
    struct bench bench;
    options->channels = 1;
    bench_init(&bench, options);
    bench_park(&bench);
    struct client_conn publisher = {0};
    bench_open(&bench, &publisher, &options->publish_server, bench_on_pushed);

    uint64_t *rates = allocate(options->rounds, sizeof *rates);
    uint64_t cpu_ns = 0, client_cpu_ns = 0;
    for (size_t round = 0; round < options->rounds; round++) {
        if (round > 0)
            bench_park_again(&bench);
        uint64_t before_ns = processes_cpu_ns(&options->processes), client_ns = own_cpu_ns();
        rates[round] = wake_all(&bench, &publisher);
        cpu_ns += processes_cpu_ns(&options->processes) - before_ns;
        client_cpu_ns += own_cpu_ns() - client_ns;
    }

    sort_numbers(rates, options->rounds);
    printf("{\"mode\": \"fanout\", \"polls\": %zu, \"rounds\": %zu, \"wakes_per_second\": %llu, "
           "\"wakes_per_second_min\": %llu, \"wakes_per_second_max\": %llu",
           options->polls, options->rounds, (unsigned long long)rates[options->rounds / 2],
           (unsigned long long)rates[0], (unsigned long long)rates[options->rounds - 1]);
    print_latency("wake", bench.latency_ns, bench.received);
    double wakes = (double)bench.received;
    printf(", \"cpu_us_per_wake\": %.2f, \"client_cpu_us_per_wake\": %.2f, \"expired\": %zu}\n",
           (double)cpu_ns / 1e3 / wakes, (double)client_cpu_ns / 1e3 / wakes, bench.expired);
}
