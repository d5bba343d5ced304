/*
 * Operations: appends, reads, purges and what becomes of cursors, each a script of one command
 * (layout.h), on a connection of the node that serves the channel (topology.h). Cursors go the way
 * of reads: whatever is done with them may be done again. Purges go the way of appends, and behind
 * those that were asked for before them.
 *
 * Life of an operation: pending (queues.c) → sent (commands.c) → answered. If a node says that
 * another one serves the channel, the operation is sent there; what a node cannot do yet is pending
 * again. Each goes its own way, also where several were sent in one command. Whatever its state,
 * after REDIS_TIMEOUT it is answered: an append that was sent with STORE_UNSURE, all else with the
 * last obstacle. Only a read may wait longer, while its Redis answers others.
 *
 * With REDIS_WAIT, one WAIT follows the appends of a turn of the loop, and its reply answers them.
 * Appends that come while it is under way are sent after it.
 */
#include "base/log.h"
#include "redis/fate.h"
#include "redis/parts.h"

#include <stdlib.h>
#include <string.h>

enum { REDIRECTS_MAX = 8 };

/* WAIT, which belongs to no one operation. */
struct wait_call {
    struct redis_call call;
    struct redis_node *node;
};

/* --- Answering -------------------------------------------------------------------------------- */

/* Gives the operation back to who asked; the struct stays until its reply has come. */
static void answer(struct op *op, enum store_error error) {
    struct store_op *caller = op->caller;
    if (op->is_append)
        append_of(op)->error = error;
    else if (op->is_purge)
        purge_of(op)->error = error;
    else if (op->is_cursors)
        cursors_of(op)->error = error;
    else
        read_of(op)->error = error;
    op->store->stats.errors += error != STORE_OK && error != STORE_CONSUMERS_FULL;
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

static void op_free(struct op *op) {
    queues_set_ask_node(op, NULL);
    list_remove(&op->link);
    list_remove(&op->queue_link);
    free(op);
}

static void finish(struct op *op, enum store_error error) {
    if (op->caller)
        answer(op, error);
    op_free(op);
}

/* --- Replies ---------------------------------------------------------------------------------- */

static void log_failure(struct op *op, const char *said) {
    struct redis_store *store = op->store;
    if (op->is_append)
        redis_store_log(store, &store->append_log, "redis refused an append", said);
    else if (op->is_purge)
        redis_store_log(store, &store->append_log, "redis refused a purge", said);
    else if (op->is_cursors)
        redis_store_log(store, &store->cursors_log, "redis refused cursors of consumers", said);
    else
        redis_store_log(store, &store->read_log, "redis refused a read", said);
}

/* What a reply says to one operation. */
struct word {
    const redisReply *reply; /* an error, or what the script has returned for it; NULL: none came */
    bool is_error_for_all;   /* ... of several channels */
    bool is_sound;           /* of an append: the reply of its script */
    uint64_t ts;             /* ... the newest before it */
    int64_t at_ms;
    redisReply **same_as; /* ... of each update, for redis_script_append_known; else NULL */
};

/* How many of `count` updates were stored. */
static uint64_t stored_of(const struct word *word, uint64_t count) {
    uint64_t stored = 0;
    for (uint64_t i = 0; i < count; i++)
        stored += !word->same_as || word->same_as[i]->integer >= 0;
    return stored;
}

/* Takes what is said of an update's delivery; false when the update was not stored. */
static bool take_delivery(struct update *update, struct delivery *delivery, int64_t same_as) {
    bool is_stored = same_as >= 0;
    delivery->same_as = (uint64_t)(is_stored ? same_as : -same_as);
    if (delivery->has_id)
        update_set_same_as(update, delivery->same_as);
    update->ts = delivery->same_as; /* unless it is stored */
    return is_stored;
}

static void take_append(struct op *op, const struct word *word) {
    struct store_append *append = append_of(op);
    uint64_t ts = word->ts;
    for (uint32_t i = 0; i < append->count; i++) {
        struct update *update = append->updates[i];
        update->at_ms = update->born_ms = word->at_ms;
        if (!word->same_as || !append->deliveries ||
            take_delivery(update, &append->deliveries[i], word->same_as[i]->integer))
            update->ts = ++ts;
    }
}

/* The news of updates that went to a node which does not serve the slot yet: nobody is subscribed
 * there. */
static void tell_own(struct redis_store *store, struct op *op) {
    struct store_watch *watch = store->events->find(store->events->context, channel_of(op));
    for (uint32_t i = 0; i < op->count && watch && watch->state == WATCH_ON; i++)
        if (store_append_is_stored(append_of(op), i))
            store->events->news(watch, append_of(op)->updates[i]);
}

/* Whether the node that has answered is still, or again, the one to ask. One that a slot is
 * moving to serves it not yet. */
static bool is_believed(const struct op *op) {
    return redis_lane_is_trusted(&op->node->lanes[lane_of(op)]) &&
           (op->was_redirected || redis_node_is_serving(op->node));
}

/* An append or a purge that is done. */
static void written(struct op *op) {
    struct redis_store *store = op->store;
    if (store->redis->wait_replicas) {
        op->error = STORE_NOT_REPLICATED;
        list_append(&op->node->unreplicated, &op->queue_link);
        return;
    }
    if (op->is_append && op->was_redirected && store->events)
        tell_own(store, op);
    finish(op, STORE_OK);
}

static bool take_purge(struct op *op, const redisReply *reply) {
    const char *told = NULL;
    bool is_sound = purges_take(purge_of(op), reply, &told);
    if (told) {
        op->node->wants_rights = true;
        redis_store_log(op->store, &op->store->tell_log,
                        "redis purged a channel, but may not tell of it", told);
    }
    return is_sound;
}

/* STORE_FAILED: it is none. */
static enum store_error take_reply(struct op *op, const struct word *word) {
    if (op->is_cursors)
        return cursors_take(cursors_of(op), word->reply);
    if (op->is_purge)
        return take_purge(op, word->reply) ? STORE_OK : STORE_FAILED;
    bool is_sound = op->is_append ? word->is_sound : page_take(op->store, read_of(op), word->reply);
    return is_sound ? STORE_OK : STORE_FAILED;
}

/* A reply that is believed. */
static void take(struct op *op, const struct word *word) {
    struct redis_store *store = op->store;
    if (!op->caller) {
        op_free(op);
        return;
    }
    store->stats.reads += !is_write(op) && !op->is_cursors;
    enum store_error error = take_reply(op, word);
    if (error == STORE_FAILED) {
        log_failure(op, "not the reply of the script");
        finish(op, STORE_FAILED);
    } else if (op->is_append) {
        take_append(op, word);
        written(op);
    } else if (op->is_purge) {
        written(op);
    } else {
        finish(op, error);
    }
}

/* Tries again after a pause; by then another node may serve the channel. */
static void try_later(struct op *op, enum store_error error) {
    redis_topology_suspect(&op->store->topology);
    op->error = error;
    if (op->caller)
        queues_add_later(op);
    else
        op_free(op);
}

static void try_again(struct op *op, enum store_error error) {
    op->error = error;
    if (op->caller)
        queues_add(op);
    else
        op_free(op);
}

/* `text` names another node, for this time or for good. */
static void redirect(struct op *op, const char *text, bool is_ask) {
    struct redis_node *node = redis_topology_redirect(&op->store->topology, op->node, text);
    if (op->redirects++ < REDIRECTS_MAX) {
        queues_set_ask_node(op, is_ask ? node : NULL);
        try_again(op, STORE_CLUSTER_DOWN);
        return;
    }
    op->redirects = 0; /* they point at one another */
    try_later(op, STORE_CLUSTER_DOWN);
}

static void refuse(struct op *op, const struct word *word, enum store_error error) {
    bool is_error = word->reply && word->reply->type == REDIS_REPLY_ERROR;
    if (is_error)
        op->node->wants_rights = true;
    if (error == STORE_REFUSED && word->is_error_for_all) { /* for want of a right on some key */
        op->goes_alone = true;
        try_again(op, error);
        return;
    }
    if (op->caller && is_error)
        log_failure(op, word->reply->str);
    finish(op, error);
}

static void take_word(struct op *op, const struct word *word) {
    struct redis_fate fate = redis_fate_of(word->reply, is_write(op), is_believed(op),
                                           redis_topology_may_fail_over(&op->store->topology));
    const char *said = word->reply ? word->reply->str : "";
    op->is_sent = false;
    switch (fate.kind) {
    case FATE_DONE: take(op, word); break;
    case FATE_ANSWER: refuse(op, word, fate.error); break;
    case FATE_AGAIN: try_again(op, fate.error); break;
    case FATE_LATER: try_later(op, fate.error); break;
    case FATE_SCRIPT:
        op->needs_script = true;
        try_again(op, fate.error);
        break;
    case FATE_MOVED:
    case FATE_ASK: redirect(op, said, fate.kind == FATE_ASK); break;
    }
}

/* --- Replies to appends ----------------------------------------------------------------------- */

/* Where the script's reply has what. */
enum { APPEND_AT, APPEND_TOLD, APPEND_TIDIED, APPEND_TOTALS };

static bool is_append_reply(const redisReply *reply) {
    return reply && reply->type == REDIS_REPLY_ARRAY && reply->elements > APPEND_TOTALS &&
           reply->element[APPEND_AT]->type == REDIS_REPLY_INTEGER &&
           reply->element[APPEND_AT]->integer >= 0 &&
           reply->element[APPEND_TOLD]->type == REDIS_REPLY_STRING &&
           reply->element[APPEND_TIDIED]->type == REDIS_REPLY_STRING;
}

/* What was said against telling of the updates, or against tidying up. */
static void take_complaints(struct redis_store *store, struct redis_node *node,
                            const redisReply *reply) {
    const redisReply *told = reply->element[APPEND_TOLD], *tidied = reply->element[APPEND_TIDIED];
    if (told->len || tidied->len)
        node->wants_rights = true;
    if (told->len)
        redis_store_log(store, &store->tell_log, "redis stored an update, but may not tell of it",
                        told->str);
    if (tidied->len)
        redis_store_log(store, &store->tidy_log, "redis stored an update, but may not tidy up",
                        tidied->str);
}

static bool is_list_of_numbers(const redisReply *reply, uint64_t count) {
    bool is_list = reply->type == REDIS_REPLY_ARRAY && reply->elements == count;
    for (size_t i = 0; is_list && i < count; i++)
        is_list = reply->element[i]->type == REDIS_REPLY_INTEGER;
    return is_list;
}

/* What the script says to the channel that begins with `op`, and goes on in `rest`. */
static struct word word_to_channel(const redisReply *reply, size_t index, const struct op *op,
                                   const struct list *rest) {
    uint64_t updates = op->count;
    for (const struct list *link = rest->next; link != rest; link = link->next) {
        const struct op *next = container_of(link, struct op, queue_link);
        if (next->begins_channel)
            break;
        updates += next->count;
    }
    struct word word = {.reply = reply};
    if (!is_append_reply(reply) || index >= reply->elements)
        return word;
    const redisReply *total = reply->element[index];
    if (total->type == REDIS_REPLY_ERROR)
        return (struct word){.reply = total};
    if (is_list_of_numbers(total, updates + 1)) {
        word.same_as = total->element + 1;
        updates = stored_of(&word, updates);
        total = total->element[0];
    }
    word.is_sound = total->type == REDIS_REPLY_INTEGER && (uint64_t)total->integer >= updates;
    word.ts = (uint64_t)total->integer - updates;
    word.at_ms = reply->element[APPEND_AT]->integer;
    return word;
}

static void take_appends(struct list *members, const redisReply *reply, bool are_several) {
    struct word word = {0};
    size_t index = APPEND_TOTALS;
    for (struct list *link; (link = list_shift(members));) {
        struct op *op = container_of(link, struct op, queue_link);
        if (op->begins_channel)
            word = word_to_channel(reply, index++, op, members);
        word.is_error_for_all = are_several && word.reply == reply;
        uint32_t count = op->count;
        struct word next = word;
        next.ts += stored_of(&word, count);
        if (word.same_as)
            next.same_as += count;
        take_word(op, &word);
        word = next;
    }
}

/* --- Replies ---------------------------------------------------------------------------------- */

/* Bytes in it. */
static size_t size_of(const redisReply *reply) {
    size_t bytes = reply->type == REDIS_REPLY_STRING ? reply->len : 0;
    for (size_t i = 0; reply->type == REDIS_REPLY_ARRAY && i < reply->elements; i++)
        bytes += size_of(reply->element[i]);
    return bytes;
}

void operations_got_reply(struct redis_call *call, const redisReply *reply) {
    struct op *first = container_of(call, struct op, call);
    struct redis_store *store = first->store;
    struct redis_lane *lane = &first->node->lanes[lane_of(first)];
    unsigned count = 0, channels = 0;
    for (struct list *link = first->members.next; link != &first->members; link = link->next) {
        count++;
        channels += container_of(link, struct op, queue_link)->begins_channel;
    }
    queues_got_reply(lane, count, reply, reply && !is_write(first) ? size_of(reply) : 0);
    turn_end(&store->flush);
    struct list members;
    list_init(&members);
    list_splice(&members, &first->members);
    if (!first->is_append) {
        list_remove(&first->queue_link);
        take_word(first, &(struct word){.reply = reply});
        return;
    }
    if (is_append_reply(reply)) {
        take_complaints(store, lane->node, reply);
        store->stats.commits++;
        store->stats.commit_ns += uv_hrtime() - first->sent_ns;
    }
    take_appends(&members, reply, channels > 1);
}

/* --- Beginning -------------------------------------------------------------------------------- */

enum kind { READ, APPEND, CURSORS, PURGE };

/* `count`: updates to append. */
static void start(struct redis_store *store, struct store_op *caller, enum kind kind,
                  uint32_t count) {
    struct op *op = malloc(sizeof *op);
    if (!op) {
        list_append(&store->failed, &caller->link);
        turn_end(&store->flush);
        return;
    }
    *op = (struct op){
        .store = store,
        .caller = caller,
        .count = count,
        .is_append = kind == APPEND,
        .is_purge = kind == PURGE,
        .is_cursors = kind == CURSORS,
        .error = STORE_AWAY,
        .due_ms = uv_now(store->topology.loop) + (uint64_t)store->redis->timeout_ms,
    };
    if (is_write(op))
        op->due_ms += (uint64_t)store->redis->wait_ms;
    list_init(&op->members);
    list_append(is_write(op) ? &store->appends : &store->reads, &op->link);
    queues_add(op);
}

void operations_append(struct store *base, struct store_append *append) {
    append->error = STORE_FAILED;
    append->epoch = 0;
    start(store_of(base), &append->op, APPEND, append->count);
}

void operations_read(struct store *base, struct store_read *read) {
    read->error = STORE_FAILED;
    read->updates = NULL;
    read->count = 0;
    start(store_of(base), &read->op, READ, 0);
}

void operations_cursors(struct store *base, struct store_cursors *cursors) {
    cursors->error = STORE_FAILED;
    if (cursors->action == CURSORS_LOAD) {
        cursors->list = NULL;
        cursors->count = 0;
    }
    start(store_of(base), &cursors->op, CURSORS, 0);
}

void operations_purge(struct store *base, struct store_purge *purge) {
    purge->error = STORE_FAILED;
    purge->gone = 0;
    start(store_of(base), &purge->op, PURGE, 0);
}

/* WAIT has been answered: so have all appends before it on this connection, and they wait for
 * this. */
static void on_wait_reply(struct redis_call *call, const redisReply *reply) {
    struct wait_call *wait = container_of(call, struct wait_call, call);
    struct redis_node *node = wait->node;
    struct redis_store *store = of_topology(node->topology);
    free(wait);
    turn_end(&store->flush);
    node->is_waiting = false;
    bool is_done = reply && reply->type == REDIS_REPLY_INTEGER &&
                   reply->integer >= store->redis->wait_replicas;
    enum store_error error = is_done ? STORE_OK : reply ? STORE_NOT_REPLICATED : STORE_UNSURE;
    struct list appends;
    list_init(&appends);
    list_splice(&appends, &node->unreplicated);
    for (struct list *link; (link = list_shift(&appends));) {
        struct op *op = container_of(link, struct op, queue_link);
        finish(op, error == STORE_OK && !is_believed(op) ? STORE_UNSURE : error);
    }
}

/* The connection is lost before WAIT was sent, or answered. */
void operations_forget_waits(struct redis_node *node) {
    node->wants_wait = false;
    for (struct list *link; (link = list_shift(&node->unreplicated));)
        finish(container_of(link, struct op, queue_link), STORE_UNSURE);
}

void operations_send_waits(struct redis_store *store) {
    struct list *nodes = &store->topology.nodes;
    for (struct list *link = nodes->next; link != nodes; link = link->next) {
        struct redis_node *node = container_of(link, struct redis_node, link);
        struct redis_conn *conn = &node->lanes[REDIS_LANE_APPEND].conn;
        struct wait_call *wait = node->wants_wait ? malloc(sizeof *wait) : NULL;
        if (!wait || !redis_conn_is_ready(conn)) {
            free(wait);
            continue;
        }
        *wait = (struct wait_call){.call.done = on_wait_reply, .node = node};
        node->wants_wait = false;
        node->is_waiting = true;
        redis_conn_command(conn, 3);
        redis_conn_argument(conn, SLICE("WAIT"));
        redis_conn_number(conn, store->redis->wait_replicas);
        redis_conn_number(conn, store->redis->wait_ms);
        redis_conn_sent(conn, &wait->call);
    }
}

/* --- Giving up -------------------------------------------------------------------------------- */

enum store_error operations_away_error(const struct redis_store *store) {
    enum store_error error = redis_fate_error(store->topology.away);
    return error == STORE_FAILED ? STORE_AWAY : error;
}

void operations_give_up(struct op *op) {
    enum store_error error = op->error;
    if (is_write(op) && op->is_sent)
        error = STORE_UNSURE;
    else if (error == STORE_AWAY)
        error = operations_away_error(op->store);
    if (op->is_sent)
        answer(op, error); /* the reply will free it */
    else
        finish(op, error);
}

void operations_answer_failed(struct redis_store *store) {
    for (struct list *link; (link = list_shift(&store->failed));) {
        struct store_op *caller = container_of(link, struct store_op, link);
        caller->done(caller);
    }
}

static void answer_all(struct list *ops) {
    for (struct list *link; (link = list_shift(ops));)
        operations_give_up(container_of(link, struct op, link));
}

void operations_end(struct redis_store *store) {
    answer_all(&store->appends);
    answer_all(&store->reads);
    operations_answer_failed(store);
}
