// spread: every poll on its own channel, one publish to each, in random order.
#include "bench.h"
#include "modes.h"

#include <stdio.h>

// Makes one publish at a time. It is done with it when the push is answered and the subscriber has
// the update.
struct publisher {
    struct client_conn conn;       // first: a conn is cast back to its publisher
    struct subscriber *subscriber; // that it publishes to; NULL: it is free
};

struct spread {
    struct bench bench; // first: it is the data of a conn, and cast back
    struct publisher publishers[WINDOW_MAX];
    size_t *order; // of the subscribers
    size_t next;   // in order
    uint64_t *acknowledge_ns;
};

static void on_pushed(struct client_conn *conn, const struct reply *reply) {
    struct publisher *publisher = (struct publisher *)conn;
    struct spread *spread = conn->data;
    spread->acknowledge_ns[spread->bench.acknowledged] =
        reply->at_ns - spread->bench.published_ns[publisher->subscriber->channel];
    bench_on_pushed(conn, reply);
}

static void shuffle(size_t *order, size_t count, uint64_t seed) {
    for (size_t i = 0; i < count; i++)
        order[i] = i;
    for (size_t i = count - 1; i > 0; i--) {
        size_t j = random_next(&seed) % (i + 1);
        size_t swap = order[i];
        order[i] = order[j];
        order[j] = swap;
    }
}

static bool is_free(struct publisher *publisher) {
    if (publisher->subscriber && !publisher->conn.busy && !publisher->subscriber->conn.busy)
        publisher->subscriber = NULL;
    return !publisher->subscriber;
}

// Lets every free publisher publish to the next subscriber.
static void fill_window(struct spread *spread) {
    struct bench *bench = &spread->bench;
    for (size_t i = 0; i < bench->options->window && spread->next < bench->options->polls; i++) {
        struct publisher *publisher = &spread->publishers[i];
        if (!is_free(publisher))
            continue;
        publisher->subscriber = &bench->subscribers[spread->order[spread->next++]];
        bench->published_ns[publisher->subscriber->channel] = now_ns();
        bench_push(bench, &publisher->conn, publisher->subscriber->channel);
    }
}

static void read_cpu(const struct processes *processes, uint64_t cpu_ns[PROCESSES_MAX]) {
    for (size_t i = 0; i < processes->count; i++)
        cpu_ns[i] = process_cpu_ns(processes->pids[i]);
}

// Prints what a push cost each process, in the order of --pids, and all of them together.
static void print_cpu(const uint64_t *before_ns, const uint64_t *after_ns, size_t count,
                      size_t pushes) {
    double sum_us = 0;
    printf(", \"cpu_us_per_push_each\": [");
    for (size_t i = 0; i < count; i++) {
        double cpu_us = (double)(after_ns[i] - before_ns[i]) / 1e3 / (double)pushes;
        printf("%s%.2f", i ? ", " : "", cpu_us);
        sum_us += cpu_us;
    }
    printf("], \"cpu_us_per_push\": %.2f", sum_us);
}

static void prepare(struct spread *spread, struct options *options) {
    options->channels = options->polls;
    bench_init(&spread->bench, options);
    bench_park(&spread->bench);
    for (size_t i = 0; i < options->window; i++)
        bench_open(&spread->bench, &spread->publishers[i].conn, &options->publish_server,
                   on_pushed);
    spread->order = allocate(options->polls, sizeof *spread->order);
    spread->acknowledge_ns = allocate(options->polls, sizeof *spread->acknowledge_ns);
    shuffle(spread->order, options->polls, options->seed);
}

void run_spread(struct options *options) {
    static struct spread spread;
    prepare(&spread, options);
    struct bench *bench = &spread.bench;
    uint64_t before_ns[PROCESSES_MAX], after_ns[PROCESSES_MAX], began_ns = now_ns();
    read_cpu(&options->processes, before_ns);
    while (bench->received < options->polls || bench->acknowledged < options->polls) {
        fill_window(&spread);
        bench_turn(bench);
    }
    double seconds = (double)(now_ns() - began_ns) / 1e9;
    read_cpu(&options->processes, after_ns);

    printf("{\"mode\": \"spread\", \"polls\": %zu, \"window\": %zu, \"seconds\": %.3f",
           options->polls, options->window, seconds);
    print_latency("wake", bench->latency_ns, options->polls);
    print_latency("ack", spread.acknowledge_ns, options->polls);
    print_cpu(before_ns, after_ns, options->processes.count, options->polls);
    printf(", \"expired\": %zu}\n", bench->expired);
}
