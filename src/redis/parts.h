/*
 * What the parts of the Redis store share; nobody outside src/redis includes it.
 *
 *   store.c        opening, closing, the tick
 *   health.c       what /-/health says
 *   operations.c   appends, reads, cursors: how they begin, what their replies mean; fate.h decides
 *   queues.c       where they wait until they are sent, or given up
 *   commands.c     how they are sent: which go together, and as which bytes
 *   page.c         the updates of a read: what is whole, what is damaged
 *   cursors.c      the cursors of consumers
 *   purges.c       purging a channel
 *   watches.c      watched channels and their news
 */
#pragma once

#include "base/turn.h"
#include "inbox/store.h"
#include "redis/layout.h"
#include "redis/topology.h"

/* store_watch.state */
enum { WATCH_OFF, WATCH_ASKED, WATCH_ON };

/* When a kind of failure was logged, and how many were not since. */
struct log_budget {
    uint64_t told_ms, left_out;
};

struct redis_store {
    struct store base;
    const struct redis_options *redis;
    struct store_options options;
    const struct store_events *events;
    struct redis_topology topology;
    uv_timer_t tick;
    struct turn_task flush;     /* what this turn asked for goes out */
    struct turn_task ticked;    /* the tick, when the replies that have come are read */
    struct turn_task giving_up; /* there are more to be given up than a turn may take */
    struct list appends, reads; /* all struct op that have not been answered, by due_ms; cursors are
                                   among the reads */
    struct list pending;        /* struct op: those that are to get a place in a lane's queue */
    struct list nowhere;        /* ... those that got none, because their node is not known */
    struct list later;          /* ... those that are pending after a pause, by retry_ms */
    struct list failed;         /* struct store_op: those that there is no memory for */
    struct list homeless;       /* struct store_watch: those whose node is not known */
    struct buf key, record;
    struct store_stats stats;
    uint64_t up_ms; /* when all was well the last time */
    uint64_t migration_ms;
    int64_t clock_ahead_ms;  /* Redis' clock minus uv_now(); 0: not known */
    bool is_clock_asked;     /* no Redis has answered yet */
    uint64_t resubscribe_ms; /* 0: no subscription has been refused */
    struct log_budget append_log, read_log, cursors_log, news_log, tell_log, tidy_log, damage_log;
    enum store_error refused; /* what the last append came to */
    uint64_t refused_ms;
    uint64_t damaged_ms; /* when the keys of a channel made no sense */
    uint64_t deaf_ms;    /* when a subscription was refused, and why; 0: none is */
    char deaf[160];
    void (*closed)(void *context);
    void *closed_context;
};

/*
 * One operation under way. Appends that go together in one command are the members of the first of
 * them, each channel's one after another; its `call` stands for all.
 */
struct op {
    struct redis_call call;
    struct list members;    /* of the first: all that went with it, itself too */
    struct list link;       /* in store->appends or store->reads, until it is answered */
    struct list queue_link; /* in a list of the store's or of its lane's, while it is pending; among
                               the members of the first; or in its node's unreplicated */
    struct redis_store *store;
    struct redis_node *node; /* where it was sent */
    struct store_op *caller; /* NULL: answered already */
    uint32_t count;          /* updates that are appended */
    bool is_append;
    bool is_purge;       /* struct store_purge, which goes the way of appends */
    bool is_cursors;     /* struct store_cursors, which may be repeated like a read */
    bool is_sent;        /* its reply is to come */
    bool begins_channel; /* the member before it is of another channel */
    bool goes_alone;     /* with others it was refused */
    bool needs_script;   /* the node does not know the script */
    bool was_redirected; /* sent to a node that does not serve the slot yet */
    bool has_slot;
    uint16_t slot; /* of a cluster */
    uint8_t redirects;
    uint8_t extensions;     /* how often a read got more time */
    enum store_error error; /* what it is answered with when its time is over */
    uint64_t due_ms, retry_ms, sent_ns;
    struct redis_node *ask_node; /* ASK: only this once; held */
};

static inline struct redis_store *store_of(struct store *store) {
    return container_of(store, struct redis_store, base);
}

static inline struct redis_store *of_topology(struct redis_topology *topology) {
    return container_of(topology, struct redis_store, topology);
}

static inline struct store_append *append_of(const struct op *op) {
    return container_of(op->caller, struct store_append, op);
}

static inline struct store_read *read_of(const struct op *op) {
    return container_of(op->caller, struct store_read, op);
}

static inline struct store_cursors *cursors_of(const struct op *op) {
    return container_of(op->caller, struct store_cursors, op);
}

static inline struct store_purge *purge_of(const struct op *op) {
    return container_of(op->caller, struct store_purge, op);
}

/* Whether it changes what must not be lost: its fate is not known when no answer comes. */
static inline bool is_write(const struct op *op) {
    return op->is_append || op->is_purge;
}

static inline struct slice channel_of(const struct op *op) {
    if (op->is_append)
        return (struct slice){append_of(op)->name, append_of(op)->name_len};
    if (op->is_purge)
        return (struct slice){purge_of(op)->name, purge_of(op)->name_len};
    if (op->is_cursors)
        return (struct slice){cursors_of(op)->name, cursors_of(op)->name_len};
    return (struct slice){read_of(op)->name, read_of(op)->name_len};
}

static inline enum redis_lane_kind lane_of(const struct op *op) {
    return is_write(op) ? REDIS_LANE_APPEND : REDIS_LANE_READ;
}

/* --- store.c ---------------------------------------------------------------------------------- */

/* Logs a failure of one kind; those that follow within some seconds are only counted. */
void redis_store_log(struct redis_store *store, struct log_budget *budget, const char *event,
                     const char *said);
/* Whether such a failure may be logged now; else it is counted. */
bool redis_store_may_log(struct redis_store *store, struct log_budget *budget);
/* Appends the key of a channel as an argument of a command. */
void redis_store_put_key(struct redis_store *store, struct redis_conn *conn, enum redis_key key,
                         struct slice channel);

/* --- health.c --------------------------------------------------------------------------------- */

/* store_ops.health */
enum store_error redis_store_health(struct store *base, struct buf *line);

/* --- operations.c ----------------------------------------------------------------------------- */

/* store_ops.append, .read, .cursors and .purge */
void operations_append(struct store *base, struct store_append *append);
void operations_read(struct store *base, struct store_read *read);
void operations_cursors(struct store *base, struct store_cursors *cursors);
void operations_purge(struct store *base, struct store_purge *purge);

/* Answers those that there was no memory for. */
void operations_answer_failed(struct redis_store *store);
/* The reply to a command, for all its members. */
void operations_got_reply(struct redis_call *call, const redisReply *reply);
/* Sends a WAIT after the appends of this turn. */
void operations_send_waits(struct redis_store *store);
/* A connection for appends is lost: those that wait for replicas are answered with "not known". */
void operations_forget_waits(struct redis_node *node);
/* Answers an operation whose time is over. */
void operations_give_up(struct op *op);
/* Answers all, before the store closes. */
void operations_end(struct redis_store *store);

/* Why nothing can be done at the moment. */
enum store_error operations_away_error(const struct redis_store *store);

/* --- queues.c --------------------------------------------------------------------------------- */

/* The operation is to be sent; `op->error` says why it has not been. */
void queues_add(struct op *op);
/* ... after a pause. */
void queues_add_later(struct op *op);
/* Redirects the operation to `node` by ASK, for its next command; NULL: no more. */
void queues_set_ask_node(struct op *op, struct redis_node *node);

/* The node to send an operation to; NULL while that is not known. */
struct redis_node *queues_node_of(struct op *op);

/* Sends what is pending, as far as Redis should have it now. */
void queues_send(struct redis_store *store);
/* A reply of so many bytes came on the lane, to so many operations; NULL: it will not come. */
void queues_got_reply(struct redis_lane *lane, unsigned count, const redisReply *reply,
                      size_t bytes);
/* Channels may be served by other nodes than before. */
void queues_settle(struct redis_store *store);
/* Gives up what is late; and all that no Redis takes, when it has been away for long. */
void queues_tick(struct redis_store *store);
/* turn_task: goes on with that. */
void queues_on_giving_up(struct turn_task *task);
/* Whether its time is over. A push is given up then: sent so late, its fate would not be known. */
bool queues_is_late(const struct op *op, uint64_t now_ms);

/* --- commands.c ------------------------------------------------------------------------------- */

/* Sends the first operation of the lane's queue, and the appends that may go with it. */
void commands_send(struct redis_lane *lane);

/* --- page.c ----------------------------------------------------------------------------------- */

/* Takes the reply of a read's script. False when it is none, or memory is out. */
bool page_take(struct redis_store *store, struct store_read *read, const redisReply *reply);

/* --- cursors.c -------------------------------------------------------------------------------- */

/* How many arguments redis_script_cursors gets, and those. */
int cursors_arguments(const struct store_cursors *cursors);
void cursors_put(struct redis_store *store, const struct store_cursors *cursors,
                 struct redis_conn *conn);
/* Takes the script's reply. STORE_FAILED when it is none, or memory is out. */
enum store_error cursors_take(struct store_cursors *cursors, const redisReply *reply);

/* --- purges.c --------------------------------------------------------------------------------- */

/* How many arguments redis_script_purge gets, and those. */
enum { PURGE_ARGUMENTS = 4 };
void purges_put(struct redis_store *store, const struct store_purge *purge,
                struct redis_conn *conn);
/* Takes the script's reply; `told`: what Redis said against telling of it, NULL nothing. False when
 * it is none. */
bool purges_take(struct store_purge *purge, const redisReply *reply, const char **told);
/* Whether a message says that a channel was purged. */
bool purges_parse(struct slice message, uint64_t *gone);

/* --- watches.c -------------------------------------------------------------------------------- */

/* store_ops.watch, .unwatch and .listen */
void watches_start(struct store *base, struct store_watch *watch);
void watches_stop(struct store *base, struct store_watch *watch);
void watches_listen(struct store *base, const struct store_events *events);

/* The connection for news of a node is ready, or lost. */
void watches_subscribe(struct redis_store *store, struct redis_node *node);
void watches_lose(struct redis_store *store, struct redis_node *node);
/* A message came on it. */
void watches_on_message(struct redis_node *node, const redisReply *reply);
/* Puts all watches where their channels are served now. */
void watches_settle(struct redis_store *store);
/* Asks again for subscriptions that were refused; reads watched channels whose slot is moving. */
void watches_tick(struct redis_store *store, uint64_t now_ms);
/* Lets go of all; the watches are the caller's. */
void watches_leave(struct redis_store *store);
