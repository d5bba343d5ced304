#include "base/counters.h"
#include "base/loop_memory.h"
#include "http/budget.h"
#include "http/conn_parts.h"
#include "http/sender.h"
#include "http/socket.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

_Static_assert((int)HTTP_STATUS_COUNT < COUNTERS_STATUSES_MAX, "each status is counted");

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf);
static void on_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *buf);

/* --- Buffers ---------------------------------------------------------------------------------- */

static void free_in(struct conn *conn) {
    inbuf_free(&conn->in);
    conn->fed = 0;
}

void conn_read(struct conn *conn) {
    if (!shared_of(conn)->is_holding)
        uv_read_start(&conn->stream, on_alloc, on_read);
}

static void stop_reading(struct conn *conn) {
    uv_read_stop(&conn->stream);
    conn->is_paused = true;
}

/* Does not read in this turn any more. Without this libuv, where more than 1,024 sockets have
 * something, would look at them again and again before it lets the turn end. */
static void hold(struct conn *conn) {
    struct conn_shared *shared = shared_of(conn);
    uv_read_stop(&conn->stream);
    list_append(&shared->held, &conn->held_link);
    turn_end(&shared->release);
}

/* turn_task: those that were held read again. */
static void on_release(struct turn_task *task) {
    struct conn_shared *shared = container_of(task, struct conn_shared, release);
    for (struct list *link; (link = list_shift(&shared->held));) {
        struct conn *conn = container_of(link, struct conn, held_link);
        if (!conn->is_paused)
            conn_read(conn);
    }
}

/* There is no room for further requests: those that came are dropped, and the connection ends with
 * the reply that is under way. */
static void drop_ahead(struct conn *conn) {
    free_in(conn);
    conn->exchange.close = true;
    stop_reading(conn);
}

/* The parser's state of a request that came in part. */
static void free_request(struct conn *conn) {
    if (conn->request)
        budget_give(sizeof *conn->request);
    free(conn->request);
    conn->request = NULL;
    conn->is_told = false;
}

/* --- The end ---------------------------------------------------------------------------------- */

void conn_free(struct conn *conn) {
    struct conn_shared *shared = shared_of(conn);
    free(conn);
    shared->open--;
    shared->on_closed(shared->on_closed_context);
}

static void on_closed(uv_handle_t *handle) {
    struct conn *conn = container_of(handle, struct conn, handle);
    conn->state = CONN_GONE;
    if (!conn->deferred)
        conn_free(conn);
}

/* The exchange waits no longer: its time is over, or it is answered. */
void conn_stop_waiting(struct conn *conn) {
    if (conn->exchange.is_waiting)
        wheel_unshare(&shared_of(conn)->wheel, &conn->deadline);
    conn->exchange.is_waiting = false;
}

void conn_close(struct conn *conn) {
    struct conn_shared *shared = shared_of(conn);
    if (conn->state == CONN_CLOSED)
        return;
    bool has_exchange = conn->state == CONN_WAITING || conn->state == CONN_STREAMING;
    conn->state = CONN_CLOSED;
    conn_stop_waiting(conn);
    if (has_exchange)
        shared->handler->cancel(&conn->exchange);
    if (conn->queued)
        sender_cancel(shared->sender, conn->queued);
    wheel_clear(&shared->wheel, &conn->deadline);
    list_remove(&conn->resume_link);
    list_remove(&conn->held_link);
    free_in(conn);
    free_request(conn);
    uv_close(&conn->handle, on_closed);
}

void conn_set_deadline(struct conn *conn, uint64_t after_ms) {
    wheel_set(&shared_of(conn)->wheel, &conn->deadline, wheel_now_ms() + after_ms);
}

void conn_resume_later(struct conn *conn) {
    struct conn_shared *shared = shared_of(conn);
    if (list_empty(&conn->resume_link))
        list_append(&shared->resuming, &conn->resume_link);
    turn_next(&shared->resume);
}

void conn_read_on(struct conn *conn) {
    if (conn->is_paused && list_empty(&conn->held_link))
        conn_read(conn);
    conn->is_paused = false;
}

void conn_linger(struct conn *conn, uint64_t for_ms) {
    conn->state = CONN_LINGERING;
    free_in(conn);
    free_request(conn);
    uv_os_fd_t fd;
    if (conn->is_eof || uv_fileno(&conn->handle, &fd) != 0 || shutdown(fd, SHUT_WR) != 0) {
        conn_close(conn);
        return;
    }
    conn_read_on(conn);
    conn_set_deadline(conn, for_ms);
}

bool exchange_keep(struct exchange *exchange, const struct request *request, struct inbuf *kept) {
    struct conn *conn = conn_of(exchange);
    *kept = (struct inbuf){0};
    if (conn->in.data && request->base == conn->in.data) {
        *kept = conn->in;
        conn->in = (struct inbuf){0};
        conn->fed = 0;
        return true;
    }
    size_t body_end = (size_t)request->body.at + request->body.len;
    return inbuf_keep(kept, request->base,
                      body_end > request->head_len ? body_end : request->head_len);
}

void exchange_error(struct exchange *exchange, enum http_error error, struct slice headers) {
    exchange_reply(exchange, reply_new_error(error, 0, exchange_flags(exchange), headers));
}

void exchange_wait(struct exchange *exchange, uint64_t wait_ms) {
    struct conn *conn = conn_of(exchange);
    conn_stop_waiting(conn);
    uint64_t earlier_ms = wait_ms / 8 < CONN_EARLIER_MAX_MS ? wait_ms / 8 : CONN_EARLIER_MAX_MS;
    wheel_share(&shared_of(conn)->wheel, &conn->deadline, wheel_now_ms() + wait_ms, earlier_ms);
    exchange->is_waiting = true;
}

unsigned exchange_flags(const struct exchange *exchange) {
    const struct conn *conn = container_of(exchange, struct conn, exchange);
    bool close = exchange->close || shared_of(conn)->is_draining;
    return (close ? REPLY_CLOSE : 0) | (exchange->is_head ? REPLY_HEAD : 0);
}

struct peer exchange_peer(const struct exchange *exchange) {
    return container_of(exchange, struct conn, exchange)->peer;
}

/* --- Reading ---------------------------------------------------------------------------------- */

/* Refuses what is not a request, and ends the connection. */
static void refuse(struct conn *conn, enum http_error error) {
    conn->exchange.close = true;
    conn->exchange.is_head = false;
    conn->state = CONN_WAITING;
    bool is_busy = error == ERROR_BUSY;
    exchange_error(&conn->exchange, error, is_busy ? SLICE("Retry-After: 1\r\n") : SLICE(""));
}

/* The same for a request that came in part, and begins at `base`; NULL: it is not known. */
static void refuse_request(struct conn *conn, struct request *request, char *base,
                           enum http_error error) {
    if (request && request->target.len) {
        request->base = base;
        shared_of(conn)->handler->refused(&conn->exchange, request, error);
    }
    refuse(conn, error);
}

static void send_continue(struct conn *conn) {
    static char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    uv_buf_t bytes = uv_buf_init(text, sizeof text - 1);
    /* If the socket cannot take it, the client sends anyway. */
    uv_try_write(&conn->stream, &bytes, 1);
}

/* Keeps a request that has come in part, with room for the rest of it. */
static void keep_partial(struct conn *conn, struct request *request, char *data, size_t used) {
    struct conn_shared *shared = shared_of(conn);
    bool is_first = conn->request != request;
    if (is_first && !budget_has(sizeof *request)) {
        refuse_request(conn, request, data, ERROR_BUSY);
        return;
    }
    if (is_first) {
        budget_take(sizeof *request);
        conn->request = request;
        shared->spare_request = NULL;
        conn_set_deadline(conn, shared->request_timeout_ms);
    }
    assert(data);
    bool is_own = conn->in.data != NULL; /* then `data` lies in it */
    if (is_own)
        data = memmove(conn->in.data, data, used);
    if (conn->in.cap < used + REQUEST_READ_MIN_BYTES &&
        !inbuf_reserve(&conn->in, request_buffer_size(request, used))) {
        refuse_request(conn, request, data, ERROR_BUSY);
        return;
    }
    assert(conn->in.data);
    if (!is_own)
        memcpy(conn->in.data, data, used);
    conn->in.len = (uint32_t)used;
    conn->fed = (uint32_t)used;
    if (request->expects_continue) {
        request->expects_continue = false;
        if (!request->body.len && !conn->is_told)
            send_continue(conn);
        conn->is_told = true;
    }
}

/* The request for the next bytes: the one that is begun, else a fresh one; NULL when memory is
 * out. */
static struct request *current_request(struct conn *conn) {
    struct conn_shared *shared = shared_of(conn);
    if (conn->request)
        return conn->request;
    if (!shared->spare_request)
        shared->spare_request = malloc(sizeof *shared->spare_request);
    if (shared->spare_request)
        request_init(shared->spare_request, shared->body_max_bytes);
    return shared->spare_request;
}

static void handle(struct conn *conn, struct request *request) {
    conn->state = CONN_WAITING;
    conn->exchange.close =
        !llhttp_should_keep_alive(&request->parser) || request->parser.http_minor == 0;
    conn->exchange.is_head = request->parser.method == HTTP_HEAD;
    conn->exchange.is_1_1 = request->parser.http_minor > 0;
    shared_of(conn)->handler->request(&conn->exchange, request);
}

/* Whether a connection may have one more request served, after `served` of them in a row. */
static bool may_go_on(int served) {
    return !served || (served < CONN_REQUESTS_IN_A_ROW && turn_has_time());
}

/* Serves requests from `data` until one waits, sends or is not complete, or it is the turn of
 * others. Returns where the rest begins. */
static size_t serve(struct conn *conn, char *data, size_t len) {
    size_t start = 0, used;
    for (int served = 0;
         conn->state == CONN_READING && start + conn->fed < len && may_go_on(served); served++) {
        struct request *request = current_request(conn);
        enum request_progress progress =
            request ? request_feed(request, data + start, conn->fed, len - start, &used)
                    : REQUEST_FAILED;
        if (progress == REQUEST_PARTIAL) {
            keep_partial(conn, request, data + start, used);
            break;
        }
        if (progress == REQUEST_FAILED) {
            refuse_request(conn, request, data + start, request ? request->error : ERROR_BUSY);
            break;
        }
        conn->is_ahead = start + used < len;
        handle(conn, request);
        conn->is_ahead = false;
        if (conn->state == CONN_CLOSED)
            break;
        free_request(conn);
        start += used;
        conn->fed = 0;
    }
    return start;
}

/* Goes on with what came: `data` is the shared buffer, or `in`. */
static void run(struct conn *conn, char *data, size_t len) {
    list_remove(&conn->resume_link);
    conn->is_running = true;
    size_t start = serve(conn, data, len);
    conn->is_running = false;
    if (conn->state == CONN_CLOSED || conn->state == CONN_LINGERING)
        return;
    bool is_reading = conn->state == CONN_READING, is_partial = is_reading && conn->request;
    if (!is_partial) {
        conn->fed = 0;
        if (!inbuf_keep(&conn->in, data + start, len - start)) {
            if (is_reading)
                refuse(conn, ERROR_BUSY);
            else
                drop_ahead(conn);
            return;
        }
    }
    if (is_reading && !is_partial && conn->in.len)
        conn_resume_later(conn);
    else if (is_reading && conn->is_eof)
        conn_close(conn);
    if (conn->state != CONN_CLOSED && (is_partial || conn->in.len < CONN_AHEAD_MAX_BYTES))
        conn_read_on(conn);
}

void conn_run(struct conn *conn) {
    run(conn, conn->in.data, conn->in.len);
}

/* turn_task: serves connections that have more, in their order. That has a time of its own, however
 * long the turn has been. */
static void on_resume(struct turn_task *task) {
    struct conn_shared *shared = container_of(task, struct conn_shared, resume);
    struct list waiting, *link;
    if (shared->is_holding)
        return;
    list_init(&waiting);
    sender_flush(shared->sender); /* the replies to the others */
    list_splice(&waiting, &shared->resuming);
    uint64_t began_ns = uv_hrtime(), slice_ns = (uint64_t)TURN_SLICE_US * 1000;
    int count = 0;
    do {
        link = list_shift(&waiting);
        struct conn *conn = link ? container_of(link, struct conn, resume_link) : NULL;
        if (conn && conn->state == CONN_READING && conn->in.data)
            run(conn, conn->in.data, conn->in.len);
    } while (link && ++count < CONN_RESUMED_A_TURN && uv_hrtime() - began_ns < slice_ns);
    list_splice(&waiting, &shared->resuming); /* those that were served go to the end */
    list_splice(&shared->resuming, &waiting);
    if (!list_empty(&shared->resuming))
        turn_next(task);
}

/* A second buffer in a turn is empty: libuv stops reading, and reports UV_ENOBUFS. */
static void on_alloc(uv_handle_t *handle, size_t suggested __attribute__((unused)), uv_buf_t *buf) {
    struct conn *conn = container_of(handle, struct conn, handle);
    size_t most = CONN_READ_BYTES;
    uint32_t turn = turn_number();
    *buf = uv_buf_init(NULL, 0);
    if (conn->read_turn == turn)
        return;
    conn->read_turn = turn;
    if (conn->in.data && !turn_has_time())
        most = CONN_READ_LESS_BYTES;
    bool is_partial = conn->state == CONN_READING && conn->request;
    size_t room = is_partial ? conn->in.cap - conn->in.len : 0;
    if (room)
        *buf = uv_buf_init(conn->in.data + conn->in.len, (unsigned)(room < most ? room : most));
    else
        *buf = uv_buf_init(shared_of(conn)->read_buffer, (unsigned)most);
}

static void received(struct conn *conn, char *data, size_t len) {
    if (conn->state == CONN_LINGERING)
        return;
    if (conn->state == CONN_READING && !conn->in.data) {
        run(conn, data, len);
        return;
    }
    if (conn->in.data && data == conn->in.data + conn->in.len) {
        conn->in.len += (uint32_t)len;
    } else if (!inbuf_append(&conn->in, data, len)) {
        if (conn->state == CONN_READING)
            refuse_request(conn, conn->request, conn->in.data, ERROR_BUSY);
        else
            drop_ahead(conn);
        return;
    }
    if (conn->state == CONN_READING && list_empty(&conn->resume_link))
        run(conn, conn->in.data, conn->in.len);
    else if (conn->in.len >= CONN_AHEAD_MAX_BYTES)
        stop_reading(conn);
}

/* A client that sends nothing more: one that waits for an update, or streams, has hung up; any
 * other may still want its reply. */
static void ended(struct conn *conn) {
    conn->is_eof = true;
    bool is_answered_soon = conn->state == CONN_WAITING && !conn->exchange.is_waiting;
    bool has_requests =
        conn->state == CONN_READING && conn->in.len && !conn->request; /* to be resumed */
    if (!is_answered_soon && !has_requests && conn->state != CONN_SENDING)
        conn_close(conn);
}

static void on_read(uv_stream_t *stream, ssize_t len, const uv_buf_t *buf) {
    struct conn *conn = container_of(stream, struct conn, stream);
    if (len > 0)
        received(conn, buf->base, (size_t)len);
    else if (len == UV_EOF)
        ended(conn);
    else if (len == UV_ENOBUFS) /* on_alloc() gave none */
        hold(conn);
    else if (len < 0)
        conn_close(conn);
}

/* --- Deadlines -------------------------------------------------------------------------------- */

static void expire(struct conn *conn) {
    conn_stop_waiting(conn);
    shared_of(conn)->handler->expire(&conn->exchange);
}

static void on_due(struct wheel_node *node) {
    struct conn *conn = container_of(node, struct conn, deadline);
    switch (conn->state) {
    case CONN_READING:
        if (conn->request)
            refuse_request(conn, conn->request, conn->in.data, ERROR_REQUEST_TIMEOUT);
        else if (shared_of(conn)->is_draining)
            conn_linger(conn, CONN_DRAIN_LINGER_MS);
        else if (!list_empty(&conn->resume_link))
            conn_set_deadline(conn, shared_of(conn)->idle_timeout_ms);
        else
            conn_close(conn);
        break;
    case CONN_WAITING: expire(conn); break;
    case CONN_STREAMING:
        if (conn_stream_moves(conn))
            expire(conn);
        else
            conn_cut(conn);
        break;
    case CONN_SENDING: {
        if (conn->queued)
            break;
        if (conn->deferred) {
            conn_set_deadline(conn, shared_of(conn)->request_timeout_ms);
            break;
        }
        uint32_t unsent = socket_unsent_bytes(&conn->stream);
        bool is_moving = unsent < conn->unsent;
        conn->unsent = unsent;
        if (is_moving)
            conn_set_deadline(conn, shared_of(conn)->request_timeout_ms);
        else
            conn_close(conn);
        break;
    }
    case CONN_LINGERING: conn_close(conn); break;
    case CONN_SAVED: break;
    }
}

/* --- All connections -------------------------------------------------------------------------- */

/* The rest of conn_open(), with the connection's memory, which it frees on failure. */
static int open_socket(struct conn_shared *shared, struct conn *conn, int fd) {
    if (!loop_memory_reserve(shared->loop, fd)) {
        close(fd);
        free(conn);
        return UV_ENOMEM;
    }
    conn->handle.data = shared;
    wheel_node_init(&conn->deadline);
    list_init(&conn->resume_link);
    list_init(&conn->held_link);
    shared->open++;
    int error = socket_open(shared->loop, &conn->tcp, fd);
    if (error)
        conn_close(conn);
    return error;
}

struct conn *conn_open(struct conn_shared *shared, int fd, int *error) {
    struct conn *conn = calloc(1, sizeof *conn);
    *error = conn ? open_socket(shared, conn, fd) : UV_ENOMEM;
    if (!conn)
        close(fd);
    return *error ? NULL : conn;
}

int conn_accept(struct conn_shared *shared, int listener) {
    struct conn *conn = calloc(1, sizeof *conn); /* first, so that without it nobody is lost */
    if (!conn)
        return UV_ENOMEM;
    int fd = socket_accept(listener);
    if (fd < 0) {
        int error = uv_translate_sys_error(errno);
        free(conn);
        return error;
    }
    int error = open_socket(shared, conn, fd);
    if (error)
        return error;
    counters.connections_accepted++;
    socket_set_up(&conn->tcp);
    conn->peer = socket_peer(&conn->tcp);
    error = uv_read_start(&conn->stream, on_alloc, on_read);
    if (error) {
        conn_close(conn);
        return error;
    }
    conn_set_deadline(conn, shared->idle_timeout_ms);
    return 0;
}

static void drain(uv_handle_t *handle, void *shared) {
    if (handle->data != shared || uv_is_closing(handle))
        return;
    struct conn *conn = container_of(handle, struct conn, handle);
    bool may_expire = conn->state == CONN_WAITING || conn->state == CONN_STREAMING;
    if (may_expire && conn->exchange.is_waiting) {
        conn_stop_waiting(conn);
        conn_set_deadline(conn, 0); /* it expires with the next tick, in slices */
    } else if (conn->state == CONN_READING && !conn->in.len) {
        conn_set_deadline(conn, CONN_DRAIN_IDLE_MS);
    }
}

void conn_drain_all(struct conn_shared *shared) {
    shared->is_draining = true;
    uv_walk(shared->loop, drain, shared);
}

static void close_one(uv_handle_t *handle, void *shared) {
    if (handle->data == shared)
        conn_close(container_of(handle, struct conn, handle));
}

static void close_unless_waiting(uv_handle_t *handle, void *shared) {
    if (handle->data == shared && container_of(handle, struct conn, handle)->state != CONN_WAITING)
        conn_close(container_of(handle, struct conn, handle));
}

void conn_close_readers(struct conn_shared *shared) {
    uv_walk(shared->loop, close_unless_waiting, shared);
}

void conn_close_all(struct conn_shared *shared) {
    uv_walk(shared->loop, close_one, shared);
}

bool conn_shared_init(struct conn_shared *shared, uv_loop_t *loop) {
    shared->loop = loop;
    shared->read_buffer = malloc(CONN_READ_BYTES);
    if (!shared->read_buffer)
        return false;
    list_init(&shared->resuming);
    list_init(&shared->held);
    list_init(&shared->sendings);
    list_init(&shared->deferred);
    turn_task_init(&shared->send_deferred, conn_send_deferred);
    turn_task_init(&shared->release, on_release);
    turn_task_init(&shared->resume, on_resume);
    wheel_init(&shared->wheel, loop, on_due);
    shared->sender = shared->uses_io_uring ? sender_new(conn_queue_sent) : NULL;
    return true;
}

void conn_shared_deinit(struct conn_shared *shared) {
    wheel_deinit(&shared->wheel);
    turn_cancel(&shared->resume);
    turn_cancel(&shared->release);
    turn_cancel(&shared->send_deferred);
    sender_free(shared->sender);
    free(shared->spare_request);
    free(shared->read_buffer);
}
