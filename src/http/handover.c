#include "http/handover.h"
#include "http/budget.h"
#include "http/conn_parts.h"
#include "http/sender.h"

#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Bytes in the file. */
struct place {
    uint64_t at, len;
};

/* What exchange.state holds of a connection that was taken out. */
struct taken {
    struct place exchange, in;
    struct sending *sendings; /* when it is saved: the last of them, whose `next` is the first */
    uint64_t due_ms;
    uint8_t state; /* enum conn_state, of one that is CONN_SAVED now */
    bool is_partial;
};

enum { SLICE_MS = 1 }; /* of a turn, for those that are restored */

_Static_assert(sizeof(struct taken) <= EXCHANGE_STATE_BYTES, "it fits into the exchange");

/* What is true of a connection; the order is that of the file. */
enum flag {
    FLAG_HEAD = 2, /* 1 was a unix socket's */
    FLAG_1_1 = 4,
    FLAG_CLOSE = 8,
    FLAG_WAITING = 16,
    FLAG_TOLD = 32,
    FLAG_PARTIAL = 64,
    FLAG_ALL = 127,
};

/* What is true of a reply. */
enum { REPLY_FLAG_CLOSE = 1, REPLY_FLAG_PART = 2, REPLY_FLAGS = 3 };

static struct taken *taken_of(struct conn *conn) {
    return (struct taken *)conn->exchange.state;
}

struct visit {
    struct conn_shared *shared;
    void (*visit)(struct conn *conn, void *context);
    void *context;
};

static void on_handle(uv_handle_t *handle, void *context) {
    const struct visit *visit = context;
    if (handle->data == visit->shared && !uv_is_closing(handle))
        visit->visit(container_of(handle, struct conn, handle), visit->context);
}

/* For each open connection. */
static void walk(struct conn_shared *shared, void (*visit)(struct conn *conn, void *context),
                 void *context) {
    struct visit visitor = {shared, visit, context};
    uv_walk(shared->loop, on_handle, &visitor);
}

/* --- Holding ---------------------------------------------------------------------------------- */

static void hold(uv_handle_t *handle, void *shared) {
    if (handle->data == shared && !uv_is_closing(handle))
        uv_read_stop((uv_stream_t *)handle);
}

void conn_hold_all(struct conn_shared *shared) {
    conn_restore_rest();
    shared->is_holding = true;
    sender_flush(shared->sender);
    conn_send_deferred(&shared->send_deferred);
    uv_walk(shared->loop, hold, shared);
}

static void release(uv_handle_t *handle, void *shared) {
    struct conn *conn = container_of(handle, struct conn, handle);
    if (handle->data == shared && !uv_is_closing(handle) && !conn->is_paused &&
        list_empty(&conn->held_link))
        conn_read(conn);
}

void conn_release_all(struct conn_shared *shared) {
    shared->is_holding = false;
    uv_walk(shared->loop, release, shared);
    if (!list_empty(&shared->resuming))
        turn_next(&shared->resume);
}

static void check_quiet(struct conn *conn, void *is_quiet) {
    bool has_exchange = conn->state == CONN_WAITING || conn->state == CONN_STREAMING;
    if (conn->queued || (has_exchange && !shared_of(conn)->handler->can_save(&conn->exchange)))
        *(bool *)is_quiet = false;
}

bool conn_all_quiet(struct conn_shared *shared) {
    bool is_quiet = shared->handler->is_quiet();
    walk(shared, check_quiet, &is_quiet);
    return is_quiet;
}

/* --- Taking out ------------------------------------------------------------------------------- */

/* What the client has sent and nobody has used up, for a fresh parser. */
static void write_in(struct conn *conn, struct pack *out) {
    size_t fed = 0;
    if (conn->request) {
        fed = conn->fed;
        conn->request->base = conn->in.data;
        request_remake(conn->request, out);
    }
    pack_raw(out, conn->in.data + fed, conn->in.len - fed);
}

static void take_out(struct conn *conn, void *context) {
    struct pack *out = context;
    struct conn_shared *shared = shared_of(conn);
    bool has_exchange = conn->state == CONN_WAITING || conn->state == CONN_STREAMING;
    struct taken taken = {
        .state = conn->state,
        .due_ms = wheel_due_ms(&shared->wheel, &conn->deadline),
        .is_partial = conn->state == CONN_READING && conn->request,
    };
    taken.in.at = pack_at(out);
    if (conn->in.data && !conn->exchange.close)
        write_in(conn, out);
    taken.in.len = pack_at(out) - taken.in.at;
    taken.exchange.at = pack_at(out);
    if (has_exchange)
        shared->handler->save(&conn->exchange, out);
    taken.exchange.len = pack_at(out) - taken.exchange.at;
    *taken_of(conn) = taken;
    if (has_exchange || conn->state == CONN_READING)
        conn->state = CONN_SAVED;
}

void conn_take_out_all(struct conn_shared *shared, struct pack *out) {
    walk(shared, take_out, out);
}

/* --- Saving ----------------------------------------------------------------------------------- */

static void count(struct conn *conn, void *number) {
    *(uint64_t *)number += conn->state != CONN_CLOSED;
}

static void save_socket(struct conn *conn, struct pack *out) {
    uv_os_fd_t fd = -1;
    uv_fileno(&conn->handle, &fd);
    fcntl(fd, F_SETFD, 0);
    pack_number(out, (uint64_t)fd);
}

/* Whether it waits for an update. */
static bool is_patient(struct conn *conn) {
    return conn->state == CONN_SAVED && taken_of(conn)->state != CONN_READING;
}

static void save_socket_of_hasty(struct conn *conn, void *out) {
    if (!is_patient(conn))
        save_socket(conn, out);
}

static void save_socket_of_patient(struct conn *conn, void *out) {
    if (is_patient(conn))
        save_socket(conn, out);
}

void conn_save_sockets(struct conn_shared *shared, struct pack *out) {
    uint64_t number = 0;
    walk(shared, count, &number);
    pack_number(out, number);
    walk(shared, save_socket_of_hasty, out);
    walk(shared, save_socket_of_patient, out);
}

struct saving {
    struct pack *out;
    uint32_t replies; /* that are saved */
};

static void save_reply(struct saving *saving, struct reply *reply) {
    bool is_new = !reply->saved;
    if (is_new)
        reply->saved = ++saving->replies;
    pack_number(saving->out, reply->saved);
    if (!is_new)
        return;
    pack_number(saving->out,
                (reply->close ? REPLY_FLAG_CLOSE : 0) | (reply->is_part ? REPLY_FLAG_PART : 0));
    pack_bytes(saving->out, (struct slice){reply->data, reply->len});
}

/* What the socket has not taken: the end of what libuv was given. */
static void save_unsent(struct saving *saving, struct conn *conn) {
    size_t sent = 0, unsent = uv_stream_get_write_queue_size(&conn->stream), writes = 0;
    const struct sending *last = taken_of(conn)->sendings;
    for (const struct sending *next = last; last && (next = next->next);) {
        sent += next->rest_bytes;
        writes++;
        if (next == last)
            break;
    }
    sent -= unsent < sent ? unsent : sent;
    pack_number(saving->out, writes);
    for (const struct sending *next = last; writes--;) {
        next = next->next;
        size_t of_this = sent < next->rest_bytes ? sent : next->rest_bytes;
        sent -= of_this;
        save_reply(saving, next->reply);
        pack_number(saving->out, next->reply->len - next->rest_bytes + of_this);
    }
}

static unsigned flags_of(struct conn *conn) {
    const struct exchange *exchange = &conn->exchange;
    return (exchange->is_head ? FLAG_HEAD : 0) | (exchange->is_1_1 ? FLAG_1_1 : 0) |
           (exchange->close ? FLAG_CLOSE : 0) | (exchange->is_waiting ? FLAG_WAITING : 0) |
           (conn->is_told ? FLAG_TOLD : 0) | (taken_of(conn)->is_partial ? FLAG_PARTIAL : 0);
}

static void save_place(struct pack *out, struct place place) {
    pack_number(out, place.at);
    pack_number(out, place.len);
}

static void save(struct conn *conn, struct saving *saving) {
    struct pack *out = saving->out;
    const struct taken *taken = taken_of(conn);
    bool is_saved = conn->state == CONN_SAVED;
    pack_number(out, is_saved ? taken->state : conn->state);
    pack_number(out, flags_of(conn));
    pack_number(out,
                is_saved ? taken->due_ms : wheel_due_ms(&shared_of(conn)->wheel, &conn->deadline));
    pack_number(out, conn->stalls);
    pack_raw(out, conn->peer.ip, sizeof conn->peer.ip);
    save_place(out, taken->in);
    save_place(out, taken->exchange);
    save_unsent(saving, conn);
}

static void save_hasty(struct conn *conn, void *saving) {
    if (!is_patient(conn))
        save(conn, saving);
}

static void save_patient(struct conn *conn, void *saving) {
    if (is_patient(conn))
        save(conn, saving);
}

/* Lets each connection know what libuv sends for it. */
static void gather_sendings(struct conn_shared *shared) {
    for (struct list *link = shared->sendings.next; link != &shared->sendings; link = link->next) {
        struct sending *sending = container_of(link, struct sending, link);
        struct conn *conn = conn_of_sending(sending);
        if (conn->state == CONN_CLOSED)
            continue;
        struct sending *last = taken_of(conn)->sendings;
        sending->next = last ? last->next : sending;
        if (last)
            last->next = sending;
        taken_of(conn)->sendings = sending;
    }
}

void conn_save_all(struct conn_shared *shared, struct pack *out) {
    assert(list_empty(&shared->deferred));
    gather_sendings(shared);
    struct saving saving = {.out = out};
    walk(shared, save_hasty, &saving);
    walk(shared, save_patient, &saving);
}

/* --- Restoring -------------------------------------------------------------------------------- */

/* A process does this once. */
static struct restoring {
    struct conn_shared *shared; /* NULL: it is over, or has not begun */
    struct slice file;
    struct unpack sockets, in;
    struct reply **replies;
    uint32_t count, cap;   /* of `replies` */
    uint32_t number, next; /* connections; that comes next */
    uint32_t lost;
    bool is_closed; /* close_all_on_exec() */
    void (*done)(uint32_t number, uint32_t lost);
    struct turn_task go_on;
} the_rest;

static struct slice read_place(struct restoring *restoring) {
    uint64_t at = unpack_up_to(&restoring->in, restoring->file.len);
    uint64_t len = unpack_up_to(&restoring->in, restoring->file.len - at);
    return (struct slice){restoring->file.data + at, len};
}

static bool has_room(struct restoring *restoring) {
    if (restoring->count < restoring->cap)
        return true;
    uint32_t cap = restoring->cap ? 2 * restoring->cap : 64;
    struct reply **replies = realloc(restoring->replies, cap * sizeof *replies);
    if (!replies)
        return false;
    restoring->replies = replies;
    restoring->cap = cap;
    return true;
}

/* The reply, without a reference of its own; NULL when memory is out, or on nonsense. */
static struct reply *read_reply(struct restoring *restoring) {
    struct unpack *in = &restoring->in;
    uint64_t number = unpack_up_to(in, restoring->count + 1);
    if (number && number <= restoring->count)
        return restoring->replies[number - 1];
    uint64_t flags = unpack_up_to(in, REPLY_FLAGS);
    struct slice bytes = unpack_bytes(in);
    in->failed |= !number;
    bool ok = !in->failed && has_room(restoring);
    struct reply *reply = ok ? malloc(sizeof *reply + bytes.len) : NULL;
    if (reply) {
        *reply = (struct reply){.refs = 1,
                                .status = HTTP_OK,
                                .close = flags & REPLY_FLAG_CLOSE,
                                .is_part = flags & REPLY_FLAG_PART,
                                .len = bytes.len};
        memcpy(reply->data, bytes.data, bytes.len);
    }
    if (ok)
        restoring->replies[restoring->count++] = reply;
    return reply;
}

/* Whether a connection in that state may still have that to send. */
static bool may_be_unsent(uint64_t state, const struct reply *reply) {
    return state == CONN_SENDING || (state == CONN_STREAMING && reply->is_part);
}

/* Sends what was unsent, and sets `*close` if the connection ends with that. `conn` may be NULL:
 * it is read over. Returns whether there was anything. */
static bool read_unsent(struct restoring *restoring, struct conn *conn, uint64_t state,
                        bool *close) {
    bool is_sending = false;
    for (uint64_t left = unpack_number(&restoring->in); left && !restoring->in.failed; left--) {
        struct reply *reply = read_reply(restoring);
        uint64_t from = unpack_number(&restoring->in);
        if (!conn || conn->state == CONN_CLOSED || restoring->in.failed)
            continue;
        if (!reply || from > reply->len || !may_be_unsent(state, reply))
            conn_close(conn);
        else if (from < reply->len)
            conn_send_rest(conn, reply_ref(reply), from);
        conn->unsent = UNSENT_UNKNOWN; /* so that the next look finds no stall */
        is_sending |= reply && from < reply->len;
        *close |= reply && reply->close;
    }
    return is_sending;
}

static void restore_exchange(struct conn *conn, struct slice saved, uint64_t due_ms) {
    struct conn_shared *shared = shared_of(conn);
    if (conn->exchange.is_waiting)
        wheel_share(&shared->wheel, &conn->deadline, due_ms ? due_ms : wheel_now_ms(), 0);
    if (!shared->handler->restore(&conn->exchange, saved)) {
        conn->state = CONN_LINGERING; /* nobody has its exchange */
        conn_close(conn);
    }
}

/* What is saved of a connection. */
struct saved {
    uint64_t state, flags, due_ms, stalls;
    struct slice ip, in, exchange;
    bool is_closing; /* with what it sends */
    bool is_sending;
};

/* A connection goes on, as what it was. */
static void go_on(struct conn *conn, const struct saved *saved) {
    enum conn_state state = (enum conn_state)saved->state;
    uint64_t due_ms = saved->due_ms;
    uint64_t now_ms = wheel_now_ms(), left_ms = due_ms > now_ms ? due_ms - now_ms : 1;
    if (state != CONN_READING)
        conn->state = (uint8_t)state;
    if (state == CONN_READING || state == CONN_LINGERING)
        conn_set_deadline(conn, left_ms);
    if (state == CONN_WAITING || state == CONN_STREAMING)
        restore_exchange(conn, saved->exchange, due_ms);
    else if (state == CONN_SENDING && !saved->is_sending)
        conn_reply_sent(conn, saved->is_closing);
    else if (state == CONN_SENDING)
        conn_watch_progress(conn);
    else if (state == CONN_READING && saved->flags & FLAG_PARTIAL && conn->in.len) {
        conn_run(conn);
        if (conn->state == CONN_READING && conn->request)
            conn_set_deadline(conn, left_ms);
    } else if (state == CONN_READING && conn->in.len)
        conn_resume_later(conn);
    bool has_room = conn->request || conn->in.len < CONN_AHEAD_MAX_BYTES;
    if (conn->state != CONN_CLOSED && has_room)
        conn_read_on(conn);
}

/* A connection as it was, but for what is unsent; NULL: it cannot be. */
static struct conn *make_conn(struct restoring *restoring, int fd, const struct saved *saved) {
    int error;
    struct conn *conn = conn_open(restoring->shared, fd, &error);
    if (!conn)
        return NULL;
    memcpy(conn->peer.ip, saved->ip.data, saved->ip.len);
    conn->exchange.is_head = saved->flags & FLAG_HEAD;
    conn->exchange.is_1_1 = saved->flags & FLAG_1_1;
    conn->exchange.close = saved->flags & FLAG_CLOSE;
    conn->exchange.is_waiting = saved->flags & FLAG_WAITING;
    conn->is_told = saved->flags & FLAG_TOLD;
    conn->is_paused = true;
    conn->stalls = (uint8_t)saved->stalls;
    if (!saved->in.len || inbuf_restore(&conn->in, saved->in.data, saved->in.len))
        return conn;
    conn_close(conn);
    return NULL;
}

static void restore(struct restoring *restoring, int fd) {
    struct unpack *in = &restoring->in;
    struct saved saved = {.state = unpack_up_to(in, CONN_LINGERING)};
    saved.flags = unpack_up_to(in, FLAG_ALL);
    saved.due_ms = unpack_number(in);
    saved.stalls = unpack_up_to(in, CONN_STALLS_MAX);
    saved.ip = unpack_raw(in, sizeof(struct peer));
    saved.in = read_place(restoring);
    saved.exchange = read_place(restoring);
    saved.is_closing = saved.flags & FLAG_CLOSE;
    struct conn *conn = in->failed ? NULL : make_conn(restoring, fd, &saved);
    if (in->failed)
        close(fd);
    restoring->lost += !conn;
    saved.is_sending = read_unsent(restoring, conn, saved.state, &saved.is_closing);
    if (conn && in->failed) {
        conn_close(conn);
        restoring->lost++;
    }
    if (conn && conn->state != CONN_CLOSED)
        go_on(conn, &saved);
}

/* Lets no descriptor pass the next exec(2) but the standard ones, with one call for all of them.
 * False where the kernel cannot do that. */
static bool close_all_on_exec(void) {
    enum { CLOSE_ON_EXEC = 4 }; /* CLOSE_RANGE_CLOEXEC, since Linux 5.11 */
    return syscall(__NR_close_range, STDERR_FILENO + 1, UINT32_MAX, CLOSE_ON_EXEC) == 0;
}

static void finish(struct restoring *restoring) {
    for (uint32_t i = 0; i < restoring->count; i++)
        if (restoring->replies[i])
            reply_unref(restoring->replies[i]);
    free(restoring->replies);
    restoring->shared->to_come = 0;
    restoring->shared->on_closed(restoring->shared->on_closed_context); /* of those that are lost */
    restoring->shared = NULL;
    restoring->done(restoring->number, restoring->lost + restoring->number - restoring->next);
}

static void restore_until(struct restoring *restoring, uint64_t end_ns) {
    while (restoring->next < restoring->number && !restoring->sockets.failed &&
           uv_hrtime() < end_ns) {
        int fd = (int)unpack_up_to(&restoring->sockets, INT32_MAX);
        if (restoring->sockets.failed)
            break;
        restoring->next++;
        restoring->shared->to_come--;
        if (!restoring->is_closed)
            fcntl(fd, F_SETFD, FD_CLOEXEC);
        restore(restoring, fd);
    }
    if (restoring->next < restoring->number && !restoring->sockets.failed)
        turn_next(&restoring->go_on);
    else
        finish(restoring);
}

/* turn_task */
static void on_go_on(struct turn_task *task) {
    restore_until(container_of(task, struct restoring, go_on),
                  uv_hrtime() + (uint64_t)SLICE_MS * 1000000);
}

void conn_restore_all(struct conn_shared *shared, struct slice file, struct unpack sockets,
                      struct unpack in, void (*done)(uint32_t number, uint32_t lost)) {
    the_rest = (struct restoring){.shared = shared,
                                  .file = file,
                                  .sockets = sockets,
                                  .in = in,
                                  .is_closed = close_all_on_exec(),
                                  .done = done};
    the_rest.number = (uint32_t)unpack_up_to(&the_rest.sockets, UINT32_MAX);
    shared->to_come = the_rest.number;
    turn_task_init(&the_rest.go_on, on_go_on);
    on_go_on(&the_rest.go_on);
}

void conn_restore_rest(void) {
    if (!the_rest.shared)
        return;
    turn_cancel(&the_rest.go_on);
    restore_until(&the_rest, UINT64_MAX);
}

uint32_t conn_drop_all(struct unpack *sockets) {
    uint32_t number = (uint32_t)unpack_up_to(sockets, UINT32_MAX);
    for (uint32_t i = 0; i < number; i++) {
        int fd = (int)unpack_up_to(sockets, INT32_MAX);
        if (sockets->failed)
            break;
        shutdown(fd, SHUT_WR);
        close(fd);
    }
    return number;
}
