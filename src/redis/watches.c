/*
 * Watches: channels whose new updates come by pub/sub.
 *
 * A watch stands in the list of its node, and is subscribed to there whenever the node's connection
 * for news is ready.
 */
#include "redis/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SUBSCRIBE_NAMES = 256, /* channels subscribed to with one command */
    RESUBSCRIBE_MS = 500,  /* until a subscription that was refused is asked for again */
    MIGRATION_MS = 1000,   /* how often watched channels are read while their slot moves */
    NEWS_NAME_MAX_BYTES = 4096,
};

static bool can_subscribe(const struct redis_node *node) {
    return redis_lane_is_ready(&node->lanes[REDIS_LANE_NEWS]);
}

/* Subscribes to the channels of up to `count` watches from `link` on. */
static void subscribe(struct redis_store *store, struct redis_node *node, struct list *link,
                      int count) {
    struct redis_conn *conn = &node->lanes[REDIS_LANE_NEWS].conn;
    redis_conn_command(conn, 1 + count);
    redis_conn_argument(conn, store->topology.layout.is_cluster ? SLICE("SSUBSCRIBE")
                                                                : SLICE("SUBSCRIBE"));
    for (; count--; link = link->next) {
        struct store_watch *watch = container_of(link, struct store_watch, link);
        watch->state = WATCH_ASKED;
        redis_store_put_key(store, conn, REDIS_KEY_NEWS,
                            (struct slice){watch->name, watch->name_len});
    }
    redis_conn_sent(conn, NULL);
}

/* Subscribes to all of a node that are not subscribed to. They come to stand at the end of the
 * list. */
void watches_subscribe(struct redis_store *store, struct redis_node *node) {
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
    struct redis_conn *conn = node ? &node->lanes[REDIS_LANE_NEWS].conn : NULL;
    if (!conn || watch->state == WATCH_OFF || !redis_conn_is_ready(conn))
        return;
    redis_conn_command(conn, 2);
    redis_conn_argument(conn, store->topology.layout.is_cluster ? SLICE("SUNSUBSCRIBE")
                                                                : SLICE("UNSUBSCRIBE"));
    redis_store_put_key(store, conn, REDIS_KEY_NEWS, (struct slice){watch->name, watch->name_len});
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

void watches_start(struct store *base, struct store_watch *watch) {
    struct redis_store *store = store_of(base);
    watch->state = WATCH_OFF;
    watch->place = NULL;
    store->stats.watches++;
    settle(store, watch);
}

void watches_stop(struct store *base, struct store_watch *watch) {
    struct redis_store *store = store_of(base);
    unsubscribe(store, watch);
    list_remove(&watch->link);
    store->stats.watches--;
}

void watches_listen(struct store *base, const struct store_events *events) {
    store_of(base)->events = events;
}

static void got_news(struct redis_store *store, struct store_watch *watch,
                     const redisReply *payload) {
    struct slice text = {payload->str, payload->len};
    struct redis_record record;
    uint64_t gone;
    if (purges_parse(text, &gone)) {
        store->events->purged(watch, gone);
        return;
    }
    if (!redis_record_parse(text, &record) ||
        redis_item_judge(record.rest, &text, record.ts, &record) != REDIS_ITEM_WHOLE) {
        store->events->watched(watch); /* not of our making: the lists say what is true */
        return;
    }
    struct update *update = redis_record_update(&record, record.rest, record.ts);
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
    if (strncmp(reason, "MOVED ", 6) == 0) {
        redis_topology_redirect(&store->topology, node, reason);
    } else {
        redis_store_log(store, &store->news_log, "redis refused a subscription", reason);
        snprintf(store->deaf, sizeof store->deaf, "%s", redis_reason(reason).text);
        store->deaf_ms = uv_now(store->topology.loop);
        node->wants_rights = true;
    }
    if (!store->resubscribe_ms)
        store->resubscribe_ms = uv_now(store->topology.loop) + RESUBSCRIBE_MS;
}

void watches_on_message(struct redis_node *node, const redisReply *reply) {
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
        store->deaf_ms = 0;
        store->events->watched(watch);
    } else if (is_kind(kind, "unsubscribe")) { /* by a node that serves the slot no more, or late */
        lose(store, watch);
        redis_topology_suspect(&store->topology);
        subscribe(store, node, &watch->link, 1);
    }
}

/* --- Nodes that come and go ------------------------------------------------------------------- */

void watches_lose(struct redis_store *store, struct redis_node *node) {
    for (struct list *link = node->watches.next; link != &node->watches; link = link->next)
        lose(store, container_of(link, struct store_watch, link));
}

/* Settles all watches of a list anew. */
static void settle_all(struct redis_store *store, struct list *watches) {
    struct list all;
    list_init(&all);
    list_splice(&all, watches);
    for (struct list *link; (link = list_shift(&all));)
        settle(store, container_of(link, struct store_watch, link));
}

void watches_settle(struct redis_store *store) {
    struct list *nodes = &store->topology.nodes;
    settle_all(store, &store->homeless);
    for (struct list *link = nodes->next; link != nodes; link = link->next)
        settle_all(store, &container_of(link, struct redis_node, link)->watches);
}

static void resubscribe(struct redis_store *store, uint64_t now_ms) {
    if (!store->resubscribe_ms || now_ms < store->resubscribe_ms)
        return;
    store->resubscribe_ms = 0;
    struct list *nodes = &store->topology.nodes;
    for (struct list *link = nodes->next; link != nodes; link = link->next) {
        struct redis_node *node = container_of(link, struct redis_node, link);
        if (can_subscribe(node))
            watches_subscribe(store, node);
    }
}

/* Nobody is subscribed at the node that a slot is moving to: what is pushed there must be looked
 * for. */
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

void watches_tick(struct redis_store *store, uint64_t now_ms) {
    resubscribe(store, now_ms);
    check_migrating(store, now_ms);
}

/* The watches are the caller's, and stay. */
static void leave_all(struct list *watches) {
    while (list_shift(watches))
        ;
}

void watches_leave(struct redis_store *store) {
    struct list *nodes = &store->topology.nodes;
    for (struct list *link = nodes->next; link != nodes; link = link->next)
        leave_all(&container_of(link, struct redis_node, link)->watches);
    leave_all(&store->homeless);
}
