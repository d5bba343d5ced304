#include "redis/conn.h"
#include "base/loop_memory.h"

#include <assert.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { READ_BYTES = 65536, READER_KEEPS_BYTES = 16384, OUT_KEEP_BYTES = 65536 };

/* The socket of one try, freed by the loop when all of it is over; then `conn` may be long gone. */
struct redis_link {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    };
    struct redis_conn *conn; /* NULL: given up */
    uv_getaddrinfo_t resolve;
    uv_connect_t connect;
    redisReader *reader;
    size_t most_bytes; /* that it held at once */
    struct tls *tls;
    bool is_resolving, is_closed;
};

/* Bytes on their way. */
struct sending {
    uv_write_t write;
    char data[];
};

static void greet(struct redis_conn *conn);
static redisReader *new_reader(void);

/* --- The socket ------------------------------------------------------------------------------- */

static void link_free(struct redis_link *link) {
    if (link->is_resolving || !link->is_closed)
        return;
    redisReaderFree(link->reader);
    tls_free(link->tls);
    free(link);
}

static void on_link_closed(uv_handle_t *handle) {
    struct redis_link *link = container_of(handle, struct redis_link, handle);
    link->is_closed = true;
    link_free(link);
}

static void drop_link(struct redis_conn *conn) {
    struct redis_link *link = conn->link;
    if (!link)
        return;
    conn->link = NULL;
    link->conn = NULL;
    if (link->is_resolving)
        uv_cancel((uv_req_t *)&link->resolve);
    uv_close(&link->handle, on_link_closed);
}

/* Ends the try or the connection; calls get NULL. */
static void drop(struct redis_conn *conn) {
    drop_link(conn);
    conn->state = REDIS_CONN_DOWN;
    conn->is_pinging = conn->is_held = false;
    buf_reset(&conn->out, 0);
    buf_reset(&conn->held, 0);
    struct list calls;
    list_init(&calls);
    list_splice(&calls, &conn->calls);
    for (struct list *node; (node = list_shift(&calls));) {
        struct redis_call *call = container_of(node, struct redis_call, link);
        call->done(call, NULL);
    }
}

struct redis_reason redis_reason(const char *said) {
    struct redis_reason reason;
    snprintf(reason.text, sizeof reason.text, "%s", said);
    char *arguments = strstr(reason.text, ", with args");
    if (arguments)
        *arguments = '\0';
    return reason;
}

void redis_conn_fail(struct redis_conn *conn, const char *reason) {
    snprintf(conn->reason, sizeof conn->reason, "%s", redis_reason(reason).text);
    if (conn->state == REDIS_CONN_READY && uv_now(conn->loop) - conn->ready_ms > REDIS_STABLE_MS)
        conn->backoff_ms = 0;
    drop(conn);
    conn->backoff_ms = conn->backoff_ms ? conn->backoff_ms * 2 : REDIS_BACKOFF_MIN_MS;
    if (conn->backoff_ms > REDIS_BACKOFF_MAX_MS)
        conn->backoff_ms = REDIS_BACKOFF_MAX_MS;
    conn->retry_ms =
        uv_now(conn->loop) + conn->backoff_ms / 2 + randombytes_uniform((uint32_t)conn->backoff_ms);
    conn->events->down(conn, conn->reason);
}

/* --- Reading ---------------------------------------------------------------------------------- */

static void got_reply(struct redis_conn *conn, redisReply *reply) {
    bool is_message = conn->events->message && conn->state == REDIS_CONN_READY;
    if (is_message) {
        conn->is_pinging = false;
        conn->events->message(conn, reply);
    } else {
        struct list *node = list_shift(&conn->calls);
        if (node) {
            struct redis_call *call = container_of(node, struct redis_call, link);
            call->done(call, reply);
        }
    }
    freeReplyObject(reply);
}

/* Lets go of a large buffer once it is empty, between two replies. */
static void shrink_reader(struct redis_link *link) {
    bool is_idle = !link->reader->len && link->reader->ridx < 0;
    redisReader *smaller = is_idle && link->most_bytes > READER_KEEPS_BYTES ? new_reader() : NULL;
    if (!smaller)
        return;
    redisReaderFree(link->reader);
    link->reader = smaller;
    link->most_bytes = 0;
}

/* Hands on every whole reply of the bytes; stops when a reply ends this link. */
static void feed(struct redis_link *link, struct slice bytes) {
    if (redisReaderFeed(link->reader, bytes.data, bytes.len) != REDIS_OK) {
        redis_conn_fail(link->conn, "out of memory");
        return;
    }
    if (link->most_bytes < link->reader->len)
        link->most_bytes = link->reader->len;
    while (link->conn) {
        void *reply = NULL;
        if (redisReaderGetReply(link->reader, &reply) != REDIS_OK) {
            redis_conn_fail(link->conn, "what came is not the protocol of Redis");
            return;
        }
        if (!reply) {
            shrink_reader(link);
            return;
        }
        got_reply(link->conn, reply);
    }
}

static void send_bytes(struct redis_conn *conn, struct slice bytes);

static void send_tls(struct redis_conn *conn) {
    struct buf out = {0};
    tls_take(conn->link->tls, &out);
    send_bytes(conn, (struct slice){out.data, out.len});
    buf_deinit(&out);
}

static void feed_tls(struct redis_link *link, struct slice bytes) {
    bool was_ready = tls_is_ready(link->tls);
    if (!tls_feed(link->tls, bytes)) {
        redis_conn_fail(link->conn, tls_error(link->tls));
        return;
    }
    send_tls(link->conn);
    if (link->conn && !was_ready && tls_is_ready(link->tls))
        greet(link->conn);
    static char clear[READ_BYTES];
    for (size_t len = 1; link->conn && len;) {
        if (!tls_read(link->tls, clear, sizeof clear, &len))
            redis_conn_fail(link->conn, tls_error(link->tls));
        else if (len)
            feed(link, (struct slice){clear, len});
    }
}

static void on_alloc(uv_handle_t *handle, size_t suggested __attribute__((unused)), uv_buf_t *buf) {
    static char memory[READ_BYTES]; /* emptied before the next read */
    assert(!uv_is_closing(handle));
    *buf = uv_buf_init(memory, READ_BYTES);
}

static void take(struct redis_link *link, struct slice bytes) {
    if (link->tls)
        feed_tls(link, bytes);
    else
        feed(link, bytes);
}

void redis_conn_hold(struct redis_conn *conn) {
    conn->is_held = true;
    uv_read_stop(&conn->link->stream);
}

static void hold_bytes(struct redis_conn *conn, struct slice bytes) {
    redis_conn_hold(conn);
    buf_append(&conn->held, bytes.data, bytes.len);
    if (conn->held.failed)
        redis_conn_fail(conn, "out of memory");
}

static void on_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *buf) {
    struct redis_link *link = container_of(stream, struct redis_link, stream);
    struct redis_conn *conn = link->conn; /* nothing is read once it is given up */
    if (!len)
        return;
    if (len < 0) {
        redis_conn_fail(conn, len == UV_EOF ? "closed by Redis" : uv_strerror((int)len));
        return;
    }
    struct slice bytes = {buf->base, (size_t)len};
    uint64_t silent_ms = uv_now(conn->loop) - conn->heard_ms;
    conn->heard_ms = uv_now(conn->loop);
    bool was_silent = conn->state == REDIS_CONN_READY && silent_ms > REDIS_SILENCE_MS;
    bool must_hold = was_silent && conn->events->silent && conn->events->silent(conn);
    if (!link->conn)
        return;
    if (must_hold)
        hold_bytes(conn, bytes);
    else
        take(link, bytes);
}

void redis_conn_release(struct redis_conn *conn) {
    if (!conn->is_held)
        return;
    struct redis_link *link = conn->link;
    struct buf held = conn->held;
    conn->held = (struct buf){0};
    conn->is_held = false;
    conn->heard_ms = uv_now(conn->loop);
    take(link, (struct slice){held.data, held.len});
    buf_deinit(&held);
    int status = link->conn ? uv_read_start(&link->stream, on_alloc, on_read) : 0;
    if (status < 0)
        redis_conn_fail(conn, uv_strerror(status));
}

/* --- Writing ---------------------------------------------------------------------------------- */

static void on_written(uv_write_t *write, int status) {
    struct redis_link *link = container_of(write->handle, struct redis_link, stream);
    free(container_of(write, struct sending, write));
    if (status < 0 && link->conn)
        redis_conn_fail(link->conn, uv_strerror(status));
}

static void send_bytes(struct redis_conn *conn, struct slice bytes) {
    if (!bytes.len)
        return;
    uv_stream_t *stream = &conn->link->stream;
    uv_buf_t whole = uv_buf_init((char *)bytes.data, (unsigned)bytes.len);
    int sent = uv_try_write(stream, &whole, 1);
    size_t done = sent > 0 ? (size_t)sent : 0;
    if (sent < 0 && sent != UV_EAGAIN) {
        redis_conn_fail(conn, uv_strerror(sent));
        return;
    }
    size_t left = bytes.len - done;
    if (!left)
        return;
    struct sending *sending = malloc(sizeof *sending + left);
    if (!sending) {
        redis_conn_fail(conn, "out of memory");
        return;
    }
    memcpy(sending->data, bytes.data + done, left);
    uv_buf_t rest = uv_buf_init(sending->data, (unsigned)left);
    int status = uv_write(&sending->write, stream, &rest, 1, on_written);
    if (status < 0) {
        free(sending);
        redis_conn_fail(conn, uv_strerror(status));
    }
}

/* turn_task: sends what this turn has written. */
static void on_flush(struct turn_task *task) {
    struct redis_conn *conn = container_of(task, struct redis_conn, flush);
    if (!conn->out.len)
        return;
    if (conn->out.failed) {
        redis_conn_fail(conn, "out of memory");
        return;
    }
    struct slice text = {conn->out.data, conn->out.len};
    struct redis_link *link = conn->link;
    if (!link->tls)
        send_bytes(conn, text);
    else if (tls_write(link->tls, text))
        send_tls(conn);
    else
        redis_conn_fail(conn, tls_error(link->tls));
    buf_reset(&conn->out, OUT_KEEP_BYTES);
}

static void put_length(struct redis_conn *conn, char mark, size_t length) {
    char text[24];
    text[0] = mark;
    size_t len = 1 + format_number(text + 1, length);
    text[len++] = '\r';
    text[len++] = '\n';
    buf_append(&conn->out, text, len);
}

void redis_conn_command(struct redis_conn *conn, int argc) {
    put_length(conn, '*', (size_t)argc);
}

void redis_conn_argument(struct redis_conn *conn, struct slice argument) {
    put_length(conn, '$', argument.len);
    buf_append(&conn->out, argument.data, argument.len);
    buf_append(&conn->out, "\r\n", 2);
}

void redis_conn_number(struct redis_conn *conn, int64_t number) {
    char text[24] = "-";
    uint64_t size = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    size_t len = (number < 0) + format_number(text + (number < 0), size);
    redis_conn_argument(conn, (struct slice){text, len});
}

void redis_conn_sent(struct redis_conn *conn, struct redis_call *call) {
    turn_end(&conn->flush);
    if (!call)
        return;
    call->sent_ms = uv_now(conn->loop);
    list_append(&conn->calls, &call->link);
}

void redis_conn_words(struct redis_conn *conn, struct redis_call *call, ...) {
    va_list args, again;
    va_start(args, call);
    va_copy(again, args);
    int argc = 0;
    while (va_arg(args, const char *))
        argc++;
    va_end(args);
    redis_conn_command(conn, argc);
    for (int i = 0; i < argc; i++) {
        const char *word = va_arg(again, const char *);
        redis_conn_argument(conn, (struct slice){word, strlen(word)});
    }
    va_end(again);
    redis_conn_sent(conn, call);
}

/* --- Greeting --------------------------------------------------------------------------------- */

enum { GREET_AUTH, GREET_SELECT, GREET_PING, GREET_DONE };

/* Sends the next command of the greeting; the one after it goes out with its reply. */
static void greet_on(struct redis_conn *conn) {
    struct redis_call *call = &conn->greeting;
    const char *user = conn->pass == conn->options->pass ? conn->options->user : NULL;
    if (conn->greeted == GREET_AUTH && !conn->pass)
        conn->greeted++;
    if (conn->greeted == GREET_SELECT && !conn->db)
        conn->greeted++;
    char number[24];
    switch (conn->greeted++) {
    case GREET_AUTH:
        if (user)
            redis_conn_words(conn, call, "AUTH", user, conn->pass, NULL);
        else
            redis_conn_words(conn, call, "AUTH", conn->pass, NULL);
        break;
    case GREET_SELECT:
        snprintf(number, sizeof number, "%lld", (long long)conn->db);
        redis_conn_words(conn, call, "SELECT", number, NULL);
        break;
    case GREET_PING: redis_conn_words(conn, call, "PING", NULL); break;
    case GREET_DONE:
        conn->state = REDIS_CONN_READY;
        conn->ready_ms = uv_now(conn->loop);
        conn->events->ready(conn);
        break;
    }
}

/* A user who may not PING hears from a Redis that is well all the same. */
static bool is_pong(const redisReply *reply) {
    return reply->type != REDIS_REPLY_ERROR || strncmp(reply->str, "NOPERM", 6) == 0;
}

static void on_greeting(struct redis_call *call, const redisReply *reply) {
    struct redis_conn *conn = container_of(call, struct redis_conn, greeting);
    if (!reply)
        return;
    bool was_ping = conn->greeted == GREET_PING + 1;
    if (was_ping ? !is_pong(reply) : reply->type == REDIS_REPLY_ERROR)
        redis_conn_fail(conn, reply->str);
    else
        greet_on(conn);
}

static void greet(struct redis_conn *conn) {
    conn->state = REDIS_CONN_GREETING;
    conn->greeted = GREET_AUTH;
    conn->heard_ms = uv_now(conn->loop);
    greet_on(conn);
}

/* --- Connecting ------------------------------------------------------------------------------- */

static void on_connected(uv_connect_t *connect, int status) {
    struct redis_link *link = container_of(connect, struct redis_link, connect);
    struct redis_conn *conn = link->conn;
    if (!conn)
        return;
    if (status == 0)
        status = uv_read_start(&link->stream, on_alloc, on_read);
    if (status < 0)
        redis_conn_fail(conn, uv_strerror(status));
    else if (link->tls)
        send_tls(conn);
    else
        greet(conn);
}

static void connect_tcp(struct redis_link *link, const struct sockaddr *address) {
    uv_tcp_nodelay(&link->tcp, 1);
    int status = uv_tcp_connect(&link->connect, &link->tcp, address, on_connected);
    if (status < 0)
        redis_conn_fail(link->conn, uv_strerror(status));
}

static void on_resolved(uv_getaddrinfo_t *resolve, int status, struct addrinfo *found) {
    struct redis_link *link = container_of(resolve, struct redis_link, resolve);
    link->is_resolving = false;
    if (!link->conn) {
        link_free(link);
    } else if (status < 0) {
        redis_conn_fail(link->conn, uv_strerror(status));
    } else { /* another one of its addresses with each try */
        unsigned count = 1;
        for (struct addrinfo *one = found->ai_next; one; one = one->ai_next)
            count++;
        struct addrinfo *chosen = found;
        for (unsigned skip = link->conn->tries % count; skip--;)
            chosen = chosen->ai_next;
        connect_tcp(link, chosen->ai_addr);
    }
    uv_freeaddrinfo(found);
}

static void start_tcp(struct redis_link *link) {
    struct redis_conn *conn = link->conn;
    const char *host = conn->address.host;
    union {
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr any;
    } address;
    if (uv_ip4_addr(host, conn->address.port, &address.v4) == 0 ||
        uv_ip6_addr(host, conn->address.port, &address.v6) == 0) {
        connect_tcp(link, &address.any);
        return;
    }
    char port[8];
    snprintf(port, sizeof port, "%u", conn->address.port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    int status = uv_getaddrinfo(conn->loop, &link->resolve, on_resolved, host, port, &hints);
    link->is_resolving = status == 0;
    if (status < 0)
        redis_conn_fail(conn, uv_strerror(status));
}

#if HIREDIS_MAJOR >= 1
typedef size_t array_length;
#else
typedef int array_length;
#endif

static redisReplyObjectFunctions functions; /* hiredis' own, but for createArray */
static void *(*create_any_array)(const redisReadTask *task, array_length length);

/* hiredis makes room for all that an array says it has, before any of that is there. */
static void *create_array(const redisReadTask *task, array_length length) {
    return length <= REDIS_ARRAY_MAX ? create_any_array(task, length) : NULL;
}

/* NULL when memory is out. */
static redisReader *new_reader(void) {
    redisReader *reader = redisReaderCreate();
    if (reader && !create_any_array) {
        functions = *reader->fn;
        create_any_array = functions.createArray;
        functions.createArray = create_array;
    }
    if (reader) {
        reader->fn = &functions;
        reader->maxbuf = 0; /* else it shrinks its buffer itself, and aborts without memory */
    }
    return reader;
}

static void try_to_connect(struct redis_conn *conn) {
    conn->tries++;
    conn->tried_ms = uv_now(conn->loop);
    struct redis_link *link = calloc(1, sizeof *link);
    redisReader *reader = new_reader();
    struct tls *tls = conn->tls ? tls_new(conn->tls, conn->address.host) : NULL;
    if (!link || !reader || (conn->tls && !tls) || !loop_memory_reserve_next(conn->loop)) {
        redisReaderFree(reader);
        tls_free(tls);
        free(link);
        redis_conn_fail(conn, "out of memory");
        return;
    }
    link->conn = conn;
    link->reader = reader;
    link->tls = tls;
    conn->link = link;
    conn->state = REDIS_CONN_CONNECTING;
    if (*conn->address.host == '/') {
        uv_pipe_init(conn->loop, &link->pipe, 0);
        uv_pipe_connect(&link->connect, &link->pipe, conn->address.host, on_connected);
    } else {
        uv_tcp_init(conn->loop, &link->tcp);
        start_tcp(link);
    }
}

/* --- The clock -------------------------------------------------------------------------------- */

static void on_pong(struct redis_call *call, const redisReply *reply) {
    struct redis_conn *conn = container_of(call, struct redis_conn, ping);
    if (reply && !is_pong(reply))
        redis_conn_fail(conn, reply->str);
}

/* Since when Redis owes something; UINT64_MAX: it owes nothing. */
static uint64_t owes_since(const struct redis_conn *conn) {
    if (conn->state == REDIS_CONN_CONNECTING)
        return conn->tried_ms;
    if (conn->is_pinging)
        return conn->pinged_ms;
    if (list_empty(&conn->calls))
        return UINT64_MAX;
    uint64_t sent = container_of(conn->calls.next, struct redis_call, link)->sent_ms;
    return sent > conn->heard_ms ? sent : conn->heard_ms;
}

static void ping(struct redis_conn *conn, uint64_t now_ms) {
    if (conn->events->message) {
        conn->is_pinging = true;
        conn->pinged_ms = now_ms;
        redis_conn_words(conn, NULL, "PING", NULL);
    } else {
        redis_conn_words(conn, &conn->ping, "PING", NULL);
    }
}

bool redis_conn_is_behind(const struct redis_conn *conn, uint64_t now_ms) {
    if (list_empty(&conn->calls))
        return false;
    uint64_t sent_ms = container_of(conn->calls.next, struct redis_call, link)->sent_ms;
    bool is_slow = sent_ms < now_ms && now_ms - sent_ms > conn->stall_ms / 2;
    return is_slow || uv_stream_get_write_queue_size(&conn->link->stream) + conn->out.len >
                          REDIS_UNSENT_MAX_BYTES;
}

void redis_conn_tick(struct redis_conn *conn, uint64_t now_ms) {
    if (!conn->is_open || conn->is_held)
        return;
    uint64_t since = owes_since(conn);
    if (conn->state == REDIS_CONN_DOWN) {
        if (now_ms >= conn->retry_ms)
            try_to_connect(conn);
    } else if (since < now_ms && now_ms - since > conn->stall_ms) {
        redis_conn_fail(conn, conn->state == REDIS_CONN_CONNECTING ? "no connection in time"
                                                                   : "no answer in time");
    } else if (conn->state == REDIS_CONN_READY && since == UINT64_MAX &&
               now_ms - conn->heard_ms > REDIS_PING_MS) {
        ping(conn, now_ms);
    }
}

/* --- Making and ending ------------------------------------------------------------------------ */

void redis_conn_init(struct redis_conn *conn, uv_loop_t *loop, const struct redis_options *options,
                     struct tls_context *tls, const struct redis_conn_events *events) {
    *conn = (struct redis_conn){
        .loop = loop,
        .events = events,
        .options = options,
        .tls = tls,
        .pass = options->pass,
        .db = options->db,
        .stall_ms = (uint64_t)options->timeout_ms,
        .greeting.done = on_greeting,
        .ping.done = on_pong,
    };
    list_init(&conn->calls);
    turn_task_init(&conn->flush, on_flush);
}

void redis_conn_open(struct redis_conn *conn, const struct redis_address *address) {
    conn->address = *address;
    conn->is_open = true;
    conn->backoff_ms = conn->retry_ms = 0;
    try_to_connect(conn);
}

void redis_conn_close(struct redis_conn *conn) {
    conn->is_open = false;
    drop(conn);
    turn_cancel(&conn->flush);
    buf_deinit(&conn->out);
    buf_deinit(&conn->held);
}
