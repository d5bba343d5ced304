/*
 * The Redis store: appends and reads as scripts of one command each (redis_layout.h), on the connections of the node
 * that serves the channel (redis_topology.h); new updates of watched channels come by pub/sub.
 *
 * Life of an operation: pending (its node is not ready, or not known) → sent → answered. What a node refuses because
 * another one serves the channel is sent there; what it cannot do yet is pending again. Whatever its state, after
 * REDIS_TIMEOUT it is answered: an append that has been sent with STORE_UNSURE, all else with what was in its way last.
 *
 * With REDIS_WAIT the appends of a turn of the loop are followed by one WAIT and answered with its reply; what comes
 * while it is under way is sent after it.
 *
 * A watch stands in the list of its node, and is subscribed to there whenever the node's pub/sub connection is ready.
 */
#include "inbox/store.h"
#include "base/log.h"
#include "redis/layout.h"
#include "redis/topology.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TICK_MS = 50,
    RETRY_MS = 50, /* an operation that a cluster cannot do yet is tried again after so long */
    REDIRECTS_MAX = 8,
    SUBSCRIBE_NAMES = 256, /* channels subscribed to with one command */
    RESUBSCRIBE_MS = 500,  /* after a subscription was refused */
    LOG_PAUSE_MS = 5000,   /* from one line about the same kind of failure to the next */
    REFUSED_MS = 5000,     /* so long a refused append counts against the health */
    MIGRATION_MS = 1000,   /* while a slot moves, its watched channels are read once in so long */
    NEWS_NAME_MAX_BYTES = 4096,
};

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
    uv_prepare_t flush;
    struct list appends, reads; /* all struct op that have not been answered, by due_ms */
    struct list pending;        /* struct op: those that are to be sent */
    struct list failed;         /* struct store_op: those that there is no memory for */
    struct list homeless;       /* struct store_watch: those whose node is not known */
    struct buf key, record;
    struct store_stats stats;
    uint64_t up_ms; /* when all was well the last time */
    uint64_t migration_ms;
    uint64_t resubscribe_ms; /* 0: no subscription has been refused */
    struct log_budget append_log, read_log, news_log, tell_log;
    enum store_error refused; /* what the last append came to */
    uint64_t refused_ms;
    void (*closed)(void *context);
    void *closed_context;
    int open_handles;
};

/* One operation under way. */
struct op {
    struct redis_call call;
    struct list link;         /* in store->appends or store->reads, until it is answered */
    struct list pending_link; /* in store->pending, or in its node's unreplicated */
    struct redis_store *store;
    struct redis_node *node; /* where it was sent */
    struct store_op *caller; /* NULL: answered already */
    bool is_append;
    bool is_sent;        /* its reply is to come */
    bool needs_script;   /* the node does not know the script */
    bool was_redirected; /* sent to a node that does not serve the slot yet */
    uint8_t redirects;
    enum store_error error; /* what it is answered with when its time is over */
    uint64_t due_ms, retry_ms, sent_ns;
    struct redis_node *ask_node; /* ASK: only this once; held */
};

/* A command that belongs to no one operation: ASKING, WAIT. */
struct side_call {
    struct redis_call call;
    struct redis_node *node;
};

static struct redis_store *store_of(struct store *store) {
    return container_of(store, struct redis_store, base);
}

static struct redis_store *of_topology(struct redis_topology *topology) {
    return container_of(topology, struct redis_store, topology);
}

static struct store_append *append_of(const struct op *op) {
    return container_of(op->caller, struct store_append, op);
}

static struct store_read *read_of(const struct op *op) {
    return container_of(op->caller, struct store_read, op);
}

static struct slice channel_of(const struct op *op) {
    return op->is_append ? (struct slice){append_of(op)->name, append_of(op)->name_len}
                         : (struct slice){read_of(op)->name, read_of(op)->name_len};
}

static enum redis_lane lane_of(const struct op *op) {
    return op->is_append ? REDIS_LANE_APPEND : REDIS_LANE_READ;
}

/* --- Answering -------------------------------------------------------------------------------- */

/* Gives the operation back to who asked; the struct stays until its reply has come. */
static void answer(struct op *op, enum store_error error) {
    struct store_op *caller = op->caller;
    if (op->is_append)
        append_of(op)->error = error;
    else
        read_of(op)->error = error;
    op->store->stats.errors += error != STORE_OK;
    if (op->is_append) {
        op->store->refused = error;
        op->store->refused_ms = uv_now(op->store->topology.loop);
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

/* Logs a failure of one kind, and those that follow within some seconds only by their number. */
static void log_some(struct redis_store *store, struct log_budget *budget, const char *event,
                     const char *said) {
    uint64_t now_ms = uv_now(store->topology.loop);
    if (budget->told_ms && now_ms - budget->told_ms < LOG_PAUSE_MS) {
        budget->left_out++;
        return;
    }
    log_error(event, "reason", redis_reason(said).text, "left_out",
              log_number(budget->left_out).text, NULL);
    *budget = (struct log_budget){.told_ms = now_ms};
}

static void log_failure(struct op *op, const char *said) {
    struct redis_store *store = op->store;
    if (op->is_append)
        log_some(store, &store->append_log, "redis refused an append", said);
    else
        log_some(store, &store->read_log, "redis refused a read", said);
}

/* What an error reply means for the operation, where it is no redirection. */
static enum store_error error_of(const char *text) {
    static const struct {
        const char *code;
        enum store_error error;
    } codes[] = {
        {"READONLY", STORE_READ_ONLY},
        {"NOREPLICAS", STORE_TOO_FEW_REPLICAS},
        {"LOADING", STORE_LOADING},
        {"OOM", STORE_OUT_OF_MEMORY},
        {"CLUSTERDOWN", STORE_CLUSTER_DOWN},
        {"TRYAGAIN", STORE_CLUSTER_DOWN},
        {"MASTERDOWN", STORE_READ_ONLY},
        {"NOAUTH", STORE_REFUSED},
        {"WRONGPASS", STORE_REFUSED},
        {"NOPERM", STORE_REFUSED},
        {"invalid password", STORE_REFUSED},
        {"can't run this command", STORE_REFUSED},
        {"can't access", STORE_REFUSED},
        {"invalid username", STORE_REFUSED},
        {"without any password configured", STORE_REFUSED},
    };
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
        if (strstr(text, codes[i].code))
            return codes[i].error;
    return STORE_FAILED;
}

/* Whether it is worth another try: the cluster or Sentinel may be about to name another master. */
static bool may_pass(const struct redis_store *store, enum store_error error) {
    bool has_others = redis_topology_may_fail_over(&store->topology);
    return error == STORE_CLUSTER_DOWN ||
           (has_others && (error == STORE_READ_ONLY || error == STORE_TOO_FEW_REPLICAS));
}

static void got_error(struct op *op, const char *text) {
    struct redis_store *store = op->store;
    bool is_ask = strncmp(text, "ASK ", 4) == 0;
    if (strstr(text, "NOSCRIPT")) {
        op->needs_script = true;
        make_pending(op, STORE_FAILED);
        return;
    }
    enum store_error error = error_of(text);
    if (is_ask || strncmp(text, "MOVED ", 6) == 0) {
        struct redis_node *node = redis_topology_redirect(&store->topology, op->node, text);
        error = STORE_CLUSTER_DOWN;
        if (op->redirects++ < REDIRECTS_MAX) {
            set_ask_node(op, is_ask ? node : NULL);
            make_pending(op, error);
            return;
        }
        op->redirects = 0; /* they point at one another: a little later */
    }
    if (may_pass(store, error)) {
        redis_topology_suspect(&store->topology);
        op->retry_ms = uv_now(store->topology.loop) + RETRY_MS;
        make_pending(op, error);
        return;
    }
    if (op->caller)
        log_failure(op, text);
    finish(op, error);
}

static bool is_integer(const redisReply *reply) {
    return reply->type == REDIS_REPLY_INTEGER && reply->integer >= 0;
}

/* A list of strings, and of nothing else. */
static bool is_texts(const redisReply *reply) {
    if (reply->type != REDIS_REPLY_ARRAY)
        return false;
    for (size_t i = 0; i < reply->elements; i++)
        if (reply->element[i]->type != REDIS_REPLY_STRING)
            return false;
    return true;
}

static bool take_append(struct op *op, const redisReply *reply) {
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 3 ||
        !is_integer(reply->element[0]) || !is_integer(reply->element[1]) ||
        reply->element[2]->type != REDIS_REPLY_STRING)
        return false;
    if (reply->element[2]->len)
        log_some(op->store, &op->store->tell_log, "redis stored an update, but may not tell of it",
                 reply->element[2]->str);
    struct update *update = append_of(op)->update;
    update->ts = (uint64_t)reply->element[0]->integer;
    update->at_ms = reply->element[1]->integer;
    op->store->stats.commits++;
    op->store->stats.commit_ns += uv_hrtime() - op->sent_ns;
    return true;
}

/* The news of an update that went to a node which does not serve the slot yet: nobody is subscribed there. */
static void tell_own(struct redis_store *store, struct op *op) {
    struct store_watch *watch = store->events->find(store->events->context, channel_of(op));
    if (watch && watch->state == WATCH_ON)
        store->events->news(watch, append_of(op)->update);
}

/* The update whose record and body these are; NULL when memory is out. Without a record it is upstream's. */
static struct update *make_update(const struct redis_record *record, struct slice body,
                                  uint64_t ts) {
    struct update_parts parts = {.method = SLICE("POST")};
    if (record)
        parts = record->parts;
    parts.body = body;
    struct update *update = update_new(&parts);
    if (update) {
        update->ts = ts;
        update->at_ms = record ? record->at_ms : 0;
    }
    return update;
}

/* {total, gone, first, bodies, records}: both lists have the order of ts, records may have holes. */
static bool take_read(struct op *op, const redisReply *reply) {
    struct store_read *read = read_of(op);
    op->store->stats.reads++;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 5 ||
        !is_integer(reply->element[0]) || !is_integer(reply->element[1]) ||
        !is_integer(reply->element[2]) || !is_texts(reply->element[3]) ||
        !is_texts(reply->element[4]))
        return false;
    const redisReply *bodies = reply->element[3], *records = reply->element[4];
    read->total = (uint64_t)reply->element[0]->integer;
    read->gone = (uint64_t)reply->element[1]->integer;
    read->updates = malloc((bodies->elements + 1) * sizeof(struct update *));
    struct redis_record record = {0};
    size_t next = 0;
    for (size_t i = 0; read->updates && i < bodies->elements; i++) {
        uint64_t ts = (uint64_t)reply->element[2]->integer + i;
        while (record.ts < ts && next < records->elements) {
            const redisReply *text = records->element[next++];
            if (!redis_record_parse((struct slice){text->str, text->len}, &record))
                record.ts = 0;
        }
        struct slice body = {bodies->element[i]->str, bodies->element[i]->len};
        bool is_its = record.ts == ts && record.body_len == body.len;
        struct update *update = make_update(is_its ? &record : NULL, body, ts);
        if (!update)
            break; /* the rest with the next poll */
        read->updates[read->count++] = update;
    }
    return read->updates && (read->count || !bodies->elements);
}

/* Whether the node that has answered is still, or again, the one to ask. One that a slot is moving to serves it not yet. */
static bool is_believed(const struct op *op) {
    return redis_node_is_trusted(op->node, lane_of(op)) &&
           (op->was_redirected || redis_topology_is_serving(op->node));
}

static void got_reply(struct redis_call *call, const redisReply *reply) {
    struct op *op = container_of(call, struct op, call);
    struct redis_store *store = op->store;
    op->is_sent = false;
    if (!reply) { /* a read is asked again; an append may have been done */
        if (op->is_append && op->caller)
            finish(op, STORE_UNSURE);
        else
            make_pending(op, STORE_AWAY);
    } else if (reply->type == REDIS_REPLY_ERROR) {
        got_error(op, reply->str);
    } else if (!op->caller) {
        op_free(op);
    } else if (!is_believed(op)) { /* it may be lost with the node; what is read may be old */
        if (op->is_append)
            finish(op, STORE_UNSURE);
        else
            make_pending(op, STORE_AWAY);
    } else if (!(op->is_append ? take_append(op, reply) : take_read(op, reply))) {
        log_failure(op, "not the reply of the script");
        finish(op, STORE_FAILED);
    } else if (op->is_append && op->was_redirected && store->events &&
               !store->redis->wait_replicas) {
        tell_own(store, op);
        finish(op, STORE_OK);
    } else if (op->is_append && store->redis->wait_replicas) {
        op->error = STORE_NOT_REPLICATED;
        list_append(&op->node->unreplicated, &op->pending_link);
    } else {
        finish(op, STORE_OK);
    }
}

/* --- Sending ---------------------------------------------------------------------------------- */

static void on_side_reply(struct redis_call *call, const redisReply *reply) {
    (void)reply;
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

static void put_key(struct redis_store *store, struct redis_conn *conn, enum redis_key key,
                    struct slice channel) {
    buf_reset(&store->key, 4096);
    redis_layout_key(&store->topology.layout, &store->key, key, channel);
    redis_conn_argument(conn, (struct slice){store->key.data, store->key.len});
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
        put_key(op->store, conn, (enum redis_key)key, channel_of(op));
}

static void send_append(struct op *op, struct redis_conn *conn) {
    struct redis_store *store = op->store;
    const struct update *update = append_of(op)->update;
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
    put_key(store, conn, REDIS_KEY_NEWS, channel_of(op));
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
    struct redis_conn *conn = node ? &node->lanes[lane_of(op)] : NULL;
    if (!conn || !redis_node_is_ready(node, lane_of(op)) ||
        redis_conn_is_behind(conn, uv_now(store->topology.loop)))
        return false;
    if (op->is_append && node->is_waiting)
        return false;
    op->was_redirected = op->ask_node != NULL;
    if (op->ask_node)
        send_asking(conn);
    set_ask_node(op, NULL);
    op->node = node;
    op->is_sent = true;
    op->sent_ns = uv_hrtime();
    if (op->is_append)
        send_append(op, conn);
    else
        send_read(op, conn);
    redis_conn_sent(conn, &op->call);
    return true;
}

static void send_pending(struct redis_store *store) {
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

static void start_append(struct store *base, struct store_append *append) {
    append->error = STORE_FAILED;
    start(store_of(base), &append->op, true);
}

static void start_read(struct store *base, struct store_read *read) {
    read->error = STORE_FAILED;
    read->updates = NULL;
    read->count = 0;
    start(store_of(base), &read->op, false);
}

/* WAIT has been answered: so have all appends before it on this connection, and they wait for this. */
static void on_wait_reply(struct redis_call *call, const redisReply *reply) {
    struct side_call *side = container_of(call, struct side_call, call);
    struct redis_node *node = side->node;
    struct redis_store *store = of_topology(node->topology);
    free(side);
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
static void forget_waits(struct redis_node *node) {
    node->wants_wait = false;
    for (struct list *link; (link = list_shift(&node->unreplicated));)
        finish(container_of(link, struct op, pending_link), STORE_UNSURE);
}

static void send_waits(struct redis_store *store) {
    struct list *nodes = &store->topology.nodes;
    for (struct list *link = nodes->next; link != nodes; link = link->next) {
        struct redis_node *node = container_of(link, struct redis_node, link);
        struct redis_conn *conn = &node->lanes[REDIS_LANE_APPEND];
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

/* --- Watching --------------------------------------------------------------------------------- */

static bool can_subscribe(const struct redis_node *node) {
    return redis_node_is_ready(node, REDIS_LANE_NEWS);
}

/* Subscribes to the channels of up to `count` watches from `link` on. */
static void subscribe(struct redis_store *store, struct redis_node *node, struct list *link,
                      int count) {
    struct redis_conn *conn = &node->lanes[REDIS_LANE_NEWS];
    redis_conn_command(conn, 1 + count);
    redis_conn_argument(conn, store->topology.layout.is_cluster ? SLICE("SSUBSCRIBE")
                                                                : SLICE("SUBSCRIBE"));
    for (; count--; link = link->next) {
        struct store_watch *watch = container_of(link, struct store_watch, link);
        watch->state = WATCH_ASKED;
        put_key(store, conn, REDIS_KEY_NEWS, (struct slice){watch->name, watch->name_len});
    }
    redis_conn_sent(conn, NULL);
}

/* Subscribes to all of a node that are not subscribed to. They come to stand at the end of the list. */
static void subscribe_all(struct redis_store *store, struct redis_node *node) {
    int most = store->topology.layout.is_cluster
                   ? 1
                   : SUBSCRIBE_NAMES; /* channels of several slots go one by one */
    struct list wanted;
    list_init(&wanted);
    for (struct list *link = node->watches.next, *next; link != &node->watches; link = next) {
        next = link->next;
        if (container_of(link, struct store_watch, link)->state == WATCH_ON)
            continue;
        list_remove(link);
        list_append(&wanted, link);
    }
    for (struct list *link = wanted.next; link != &wanted;) {
        struct list *first = link;
        int count = 0;
        for (; link != &wanted && count < most; link = link->next)
            count++;
        subscribe(store, node, first, count);
    }
    list_splice(&node->watches, &wanted);
}

static void unsubscribe(struct redis_store *store, const struct store_watch *watch) {
    struct redis_node *node = watch->place;
    struct redis_conn *conn = node ? &node->lanes[REDIS_LANE_NEWS] : NULL;
    if (!conn || watch->state == WATCH_OFF || !redis_conn_is_ready(conn))
        return;
    redis_conn_command(conn, 2);
    redis_conn_argument(conn, store->topology.layout.is_cluster ? SLICE("SUNSUBSCRIBE")
                                                                : SLICE("UNSUBSCRIBE"));
    put_key(store, conn, REDIS_KEY_NEWS, (struct slice){watch->name, watch->name_len});
    redis_conn_sent(conn, NULL);
}

static void lose(struct redis_store *store, struct store_watch *watch) {
    bool was_on = watch->state == WATCH_ON;
    watch->state = WATCH_OFF;
    if (was_on)
        store->events->lost(watch);
}

/* Puts a watch where its channel is served now. */
static void settle(struct redis_store *store, struct store_watch *watch) {
    struct redis_node *node =
        redis_topology_node(&store->topology, (struct slice){watch->name, watch->name_len});
    list_remove(&watch->link);
    list_append(node ? &node->watches : &store->homeless, &watch->link);
    if (node == watch->place && watch->state != WATCH_OFF)
        return;
    unsubscribe(store, watch);
    lose(store, watch);
    watch->place = node;
    if (node && can_subscribe(node))
        subscribe(store, node, &watch->link, 1);
}

static void start_watch(struct store *base, struct store_watch *watch) {
    struct redis_store *store = store_of(base);
    watch->state = WATCH_OFF;
    watch->place = NULL;
    store->stats.watches++;
    settle(store, watch);
}

static void stop_watch(struct store *base, struct store_watch *watch) {
    struct redis_store *store = store_of(base);
    unsubscribe(store, watch);
    list_remove(&watch->link);
    store->stats.watches--;
}

static void listen_to(struct store *base, const struct store_events *events) {
    store_of(base)->events = events;
}

static void got_news(struct redis_store *store, struct store_watch *watch,
                     const redisReply *payload) {
    struct redis_record record;
    if (!redis_record_parse((struct slice){payload->str, payload->len}, &record) ||
        record.rest.len != record.body_len)
        return; /* not of our making */
    struct update *update = make_update(&record, record.rest, record.ts);
    if (!update) { /* memory is out: read it later */
        lose(store, watch);
        store->resubscribe_ms = uv_now(store->topology.loop) + RESUBSCRIBE_MS;
        return;
    }
    store->events->news(watch, update);
    update_unref(update);
}

/* The watch of the channel that a message is about; NULL when there is none. */
static struct store_watch *find_watch(struct redis_store *store, const redisReply *name) {
    char channel[NEWS_NAME_MAX_BYTES];
    size_t len;
    if (name->type != REDIS_REPLY_STRING || name->len > sizeof channel ||
        !redis_layout_channel(&store->topology.layout, (struct slice){name->str, name->len},
                              channel, &len))
        return NULL;
    return store->events->find(store->events->context, (struct slice){channel, len});
}

static bool is_kind(const redisReply *kind, const char *name) {
    const char *text =
        kind->str + (*kind->str == 's' && strcmp(kind->str, "subscribe") != 0); /* ssubscribe */
    return strcmp(text, name) == 0;
}

static void refused_subscription(struct redis_store *store, struct redis_node *node,
                                 const char *reason) {
    redis_topology_suspect(&store->topology);
    if (strncmp(reason, "MOVED ", 6) == 0)
        redis_topology_redirect(&store->topology, node, reason);
    else
        log_some(store, &store->news_log, "redis refused a subscription", reason);
    if (!store->resubscribe_ms)
        store->resubscribe_ms = uv_now(store->topology.loop) + RESUBSCRIBE_MS;
}

static void on_message(struct redis_node *node, const redisReply *reply) {
    struct redis_store *store = of_topology(node->topology);
    if (reply->type == REDIS_REPLY_ERROR) {
        refused_subscription(store, node, reply->str);
        return;
    }
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements < 3 ||
        reply->element[0]->type != REDIS_REPLY_STRING)
        return; /* a pong */
    const redisReply *kind = reply->element[0], *value = reply->element[2];
    struct store_watch *watch = find_watch(store, reply->element[1]);
    if (!watch || watch->place != node)
        return;
    if (is_kind(kind, "message") && value->type == REDIS_REPLY_STRING) {
        if (watch->state == WATCH_ON)
            got_news(store, watch, value);
    } else if (is_kind(kind, "subscribe")) {
        watch->state = WATCH_ON;
        store->events->watched(watch);
    } else if (is_kind(kind, "unsubscribe")) { /* by a node that serves the slot no more, or late */
        lose(store, watch);
        redis_topology_suspect(&store->topology);
        subscribe(store, node, &watch->link, 1);
    }
}

/* --- Nodes that come and go ------------------------------------------------------------------- */

static void on_ready(struct redis_node *node, enum redis_lane lane) {
    struct redis_store *store = of_topology(node->topology);
    if (lane == REDIS_LANE_NEWS)
        subscribe_all(store, node);
    send_pending(store);
}

static void on_down(struct redis_node *node, enum redis_lane lane) {
    if (lane == REDIS_LANE_APPEND)
        forget_waits(node);
    if (lane != REDIS_LANE_NEWS)
        return;
    for (struct list *link = node->watches.next; link != &node->watches; link = link->next)
        lose(of_topology(node->topology), container_of(link, struct store_watch, link));
}

/* Settles all watches of a list anew. */
static void settle_all(struct redis_store *store, struct list *watches) {
    struct list all;
    list_init(&all);
    list_splice(&all, watches);
    for (struct list *link; (link = list_shift(&all));)
        settle(store, container_of(link, struct store_watch, link));
}

static void on_changed(struct redis_topology *topology) {
    struct redis_store *store = of_topology(topology);
    settle_all(store, &store->homeless);
    for (struct list *link = topology->nodes.next; link != &topology->nodes; link = link->next)
        settle_all(store, &container_of(link, struct redis_node, link)->watches);
    send_pending(store);
}

static const struct redis_topology_events topology_events = {on_ready, on_down, on_message,
                                                             on_changed};

/* --- The clock -------------------------------------------------------------------------------- */

/* Why nothing can be done at the moment. */
static enum store_error away_error(const struct redis_store *store) {
    enum store_error error = error_of(store->topology.away);
    return error == STORE_FAILED ? STORE_AWAY : error;
}

/* Answers an operation whose time is over. */
static void give_up(struct op *op) {
    enum store_error error = op->error;
    if (op->is_append && op->is_sent)
        error = STORE_UNSURE;
    else if (error == STORE_AWAY)
        error = away_error(op->store);
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

static void resubscribe(struct redis_store *store, uint64_t now_ms) {
    if (!store->resubscribe_ms || now_ms < store->resubscribe_ms)
        return;
    store->resubscribe_ms = 0;
    struct list *nodes = &store->topology.nodes;
    for (struct list *link = nodes->next; link != nodes; link = link->next) {
        struct redis_node *node = container_of(link, struct redis_node, link);
        if (can_subscribe(node))
            subscribe_all(store, node);
    }
}

/* Nobody is subscribed at the node that a slot is moving to: what is pushed there must be looked for. */
static void check_migrating(struct redis_store *store, uint64_t now_ms) {
    if (now_ms - store->migration_ms < MIGRATION_MS)
        return;
    store->migration_ms = now_ms;
    struct list *nodes = &store->topology.nodes;
    for (struct list *link = nodes->next; link != nodes; link = link->next) {
        struct redis_node *node = container_of(link, struct redis_node, link);
        struct list *watches = &node->watches;
        for (struct list *at = watches->next; node->is_migrating && at != watches; at = at->next)
            if (container_of(at, struct store_watch, link)->state == WATCH_ON)
                store->events->watched(container_of(at, struct store_watch, link));
    }
}

static void on_tick(uv_timer_t *timer) {
    struct redis_store *store = container_of(timer, struct redis_store, tick);
    uint64_t now_ms = uv_now(timer->loop);
    redis_topology_tick(&store->topology, now_ms);
    if (redis_topology_is_up(&store->topology))
        store->up_ms = now_ms;
    give_up_late(&store->appends, now_ms);
    give_up_late(&store->reads, now_ms);
    send_pending(store);
    give_up_pending(store, now_ms);
    resubscribe(store, now_ms);
    check_migrating(store, now_ms);
}

/* Before the loop looks at its sockets: what this turn asked for goes out. */
static void on_flush(uv_prepare_t *prepare) {
    struct redis_store *store = container_of(prepare, struct redis_store, flush);
    for (struct list *link; (link = list_shift(&store->failed));) {
        struct store_op *caller = container_of(link, struct store_op, link);
        caller->done(caller);
    }
    send_pending(store);
    if (store->redis->wait_replicas)
        send_waits(store);
    redis_topology_flush(&store->topology);
}

/* --- Opening and closing ---------------------------------------------------------------------- */

static void get_stats(struct store *base, struct store_stats *stats) {
    struct redis_store *store = store_of(base);
    store->stats.up = redis_topology_is_up(&store->topology);
    store->stats.reconnects = store->topology.reconnects;
    *stats = store->stats;
}

/* The promise that is worth least counts. */
static const struct redis_promise *weakest_promise(const struct redis_topology *topology,
                                                   unsigned *masters) {
    const struct redis_promise *weakest = NULL;
    for (struct list *link = topology->nodes.next; link != &topology->nodes; link = link->next) {
        const struct redis_node *node = container_of(link, struct redis_node, link);
        if (!redis_topology_is_serving(node) || !node->promise.is_known)
            continue;
        ++*masters;
        if (!weakest || (!redis_promise_risk(weakest) && redis_promise_risk(&node->promise)))
            weakest = &node->promise;
    }
    return weakest;
}

static enum store_error health(struct store *base, struct buf *line) {
    struct redis_store *store = store_of(base);
    const struct redis_topology *topology = &store->topology;
    bool is_up = redis_topology_is_up(topology);
    bool is_refusing = store->refused && uv_now(topology->loop) - store->refused_ms < REFUSED_MS;
    unsigned masters = 0;
    const struct redis_promise *promise = is_up ? weakest_promise(topology, &masters) : NULL;
    if (line && promise) {
        redis_promise_write(promise, line);
        if (topology->slots)
            buf_printf(line, "; a cluster of %u masters", masters);
        if (redis_topology_may_fail_over(topology) && !store->redis->wait_replicas)
            buf_puts(line, "; a failover loses what the new master does not have");
    } else if (line && !is_up) {
        buf_printf(line, "%s%s%s", topology->away_address.text, *topology->away ? ": " : "",
                   *topology->away ? topology->away : "connecting");
    }
    if (line && is_up && is_refusing)
        buf_puts(line, "; the last push was not acknowledged");
    return !is_up ? away_error(store) : is_refusing ? store->refused : STORE_OK;
}

static void on_handle_closed(uv_handle_t *handle) {
    struct redis_store *store = handle->data;
    if (--store->open_handles)
        return;
    void (*closed)(void *) = store->closed;
    void *context = store->closed_context;
    buf_deinit(&store->key);
    buf_deinit(&store->record);
    free(store);
    closed(context);
}

static void answer_all(struct list *ops) {
    for (struct list *link; (link = list_shift(ops));)
        give_up(container_of(link, struct op, link));
}

/* The watches are the caller's, and stay. */
static void leave_all(struct list *watches) {
    while (list_shift(watches))
        ;
}

static void close_store(struct store *base, void (*closed)(void *), void *context) {
    struct redis_store *store = store_of(base);
    store->closed = closed;
    store->closed_context = context;
    struct list *nodes = &store->topology.nodes;
    for (struct list *link = nodes->next; link != nodes; link = link->next)
        leave_all(&container_of(link, struct redis_node, link)->watches);
    leave_all(&store->homeless);
    redis_topology_deinit(&store->topology);
    answer_all(&store->appends);
    answer_all(&store->reads);
    for (struct list *link; (link = list_shift(&store->failed));) {
        struct store_op *caller = container_of(link, struct store_op, link);
        caller->done(caller);
    }
    uv_close((uv_handle_t *)&store->tick, on_handle_closed);
    uv_close((uv_handle_t *)&store->flush, on_handle_closed);
}

struct store *store_redis_open(uv_loop_t *loop, const struct store_options *options,
                               const struct redis_options *redis, char *error, size_t error_size) {
    static const struct store_ops ops = {
        .append = start_append,
        .read = start_read,
        .stats = get_stats,
        .close = close_store,
        .listen = listen_to,
        .watch = start_watch,
        .unwatch = stop_watch,
        .health = health,
    };
    struct redis_store *store = calloc(1, sizeof *store);
    if (!store) {
        snprintf(error, error_size, "out of memory");
        return NULL;
    }
    store->base.ops = &ops;
    store->redis = redis;
    store->options = *options;
    struct list *lists[] = {&store->appends, &store->reads, &store->pending, &store->failed,
                            &store->homeless};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        list_init(lists[i]);
    if (!redis_topology_init(&store->topology, loop, redis, &topology_events, error, error_size)) {
        free(store);
        return NULL;
    }
    store->up_ms = uv_now(loop);
    uv_timer_init(loop, &store->tick);
    uv_prepare_init(loop, &store->flush);
    store->tick.data = store->flush.data = store;
    store->open_handles = 2;
    uv_timer_start(&store->tick, on_tick, TICK_MS, TICK_MS);
    uv_prepare_start(&store->flush, on_flush);
    redis_topology_start(&store->topology);
    return &store->base;
}
