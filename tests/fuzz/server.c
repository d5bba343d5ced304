#include "server.h"
#include "api/api.h"
#include "api/report.h"
#include "base/clock.h"
#include "base/config.h"
#include "base/counters.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/loop_memory.h"
#include "base/worker.h"
#include "http/budget.h"
#include "sqlite/store.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    BODY_MAX_BYTES = 100000,
    BUFFER_BYTES = 1 << 20,
    GOT_MAX_BYTES = 16 << 20,
    END_TURNS = 100000,
    SOCKET_BYTES = 4096,
};

uv_loop_t *loop;
struct conn_shared shared;
struct client clients[CLIENTS_MAX];
static struct store *store;
static struct handler handler;

/* --- The worker ------------------------------------------------------------------------------- */

/* Instead of base/worker.c: it has no thread, and is done with the next turn. */
static struct list works;
static struct turn_task work_task;

static void on_work_turn(struct turn_task *task) {
    (void)task;
    struct list done, *link;
    list_init(&done);
    list_splice(&done, &works);
    while ((link = list_shift(&done))) {
        struct work *work = container_of(link, struct work, link);
        work->run(work);
        work->done(work);
    }
}

int worker_init(uv_loop_t *of) {
    (void)of;
    list_init(&works);
    turn_task_init(&work_task, on_work_turn);
    return 0;
}

void worker_submit(struct work *work) {
    list_init(&work->link);
    list_append(&works, &work->link);
    turn_next(&work_task);
}

/* --- Clients ---------------------------------------------------------------------------------- */

static void read_all(struct client *client) {
    char bytes[65536];
    ssize_t len = 1;
    while (client->fd >= 0 && !client->is_paused && !client->is_ended && len > 0) {
        len = recv(client->fd, bytes, sizeof bytes, MSG_DONTWAIT);
        if (len > 0)
            buf_append(&client->got, bytes, (size_t)len);
        client->is_ended = !len || (len < 0 && errno != EAGAIN);
    }
    assert(!client->got.failed && client->got.len <= GOT_MAX_BYTES);
}

void turn(void) {
    uv_run(loop, UV_RUN_NOWAIT);
    for (int i = 0; i < CLIENTS_MAX; i++)
        read_all(&clients[i]);
}

void turns(int count) {
    while (count--)
        turn();
}

int client_pair(int index) {
    int ends[2], bytes = SOCKET_BYTES;
    assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    assert(dup3(ends[0], SERVER_FD + index, O_CLOEXEC) == SERVER_FD + index);
    close(ends[0]);
    clients[index] = (struct client){.fd = ends[1], .server_fd = SERVER_FD + index};
    return SERVER_FD + index;
}

struct client *client_open(int index) {
    int error, fd = client_pair(index);
    struct conn *conn = conn_open(&shared, fd, &error);
    assert(conn);
    if (index) { /* the first one comes by a unix socket, and is trusted */
        memset(conn->peer.ip + 10, 0xff, 2);
        conn->peer.ip[12] = 10;
        conn->peer.ip[15] = (uint8_t)index;
    }
    conn_read(conn);
    conn_set_deadline(conn, shared.idle_timeout_ms);
    return &clients[index];
}

/* What the kernel does not take at once, the server gets as it reads. */
void client_send(struct client *client, struct slice bytes) {
    for (int tries = 0; bytes.len && client->fd >= 0 && tries < 200; tries++) {
        ssize_t sent = send(client->fd, bytes.data, bytes.len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            return;
        bytes = slice_after(bytes, sent > 0 ? (size_t)sent : 0);
        if (bytes.len)
            turn();
    }
    client->is_lax |= bytes.len;
}

void client_close(struct client *client) {
    if (client->fd >= 0)
        close(client->fd);
    client->fd = -1;
    client->is_lax = true;
}

/* --- What it got ------------------------------------------------------------------------------ */

static struct slice take_line(struct slice *rest) {
    const char *end = memmem(rest->data, rest->len, "\r\n", 2);
    assert(end);
    struct slice line = {rest->data, (size_t)(end - rest->data)};
    for (size_t i = 0; i < line.len; i++)
        assert(line.data[i] >= ' ' && line.data[i] != 127);
    *rest = slice_after(*rest, line.len + 2);
    return line;
}

struct head {
    int status;
    bool closes, is_chunked, has_length, is_json, is_events;
    uint64_t length;
};

/* The value of the header `name`; false when the line is another's. */
static bool is_header(struct slice line, const char *name, struct slice *value) {
    size_t len = strlen(name);
    if (line.len < len || strncasecmp(line.data, name, len) != 0)
        return false;
    *value = slice_after(line, len);
    return true;
}

static struct head take_head(struct slice *rest) {
    struct head head = {0};
    struct slice line = take_line(rest), value;
    assert(line.len > 13 && memcmp(line.data, "HTTP/1.1 ", 9) == 0 && line.data[12] == ' ');
    head.status = atoi(line.data + 9);
    assert(head.status >= 200 && head.status <= 599);
    while ((line = take_line(rest)).len) {
        const char *colon = memchr(line.data, ':', line.len);
        assert(colon && colon > line.data && colon[1] == ' ');
        if (is_header(line, "Content-Length: ", &value)) {
            assert(!head.has_length && slice_number(value, UINT32_MAX, &head.length));
            head.has_length = true;
        } else if (is_header(line, "Transfer-Encoding: ", &value)) {
            assert(slice_equal(value, SLICE("chunked")));
            head.is_chunked = true;
        } else if (is_header(line, "Connection: ", &value)) {
            head.closes = slice_equal(value, SLICE("close"));
        } else if (is_header(line, "Content-Type: ", &value)) {
            head.is_json = slice_equal(value, SLICE("application/json; charset=utf-8"));
            head.is_events = value.len >= 17 && memcmp(value.data, "text/event-stream", 17) == 0;
        }
    }
    assert(!head.is_chunked || !head.has_length);
    return head;
}

/* Whether the chunks are complete; appends what they hold. */
static bool take_chunks(struct slice *rest, struct buf *body) {
    for (;;) {
        if (!memmem(rest->data, rest->len, "\r\n", 2))
            return false;
        struct slice line = take_line(rest);
        char *end;
        size_t len = strtoul(line.data, &end, 16);
        assert(line.len && end == line.data + line.len);
        if (rest->len < len + 2)
            return false;
        buf_append(body, rest->data, len);
        assert(memcmp(rest->data + len, "\r\n", 2) == 0);
        *rest = slice_after(*rest, len + 2);
        if (!len)
            return true;
    }
}

/* Events are lines of known fields; the last may be cut off. */
static void check_events(struct slice body) {
    static const char *const fields[] = {"id:", "data:", "event:", "retry:", ":"};
    struct slice line;
    while (slice_cut(&body, '\n', &line) && body.data) {
        bool is_known = !line.len;
        for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
            is_known |= line.len >= strlen(fields[i]) &&
                        memcmp(line.data, fields[i], strlen(fields[i])) == 0;
        assert(is_known && !memchr(line.data, '\r', line.len));
    }
}

static void check_body(const struct head *head, struct slice body) {
    if (head->is_json && !head->is_chunked)
        assert(json_check(body) == JSON_OBJECT || json_check(body) == JSON_ARRAY);
    if (head->is_events)
        check_events(body);
}

/* Takes a reply; false when it is cut off. */
static bool take_reply(struct slice *rest, bool is_head, struct head *head) {
    if (!memmem(rest->data, rest->len, "\r\n\r\n", 4))
        return false;
    *head = take_head(rest);
    struct slice body = {rest->data, 0};
    struct buf chunks = {0};
    bool has_body = !is_head && head->status != 204 && head->status != 304, is_whole = true;
    if (has_body && head->is_chunked) {
        is_whole = take_chunks(rest, &chunks);
        body = (struct slice){chunks.data ? chunks.data : "", chunks.len};
    } else if (has_body) {
        bool is_endless = !head->has_length;
        assert(!is_endless || head->closes);
        body.len = is_endless || head->length > rest->len ? rest->len : head->length;
        is_whole = is_endless || body.len == head->length;
        *rest = slice_after(*rest, body.len);
    }
    if (is_whole && has_body)
        check_body(head, body);
    buf_deinit(&chunks);
    return is_whole;
}

void client_check(struct client *client) {
    struct slice rest = {client->got.data ? client->got.data : "", client->got.len};
    uint32_t replies = 0;
    bool closes = false, is_whole = true;
    while (rest.len && is_whole) {
        if (rest.len >= 25 && memcmp(rest.data, "HTTP/1.1 100 Continue\r\n\r\n", 25) == 0) {
            rest = slice_after(rest, 25);
            continue;
        }
        assert(!closes); /* nothing comes behind the last one */
        struct head head = {0};
        bool is_known = replies < client->asked;
        is_whole = take_reply(&rest, is_known && client->is_head[replies], &head);
        closes = head.closes;
        assert(is_known || !is_whole || (closes && head.status >= 400));
        replies += is_whole;
    }
    assert(replies <= client->asked + 1);
    assert(is_whole || client->is_lax || client->is_ended);
    assert(client->is_lax || replies >= client->asked || client->asked >= REQUESTS_MAX);
}

/* --- The handler ------------------------------------------------------------------------------ */

/* The handler's requests pass by here, and are noted. */
static void on_request(struct exchange *exchange, const struct request *request) {
    uv_os_fd_t fd = -1;
    assert(uv_fileno(&conn_of(exchange)->handle, &fd) == 0);
    for (int i = 0; i < CLIENTS_MAX; i++)
        if (clients[i].server_fd == fd && clients[i].fd >= 0 && clients[i].asked < REQUESTS_MAX)
            clients[i].is_head[clients[i].asked++] = exchange->is_head;
    api_handler.request(exchange, request);
}

/* --- The server ------------------------------------------------------------------------------- */

void server_set_up(void) {
    char error[128];
    signal(SIGPIPE, SIG_IGN);
    hash_init();
    log_init(LOG_LEVEL_ERROR + 1, false);
    report_init();
    loop_memory_init(NULL);
    loop = uv_default_loop();
    turn_init(loop);
    assert(worker_init(loop) == 0);
    api.trust = proxy_trust_new("loopback", error, sizeof error);
    assert(api.trust);
    for (int i = 0; i < CLIENTS_MAX; i++)
        clients[i].fd = clients[i].server_fd = -1;
    handler = api_handler;
    handler.request = on_request;
}

static void on_closed(void *context) {
    (void)context;
}

void server_open(void) {
    char error[256];
    struct store_options options = {.sync = SYNC_NEVER,
                                    .channel_max_updates = 100,
                                    .ttl_ms = 3600 * 1000,
                                    .wall_ms = clock_wall_ms,
                                    .steady_ms = clock_steady_ms};
    store = store_sqlite_open(loop, &options, error, sizeof error);
    struct inbox_options inbox_options = {
        .channel_max_updates = 100, .ttl_ms = 3600 * 1000, .cache_max_bytes = 1 << 20};
    assert(store);
    budget_init(BUFFER_BYTES);
    counters = (struct counters){0};
    api = (struct api){.inbox = inbox_new(loop, store, &inbox_options, &api_inbox_events),
                       .store = store,
                       .connections = &shared,
                       .limiter = limiter_new(300, 60 * 1000),
                       .trust = api.trust,
                       .provider = "memory",
                       .capture_headers = true,
                       .may_purge = true,
                       .keep_updates = 100,
                       .keep_seconds = 3600,
                       .poll_max_ms = 30 * 1000};
    assert(api.inbox && api.limiter);
    shared = (struct conn_shared){.handler = &handler,
                                  .request_timeout_ms = 10 * 1000,
                                  .idle_timeout_ms = 60 * 1000,
                                  .body_max_bytes = BODY_MAX_BYTES,
                                  .on_closed = on_closed};
    assert(conn_shared_init(&shared, loop));
}

static void on_store_closed(void *context) {
    (void)context;
    store = NULL;
}

static void on_stopped(void) {
    store_close(store, on_store_closed, NULL);
}

static bool is_over(void) {
    return !shared.open && !inbox_is_writing(api.inbox) && !budget_used();
}

void server_shut(void) {
    conn_close_all(&shared);
    for (int i = 0; i < END_TURNS && !is_over(); i++)
        turn();
    assert(is_over() && api_handler.is_quiet());
    assert(!counters.streams && !counters.polls_parked);
    conn_shared_deinit(&shared);
    inbox_stop(api.inbox, on_stopped);
    for (int i = 0; i < END_TURNS && store; i++) {
        turn();
        time_passes(100);
    }
    assert(!store);
    inbox_free(api.inbox);
    limiter_free(api.limiter);
    turns(2);
    for (int i = 0; i < CLIENTS_MAX; i++) {
        client_close(&clients[i]);
        buf_deinit(&clients[i].got);
        clients[i].server_fd = -1;
    }
}
