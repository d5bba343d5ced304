// The load client of script/bench: it holds many long polls, publishes, and prints what that took as one
// line of JSON. Against longline or nchan (--dialect); `polls --help` lists the modes.
//
// It is one thread and one epoll, so every latency here is send() of the publish to the last byte of the
// subscriber's reply read, on one clock.
#include "client.h"
#include "dialect.h"
#include "process.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum {
    REQUEST_MAX = 4096,
    NAME_MAX_SIZE = 32,
    BODY_MAX = 3072,
    PARK_STEP = 500,     // polls sent before the server is asked whether it has them all
    WINDOW_MAX = 256,    // publishes out at once
    STALL_SECONDS = 30,  // without a reply that was due
    WRITE_EDGE = 100000, // appends at each end of `write` that are measured on their own
    FSYNC_BLOCK = 4096,
};

struct options {
    const struct dialect *dialect;
    struct sockaddr_in server;
    struct sockaddr_in publish_server; // the same as server, or another on the same store
    struct processes processes;
    size_t polls;
    size_t channels;
    size_t rounds;
    size_t window;
    size_t connections;
    size_t body_size;
    uint64_t seed;
    bool secret_names;
    const char *path;
    unsigned deadline_seconds;
};

// One subscriber: its poll is out whenever it is not between two rounds.
struct subscriber {
    struct client_conn conn; // first: a conn is cast back to its subscriber
    struct cursor cursor;
    size_t channel;
};

struct bench {
    const struct options *options;
    struct client *client;
    struct client_conn control;
    size_t parked; // as the server said last
    struct subscriber *subscribers;
    uint64_t *published_ns; // by channel: when its publish was sent; 0 before
    uint64_t *latency_ns;   // one for each update that a subscriber got
    size_t received;
    size_t expired;       // polls answered without an update and sent again
    uint64_t received_ns; // when the newest update was read
    size_t acknowledged;  // publishes answered
    uint64_t *acknowledge_ns;
    char body[BODY_MAX + 1];
};

// ---- the parts that the modes share

static uint64_t random_next(uint64_t *state) {
    uint64_t x = (*state += 0x9e3779b97f4a7c15u); // splitmix64
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

// Names a channel: ch7, or 22 characters that look like the ones `longline new` makes, in no order.
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

// A JSON object of exactly the size asked for.
static void make_body(char *out, size_t size) {
    static const char head[] = "{\"update_id\":10000,\"text\":\"";
    memset(out, 'x', size);
    memcpy(out, head, sizeof head - 1);
    memcpy(out + size - 2, "\"}", 2);
    out[size] = '\0';
}

static void push(struct bench *bench, struct client_conn *conn, size_t channel) {
    char request[REQUEST_MAX], name[NAME_MAX_SIZE];
    size_t size = bench->options->dialect->push(
        request, sizeof request, channel_name(bench->options, channel, name), bench->body);
    client_send(conn, request, size);
}

static void check_pushed(const struct reply *reply) {
    if (reply->status < 200 || reply->status > 202)
        die("a push was answered %d: %.*s", reply->status, (int)reply->body_size, reply->body);
}

// One turn of the loop that has to bring something.
static void turn(struct bench *bench) {
    static uint64_t since_ns;
    uint64_t replies = client_turn(bench->client, 1000);
    uint64_t now = now_ns();
    if (replies > 0 || since_ns == 0)
        since_ns = now;
    if (now - since_ns > STALL_SECONDS * 1000000000ull)
        die("no reply for %d s; %zu updates received, %zu pushes answered", STALL_SECONDS,
            bench->received, bench->acknowledged);
}

static void on_status(struct client_conn *conn, const struct reply *reply) {
    struct bench *bench = conn->data;
    bench->parked = bench->options->dialect->parked(reply);
}

// Asks the server until it says that it holds this many polls.
static void await_parked(struct bench *bench, size_t count) {
    uint64_t began_ns = now_ns();
    for (;;) {
        char request[REQUEST_MAX];
        client_send(&bench->control, request,
                    bench->options->dialect->status(request, sizeof request));
        while (bench->control.busy)
            turn(bench);
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

static void open_conn(struct bench *bench, struct client_conn *conn,
                      const struct sockaddr_in *server, client_on_reply on_reply) {
    conn->data = bench;
    conn->on_reply = on_reply;
    client_open(bench->client, conn, server);
}

// Opens all subscribers and parks them, in steps that the server's accept queue can hold.
static void park(struct bench *bench) {
    const struct options *options = bench->options;
    bench->subscribers = allocate(options->polls, sizeof *bench->subscribers);
    for (size_t i = 0; i < options->polls; i++) {
        struct subscriber *subscriber = &bench->subscribers[i];
        subscriber->channel = i % options->channels;
        open_conn(bench, &subscriber->conn, &options->server, on_update);
        poll_again(subscriber);
        if ((i + 1) % PARK_STEP == 0)
            await_parked(bench, i + 1);
    }
    await_parked(bench, options->polls);
}

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void print_latency(const char *name, uint64_t *values_ns, size_t count) {
    qsort(values_ns, count, sizeof *values_ns, compare);
    printf(", \"%s_p50_us\": %.1f, \"%s_p99_us\": %.1f, \"%s_max_us\": %.1f", name,
           (double)values_ns[count / 2] / 1e3, name, (double)values_ns[count * 99 / 100] / 1e3,
           name, (double)values_ns[count - 1] / 1e3);
}

static void bench_init(struct bench *bench, const struct options *options) {
    *bench = (struct bench){.options = options};
    bench->client = client_new();
    make_body(bench->body, options->body_size);
    open_conn(bench, &bench->control, &options->server, on_status);
    await_parked(bench, 0);
    bench->published_ns = allocate(options->channels, sizeof *bench->published_ns);
    size_t updates = options->polls * (options->rounds + 1);
    bench->latency_ns = allocate(updates, sizeof *bench->latency_ns);
    bench->acknowledge_ns = allocate(updates, sizeof *bench->acknowledge_ns);
}

// ---- spread: every poll on its own channel, one publish to each

// One publish at a time on each: it is over when both its reply and the subscriber's update are here.
struct publisher {
    struct client_conn conn; // first
    struct subscriber *subscriber;
    bool out;
};

static void on_pushed(struct client_conn *conn, const struct reply *reply) {
    struct publisher *publisher = (struct publisher *)conn;
    struct bench *bench = conn->data;
    check_pushed(reply);
    bench->acknowledge_ns[bench->acknowledged++] =
        reply->at_ns - bench->published_ns[publisher->subscriber->channel];
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

static bool publisher_done(struct publisher *publisher) {
    if (publisher->out && !publisher->conn.busy && !publisher->subscriber->conn.busy)
        publisher->out = false;
    return !publisher->out;
}

// What a push cost each process, in the order of --pids, and all of them.
static void print_cpu(const uint64_t *cpu_ns, size_t count, size_t pushes) {
    double sum_us = 0;
    printf(", \"cpu_us_per_push_each\": [");
    for (size_t i = 0; i < count; i++) {
        double cpu_us = (double)cpu_ns[i] / 1e3 / (double)pushes;
        printf("%s%.2f", i ? ", " : "", cpu_us);
        sum_us += cpu_us;
    }
    printf("], \"cpu_us_per_push\": %.2f", sum_us);
}

static void run_spread(const struct options *options) {
    struct bench bench;
    bench_init(&bench, options);
    park(&bench);
    static struct publisher publishers[WINDOW_MAX];
    for (size_t i = 0; i < options->window; i++)
        open_conn(&bench, &publishers[i].conn, &options->publish_server, on_pushed);
    size_t *order = allocate(options->polls, sizeof *order);
    shuffle(order, options->polls, options->seed);

    const struct processes *processes = &options->processes;
    uint64_t cpu_ns[PROCESSES_MAX], began_ns = now_ns();
    for (size_t i = 0; i < processes->count; i++)
        cpu_ns[i] = process_cpu_ns(processes->pids[i]);
    for (size_t next = 0; bench.received < options->polls || bench.acknowledged < options->polls;) {
        for (size_t i = 0; i < options->window && next < options->polls; i++) {
            struct publisher *publisher = &publishers[i];
            if (!publisher_done(publisher))
                continue;
            publisher->subscriber = &bench.subscribers[order[next++]];
            publisher->out = true;
            bench.published_ns[publisher->subscriber->channel] = now_ns();
            push(&bench, &publisher->conn, publisher->subscriber->channel);
        }
        turn(&bench);
    }
    double seconds = (double)(now_ns() - began_ns) / 1e9;
    for (size_t i = 0; i < processes->count; i++)
        cpu_ns[i] = process_cpu_ns(processes->pids[i]) - cpu_ns[i];

    printf("{\"mode\": \"spread\", \"polls\": %zu, \"window\": %zu, \"seconds\": %.3f",
           options->polls, options->window, seconds);
    print_latency("wake", bench.latency_ns, options->polls);
    print_latency("ack", bench.acknowledge_ns, options->polls);
    print_cpu(cpu_ns, processes->count, options->polls);
    printf(", \"expired\": %zu}\n", bench.expired);
}

// ---- fanout: every poll on one channel, one publish, again and again

static void on_fanout_pushed(struct client_conn *conn, const struct reply *reply) {
    struct bench *bench = conn->data;
    check_pushed(reply);
    bench->acknowledged++;
}

// What this client spends is printed beside: near the wall time, it and not the server would be the limit.
static uint64_t own_cpu_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void run_fanout(struct options *options) {
    struct bench bench;
    options->channels = 1;
    bench_init(&bench, options);
    park(&bench);
    struct client_conn publisher = {0};
    open_conn(&bench, &publisher, &options->publish_server, on_fanout_pushed);

    uint64_t *rates = allocate(options->rounds, sizeof *rates);
    uint64_t cpu_ns = 0, own_cpu_ns = 0;
    for (size_t round = 0; round < options->rounds; round++) {
        uint64_t before_ns = processes_cpu_ns(&options->processes),
                 own_before_ns = own_cpu_now_ns();
        bench.published_ns[0] = now_ns();
        push(&bench, &publisher, 0);
        while (bench.received < (round + 1) * options->polls || bench.acknowledged <= round)
            turn(&bench);
        cpu_ns += processes_cpu_ns(&options->processes) - before_ns;
        own_cpu_ns += own_cpu_now_ns() - own_before_ns;
        double seconds = (double)(bench.received_ns - bench.published_ns[0]) / 1e9;
        rates[round] = (uint64_t)((double)options->polls / seconds);
        if (round + 1 == options->rounds)
            break;
        for (size_t i = 0; i < options->polls; i++) {
            poll_again(&bench.subscribers[i]);
            if ((i + 1) % PARK_STEP == 0)
                await_parked(&bench, i + 1);
        }
        await_parked(&bench, options->polls);
    }

    qsort(rates, options->rounds, sizeof *rates, compare);
    printf("{\"mode\": \"fanout\", \"polls\": %zu, \"rounds\": %zu, \"wakes_per_second\": %llu, "
           "\"wakes_per_second_min\": %llu, \"wakes_per_second_max\": %llu",
           options->polls, options->rounds, (unsigned long long)rates[options->rounds / 2],
           (unsigned long long)rates[0], (unsigned long long)rates[options->rounds - 1]);
    print_latency("wake", bench.latency_ns, bench.received);
    double wakes = (double)bench.received;
    printf(", \"cpu_us_per_wake\": %.2f, \"client_cpu_us_per_wake\": %.2f, \"expired\": %zu}\n",
           (double)cpu_ns / 1e3 / wakes, (double)own_cpu_ns / 1e3 / wakes, bench.expired);
}

// ---- park: what a parked poll costs in memory

static void run_park(const struct options *options) {
    struct bench bench;
    bench_init(&bench, options);
    struct memory before = processes_memory(&options->processes);
    park(&bench);
    struct memory after = processes_memory(&options->processes);
    double polls = (double)options->polls;
    printf(
        "{\"mode\": \"park\", \"polls\": %zu, \"channels\": %zu, \"rss_before_bytes\": %llu, "
        "\"rss_after_bytes\": %llu, \"rss_per_poll_bytes\": %.0f, \"pss_per_poll_bytes\": %.0f}\n",
        options->polls, options->channels, (unsigned long long)before.rss_bytes,
        (unsigned long long)after.rss_bytes,
        ((double)after.rss_bytes - (double)before.rss_bytes) / polls,
        ((double)after.pss_bytes - (double)before.pss_bytes) / polls);
}

// ---- write: one push to each of very many channels

static void on_written(struct client_conn *conn, const struct reply *reply) {
    struct bench *bench = conn->data;
    check_pushed(reply);
    bench->acknowledged++;
}

struct mark {
    uint64_t at_ns;
    uint64_t cpu_ns;
};

static struct mark mark_now(const struct options *options) {
    return (struct mark){.at_ns = now_ns(), .cpu_ns = processes_cpu_ns(&options->processes)};
}

static void print_mark(const char *name, struct mark from, struct mark to, size_t count) {
    printf(", \"%s_wall_us\": %.3f, \"%s_cpu_us\": %.3f", name,
           (double)(to.at_ns - from.at_ns) / 1e3 / (double)count, name,
           (double)(to.cpu_ns - from.cpu_ns) / 1e3 / (double)count);
}

// The ends are cut where the count of answered pushes passes them, to within one turn of the loop.
static void run_write(struct options *options) {
    struct bench bench;
    options->polls = 0;
    bench_init(&bench, options);
    struct client_conn *conns = allocate(options->connections, sizeof *conns);
    for (size_t i = 0; i < options->connections; i++)
        open_conn(&bench, &conns[i], &options->publish_server, on_written);
    size_t edge = options->channels < 2 * WRITE_EDGE ? options->channels / 2 : WRITE_EDGE;

    struct mark began = mark_now(options), first = began, last = began;
    size_t first_count = 0, last_count = 0;
    for (size_t next = 0; bench.acknowledged < options->channels;) {
        for (size_t i = 0; i < options->connections && next < options->channels; i++) {
            if (!conns[i].busy)
                push(&bench, &conns[i], next++);
        }
        turn(&bench);
        if (!first_count && bench.acknowledged >= edge) {
            first = mark_now(options);
            first_count = bench.acknowledged;
        }
        if (!last_count && bench.acknowledged >= options->channels - edge) {
            last = mark_now(options);
            last_count = options->channels - bench.acknowledged;
        }
    }
    struct mark ended = mark_now(options);
    struct memory memory = processes_memory(&options->processes);

    printf("{\"mode\": \"write\", \"channels\": %zu, \"connections\": %zu, \"edge\": %zu, "
           "\"rss_bytes\": %llu, "
           "\"pss_bytes\": %llu",
           options->channels, options->connections, edge, (unsigned long long)memory.rss_bytes,
           (unsigned long long)memory.pss_bytes);
    print_mark("all", began, ended, options->channels);
    if (first_count && last_count) {
        print_mark("first", began, first, first_count);
        print_mark("last", last, ended, last_count);
    }
    printf("}\n");
}

// ---- fsync: what this disk takes for one small durable write

static void time_fsyncs(const char *name, int file, size_t rounds, bool append) {
    static char block[FSYNC_BLOCK];
    uint64_t *took_ns = allocate(rounds, sizeof *took_ns);
    for (size_t i = 0; i < rounds; i++) {
        memset(block, (int)i, sizeof block);
        uint64_t began_ns = now_ns();
        off_t offset = append ? (off_t)(i * sizeof block) : (off_t)(i % 1000 * sizeof block);
        if (pwrite(file, block, sizeof block, offset) != (ssize_t)sizeof block ||
            fdatasync(file) < 0)
            die("fsync: %s", strerror(errno));
        took_ns[i] = now_ns() - began_ns;
    }
    print_latency(name, took_ns, rounds);
    free(took_ns);
}

// A log that grows, and one that is written over from its start as SQLite's WAL is.
static void run_fsync(const struct options *options) {
    if (!options->path)
        die("fsync wants --path");
    int file = open(options->path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    if (file < 0)
        die("%s: %s", options->path, strerror(errno));
    static char zeros[1000 * FSYNC_BLOCK];
    printf("{\"mode\": \"fsync\", \"rounds\": %zu", options->rounds);
    time_fsyncs("append", file, options->rounds, true);
    if (pwrite(file, zeros, sizeof zeros, 0) != (ssize_t)sizeof zeros || fsync(file) < 0)
        die("fsync: %s", strerror(errno));
    time_fsyncs("overwrite", file, options->rounds, false);
    printf("}\n");
    close(file);
    unlink(options->path);
}

// ---- the command line

static const char usage[] =
    "usage: polls MODE [options]\n"
    "The server is one that has just started: its channels are empty and nobody else is on it.\n"
    "modes:\n"
    "  spread   --polls polls on as many channels, one publish to each: the wake-up latency\n"
    "  fanout   --polls polls on one channel, one publish, --rounds times: wakes per second\n"
    "  park     --polls polls on --channels channels: the memory that each takes\n"
    "  write    one push to each of --channels channels: the cost of the first and the last "
    "100,000\n"
    "  fsync    4 KiB and fdatasync in the file --path, --rounds times\n"
    "options:\n"
    "  --server HOST:PORT          an IPv4 address\n"
    "  --publish-server HOST:PORT  where pushes go: default --server\n"
    "  --dialect longline|nchan    default longline\n"
    "  --pids 1,2,3                the server's processes, for CPU and memory\n"
    "  --polls N                   default 15000\n"
    "  --channels N                park: default as many as polls; write: default 1000000\n"
    "  --rounds N                  default 10\n"
    "  --window N                  publishes out at once in spread: default 1\n"
    "  --connections N             that write uses: default 64\n"
    "  --names short|secret        ch7, or 22 random characters: default short\n"
    "  --body-size N               default 200\n"
    "  --seed N                    default 1\n"
    "  --deadline SECONDS          give up after it: default 300\n";

static size_t parse_count(const char *name, const char *text, size_t max) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno || end == text || *end || value < 1 || value > max)
        die("--%s wants a number from 1 to %zu", name, max);
    return (size_t)value;
}

static void parse_server(struct sockaddr_in *server, const char *name, const char *text) {
    char host[64];
    unsigned port;
    *server = (struct sockaddr_in){.sin_family = AF_INET};
    if (sscanf(text, "%63[0-9.]:%5u", host, &port) != 2 || port > 65535 ||
        inet_pton(AF_INET, host, &server->sin_addr) != 1)
        die("--%s wants HOST:PORT with an IPv4 address", name);
    server->sin_port = htons((uint16_t)port);
}

static void parse_option(struct options *options, const char *name, const char *value) {
    if (!strcmp(name, "server"))
        parse_server(&options->server, name, value);
    else if (!strcmp(name, "publish-server"))
        parse_server(&options->publish_server, name, value);
    else if (!strcmp(name, "dialect"))
        options->dialect = dialect_find(value);
    else if (!strcmp(name, "pids"))
        processes_parse(&options->processes, value);
    else if (!strcmp(name, "polls"))
        options->polls = parse_count(name, value, 1000000);
    else if (!strcmp(name, "channels"))
        options->channels = parse_count(name, value, 100000000);
    else if (!strcmp(name, "rounds"))
        options->rounds = parse_count(name, value, 1000000);
    else if (!strcmp(name, "window"))
        options->window = parse_count(name, value, WINDOW_MAX);
    else if (!strcmp(name, "connections"))
        options->connections = parse_count(name, value, 10000);
    else if (!strcmp(name, "body-size"))
        options->body_size = parse_count(name, value, BODY_MAX);
    else if (!strcmp(name, "seed"))
        options->seed = parse_count(name, value, SIZE_MAX);
    else if (!strcmp(name, "deadline"))
        options->deadline_seconds = (unsigned)parse_count(name, value, 86400);
    else if (!strcmp(name, "path"))
        options->path = value;
    else if (!strcmp(name, "names"))
        options->secret_names = !strcmp(value, "secret");
}

static struct options parse_options(int argc, char **argv) {
    static const struct option known[] = {
        {"server", required_argument, NULL, 0},
        {"publish-server", required_argument, NULL, 0},
        {"dialect", required_argument, NULL, 0},
        {"pids", required_argument, NULL, 0},
        {"polls", required_argument, NULL, 0},
        {"channels", required_argument, NULL, 0},
        {"rounds", required_argument, NULL, 0},
        {"window", required_argument, NULL, 0},
        {"connections", required_argument, NULL, 0},
        {"body-size", required_argument, NULL, 0},
        {"seed", required_argument, NULL, 0},
        {"deadline", required_argument, NULL, 0},
        {"path", required_argument, NULL, 0},
        {"names", required_argument, NULL, 0},
        {0},
    };
    struct options options = {
        .dialect = dialect_find("longline"),
        .polls = 15000,
        .rounds = 10,
        .window = 1,
        .connections = 64,
        .body_size = 200,
        .seed = 1,
        .deadline_seconds = 300,
    };
    for (int index; getopt_long(argc, argv, "", known, &index) == 0;)
        parse_option(&options, known[index].name, optarg);
    if (optind != argc - 1)
        die("one mode, please; `polls --help` lists them");
    if (!options.dialect)
        die("--dialect is longline or nchan");
    if (options.body_size < 64)
        die("--body-size: at least 64");
    if (!options.publish_server.sin_port)
        options.publish_server = options.server;
    return options;
}

static void on_alarm(int number) {
    (void)number;
    static const char line[] = "polls: the deadline is past\n";
    ssize_t written = write(STDERR_FILENO, line, sizeof line - 1);
    _exit(written < 0 ? 2 : 1);
}

static void raise_descriptor_limit(void) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv) {
    if (argc == 2 && !strcmp(argv[1], "--help")) {
        fputs(usage, stdout);
        return 0;
    }
    struct options options = parse_options(argc, argv);
    const char *mode = argv[optind];
    signal(SIGALRM, on_alarm);
    alarm(options.deadline_seconds);
    raise_descriptor_limit();
    if (!strcmp(mode, "fsync")) {
        run_fsync(&options);
        return 0;
    }
    if (!options.server.sin_port)
        die("--server is missing");
    if (!strcmp(mode, "write")) {
        if (!options.channels)
            options.channels = 1000000;
        run_write(&options);
        return 0;
    }
    if (!options.channels || !strcmp(mode, "spread"))
        options.channels = options.polls;
    if (!strcmp(mode, "spread"))
        run_spread(&options);
    else if (!strcmp(mode, "fanout"))
        run_fanout(&options);
    else if (!strcmp(mode, "park"))
        run_park(&options);
    else
        die("no mode %s; `polls --help` lists them", mode);
    return 0;
}
