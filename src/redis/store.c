/*
 * The Redis store: ties together the connections (topology.h), the operations and the watches
 * (parts.h).
 */
#include "redis/store.h"
#include "base/log.h"
#include "redis/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TICK_MS = 50,
    LOG_PAUSE_MS = 5000, /* from one line about a kind of failure to the next */
    MASTERS_MAX = 8,     /* at once, of Sentinels: those that are being replaced close soon */
};

bool redis_store_may_log(struct redis_store *store, struct log_budget *budget) {
    uint64_t now_ms = uv_now(store->topology.loop);
    if (budget->told_ms && now_ms - budget->told_ms < LOG_PAUSE_MS) {
        budget->left_out++;
        return false;
    }
    budget->told_ms = now_ms;
    return true;
}

void redis_store_log(struct redis_store *store, struct log_budget *budget, const char *event,
                     const char *said) {
    if (!redis_store_may_log(store, budget))
        return;
    log_error(event, "reason", redis_reason(said).text, "left_out",
              log_number(budget->left_out).text, NULL);
    budget->left_out = 0;
}

void redis_store_put_key(struct redis_store *store, struct redis_conn *conn, enum redis_key key,
                         struct slice channel) {
    buf_reset(&store->key, 4096);
    redis_layout_key(&store->topology.layout, &store->key, key, channel);
    conn->out.failed |= store->key.failed; /* another key must not be meant */
    redis_conn_argument(conn, (struct slice){store->key.data, store->key.len});
}

/* --- Nodes that come and go ------------------------------------------------------------------- */

static void on_ready(struct redis_lane *lane) {
    struct redis_store *store = of_topology(lane->node->topology);
    if (lane->kind == REDIS_LANE_NEWS)
        watches_subscribe(store, lane->node);
    queues_send(store);
    turn_end(&store->flush);
}

static void on_down(struct redis_lane *lane) {
    if (lane->kind == REDIS_LANE_APPEND)
        operations_forget_waits(lane->node);
    if (lane->kind == REDIS_LANE_NEWS)
        watches_lose(of_topology(lane->node->topology), lane->node);
}

static void on_changed(struct redis_topology *topology) {
    struct redis_store *store = of_topology(topology);
    watches_settle(store);
    queues_settle(store);
    turn_end(&store->flush);
}

static const struct redis_topology_events topology_events = {on_ready, on_down, watches_on_message,
                                                             on_changed};

/* --- The clock -------------------------------------------------------------------------------- */

/* Ages are counted by Redis' clock, also in memory: that of this machine may be wrong, or another
 * one. Of several, the one that is behind the others: it deletes the least. */
static void look_at_clocks(struct redis_store *store) {
    struct list *nodes = &store->topology.nodes;
    int64_t least_ms = 0;
    bool is_known = false;
    for (struct list *link = nodes->next; link != nodes; link = link->next) {
        const struct redis_node *node = container_of(link, struct redis_node, link);
        if (!redis_node_is_serving(node) || !node->promise.is_known)
            continue;
        int64_t ahead_ms = node->promise.clock_ms - (int64_t)node->promised_ms;
        if (node->promise.clock_ms && (!is_known || ahead_ms < least_ms))
            least_ms = ahead_ms;
        is_known = true;
    }
    store->clock_ahead_ms = least_ms;
    store->is_clock_asked = !is_known;
}

/* Until the first answer, nothing is too old. An old Redis does not say what its clock is. */
static int64_t now_ms(const struct store *base) {
    const struct redis_store *store = container_of(base, const struct redis_store, base);
    if (store->is_clock_asked)
        return 1;
    return store->clock_ahead_ms ? store->clock_ahead_ms + (int64_t)uv_now(store->topology.loop)
                                 : store->options.wall_ms();
}

static void on_ticked(struct turn_task *task) {
    struct redis_store *store = container_of(task, struct redis_store, ticked);
    uint64_t now_ms = uv_now(store->topology.loop);
    redis_topology_tick(&store->topology, now_ms);
    look_at_clocks(store);
    if (redis_topology_is_up(&store->topology))
        store->up_ms = now_ms;
    queues_tick(store);
    watches_tick(store, now_ms);
    turn_end(&store->flush);
}

/* Replies that have come are read first: where this process was held up, they were not late. */
static void on_tick(uv_timer_t *timer) {
    turn_next(&container_of(timer, struct redis_store, tick)->ticked);
}

/* Before the loop waits for its sockets: what this turn asked for goes out. */
static void on_flush(struct turn_task *task) {
    struct redis_store *store = container_of(task, struct redis_store, flush);
    operations_answer_failed(store);
    queues_send(store);
    if (store->redis->wait_replicas)
        operations_send_waits(store);
}

/* --- Opening and closing ---------------------------------------------------------------------- */

static void get_stats(struct store *base, struct store_stats *stats) {
    struct redis_store *store = store_of(base);
    store->stats.up = redis_topology_is_up(&store->topology);
    store->stats.reconnects = store->topology.reconnects;
    *stats = store->stats;
}

static void on_handle_closed(uv_handle_t *handle) {
    struct redis_store *store = container_of((uv_timer_t *)handle, struct redis_store, tick);
    void (*closed)(void *) = store->closed;
    void *context = store->closed_context;
    buf_deinit(&store->key);
    buf_deinit(&store->record);
    free(store);
    closed(context);
}

static void close_store(struct store *base, void (*closed)(void *), void *context) {
    struct redis_store *store = store_of(base);
    store->closed = closed;
    store->closed_context = context;
    watches_leave(store);
    queues_settle(store);
    operations_end(store); /* they hold nodes */
    redis_topology_deinit(&store->topology);
    turn_cancel(&store->flush);
    turn_cancel(&store->giving_up);
    turn_cancel(&store->ticked);
    uv_close((uv_handle_t *)&store->tick, on_handle_closed);
}

uint64_t store_redis_descriptors(const struct redis_options *redis) {
    return redis->sentinel_count ? redis->sentinel_count + MASTERS_MAX * REDIS_LANES
                                 : REDIS_NODES_MAX * REDIS_LANES;
}

struct store *store_redis_open(uv_loop_t *loop, const struct store_options *options,
                               const struct redis_options *redis, char *error, size_t error_size) {
    static const struct store_ops ops = {
        .append = operations_append,
        .read = operations_read,
        .cursors = operations_cursors,
        .purge = operations_purge,
        .stats = get_stats,
        .now_ms = now_ms,
        .close = close_store,
        .listen = watches_listen,
        .watch = watches_start,
        .unwatch = watches_stop,
        .health = redis_store_health,
    };
    struct redis_store *store = calloc(1, sizeof *store);
    if (!store) {
        snprintf(error, error_size, "out of memory");
        return NULL;
    }
    store->base.ops = &ops;
    store->redis = redis;
    store->options = *options;
    struct list *lists[] = {&store->appends, &store->reads,  &store->pending, &store->nowhere,
                            &store->later,   &store->failed, &store->homeless};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        list_init(lists[i]);
    if (!redis_topology_init(&store->topology, loop, redis, &topology_events, error, error_size)) {
        free(store);
        return NULL;
    }
    store->up_ms = uv_now(loop);
    store->is_clock_asked = true;
    uv_timer_init(loop, &store->tick);
    turn_task_init(&store->flush, on_flush);
    turn_task_init(&store->giving_up, queues_on_giving_up);
    turn_task_init(&store->ticked, on_ticked);
    uv_timer_start(&store->tick, on_tick, TICK_MS, TICK_MS);
    redis_topology_start(&store->topology);
    if (store->topology.sentinels || store->topology.home)
        return &store->base;
    snprintf(error, error_size, "out of memory"); /* the process ends: the rest stays as it is */
    return NULL;
}
