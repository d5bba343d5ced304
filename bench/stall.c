// pipeline, expire: what a second client notices of what others do to the same server. It asks one
// request at a time, and each of them is a ping.
#include "bench.h"
#include "modes.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    REQUEST_MAX = 512,
    PINGS_MAX = 1 << 20,
    PIPELINE_SECONDS = 3,
    PUMP_REQUESTS = 512, // written at once
    WARM_UP_PINGS = 50,
    PARK_STEP = 500,
    LEAD_SECONDS = 10, // from the first poll that is sent to the moment when all end
    AROUND_MS = 1000,  // of that moment, in which pings are measured
};

// A client of its own, so that a ping does not wait for what else this program does.
struct pinger {
    struct client *client;
    struct client_conn conn;
    char request[REQUEST_MAX];
    uint64_t *latency_ns;
    size_t count;
};

static void on_pong(struct client_conn *conn, const struct reply *reply) {
    (void)conn;
    if (reply->status != 200)
        die("a second client was answered %d", reply->status);
}

static void ping(struct pinger *pinger) {
    uint64_t began_ns = now_ns();
    client_send(&pinger->conn, pinger->request, strlen(pinger->request));
    while (pinger->conn.busy)
        client_turn(pinger->client, 1000);
    if (pinger->count < PINGS_MAX)
        pinger->latency_ns[pinger->count++] = now_ns() - began_ns;
}

static void pinger_init(struct pinger *pinger, const struct options *options) {
    *pinger = (struct pinger){.client = client_new(), .conn.on_reply = on_pong};
    pinger->latency_ns = allocate(PINGS_MAX, sizeof *pinger->latency_ns);
    snprintf(pinger->request, sizeof pinger->request,
             "GET /second HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    client_open(pinger->client, &pinger->conn, &options->server);
    for (int i = 0; i < WARM_UP_PINGS; i++)
        ping(pinger);
    pinger->count = 0;
}

// Pings until `end_ns`, and prints what that took as members of a JSON object.
static void ping_until(struct pinger *pinger, uint64_t end_ns, const char *name) {
    pinger->count = 0;
    while (now_ns() < end_ns)
        ping(pinger);
    print_latency(name, pinger->latency_ns, pinger->count);
}

// --- pipeline --------------------------------------------------------------------------------

static int connect_to(const struct sockaddr_in *server) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)server, sizeof *server) != 0)
        die("connect: %s", strerror(errno));
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

// Sends requests without end, never waiting for a reply, and throws away what comes back.
static _Noreturn void pump(const struct options *options) {
    static const char request[] = "HEAD /first HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    enum { SIZE = sizeof request - 1 };
    static char out[PUMP_REQUESTS * SIZE], in[1 << 16];
    for (size_t i = 0; i < PUMP_REQUESTS; i++)
        memcpy(out + i * SIZE, request, SIZE);
    struct pollfd fd = {.fd = connect_to(&options->server), .events = POLLIN | POLLOUT};
    for (size_t sent = 0; poll(&fd, 1, -1) > 0;) {
        ssize_t wrote = fd.revents & POLLOUT ? write(fd.fd, out + sent, sizeof out - sent) : 0;
        ssize_t got = fd.revents & POLLIN ? read(fd.fd, in, sizeof in) : 1;
        if ((wrote < 0 && errno != EAGAIN) || (got < 0 && errno != EAGAIN) || !got)
            die("the connection that pipelines broke");
        sent = (sent + (size_t)(wrote > 0 ? wrote : 0)) % sizeof out;
    }
    die("poll: %s", strerror(errno));
}

// A process of its own, so that it never holds up the pings.
static pid_t start_pump(const struct options *options) {
    pid_t pid = fork();
    if (pid < 0)
        die("fork: %s", strerror(errno));
    if (pid > 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pump(options);
}

void run_pipeline(struct options *options) {
    struct pinger pinger;
    pinger_init(&pinger, options);
    printf("{\"mode\": \"pipeline\"");
    ping_until(&pinger, now_ns() + 1000000000u, "alone");
    fflush(stdout);
    pid_t pid = start_pump(options);
    for (int i = 0; i < WARM_UP_PINGS; i++)
        ping(&pinger);
    ping_until(&pinger, now_ns() + PIPELINE_SECONDS * 1000000000ull, "second");
    if (waitpid(pid, NULL, WNOHANG) != 0)
        die("the connection that pipelines ended too soon");
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    printf("}\n");
}

// --- expire ----------------------------------------------------------------------------------

static void on_expired(struct client_conn *conn, const struct reply *reply) {
    struct bench *bench = conn->data;
    if (reply->status != 200 || !memmem(reply->body, reply->body_size, "\"updates\":[]", 12))
        die("a poll was answered %d: %.*s", reply->status, (int)reply->body_size, reply->body);
    bench->expired++;
}

// Sends the polls, each on its own channel, so that all of them end at `end_ns`.
static void park_until(struct bench *bench, uint64_t end_ns) {
    for (size_t i = 0; i < bench->options->polls; i++) {
        char request[REQUEST_MAX];
        double sleep_s = ((double)end_ns - (double)now_ns()) / 1e9;
        int size =
            snprintf(request, sizeof request,
                     "GET /ch%zu?sleep=%.3f HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", i, sleep_s);
        client_send(&bench->subscribers[i].conn, request, (size_t)size);
        if ((i + 1) % PARK_STEP == 0 || i + 1 == bench->options->polls)
            bench_await_parked(bench, i + 1);
    }
}

void run_expire(struct options *options) {
    struct bench bench;
    options->channels = options->polls;
    bench_init(&bench, options);
    bench.subscribers = allocate(options->polls, sizeof *bench.subscribers);
    for (size_t i = 0; i < options->polls; i++)
        bench_open(&bench, &bench.subscribers[i].conn, &options->server, on_expired);
    struct pinger pinger;
    pinger_init(&pinger, options);
    uint64_t end_ns = now_ns() + LEAD_SECONDS * 1000000000ull;
    uint64_t around_ns = AROUND_MS * 1000000ull;
    park_until(&bench, end_ns);
    if (bench.expired || now_ns() + 2 * around_ns > end_ns)
        die("parking took too long");

    printf("{\"mode\": \"expire\", \"polls\": %zu", options->polls);
    ping_until(&pinger, end_ns - around_ns, "before");
    // The replies stay in the sockets meanwhile: reading them would hold up the pings.
    ping_until(&pinger, end_ns + around_ns, "stall");
    while (bench.expired < options->polls)
        bench_turn(&bench);
    printf("}\n");
}
