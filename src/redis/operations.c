/*
 * Operations: appends and reads, each a script of one command (layout.h), on a connection of the
 * node that serves the channel (topology.h).
 *
 * Life of an operation: pending (its node is not ready, or not known) → sent → answered. If a node
 * says that another one serves the channel, the operation is sent there; what a node cannot do yet
 * is pending again. Whatever its state, after REDIS_TIMEOUT it is answered: an append that was sent
 * with STORE_UNSURE, all else with the last obstacle.
 *
 * With REDIS_WAIT, one WAIT follows the appends of a turn of the loop, and its reply answers them.
 * Appends that come while it is under way are sent after it.
 */
#include "base/log.h"
#include "redis/fate.h"
#include "redis/parts.h"

#include <stdlib.h>
#include <string.h>

enum {
    RETRY_MS = 50, /* until an operation that a cluster cannot do yet is tried again */
    REDIRECTS_MAX = 8,
};

/* A command that belongs to no one operation: ASKING, WAIT. */
struct side_call {
    struct redis_call call;
    struct redis_node *node;
};

/* --- Answering -------------------------------------------------------------------------------- */

/* Gives the operation back to who asked; the struct stays until its reply has come. */
static void answer(struct op *op, enum store_error error) {
    struct store_op *caller = op->caller;
    if (op->is_append)
        append_of(op)->error = error;
    else
        read_of(op)->error = error;
    op->store->stats.errors += error != STORE_OK;
    uint64_t now_ms = uv_now(op->store->topology.loop);
    if (error == STORE_DAMAGED) { /* nothing is wrong with the other channels */
        op->store->damaged_ms = now_ms;
    } else if (op->is_append) {
        op->store->refused = error;
        op->store->refused_ms = now_ms;
    }
    op->caller = NULL;
    list_remove(&op->link);
    caller->done(caller);
}

/* The node to which ASK redirects, or none; it stays while it is held. */
static void set_ask_node(struct op *op, struct redis_node *node) {
    if (op->ask_node)
        op->ask_node->holds--;
    op->ask_node = node;
    if (node)
        node->holds++;
}

static void op_free(struct op *op) {
    set_ask_node(op, NULL);
    list_remove(&op->link);
    list_remove(&op->pending_link);
    free(op);
}

static void finish(struct op *op, enum store_error error) {
    if (op->caller)
        answer(op, error);
    op_free(op);
}

static void make_pending(struct op *op, enum store_error error) {
    op->error = error;
    op->is_sent = false;
    if (!op->caller) {
        op_free(op);
        return;
    }
    list_append(&op->store->pending, &op->pending_link);
}

/* --- Replies ---------------------------------------------------------------------------------- */

static void log_failure(struct op *op, const char *said) {
    struct redis_store *store = op->store;
    if (op->is_append)
        redis_store_log(store, &store->append_log, "redis refused an append", said);
    else
        redis_store_log(store, &store->read_log, "redis refused a read", said);
}

static bool is_integer(const redisReply *reply) {
    return reply->type == REDIS_REPLY_INTEGER && reply->integer >= 0;
}

static bool take_append(struct op *op, const redisReply *reply) {
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 4 ||
        !is_integer(reply->element[0]) || !is_integer(reply->element[1]) ||
        reply->element[2]->type != REDIS_REPLY_STRING ||
        reply->element[3]->type != REDIS_REPLY_STRING)
        return false;
    if (reply->element[2]->len || reply->element[3]->len)
        op->node->wants_rights = true;
    if (reply->element[2]->len)
        redis_store_log(op->store, &op->store->tell_log,
                        "redis stored an update, but may not tell of it", reply->element[2]->str);
    if (reply->element[3]->len)
        redis_store_log(op->store, &op->store->tidy_log,
                        "redis stored an update, but may not tidy up", reply->element[3]->str);
    struct update *update = append_of(op)->only;
    update->ts = (uint64_t)reply->element[0]->integer;
    update->at_ms = update->born_ms = reply->element[1]->integer;
    op->store->stats.commits++;
    op->store->stats.commit_ns += uv_hrtime() - op->sent_ns;
    return true;
}

/* The news of an update that went to a node which does not serve the slot yet: nobody is
 * subscribed there. */
static void tell_own(struct redis_store *store, struct op *op) {
    struct store_watch *watch = store->events->find(store->events->context, channel_of(op));
    if (watch && watch->state == WATCH_ON)
        store->events->news(watch, append_of(op)->only);
}

static bool take_read(struct op *op, const redisReply *reply) {
    op->store->stats.reads++;
    return page_take(op->store, read_of(op), reply);
}

/* Whether the node that has answered is still, or again, the one to ask. One that a slot is
 * moving to serves it not yet. */
static bool is_believed(const struct op *op) {
    return redis_lane_is_trusted(&op->node->lanes[lane_of(op)]) &&
           (op->was_redirected || redis_node_is_serving(op->node));
}

/* A reply that is believed. */
static void take(struct op *op, const redisReply *reply) {
    struct redis_store *store = op->store;
    if (!op->caller) {
        op_free(op);
        return;
    }
    if (!(op->is_append ? take_append(op, reply) : take_read(op, reply))) {
        log_failure(op, "not the reply of the script");
        finish(op, STORE_FAILED);
        return;
    }
    if (op->is_append && store->redis->wait_replicas) {
        op->error = STORE_NOT_REPLICATED;
        list_append(&op->node->unreplicated, &op->pending_link);
        return;
    }
    if (op->is_append && op->was_redirected && store->events)
        tell_own(store, op);
    finish(op, STORE_OK);
}

/* Tries again after a pause; by then another node may serve the channel. */
static void try_later(struct op *op, enum store_error error) {
    redis_topology_suspect(&op->store->topology);
    op->retry_ms = uv_now(op->store->topology.loop) + RETRY_MS;
    make_pending(op, error);
}

/* `text` names another node, for this time or for good. */
static void redirect(struct op *op, const char *text, bool is_ask) {
    struct redis_node *node = redis_topology_redirect(&op->store->topology, op->node, text);
    if (op->redirects++ < REDIRECTS_MAX) {
        set_ask_node(op, is_ask ? node : NULL);
        make_pending(op, STORE_CLUSTER_DOWN);
        return;
    }
    op->redirects = 0; /* they point at one another */
    try_later(op, STORE_CLUSTER_DOWN);
}

static void got_reply(struct redis_call *call, const redisReply *reply) {
    struct op *op = container_of(call, struct op, call);
    struct redis_fate fate = redis_fate_of(reply, op->is_append, is_believed(op),
                                           redis_topology_may_fail_over(&op->store->topology));
    turn_end(&op->store->flush);
    op->is_sent = false;
    switch (fate.kind) {
    case FATE_DONE: take(op, reply); break;
    case FATE_ANSWER:
        if (op->caller && reply && reply->type == REDIS_REPLY_ERROR)
            log_failure(op, reply->str);
        if (reply && reply->type == REDIS_REPLY_ERROR)
            op->node->wants_rights = true;
        finish(op, fate.error);
        break;
    case FATE_AGAIN: make_pending(op, fate.error); break;
    case FATE_LATER: try_later(op, fate.error); break;
    case FATE_SCRIPT:
        op->needs_script = true;
        make_pending(op, fate.error);
        break;
    case FATE_MOVED:
    case FATE_ASK: redirect(op, reply->str, fate.kind == FATE_ASK); break;
    }
}

/* --- Sending ---------------------------------------------------------------------------------- */

static void on_side_reply(struct redis_call *call, const redisReply *reply) {
    if (reply && reply->type == REDIS_REPLY_ERROR)
        log_debug("redis refused ASKING", "reason", redis_reason(reply->str).text, NULL);
    free(container_of(call, struct side_call, call));
}

/* Sends the command that must go before one that was redirected by ASK. */
static void send_asking(struct redis_conn *conn) {
    struct side_call *side = calloc(1, sizeof *side);
    if (!side)
        return; /* the node will redirect once more */
    side->call.done = on_side_reply;
    redis_conn_words(conn, &side->call, "ASKING", NULL);
}

/* EVALSHA hash keys, or EVAL text keys. */
static void begin_script(struct op *op, struct redis_conn *conn, const struct redis_script *script,
                         int keys, int arguments) {
    redis_conn_command(conn, 3 + keys + arguments);
    if (op->needs_script) {
        redis_conn_argument(conn, SLICE("EVAL"));
        redis_conn_argument(conn, (struct slice){script->text, strlen(script->text)});
    } else {
        redis_conn_argument(conn, SLICE("EVALSHA"));
        redis_conn_argument(conn, (struct slice){script->sha, 40});
    }
    redis_conn_number(conn, keys);
    for (int key = 0; key < keys; key++)
        redis_store_put_key(op->store, conn, (enum redis_key)key, channel_of(op));
}

static void send_append(struct op *op, struct redis_conn *conn) {
    struct redis_store *store = op->store;
    const struct update *update = append_of(op)->only;
    begin_script(op, conn, &redis_script_append, 3, 8);
    redis_conn_argument(conn, update_body(update));
    buf_reset(&store->record, 65536);
    redis_record_write(&store->record, update);
    redis_conn_argument(conn, (struct slice){store->record.data, store->record.len});
    int64_t year_ms = (int64_t)365 * 86400 * 1000, ttl_ms = store->options.ttl_ms;
    int64_t longer_ms = ttl_ms + ttl_ms / 100 + 1;
    redis_conn_number(conn, (int64_t)store->options.channel_max_updates);
    redis_conn_number(conn, ttl_ms);
    redis_conn_number(conn, longer_ms);
    redis_conn_number(conn, longer_ms > year_ms ? longer_ms : year_ms);
    redis_conn_argument(conn,
                        store->topology.layout.is_cluster ? SLICE("SPUBLISH") : SLICE("PUBLISH"));
    redis_store_put_key(store, conn, REDIS_KEY_NEWS, channel_of(op));
    op->node->wants_wait = true;
}

static void send_read(struct op *op, struct redis_conn *conn) {
    struct redis_store *store = op->store;
    const struct store_read *read = read_of(op);
    begin_script(op, conn, &redis_script_read, 3, 5);
    redis_conn_number(conn, read->after_ts);
    redis_conn_number(conn, read->limit);
    redis_conn_number(conn, READ_MAX_BYTES);
    redis_conn_number(conn, (int64_t)store->options.channel_max_updates);
    redis_conn_number(conn, store->options.ttl_ms);
}

/* False while its node is not ready, or has enough to do. */
static bool send_op(struct op *op) {
    struct redis_store *store = op->store;
    struct redis_node *node =
        op->ask_node ? op->ask_node : redis_topology_node(&store->topology, channel_of(op));
    if (!node && store->topology.slots)
        op->error = STORE_CLUSTER_DOWN;
    struct redis_lane *lane = node ? &node->lanes[lane_of(op)] : NULL;
    if (!lane || !redis_lane_is_ready(lane) ||
        redis_conn_is_behind(&lane->conn, uv_now(store->topology.loop)))
        return false;
    if (op->is_append && node->is_waiting)
        return false;
    op->was_redirected = op->ask_node != NULL;
    if (op->ask_node)
        send_asking(&lane->conn);
    set_ask_node(op, NULL);
    op->node = node;
    op->is_sent = true;
    op->sent_ns = uv_hrtime();
    if (op->is_append)
        send_append(op, &lane->conn);
    else
        send_read(op, &lane->conn);
    redis_conn_sent(&lane->conn, &op->call);
    return true;
}

void operations_send(struct redis_store *store) {
    struct list waiting;
    list_init(&waiting);
    list_splice(&waiting, &store->pending);
    uint64_t now_ms = uv_now(store->topology.loop);
    for (struct list *link; (link = list_shift(&waiting));) {
        struct op *op = container_of(link, struct op, pending_link);
        if (op->retry_ms > now_ms || !send_op(op))
            list_append(&store->pending, &op->pending_link);
    }
}

static void start(struct redis_store *store, struct store_op *caller, bool is_append) {
    turn_end(&store->flush);
    struct op *op = malloc(sizeof *op);
    if (!op) {
        list_append(&store->failed, &caller->link);
        return;
    }
    *op = (struct op){
        .call.done = got_reply,
        .store = store,
        .caller = caller,
        .is_append = is_append,
        .error = STORE_AWAY,
        .due_ms = uv_now(store->topology.loop) + (uint64_t)store->redis->timeout_ms,
    };
    if (is_append)
        op->due_ms += (uint64_t)store->redis->wait_ms;
    list_init(&op->pending_link);
    list_append(is_append ? &store->appends : &store->reads, &op->link);
    list_append(&store->pending, &op->pending_link);
}

void operations_append(struct store *base, struct store_append *append) {
    append->error = STORE_FAILED;
    start(store_of(base), &append->op, true);
}

void operations_read(struct store *base, struct store_read *read) {
    read->error = STORE_FAILED;
    read->updates = NULL;
    read->count = 0;
    start(store_of(base), &read->op, false);
}

/* WAIT has been answered: so have all appends before it on this connection, and they wait for
 * this. */
static void on_wait_reply(struct redis_call *call, const redisReply *reply) {
    struct side_call *side = container_of(call, struct side_call, call);
    struct redis_node *node = side->node;
    struct redis_store *store = of_topology(node->topology);
    free(side);
    turn_end(&store->flush);
    node->is_waiting = false;
    bool is_done = reply && reply->type == REDIS_REPLY_INTEGER &&
                   reply->integer >= store->redis->wait_replicas;
    enum store_error error = is_done ? STORE_OK : reply ? STORE_NOT_REPLICATED : STORE_UNSURE;
    struct list appends;
    list_init(&appends);
    list_splice(&appends, &node->unreplicated);
    for (struct list *link; (link = list_shift(&appends));) {
        struct op *op = container_of(link, struct op, pending_link);
        finish(op, error == STORE_OK && !is_believed(op) ? STORE_UNSURE : error);
    }
}

/* The connection is lost before WAIT was sent, or answered. */
void operations_forget_waits(struct redis_node *node) {
    node->wants_wait = false;
    for (struct list *link; (link = list_shift(&node->unreplicated));)
        finish(container_of(link, struct op, pending_link), STORE_UNSURE);
}

void operations_send_waits(struct redis_store *store) {
    struct list *nodes = &store->topology.nodes;
    for (struct list *link = nodes->next; link != nodes; link = link->next) {
        struct redis_node *node = container_of(link, struct redis_node, link);
        struct redis_conn *conn = &node->lanes[REDIS_LANE_APPEND].conn;
        struct side_call *side = node->wants_wait ? malloc(sizeof *side) : NULL;
        if (!side || !redis_conn_is_ready(conn)) {
            free(side);
            continue;
        }
        *side = (struct side_call){.call.done = on_wait_reply, .node = node};
        node->wants_wait = false;
        node->is_waiting = true;
        redis_conn_command(conn, 3);
        redis_conn_argument(conn, SLICE("WAIT"));
        redis_conn_number(conn, store->redis->wait_replicas);
        redis_conn_number(conn, store->redis->wait_ms);
        redis_conn_sent(conn, &side->call);
    }
}

/* --- Giving up -------------------------------------------------------------------------------- */

enum store_error operations_away_error(const struct redis_store *store) {
    enum store_error error = redis_fate_error(store->topology.away);
    return error == STORE_FAILED ? STORE_AWAY : error;
}

/* Answers an operation whose time is over. */
static void give_up(struct op *op) {
    enum store_error error = op->error;
    if (op->is_append && op->is_sent)
        error = STORE_UNSURE;
    else if (error == STORE_AWAY)
        error = operations_away_error(op->store);
    if (op->is_sent)
        answer(op, error); /* the reply will free it */
    else
        finish(op, error);
}

static void give_up_late(struct list *ops, uint64_t now_ms) {
    while (!list_empty(ops)) {
        if (container_of(ops->next, struct op, link)->due_ms > now_ms)
            return;
        give_up(container_of(list_shift(ops), struct op, link));
    }
}

/* When Redis has been away for long, nobody waits for it. */
static void give_up_pending(struct redis_store *store, uint64_t now_ms) {
    if (now_ms - store->up_ms < (uint64_t)store->redis->timeout_ms)
        return;
    struct list pending;
    list_init(&pending);
    list_splice(&pending, &store->pending);
    for (struct list *link; (link = list_shift(&pending));) {
        struct op *op = container_of(link, struct op, pending_link);
        if (op->retry_ms > now_ms)
            list_append(&store->pending, &op->pending_link);
        else
            give_up(op);
    }
}

void operations_give_up(struct redis_store *store, uint64_t now_ms) {
    give_up_late(&store->appends, now_ms);
    give_up_late(&store->reads, now_ms);
    operations_send(store);
    give_up_pending(store, now_ms);
}

void operations_answer_failed(struct redis_store *store) {
    for (struct list *link; (link = list_shift(&store->failed));) {
        struct store_op *caller = container_of(link, struct store_op, link);
        caller->done(caller);
    }
}

static void answer_all(struct list *ops) {
    for (struct list *link; (link = list_shift(ops));)
        give_up(container_of(link, struct op, link));
}

void operations_end(struct redis_store *store) {
    answer_all(&store->appends);
    answer_all(&store->reads);
    operations_answer_failed(store);
}
