// streams: every stream on one channel, one publish, again and again: fanout.c with streams.
#include "bench.h"
#include "modes.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { EVENTS = 512, READ_BYTES = 8192, STEP = 500, PATIENCE_MS = 30000 };

static const char request[] =
    "GET /ch0?feed=sse HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: longline-bench\r\n"
    "Accept: */*\r\n\r\n";

// The streams and the epoll of their own: what they send is no reply with an end.
struct streams {
    int epoll;
    size_t received; // events with an update
};

static void open_stream(struct streams *streams, const struct sockaddr_in *server) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)server, sizeof *server) < 0)
        die("connect: %s", strerror(errno));
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (send(fd, request, sizeof request - 1, MSG_NOSIGNAL) != (ssize_t)sizeof request - 1)
        die("send: %s", strerror(errno));
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0 ||
        epoll_ctl(streams->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl: %s", strerror(errno));
}

// Reads what has come. An event is small, and sent at once: it comes in one piece.
static void read_stream(struct streams *streams, int fd) {
    char bytes[READ_BYTES];
    ssize_t len = recv(fd, bytes, sizeof bytes, 0);
    if (len <= 0)
        die("a stream ended: %s", len ? strerror(errno) : "closed");
    const char *at = bytes;
    while ((at = memmem(at, (size_t)(bytes + len - at), "data: ", 6))) {
        streams->received++;
        at += 6;
    }
}

static void turn(struct streams *streams, int timeout_ms) {
    struct epoll_event events[EVENTS];
    int count = epoll_wait(streams->epoll, events, EVENTS, timeout_ms);
    for (int i = 0; i < count; i++)
        read_stream(streams, events[i].data.fd);
    if (count == 0 && timeout_ms == PATIENCE_MS)
        die("nothing came for %d s; %zu updates received", PATIENCE_MS / 1000, streams->received);
}

// Reads what the streams begin with.
static void drain(struct streams *streams) {
    struct epoll_event event;
    while (epoll_wait(streams->epoll, &event, 1, 0) > 0)
        turn(streams, 0);
}

static void open_all(struct bench *bench, struct streams *streams) {
    const struct options *options = bench->options;
    streams->epoll = epoll_create1(EPOLL_CLOEXEC);
    for (size_t i = 1; i <= options->polls; i++) {
        open_stream(streams, &options->server);
        if (i % STEP == 0 || i == options->polls) {
            bench_await_parked(bench, i);
            drain(streams);
        }
    }
}

// Publishes once and waits until every stream has the update. Returns the wakes per second.
static uint64_t wake_all(struct bench *bench, struct streams *streams,
                         struct client_conn *publisher) {
    size_t wanted = streams->received + bench->options->polls, acknowledged = bench->acknowledged;
    uint64_t began_ns = now_ns();
    bench_push(bench, publisher, 0);
    while (streams->received < wanted)
        turn(streams, PATIENCE_MS);
    double seconds = (double)(now_ns() - began_ns) / 1e9;
    while (bench->acknowledged == acknowledged)
        bench_turn(bench);
    return (uint64_t)((double)bench->options->polls / seconds);
}

void run_streams(struct options *options) {
    struct bench bench;
    struct streams streams = {0};
    options->channels = 1;
    bench_init(&bench, options);
    struct memory before = processes_memory(&options->processes);
    open_all(&bench, &streams);
    struct memory after = processes_memory(&options->processes);
    struct client_conn publisher = {0};
    bench_open(&bench, &publisher, &options->publish_server, bench_on_pushed);

    uint64_t *rates = allocate(options->rounds, sizeof *rates), cpu_ns = 0;
    for (size_t round = 0; round < options->rounds; round++) {
        uint64_t before_ns = processes_cpu_ns(&options->processes);
        rates[round] = wake_all(&bench, &streams, &publisher);
        cpu_ns += processes_cpu_ns(&options->processes) - before_ns;
    }
    sort_numbers(rates, options->rounds);
    printf("{\"mode\": \"streams\", \"polls\": %zu, \"rounds\": %zu, \"wakes_per_second\": %llu, "
           "\"cpu_us_per_wake\": %.2f, \"rss_per_stream_bytes\": %.0f}\n",
           options->polls, options->rounds, (unsigned long long)rates[options->rounds / 2],
           (double)cpu_ns / 1e3 / (double)streams.received,
           ((double)after.rss_bytes - (double)before.rss_bytes) / (double)options->polls);
}
