/*
 * One connection to a Redis: it connects (again and again), says who it is, sends commands and
 * hands the replies to those who wait for them, in order.
 *
 * States: down (waits for its next try) → connecting (resolving, connecting, TLS) → greeting (AUTH,
 * SELECT, PING) → ready → down again when the connection breaks, when Redis does not answer in
 * time, or on redis_conn_fail(). From down it tries again after REDIS_BACKOFF_MIN_MS, each time
 * twice as long, up to REDIS_BACKOFF_MAX_MS, with jitter.
 *
 * Nothing blocks. Redis is asked for a sign of life when it has said nothing for REDIS_PING_MS.
 * Commands are gathered and written at the end of the turn; the protocol is read by hiredis'
 * reader.
 *
 * A Redis that says nothing for REDIS_SILENCE_MS was frozen, or cut off: another one may have taken
 * its place by now. What it says next can be held back until the owner knows better; nothing is
 * read meanwhile.
 */
#pragma once

#include "base/buf.h"
#include "base/list.h"
#include "base/slice.h"
#include "base/turn.h"
#include "redis/options.h"
#include "redis/tls.h"
#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

enum {
    REDIS_BACKOFF_MIN_MS = 50,
    REDIS_BACKOFF_MAX_MS = 1000,
    REDIS_STABLE_MS = 2000, /* a connection that held for so long begins anew with the backoff */
    REDIS_PING_MS = 500,
    REDIS_SILENCE_MS = 750, /* an idle Redis answers a ping well before that */
    REDIS_UNSENT_MAX_BYTES = 8 << 20,
    REDIS_ARRAY_MAX = 1 << 20, /* elements of a reply: no command of ours has as many */
};

/* A command that waits for its reply; embedded in whatever asks, free again from `done` on. */
struct redis_call {
    struct list link;
    uint64_t sent_ms;
    /* NULL: the connection broke before the reply came. The reply is freed after the call. */
    void (*done)(struct redis_call *call, const redisReply *reply);
};

struct redis_conn;

struct redis_conn_events {
    void (*ready)(struct redis_conn *conn);
    /* From ready or from a failed try; all calls have been answered with NULL. */
    void (*down)(struct redis_conn *conn, const char *reason);
    /* NULL: replies belong to calls. Else the connection is one for pub/sub, and every reply
     * comes here. */
    void (*message)(struct redis_conn *conn, const redisReply *reply);
    /* The first bytes have come after a silence. True: hold them back until
     * redis_conn_release(). May be NULL. */
    bool (*silent)(struct redis_conn *conn);
};

enum redis_conn_state {
    REDIS_CONN_DOWN,
    REDIS_CONN_CONNECTING,
    REDIS_CONN_GREETING,
    REDIS_CONN_READY
};

struct redis_link; /* the socket of one try */

struct redis_conn {
    uv_loop_t *loop;
    const struct redis_conn_events *events;
    const struct redis_options *options;
    struct tls_context *tls;
    struct redis_address address;
    const char *pass; /* NULL: none; a user goes with it only when it is the options' password */
    int64_t db;
    uint64_t stall_ms; /* while it owes a reply, Redis may be silent for so long */
    enum redis_conn_state state;
    bool is_open, is_held;
    struct redis_link *link; /* NULL while down */
    struct buf out;          /* commands that have not been written yet */
    struct buf held;         /* what came, and is held back */
    struct turn_task flush;
    struct list calls; /* struct redis_call, in the order in which they were sent */
    uint64_t heard_ms, tried_ms, ready_ms, retry_ms, backoff_ms, pinged_ms;
    unsigned tries;
    uint8_t greeted;
    bool is_pinging; /* pub/sub: a ping is under way */
    struct redis_call greeting, ping;
    char reason[160]; /* why it is down */
};

/* The caller may change `pass`, `db` and `stall_ms`, which come from the options, before it
 * opens. */
void redis_conn_init(struct redis_conn *conn, uv_loop_t *loop, const struct redis_options *options,
                     struct tls_context *tls, const struct redis_conn_events *events);

/* Connects to `address` and stays connected. */
void redis_conn_open(struct redis_conn *conn, const struct redis_address *address);

/* Ends it; calls are answered with NULL, `down` is not called. It may be opened again. The
 * struct may be freed. */
void redis_conn_close(struct redis_conn *conn);

/* Breaks the connection, which then tries again. */
void redis_conn_fail(struct redis_conn *conn, const char *reason);

/* Holds back what comes; the connection must be ready. */
void redis_conn_hold(struct redis_conn *conn);
/* Hands on what is held back, and reads on. Harmless when nothing is. */
void redis_conn_release(struct redis_conn *conn);

/* Begins a command of `argc` arguments; redis_conn_argument() follows so many times, then
 * redis_conn_sent(). */
void redis_conn_command(struct redis_conn *conn, int argc);
void redis_conn_argument(struct redis_conn *conn, struct slice argument);
void redis_conn_number(struct redis_conn *conn, int64_t number);
/* `call` may be NULL where the reply is a message. */
void redis_conn_sent(struct redis_conn *conn, struct redis_call *call);

/* Whether Redis is so far behind with its replies, or with reading, that nothing more should be
 * sent. */
bool redis_conn_is_behind(const struct redis_conn *conn, uint64_t now_ms);

/* What Redis says of a failure, as it may be logged and shown: without the arguments, which may
 * be a secret. */
struct redis_reason {
    char text[160];
};
struct redis_reason redis_reason(const char *said);

/* A whole command of words, ended by NULL. */
__attribute__((sentinel)) void redis_conn_words(struct redis_conn *conn, struct redis_call *call,
                                                ...);

/* Looks at the clock; every 50 ms or so. */
void redis_conn_tick(struct redis_conn *conn, uint64_t now_ms);

static inline bool redis_conn_is_ready(const struct redis_conn *conn) {
    return conn->state == REDIS_CONN_READY;
}
