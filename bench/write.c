// write: one push to each of very many channels. What the first ones cost, and the last.
#include "bench.h"
#include "modes.h"

#include <stdio.h>

enum {
    CHANNELS_DEFAULT = 1000000,
    EDGE = 100000, // pushes at each end that are measured on their own
};

// A moment of the run.
struct mark {
    uint64_t at_ns;
    uint64_t cpu_ns;
    size_t count; // pushes answered by then
};

static struct mark mark_now(const struct bench *bench) {
    return (struct mark){
        .at_ns = now_ns(),
        .cpu_ns = processes_cpu_ns(&bench->options->processes),
        .count = bench->acknowledged,
    };
}

// Prints what a push cost between two marks.
static void print_cost(const char *name, struct mark from, struct mark to) {
    double pushes = (double)(to.count - from.count);
    printf(", \"%s_wall_us\": %.3f, \"%s_cpu_us\": %.3f", name,
           (double)(to.at_ns - from.at_ns) / 1e3 / pushes, name,
           (double)(to.cpu_ns - from.cpu_ns) / 1e3 / pushes);
}

// Pushes to the channels from *next on, on every connection that is free, for one turn of the loop.
static void push_turn(struct bench *bench, struct client_conn *conns, size_t *next) {
    const struct options *options = bench->options;
    for (size_t i = 0; i < options->connections && *next < options->channels; i++) {
        if (!conns[i].busy)
            bench_push(bench, &conns[i], (*next)++);
    }
    bench_turn(bench);
}

static struct client_conn *open_connections(struct bench *bench) {
    const struct options *options = bench->options;
    struct client_conn *conns = allocate(options->connections, sizeof *conns);
    for (size_t i = 0; i < options->connections; i++)
        bench_open(bench, &conns[i], &options->publish_server, bench_on_pushed);
    return conns;
}

void run_write(struct options *options) {
    if (!options->channels)
        options->channels = CHANNELS_DEFAULT;
    options->polls = 0;
    struct bench bench;
    bench_init(&bench, options);
    struct client_conn *conns = open_connections(&bench);
    size_t edge = options->channels < 2 * EDGE ? options->channels / 2 : EDGE;

    // The ends are cut where the count of answers passes them, to within one turn of the loop.
    struct mark began = mark_now(&bench), first = began, last = began;
    for (size_t next = 0; bench.acknowledged < options->channels;) {
        push_turn(&bench, conns, &next);
        if (!first.count && bench.acknowledged >= edge)
            first = mark_now(&bench);
        if (!last.count && bench.acknowledged >= options->channels - edge)
            last = mark_now(&bench);
    }
    struct mark ended = mark_now(&bench);
    struct memory memory = processes_memory(&options->processes);

    printf("{\"mode\": \"write\", \"channels\": %zu, \"connections\": %zu, \"edge\": %zu, "
           "\"rss_bytes\": %llu, \"pss_bytes\": %llu",
           options->channels, options->connections, edge, (unsigned long long)memory.rss_bytes,
           (unsigned long long)memory.pss_bytes);
    print_cost("all", began, ended);
    if (first.count && last.count < ended.count) {
        print_cost("first", began, first);
        print_cost("last", last, ended);
    }
    printf("}\n");
}
