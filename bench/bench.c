#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    REQUEST_MAX = 4096,
    NAME_MAX_SIZE = 32,
    PARK_STEP = 500,    // polls sent before we wait until the server holds them all
    STALL_SECONDS = 30, // without a reply that was due
};

uint64_t random_next(uint64_t *state) {
    uint64_t x = (*state += 0x9e3779b97f4a7c15u); // splitmix64
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

void sort_numbers(uint64_t *values, size_t count) {
    qsort(values, count, sizeof *values, compare);
}

void print_latency(const char *name, uint64_t *values_ns, size_t count) {
    sort_numbers(values_ns, count);
    printf(", \"%s_p50_us\": %.1f, \"%s_p99_us\": %.1f, \"%s_max_us\": %.1f", name,
           (double)values_ns[count / 2] / 1e3, name, (double)values_ns[count * 99 / 100] / 1e3,
           name, (double)values_ns[count - 1] / 1e3);
}

// Names a channel: ch7, or 22 characters in no order, like the names that `longline new` makes.
static const char *channel_name(const struct options *options, size_t channel,
                                char out[NAME_MAX_SIZE]) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    if (!options->secret_names) {
        snprintf(out, NAME_MAX_SIZE, "ch%zu", channel);
        return out;
    }
    uint64_t state = options->seed * 0x2545f4914f6cdd1du + channel * 3;
    uint64_t bits = 0;
    for (size_t i = 0; i < 22; i++) {
        if (i % 10 == 0)
            bits = random_next(&state);
        out[i] = digits[bits & 63];
        bits >>= 6;
    }
    out[22] = '\0';
    return out;
}

// Writes a JSON object of exactly that size.
static void make_body(char *out, size_t size) {
    static const char head[] = "{\"update_id\":10000,\"text\":\"";
    memset(out, 'x', size);
    memcpy(out, head, sizeof head - 1);
    memcpy(out + size - 2, "\"}", 2);
    out[size] = '\0';
}

void bench_push(struct bench *bench, struct client_conn *conn, size_t channel) {
    char request[REQUEST_MAX], name[NAME_MAX_SIZE];
    size_t size = bench->options->dialect->push(
        request, sizeof request, channel_name(bench->options, channel, name), bench->body);
    client_send(conn, request, size);
}

void bench_on_pushed(struct client_conn *conn, const struct reply *reply) {
    struct bench *bench = conn->data;
    if (reply->status < 200 || reply->status > 202)
        die("a push was answered %d: %.*s", reply->status, (int)reply->body_size, reply->body);
    bench->acknowledged++;
}

void bench_turn(struct bench *bench) {
    size_t replies = client_turn(bench->client, 1000);
    uint64_t now = now_ns();
    if (replies > 0 || bench->progress_ns == 0)
        bench->progress_ns = now;
    if (now - bench->progress_ns > STALL_SECONDS * 1000000000ull)
        die("no reply for %d s; %zu updates received, %zu pushes answered", STALL_SECONDS,
            bench->received, bench->acknowledged);
}

static void on_status(struct client_conn *conn, const struct reply *reply) {
    struct bench *bench = conn->data;
    bench->parked = bench->options->dialect->parked(reply);
}

void bench_await_parked(struct bench *bench, size_t count) {
    uint64_t began_ns = now_ns();
    for (;;) {
        char request[REQUEST_MAX];
        client_send(&bench->control, request,
                    bench->options->dialect->status(request, sizeof request));
        while (bench->control.busy)
            bench_turn(bench);
        if (bench->parked == count)
            return;
        if (now_ns() - began_ns > STALL_SECONDS * 1000000000ull)
            die("the server holds %zu polls, not %zu", bench->parked, count);
        usleep(bench->parked < count ? 2000 : 20000);
    }
}

static void poll_again(struct subscriber *subscriber) {
    struct bench *bench = subscriber->conn.data;
    char request[REQUEST_MAX], name[NAME_MAX_SIZE];
    size_t size = bench->options->dialect->poll(
        request, sizeof request, channel_name(bench->options, subscriber->channel, name),
        &subscriber->cursor);
    client_send(&subscriber->conn, request, size);
}

static void on_update(struct client_conn *conn, const struct reply *reply) {
    struct subscriber *subscriber = (struct subscriber *)conn;
    struct bench *bench = conn->data;
    if (!bench->options->dialect->advance(reply, &subscriber->cursor)) {
        bench->expired++;
        poll_again(subscriber);
        return;
    }
    uint64_t published_ns = bench->published_ns[subscriber->channel];
    if (published_ns == 0)
        die("an update that nobody published");
    bench->latency_ns[bench->received++] = reply->at_ns - published_ns;
    bench->received_ns = reply->at_ns;
}

void bench_open(struct bench *bench, struct client_conn *conn, const struct sockaddr_in *server,
                client_on_reply on_reply) {
    conn->data = bench;
    conn->on_reply = on_reply;
    client_open(bench->client, conn, server);
}

// Sends the poll of one subscriber, in steps that the server's accept queue can hold.
static void park(struct bench *bench, size_t i) {
    poll_again(&bench->subscribers[i]);
    if ((i + 1) % PARK_STEP == 0 || i + 1 == bench->options->polls)
        bench_await_parked(bench, i + 1);
}

void bench_park(struct bench *bench) {
    const struct options *options = bench->options;
    bench->subscribers = allocate(options->polls, sizeof *bench->subscribers);
    for (size_t i = 0; i < options->polls; i++) {
        struct subscriber *subscriber = &bench->subscribers[i];
        subscriber->channel = i % options->channels;
        bench_open(bench, &subscriber->conn, &options->server, on_update);
        park(bench, i);
    }
}

void bench_park_again(struct bench *bench) {
    for (size_t i = 0; i < bench->options->polls; i++)
        park(bench, i);
}

void bench_init(struct bench *bench, const struct options *options) {
    if (!options->server.sin_port)
        die("--server is missing");
    *bench = (struct bench){.options = options};
    bench->client = client_new();
    make_body(bench->body, options->body_size);
    bench_open(bench, &bench->control, &options->server, on_status);
    bench_await_parked(bench, 0);
    bench->published_ns = allocate(options->channels, sizeof *bench->published_ns);
    bench->latency_ns = allocate(options->polls * (options->rounds + 1), sizeof *bench->latency_ns);
}
