// upgrade: what a second client notices when the server becomes another program (SIGUSR2), while
// polls are parked. Afterwards each of them gets its update.
#include "bench.h"
#include "modes.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BETWEEN_MS = 300, // two upgrades
    WINDOW_DEFAULT = 64,
};

struct second {
    struct client *client;
    struct client_conn conn;
    long upgrades; // as the server says
};

static void on_metrics(struct client_conn *conn, const struct reply *reply) {
    struct second *second = conn->data;
    const char *line = memmem(reply->body, reply->body_size, "\nlongline_upgrades_total ", 25);
    if (reply->status != 200 || !line)
        die("the metrics do not count upgrades: %d", reply->status);
    second->upgrades = strtol(line + 25, NULL, 10);
}

// Asks once; returns how long that took.
static uint64_t ask(struct second *second) {
    static const char request[] = "GET /-/metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    uint64_t began_ns = now_ns();
    client_send(&second->conn, request, sizeof request - 1);
    while (second->conn.busy)
        client_turn(second->client, 1000);
    return now_ns() - began_ns;
}

// Asks all the time until the server has become another program, and BETWEEN_MS longer. Returns the
// longest that an answer took.
static uint64_t upgrade(struct second *second, pid_t pid) {
    long before = second->upgrades;
    uint64_t longest_ns = 0, end_ns = 0;
    if (kill(pid, SIGUSR2) != 0)
        die("SIGUSR2: %s", strerror(errno));
    while (!end_ns || now_ns() < end_ns) {
        uint64_t took_ns = ask(second);
        if (took_ns > longest_ns)
            longest_ns = took_ns;
        if (!end_ns && second->upgrades > before)
            end_ns = now_ns() + (uint64_t)BETWEEN_MS * 1000000;
    }
    return longest_ns;
}

// Pushes to each channel, on every connection that is free, until all polls are answered.
static void wake_all(struct bench *bench) {
    const struct options *options = bench->options;
    struct client_conn *conns = allocate(options->window, sizeof *conns);
    for (size_t i = 0; i < options->window; i++)
        bench_open(bench, &conns[i], &options->publish_server, bench_on_pushed);
    for (size_t next = 0; bench->received < options->polls; bench_turn(bench)) {
        for (size_t i = 0; i < options->window && next < options->channels; i++) {
            if (conns[i].busy)
                continue;
            bench->published_ns[next] = now_ns();
            bench_push(bench, &conns[i], next++);
        }
    }
}

void run_upgrade(struct options *options) {
    if (!options->channels)
        options->channels = options->polls;
    if (options->processes.count != 1)
        die("--pids must name the server");
    if (options->window == 1)
        options->window = WINDOW_DEFAULT;
    struct bench bench;
    bench_init(&bench, options);
    bench_park(&bench);
    struct second second = {.client = client_new()};
    second.conn.on_reply = on_metrics;
    second.conn.data = &second;
    client_open(second.client, &second.conn, &options->server);
    ask(&second);
    uint64_t cpu_ns = processes_cpu_ns(&options->processes);
    uint64_t *pauses_ns = allocate(options->rounds, sizeof *pauses_ns);
    for (size_t i = 0; i < options->rounds; i++) {
        pauses_ns[i] = upgrade(&second, options->processes.pids[0]);
        bench_await_parked(&bench, options->polls);
    }
    cpu_ns = processes_cpu_ns(&options->processes) - cpu_ns;
    wake_all(&bench);
    printf("{\"mode\": \"upgrade\", \"polls\": %zu, \"channels\": %zu, \"rounds\": %zu",
           options->polls, options->channels, options->rounds);
    printf(", \"cpu_ms\": %.1f", (double)cpu_ns / 1e6 / (double)options->rounds);
    print_latency("pause", pauses_ns, options->rounds);
    print_latency("wake", bench.latency_ns, bench.received);
    printf("}\n");
}
