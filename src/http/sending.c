#include "base/counters.h"
#include "http/budget.h"
#include "http/conn_parts.h"
#include "http/sender.h"

#include <assert.h>
#include <stdlib.h>

_Static_assert(sizeof(struct sending) <= CONN_SENDING_MAX_BYTES, "what is kept with a reply");

/* --- Sending ---------------------------------------------------------------------------------- */

/* The next request, if there is one. */
void conn_reply_sent(struct conn *conn, bool close) {
    struct conn_shared *shared = shared_of(conn);
    if (close || conn->exchange.close) {
        conn_linger(conn, CONN_LINGER_MS);
        return;
    }
    conn->state = CONN_READING;
    conn_set_deadline(conn, shared->is_draining ? CONN_DRAIN_IDLE_MS : shared->idle_timeout_ms);
    if (conn->in.len && !conn->is_running) {
        /* Not at once: whoever replies may be in the middle of something. */
        conn_resume_later(conn);
    } else if (conn->is_eof && !conn->is_running) {
        conn_close(conn);
    }
}

/* Something of a stream is out. Its end is not told to the handler, which knows. */
static void parts_sent(struct conn *conn) {
    if (conn->parts_unsent)
        return;
    if (conn->state == CONN_SENDING)
        conn_reply_sent(conn, false);
    else if (conn->state == CONN_STREAMING)
        shared_of(conn)->handler->sent(&conn->exchange);
}

static void free_sending(struct sending *sending) {
    struct reply *reply = sending->reply;
    size_t bytes = --reply->pending == 0 ? reply->len : 0;
    list_remove(&sending->link);
    reply_unref(reply);
    free(sending);
    budget_give(bytes + sizeof *sending);
}

/* All of it is out, or cannot be sent. */
static void sending_done(struct conn *conn, struct sending *sending, bool is_sent) {
    bool close = sending->reply->close;
    uint32_t part_bytes = sending->part_bytes;
    free_sending(sending);
    conn->parts_unsent -= part_bytes;
    if (conn->state == CONN_CLOSED)
        return;
    if (!is_sent)
        conn_close(conn);
    else if (part_bytes)
        parts_sent(conn);
    else
        conn_reply_sent(conn, close);
}

static void on_written(uv_write_t *write, int status) {
    struct sending *sending = container_of(write, struct sending, write);
    sending_done(conn_of_sending(sending), sending, status == 0);
}

static uv_buf_t rest_of(const struct sending *sending) {
    struct reply *reply = sending->reply;
    return uv_buf_init(reply->data + reply->len - sending->rest_bytes, sending->rest_bytes);
}

/* Gives it to libuv, which writes as much of it as the socket takes at once. */
static void begin_sending(struct conn *conn, struct sending *sending) {
    uv_buf_t rest = rest_of(sending);
    if (uv_write(&sending->write, &conn->stream, &rest, 1, on_written) == 0) {
        list_append(&shared_of(conn)->sendings, &sending->link);
    } else {
        free_sending(sending);
        conn_close(conn);
    }
}

/* --- Large replies take turns ----------------------------------------------------------------- */

/* Whether so many bytes are to wait for a turn that has time to copy them: the sockets of all who
 * are woken by a large update would take more than a turn may. They do not wait where half of the
 * budget is used, as they take some of it. */
static bool must_wait(const struct conn_shared *shared, size_t bytes) {
    return bytes > SENDER_MAX_BYTES && !shared->is_holding && budget_left() > budget_used() &&
           !turn_has_time();
}

static uint32_t deferred_bytes(const struct sending *sending) {
    return sending->rest_bytes + (uint32_t)sizeof *sending;
}

static void defer(struct conn *conn, struct sending *sending) {
    struct conn_shared *shared = shared_of(conn);
    sending->write.handle = &conn->stream;
    conn->deferred += deferred_bytes(sending);
    list_append(&shared->deferred, &sending->link);
    turn_next(&shared->send_deferred);
}

/* What the socket takes of it at once is not unsent any more. */
static void send_at_once(struct conn *conn, struct sending *sending) {
    uv_buf_t rest = rest_of(sending);
    int sent = uv_try_write(&conn->stream, &rest, 1);
    if (sent <= 0)
        return;
    sending->rest_bytes -= (uint32_t)sent;
    if (sending->part_bytes) {
        sending->part_bytes -= (uint32_t)sent;
        conn->parts_unsent -= (uint32_t)sent;
    }
}

static void end_deferral(struct sending *sending) {
    struct conn *conn = conn_of_sending(sending);
    conn->deferred -= deferred_bytes(sending);
    if (conn->state >= CONN_CLOSED) {
        free_sending(sending);
        if (conn->state == CONN_GONE && !conn->deferred)
            conn_free(conn);
        return;
    }
    bool is_first = !uv_stream_get_write_queue_size(&conn->stream);
    if (is_first)
        send_at_once(conn, sending);
    if (!sending->rest_bytes) {
        sending_done(conn, sending, true);
        return;
    }
    uint32_t rest_bytes = sending->rest_bytes;
    begin_sending(conn, sending);
    if (conn->state == CONN_SENDING)
        conn_watch_progress(conn);
    else if (is_first || conn->unsent == UNSENT_UNKNOWN)
        conn->unsent = UNSENT_UNKNOWN;
    else
        conn->unsent += rest_bytes; /* what it adds must not look like a stall */
}

void conn_send_deferred(struct turn_task *task) {
    struct conn_shared *shared = container_of(task, struct conn_shared, send_deferred);
    uint64_t began_ns = uv_hrtime(), slice_ns = (uint64_t)TURN_SLICE_US * 1000;
    struct list *link;
    while ((link = list_shift(&shared->deferred))) {
        end_deferral(container_of(link, struct sending, link));
        if (!shared->is_holding && uv_hrtime() - began_ns >= slice_ns)
            break;
    }
    if (!list_empty(&shared->deferred))
        turn_next(task);
}

/* --- What the socket does not take ------------------------------------------------------------ */

void conn_cut(struct conn *conn) {
    counters.streams_cut++;
    conn_close(conn);
}

/* Sends what the socket did not take when it can, and counts it. The client reads too slowly: where
 * there is no room to keep the rest for it, it loses the connection. */
void conn_send_rest(struct conn *conn, struct reply *reply, size_t sent) {
    size_t bytes = sizeof(struct sending) + (reply->pending ? 0 : reply->len);
    struct sending *sending = budget_has_for_one(bytes) ? malloc(sizeof *sending) : NULL;
    if (!sending) {
        bool is_part = reply->is_part;
        reply_unref(reply);
        if (is_part)
            conn_cut(conn);
        else
            conn_close(conn);
        return;
    }
    sending->reply = reply;
    sending->rest_bytes = (uint32_t)(reply->len - sent);
    sending->part_bytes = reply->is_part ? sending->rest_bytes + (uint32_t)sizeof *sending : 0;
    list_init(&sending->link);
    conn->parts_unsent += sending->part_bytes;
    reply->pending++;
    budget_take(bytes);
    if (conn->deferred || must_wait(shared_of(conn), sending->rest_bytes))
        defer(conn, sending);
    else
        begin_sending(conn, sending);
}

void conn_watch_progress(struct conn *conn) {
    if (conn->state == CONN_CLOSED)
        return;
    conn->unsent = socket_unsent_bytes(&conn->stream);
    conn_set_deadline(conn, shared_of(conn)->request_timeout_ms);
}

/* The socket took `sent` bytes of the reply, or failed. */
static void reply_taken(struct conn *conn, struct reply *reply, int sent) {
    conn->state = CONN_SENDING; /* the handler has let go of the exchange */
    if (sent >= 0 && (size_t)sent == reply->len) {
        bool close = reply->close;
        reply_unref(reply);
        conn_reply_sent(conn, close);
    } else if (sent >= 0 || sent == UV_EAGAIN) {
        conn_send_rest(conn, reply, sent > 0 ? (size_t)sent : 0);
        conn_watch_progress(conn);
    } else {
        reply_unref(reply);
        conn_close(conn);
    }
}

/* The same for a part. What it adds to what is unsent must not look like a stall. */
static void part_taken(struct conn *conn, struct reply *part, int sent) {
    size_t taken = sent > 0 ? (size_t)sent : 0;
    if (sent < 0 && sent != UV_EAGAIN) {
        reply_unref(part);
        conn_close(conn);
    } else if (taken == part->len) {
        reply_unref(part);
    } else {
        bool is_unknown = !conn->parts_unsent || conn->unsent == UNSENT_UNKNOWN;
        size_t rest = part->len - taken;
        conn_send_rest(conn, part, taken);
        if (conn->deferred)
            return;
        conn->unsent = is_unknown ? UNSENT_UNKNOWN : conn->unsent + (uint32_t)rest;
    }
}

void conn_queue_sent(void *owner, struct reply *reply, int sent) {
    struct conn *conn = owner;
    conn->queued = 0;
    if (!reply->is_part) {
        reply_taken(conn, reply, sent);
        return;
    }
    part_taken(conn, reply, sent);
    if (conn->state == CONN_STREAMING)
        shared_of(conn)->handler->sent(&conn->exchange);
}

/* False when the reply must be written at once: there is no sender for it, or the next request is
 * here already. */
static bool queue_reply(struct conn *conn, struct reply *reply) {
    uv_os_fd_t fd;
    if (conn->is_ahead || uv_fileno(&conn->handle, &fd) != 0)
        return false;
    conn->queued = (uint16_t)sender_queue(shared_of(conn)->sender, conn, fd, reply);
    return conn->queued;
}

/* Returns how many bytes the socket took, or libuv's error. */
static int try_write(struct conn *conn, struct reply *reply) {
    uv_buf_t bytes = uv_buf_init(reply->data, (unsigned)reply->len);
    return must_wait(shared_of(conn), reply->len) ? UV_EAGAIN
                                                  : uv_try_write(&conn->stream, &bytes, 1);
}

void exchange_reply(struct exchange *exchange, struct reply *reply) {
    struct conn *conn = conn_of(exchange);
    assert(conn->state == CONN_WAITING);
    conn_stop_waiting(conn);
    counters.replies[reply->status < HTTP_STATUS_COUNT ? reply->status : HTTP_STATUS_COUNT]++;
    if (queue_reply(conn, reply)) {
        conn->state = CONN_SENDING;
        return;
    }
    reply_taken(conn, reply, try_write(conn, reply));
}

/* --- Streams ---------------------------------------------------------------------------------- */

/* Behind what is unsent already. */
static void send_part(struct conn *conn, struct reply *part) {
    part_taken(conn, part, conn->parts_unsent ? UV_EAGAIN : try_write(conn, part));
}

bool exchange_begin(struct exchange *exchange, struct reply *head) {
    struct conn *conn = conn_of(exchange);
    assert(conn->state == CONN_WAITING && !conn->parts_unsent);
    if (conn->is_eof) { /* it has hung up, and we would not hear of it again */
        reply_unref(head);
        conn_close(conn);
        return false;
    }
    conn->state = CONN_STREAMING;
    conn->stalls = 0;
    counters.replies[head->status]++;
    send_part(conn, head);
    return conn->state == CONN_STREAMING;
}

bool exchange_has_begun(const struct exchange *exchange) {
    return container_of(exchange, const struct conn, exchange)->state == CONN_STREAMING;
}

bool exchange_part(struct exchange *exchange, struct reply *part, bool at_once) {
    struct conn *conn = conn_of(exchange);
    assert(conn->state == CONN_STREAMING && !conn->queued);
    bool is_first = !conn->parts_unsent;
    if (is_first && !at_once && queue_reply(conn, part))
        return false;
    /* What is deferred is not the client's fault. */
    size_t left = conn->parts_unsent - conn->deferred, bytes = part->len + sizeof(struct sending);
    if (is_first || left + bytes <= CONN_STREAM_MAX_BYTES) {
        send_part(conn, part);
    } else {
        reply_unref(part);
        conn_cut(conn);
    }
    return conn->state == CONN_STREAMING;
}

bool exchange_is_busy(const struct exchange *exchange) {
    return container_of(exchange, const struct conn, exchange)->queued;
}

uint32_t exchange_unsent(const struct exchange *exchange) {
    return container_of(exchange, const struct conn, exchange)->parts_unsent;
}

bool conn_stream_moves(struct conn *conn) {
    uint32_t unsent = conn->parts_unsent ? socket_unsent_bytes(&conn->stream) : 0;
    conn->stalls = unsent && unsent >= conn->unsent ? conn->stalls + 1 : 0;
    conn->unsent = unsent;
    return conn->stalls < CONN_STALLS_MAX;
}

void exchange_end(struct exchange *exchange) {
    struct conn *conn = conn_of(exchange);
    struct conn_shared *shared = shared_of(conn);
    if (conn->queued)
        sender_flush(shared->sender);
    assert(conn->state == CONN_STREAMING || conn->state == CONN_CLOSED);
    if (conn->state == CONN_CLOSED)
        return;
    conn_stop_waiting(conn);
    struct reply *end = exchange->is_1_1 ? reply_new_part(SLICE(""), REPLY_CHUNKED) : NULL;
    bool is_cut = conn->queued || (exchange->is_1_1 && !end);
    conn->state = CONN_SENDING;
    exchange->close = exchange->close || shared->is_draining;
    if (end)
        send_part(conn, end);
    if (is_cut)
        conn_close(conn);
    else if (conn->state == CONN_SENDING && conn->parts_unsent)
        conn_watch_progress(conn);
    else if (conn->state == CONN_SENDING)
        conn_reply_sent(conn, false);
}
