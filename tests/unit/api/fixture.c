#include "fixture.h"

#include "api/report.h"
#include "base/clock.h"
#include "base/config.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/turn.h"
#include "base/worker.h"
#include "sqlite/store.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

uv_loop_t loop;
struct conn_shared connections;
struct store *given_store;
void (*on_turn)(void);
bool uses_io_uring;
static int listener;

/* --- The server ------------------------------------------------------------------------------- */

static void on_conn_closed(void *context) {
    (void)context;
}

void connections_up(void) {
    connections = (struct conn_shared){.handler = &api_handler,
                                       .request_timeout_ms = 30000,
                                       .idle_timeout_ms = 30000,
                                       .body_max_bytes = 1 << 22,
                                       .uses_io_uring = uses_io_uring,
                                       .on_closed = on_conn_closed};
    assert_true(conn_shared_init(&connections, &loop));
}

void connections_down(void) {
    conn_close_all(&connections);
    until_idle();
    conn_shared_deinit(&connections);
    uv_run(&loop, UV_RUN_NOWAIT); /* its handles are closed then */
}

static void make_store(void) {
    char error[256];
    struct store_options store = {.sync = SYNC_NEVER,
                                  .channel_max_updates = 1000,
                                  .ttl_ms = 3600000,
                                  .wall_ms = clock_wall_ms,
                                  .steady_ms = clock_steady_ms};
    struct inbox_options inbox = {
        .channel_max_updates = 1000, .ttl_ms = 3600000, .cache_max_bytes = 1 << 20};
    api = (struct api){.connections = &connections,
                       .provider = "memory",
                       .capture_headers = true,
                       .may_purge = true,
                       .keep_updates = 1000,
                       .keep_seconds = 3600,
                       .poll_max_ms = 60000};
    api.store = given_store ? given_store : store_sqlite_open(&loop, &store, error, sizeof error);
    api.inbox = inbox_new(&loop, api.store, &inbox, &api_inbox_events);
    api.trust = proxy_trust_new("all", error, sizeof error);
    assert_true(api.store && api.inbox && api.trust);
}

int server_up(void **state) {
    (void)state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    signal(SIGPIPE, SIG_IGN);
    hash_init();
    log_init(LOG_LEVEL_ERROR + 1, false);
    report_init();
    uv_loop_init(&loop);
    turn_init(&loop);
    assert_int_equal(worker_init(&loop), 0);
    budget_init(64 << 20);
    make_store();
    connections_up();
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    /* The kernel finds an abstract name. */
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address.sun_family), 0);
    return listen(listener, 64);
}

static void on_store_closed(void *is_closed) {
    *(bool *)is_closed = true;
}

static bool is_stopped;

static void on_inbox_stopped(void) {
    is_stopped = true;
}

int server_down(void **state) {
    (void)state;
    bool is_closed = false;
    connections_down();
    is_stopped = false;
    inbox_stop(api.inbox, on_inbox_stopped);
    UNTIL(is_stopped);
    if (!given_store)
        store_close(api.store, on_store_closed, &is_closed);
    UNTIL(is_closed || given_store);
    inbox_free(api.inbox);
    limiter_free(api.limiter);
    proxy_trust_free(api.trust);
    worker_deinit();
    turn_deinit();
    close(listener);
    uv_run(&loop, UV_RUN_DEFAULT);
    return uv_loop_close(&loop);
}

/* --- Turns ------------------------------------------------------------------------------------ */

void turn(void) {
    while (conn_accept(&connections, listener) == 0)
        ;
    struct pollfd anything = {.fd = uv_backend_fd(&loop), .events = POLLIN};
    int wait_ms = uv_backend_timeout(&loop);
    poll(&anything, 1, wait_ms < 0 || wait_ms > 1 ? 1 : wait_ms);
    uv_run(&loop, UV_RUN_NOWAIT);
    if (on_turn)
        on_turn();
}

void until_idle(void) {
    for (uint64_t end_ns = uv_hrtime() + PATIENCE_NS; uv_hrtime() < end_ns; turn())
        if (!connections.open && !budget_used() && !counters.polls_parked && !counters.streams &&
            !inbox_is_writing(api.inbox))
            return;
    fail_msg("left: %d connections, %d bytes, %d polls, %d streams, writing: %d",
             (int)connections.open, (int)budget_used(), (int)counters.polls_parked,
             (int)counters.streams, inbox_is_writing(api.inbox));
}

/* --- Clients ---------------------------------------------------------------------------------- */

int client_new(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t len = sizeof address;
    int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    getsockname(listener, (struct sockaddr *)&address, &len);
    assert_int_equal(connect(client, (struct sockaddr *)&address, len), 0);
    return client;
}

void client_send(int client, struct slice bytes) {
    while (bytes.len) {
        ssize_t sent = send(client, bytes.data, bytes.len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            return; /* the server has closed */
        if (sent < 0)
            turn();
        else
            bytes = slice_after(bytes, (size_t)sent);
    }
}

bool client_read(int client, struct buf *got) {
    ssize_t len;
    while ((len = recv(client, got->data + got->len, got->cap - got->len, MSG_DONTWAIT)) > 0)
        got->len += (size_t)len;
    return len < 0 && errno == EAGAIN;
}

bool has_text(const struct buf *got, const char *text) {
    return got->len && memmem(got->data, got->len, text, strlen(text));
}

int request(const struct buf *text, const char *until, struct buf *got) {
    int client = client_new();
    got->len = 0;
    client_send(client, (struct slice){text->data, text->len});
    UNTIL(!client_read(client, got) || (until && has_text(got, until)));
    close(client);
    return got->len > sizeof "HTTP/1.1 200" ? atoi(got->data + sizeof "HTTP/1.1") : 0;
}

void put_request(struct buf *out, const char *head, const char *body, unsigned times) {
    buf_printf(out, "%sContent-Length: %zu\r\n\r\n", head, times * strlen(body));
    for (unsigned i = 0; i < times; i++)
        buf_puts(out, body);
}

void push(const char *channel, const char *body, unsigned times) {
    static char room[1024];
    struct buf text = {0}, got = {.data = room, .cap = sizeof room, .is_borrowed = true};
    char head[128];
    snprintf(head, sizeof head,
             "POST /%s HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nConnection: close\r\n",
             channel);
    put_request(&text, head, body, times);
    assert_int_equal(request(&text, NULL, &got), 200);
    buf_deinit(&text);
}
