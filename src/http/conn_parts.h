/*
 * What the parts of a connection share; nobody else includes it.
 *
 *   conn.c     its life: accept, read, parse, deadlines, close
 *   sending.c  what it sends: replies, and streams in parts
 *   handover.c  all of that for another process, and from it
 */
#pragma once

#include "http/conn.h"

/* What conn->unsent is between a stream's first unsent part and the next look. */
#define UNSENT_UNKNOWN UINT32_MAX

enum conn_state {
    CONN_READING,
    CONN_WAITING,
    CONN_STREAMING,
    CONN_SENDING,
    CONN_LINGERING,
    CONN_SAVED, /* it is handed over */
    CONN_CLOSED,
    CONN_GONE, /* closed, and libuv is done with it: it stays for what is deferred */
};

struct conn {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp; /* or a unix socket */
    };
    struct wheel_node deadline;
    struct exchange exchange;
    struct list resume_link; /* in shared->resuming */
    struct list held_link;   /* in shared->held */
    struct request *request; /* a request that has come in part */
    struct inbuf in;         /* its bytes, or those of pipelined requests */
    uint32_t fed;            /* bytes of `in` that the parser has seen */
    uint32_t unsent;         /* while sending: what was left at the last look, or UNSENT_UNKNOWN */
    uint32_t parts_unsent;   /* bytes of a stream's parts that the socket did not take yet */
    uint32_t read_turn;      /* the turn in which it was read */
    uint16_t queued;         /* while the sender has the reply: its handle, else 0 */
    uint8_t state;
    bool is_running : 1; /* run() is at work: a reply must not start it again */
    bool is_ahead : 1;   /* run() has bytes of the next request */
    bool is_paused : 1;  /* does not read */
    bool is_eof : 1;     /* the client sends nothing more */
    bool is_told : 1;    /* 100 Continue, for the request that has come in part */
    uint8_t stalls : 3;  /* of a stream: deadlines in a row at which nothing more was taken */
    uint32_t deferred;   /* bytes of its sendings that are in shared->deferred, with the sendings */
    struct peer peer;
};

/* A write that the socket did not take at once, or that waits for a turn that has time for it. */
struct sending {
    uv_write_t write;
    struct list link;     /* in shared->sendings, or shared->deferred */
    struct sending *next; /* of its connection's, when they are saved */
    struct reply *reply;
    uint32_t rest_bytes; /* of the reply: its end */
    uint32_t part_bytes; /* of a part: what it counts in parts_unsent; else 0 */
};

static inline struct conn *conn_of(struct exchange *exchange) {
    return container_of(exchange, struct conn, exchange);
}

static inline struct conn *conn_of_sending(const struct sending *sending) {
    return container_of(sending->write.handle, struct conn, stream);
}

static inline struct conn_shared *shared_of(const struct conn *conn) {
    return conn->handle.data;
}

/* --- conn.c ----------------------------------------------------------------------------------- */

/* The only way to its end: cancels what is under way. Harmless when it is closed. */
void conn_close(struct conn *conn);
/* The end of one that is closed: nothing refers to it any more. */
void conn_free(struct conn *conn);
/* Says goodbye and throws away what still comes, until the client has read the reply and closes. */
void conn_linger(struct conn *conn, uint64_t for_ms);
void conn_set_deadline(struct conn *conn, uint64_t after_ms);
/* The exchange waits no longer: its time is over, or it is answered. */
void conn_stop_waiting(struct conn *conn);
/* Its next requests are served when it is its turn. */
void conn_resume_later(struct conn *conn);
/* Reads, unless it must not now. */
void conn_read(struct conn *conn);
/* A connection whose socket is `fd`, which passes over to it: it does not read yet, and has no
 * deadline. NULL, and `*error` set, on failure. */
struct conn *conn_open(struct conn_shared *shared, int fd, int *error);
/* Reads again after a pause. */
void conn_read_on(struct conn *conn);
/* Goes on with what is kept in `in`. */
void conn_run(struct conn *conn);

/* --- sending.c -------------------------------------------------------------------------------- */

/* The reply is out. */
void conn_reply_sent(struct conn *conn, bool close);
/* Sends the reply from `sent` on, as the socket takes it. */
void conn_send_rest(struct conn *conn, struct reply *reply, size_t sent);
/* turn_task: begins to send what was deferred: some of it, or all while connections are held. */
void conn_send_deferred(struct turn_task *task);
/* The rest of a reply must get on, or the connection closes. */
void conn_watch_progress(struct conn *conn);
/* sender_done */
void conn_queue_sent(void *owner, struct reply *reply, int sent);
/* Closes a stream whose client is too slow. */
void conn_cut(struct conn *conn);
/* The time of a stream's exchange_wait() is over: false when its client takes nothing any more. */
bool conn_stream_moves(struct conn *conn);
