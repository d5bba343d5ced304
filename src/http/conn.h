/*
 * One HTTP/1.1 connection, from accept to close: it reads, llhttp parses, one request at a time
 * goes to the handler, one reply comes back.
 *
 * States: reading (also idle: no byte of a request yet) → waiting (the handler has the request) →
 * sending (the socket has not taken the whole reply) → reading again, or lingering (the reply said
 * close; what the client still sends is thrown away, so that it can read the reply) → closed. Bytes
 * of later, pipelined requests are kept up to CONN_AHEAD_MAX_BYTES; then reading stops. A reply in
 * parts is a stream: waiting → streaming → sending, until what is left of it is out.
 *
 * No client holds up the others. A turn of the loop reads once from a connection, and serves the
 * first request of what it read. It serves more, up to CONN_REQUESTS_IN_A_ROW, only while it has
 * time (base/turn.h); the rest waits in `resuming`, where connections take turns. So do large
 * replies, in `deferred`: sockets take megabytes at once, and a push may wake thousands.
 *
 * A connection at rest is a small struct without a buffer. It ends in one way only: conn_close().
 */
#pragma once

#include "base/turn.h"
#include "base/wheel.h"
#include "http/inbuf.h"
#include "http/reply.h"
#include "http/request.h"
#include "http/socket.h"
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

enum {
    CONN_AHEAD_MAX_BYTES = 65536, /* of later requests, kept while one is served */
    CONN_READ_BYTES = 65536,      /* read at once, into a buffer that all connections share */
    CONN_READ_LESS_BYTES = 4096,  /* read of an upload, or ahead, when the turn has no more time */
    CONN_REQUESTS_IN_A_ROW = 32,
    CONN_RESUMED_A_TURN = 128,       /* connections */
    CONN_SENDING_MAX_BYTES = 512,    /* kept with a reply while it is being sent */
    CONN_STREAM_MAX_BYTES = 1 << 20, /* of a stream, that the socket did not take */
    CONN_STALLS_MAX = 4, /* waits of a stream in a row in which the client takes nothing of it */
    CONN_LINGER_MS = 2000,
    /* While the server stops: how long an idle connection may still bring a request, and how long
     * one that did not may take to close. */
    CONN_DRAIN_IDLE_MS = 150,
    CONN_DRAIN_LINGER_MS = 250,
    CONN_EARLIER_MAX_MS = 4000, /* see exchange_wait() */
};

enum { EXCHANGE_STATE_BYTES = 80 };

/* One request and its one reply, embedded in its connection. The handler owns it from
 * handler.request() to exchange_reply() or exchange_end(). */
struct exchange {
    /* The handler's, for what it has under way. Zeroed when the connection is made, and left
     * alone from one request to the next. */
    _Alignas(8) unsigned char state[EXCHANGE_STATE_BYTES];
    bool is_head;    /* a HEAD request */
    bool is_1_1;     /* of HTTP/1.1: it takes chunks */
    bool close;      /* the connection ends with this reply */
    bool is_waiting; /* from exchange_wait() until its time ends, or it is replied to */
};

/* What happens to requests. All is called on the loop thread. */
struct handler {
    /* A complete request; its bytes are valid during the call. exchange_reply() must follow, now
     * or later. */
    void (*request)(struct exchange *exchange, const struct request *request);
    /* The time of exchange_wait() is over, or the server is stopping: reply now. */
    void (*expire)(struct exchange *exchange);
    /* The client has hung up: let go of the exchange, do not reply. */
    void (*cancel)(struct exchange *exchange);
    /* A request is being refused that is not complete, and that request() is not told of. Its
     * target may be cut off, and its headers be missing; the target's method is known. */
    void (*refused)(const struct exchange *exchange, const struct request *request,
                    enum http_error error);
    /* Whether nothing is under way that belongs to no exchange, and that what is saved may depend
     * on. */
    bool (*is_quiet)(void);
    /* Whether save() is possible now: the exchange waits for something that may take long. */
    bool (*can_save)(const struct exchange *exchange);
    /* Lets go of the exchange, and writes how it goes on. */
    void (*save)(struct exchange *exchange, struct pack *out);
    /* Goes on with an exchange that was saved, perhaps by another process; of a stream that has
     * begun, parts may be unsent. False: it cannot, and has let go of it. */
    bool (*restore)(struct exchange *exchange, struct slice saved);
    /* A part that exchange_part() did not send at once is with the socket, or all that was unsent
     * is. May end the exchange, but must not send a part. */
    void (*sent)(struct exchange *exchange);
};

struct conn;

/* What connections have in common. */
struct conn_shared {
    uv_loop_t *loop;
    const struct handler *handler;
    struct wheel wheel;
    uint64_t request_timeout_ms, idle_timeout_ms;
    uint32_t body_max_bytes;
    bool uses_io_uring; /* where the kernel offers it */
    bool is_draining;
    bool is_holding;                  /* nothing more is read, and no request begun (handover.h) */
    uint64_t open;                    /* connections */
    uint64_t to_come;                 /* more that are open, and not restored yet */
    void (*on_closed)(void *context); /* after each connection that is gone */
    void *on_closed_context;
    struct sender *sender;         /* NULL: each connection writes by itself */
    struct request *spare_request; /* for requests that arrive in one piece */
    char *read_buffer;             /* CONN_READ_BYTES */
    struct list resuming;          /* connections with requests to be served, by turns */
    struct turn_task resume;       /* serves some of them */
    struct list sendings;          /* what libuv sends, oldest first; of all connections */
    struct list deferred;          /* what libuv is not given yet: a turn has no time for it */
    struct turn_task send_deferred;
    struct list held;         /* connections that were read in this turn, and have more */
    struct turn_task release; /* lets them read again */
};

/* False when memory is out. The handler, the timeouts, body_max_bytes and uses_io_uring must be
 * set. */
bool conn_shared_init(struct conn_shared *shared, uv_loop_t *loop);
/* All connections must be closed. */
void conn_shared_deinit(struct conn_shared *shared);

/* Accepts a connection from the listening socket `listener`. 0, UV_EAGAIN when none waits there, or
 * why it failed; it waits on if that is a lack of descriptors or of memory. */
int conn_accept(struct conn_shared *shared, int listener);

/*
 * For all open ones: waiting ones expire, and each ends with the reply to the request that it has,
 * or that comes within CONN_DRAIN_IDLE_MS. From then on nothing of what it sends is looked at. It
 * closes after the client, or after a time: closing with unread bytes would be a reset, which can
 * take the last reply with it.
 */
void conn_drain_all(struct conn_shared *shared);

/* Closes all open ones, whatever they are doing. */
void conn_close_all(struct conn_shared *shared);
/* Closes those that wait for no reply of ours: what is under way in the store may still get one. */
void conn_close_readers(struct conn_shared *shared);

/* --- For handlers ----------------------------------------------------------------------------- */

/* Sends the reply, whose reference passes over, and ends the exchange. */
void exchange_reply(struct exchange *exchange, struct reply *reply);

/*
 * A reply in parts. exchange_begin() sends its head, from reply_new_stream(), exchange_part() parts
 * from reply_new_part(), and exchange_end() ends it and the exchange. References pass over. What
 * the socket does not take is kept and counted in BUFFER_SIZE. A client that leaves more than
 * CONN_STREAM_MAX_BYTES unsent is cut: the connection closes, and handler.cancel() is called. So it
 * is where there is no room for that, and where it takes nothing in CONN_STALLS_MAX calls of
 * handler.expire(). A single part may be larger.
 */
/* False when the connection is closed. */
bool exchange_begin(struct exchange *exchange, struct reply *head);
/* Whether that was called for this exchange, which has not ended. */
bool exchange_has_begun(const struct exchange *exchange);
/* True when the part is sent, or waits for the socket. Else either the connection is closed, or,
 * unless it must be `at_once`, the part is sent when this turn of the loop ends, and handler.sent()
 * called: until then the exchange is busy, and takes no other part. */
bool exchange_part(struct exchange *exchange, struct reply *part, bool at_once);
bool exchange_is_busy(const struct exchange *exchange);
/* Bytes of the parts that wait for the socket. When it is 0 again, handler.sent() is called. */
uint32_t exchange_unsent(const struct exchange *exchange);
void exchange_end(struct exchange *exchange);

/*
 * Lets the handler keep the request's bytes beyond handler.request(), in which it must be called.
 * They may move: spans of the request stand at kept->data from now on. False when there is no room
 * for them. The handler frees them, but not before handler.request() has returned and this turn
 * ends: the bytes of later requests may lie behind them.
 */
bool exchange_keep(struct exchange *exchange, const struct request *request, struct inbuf *kept);

/* Replies with an error; `headers` as in reply_new(). */
void exchange_error(struct exchange *exchange, enum http_error error, struct slice headers);

/* Calls handler.expire() after `wait_ms`, unless the reply, or its end, comes before. Where many
 * others end at that moment, it is up to an eighth earlier, but at most CONN_EARLIER_MAX_MS. Once
 * more moves the moment. */
void exchange_wait(struct exchange *exchange, uint64_t wait_ms);

/* The flags for reply_new(). */
unsigned exchange_flags(const struct exchange *exchange);

struct peer exchange_peer(const struct exchange *exchange);
