#include "redis/node.h"
#include "base/log.h"
#include "redis/topology_parts.h"

#include <stdlib.h>
#include <string.h>

enum {
    PROMISE_MS = 10000,       /* how often a node is asked what it promises */
    EVICTS_MS = 2000,         /* ... one that may delete what it keeps */
    RIGHTS_MS = 2000,         /* how often a node is asked what stands against serving */
    HINDERED_MS = 500,        /* ... while something does */
    REFUSED_MS = 100,         /* ... after it has refused something */
    IDLE_MS = 5000,           /* a node that serves nothing is closed after so long */
    EVICTED_QUIET_MS = 60000, /* without evictions: the next one is news again */
};

/* --- What it promises ------------------------------------------------------------------------- */

static void ask_promise(struct redis_node *node, uint64_t now_ms) {
    struct redis_conn *conn = &node->lanes[REDIS_LANE_READ].conn;
    if (node->is_asking_promise || !redis_conn_is_ready(conn))
        return;
    node->is_asking_promise = true;
    node->promise_asked_ms = now_ms;
    redis_conn_words(conn, &node->info_call, "INFO", NULL);
    redis_conn_words(conn, &node->config_call, "CONFIG", "GET", "appendfsync", NULL);
}

static void on_info(struct redis_call *call, const redisReply *reply) {
    struct redis_node *node = container_of(call, struct redis_node, info_call);
    if (!reply || reply->type != REDIS_REPLY_STRING)
        return;
    struct redis_promise before = node->promise;
    redis_promise_read_info(&node->promise, (struct slice){reply->str, reply->len});
    node->promised_ms = uv_now(node->topology->loop);
    if (!before.is_known || node->promise.evicted_keys <= before.evicted_keys)
        return;
    uint64_t now_ms = uv_now(node->topology->loop);
    bool was_quiet = !node->evicted_ms || now_ms - node->evicted_ms > EVICTED_QUIET_MS;
    node->evicted_ms = now_ms;
    if (was_quiet)
        log_warn("redis evicts keys", "address", redis_address_text(&node->address).text, "keys",
                 log_number(node->promise.evicted_keys - before.evicted_keys).text, NULL);
}

static void announce(const struct redis_node *node) {
    struct buf line = {0};
    redis_promise_write(&node->promise, &line);
    buf_putc(&line, '\0');
    const char *risk = redis_promise_risk(&node->promise);
    struct redis_address_text text = redis_address_text(&node->address);
    const char *address = text.text;
    if (!line.failed)
        log_info("redis ready", "address", address, "promise", line.data, NULL);
    if (risk)
        log_warn("redis may lose acknowledged updates", "address", address, "reason", risk, NULL);
    if (redis_topology_may_fail_over(node->topology) && !node->topology->options->wait_replicas)
        log_warn("redis may lose acknowledged updates", "address", address, "reason",
                 "a failover loses what the new master does not have; see REDIS_WAIT", NULL);
    buf_deinit(&line);
}

static void on_config(struct redis_call *call, const redisReply *reply) {
    struct redis_node *node = container_of(call, struct redis_node, config_call);
    node->is_asking_promise = false;
    if (!reply || !node->promise.is_known)
        return;
    redis_promise_read_config(&node->promise, reply);
    if (!node->is_announced)
        announce(node);
    node->is_announced = true;
}

/* --- What stands against serving -------------------------------------------------------------- */

static void ask_rights(struct redis_node *node, uint64_t now_ms) {
    const struct redis_topology *topology = node->topology;
    struct redis_conn *conn = &node->lanes[REDIS_LANE_READ].conn;
    node->is_asking_rights = true;
    node->wants_rights = false;
    node->rights_asked_ms = now_ms;
    redis_conn_command(conn, 3 + REDIS_RIGHTS_ARGUMENTS);
    redis_conn_argument(conn, SLICE("EVAL"));
    redis_conn_argument(conn, slice_of(redis_rights_script));
    redis_conn_number(conn, 0);
    for (int key = 0; key < REDIS_KEYS; key++) {
        struct buf name = {0};
        redis_layout_key(&topology->layout, &name, (enum redis_key)key, SLICE("*"));
        redis_conn_argument(conn, (struct slice){name.data, name.len});
        buf_deinit(&name);
    }
    bool is_cluster = topology->slots || node->promise.is_cluster;
    redis_conn_argument(conn, is_cluster ? SLICE("yes") : SLICE("no"));
    redis_conn_argument(conn, topology->options->wait_replicas ? SLICE("yes") : SLICE("no"));
    redis_conn_sent(conn, &node->rights_call);
}

static void on_rights(struct redis_call *call, const redisReply *reply) {
    struct redis_node *node = container_of(call, struct redis_node, rights_call);
    node->is_asking_rights = false;
    if (!reply)
        return;
    struct redis_rights before = node->rights;
    redis_rights_read(&node->rights, reply);
    const char *missing = node->rights.missing, *optional = node->rights.optional;
    struct redis_address_text address = redis_address_text(&node->address);
    if (*missing && strcmp(missing, before.missing) != 0)
        log_error("redis user lacks rights", "address", address.text, "rights", missing, NULL);
    if (*optional && strcmp(optional, before.optional) != 0)
        log_warn("redis user lacks optional rights", "address", address.text, "rights", optional,
                 NULL);
}

static void tick_rights(struct redis_node *node, uint64_t now_ms) {
    uint64_t pause_ms = node->wants_rights   ? REFUSED_MS
                        : node->rights.error ? HINDERED_MS
                                             : RIGHTS_MS;
    if (node->topology->is_known && redis_node_is_serving(node) && !node->is_asking_rights &&
        redis_conn_is_ready(&node->lanes[REDIS_LANE_READ].conn) &&
        now_ms - node->rights_asked_ms > pause_ms)
        ask_rights(node, now_ms);
}

/* --- Lanes ------------------------------------------------------------------------------------ */

bool redis_lane_is_trusted(const struct redis_lane *lane) {
    return !lane->doubt || !redis_topology_may_fail_over(lane->node->topology);
}

bool redis_lane_is_ready(const struct redis_lane *lane) {
    return redis_conn_is_ready(&lane->conn) && redis_lane_is_trusted(lane);
}

static void on_ready(struct redis_conn *conn) {
    struct redis_lane *lane = container_of(conn, struct redis_lane, conn);
    struct redis_topology *topology = lane->node->topology;
    if (conn->tries > 1) {
        topology->reconnects++;
        lane->back_ms = uv_now(topology->loop);
    }
    if (lane->kind == REDIS_LANE_READ) {
        ask_promise(lane->node, uv_now(topology->loop));
        lane->node->wants_rights = true;
    }
    topology_doubt(lane);
    if (!topology->is_known)
        topology_ask(topology);
    if (redis_lane_is_trusted(lane))
        topology->events->ready(lane);
    topology_note_up(topology);
}

static void on_down(struct redis_conn *conn, const char *reason) {
    struct redis_lane *lane = container_of(conn, struct redis_lane, conn);
    struct redis_node *node = lane->node;
    struct redis_topology *topology = node->topology;
    node->is_announced = false;
    topology->is_suspect = true;
    if (redis_node_is_serving(node) || !topology->is_known)
        topology_note_away(topology, &node->address, reason);
    topology->events->down(lane);
}

/* On the lane for reads come the answers to questions, too; and a read can be repeated. */
static bool on_silent(struct redis_conn *conn) {
    struct redis_lane *lane = container_of(conn, struct redis_lane, conn);
    lane->back_ms = uv_now(conn->loop);
    topology_doubt(lane);
    return !redis_lane_is_trusted(lane) && lane->kind != REDIS_LANE_READ;
}

static void on_message(struct redis_conn *conn, const redisReply *reply) {
    struct redis_node *node = container_of(conn, struct redis_lane, conn)->node;
    node->topology->events->message(node, reply);
}

static const struct redis_conn_events lane_events = {on_ready, on_down, NULL, on_silent};
static const struct redis_conn_events news_events = {on_ready, on_down, on_message, on_silent};

/* --- Coming and going ------------------------------------------------------------------------- */

/* NULL when memory is out. */
static struct redis_node *node_new(struct redis_topology *topology,
                                   const struct redis_address *address) {
    struct redis_node *node = calloc(1, sizeof *node);
    if (!node)
        return NULL;
    node->topology = topology;
    node->address = *address;
    node->idle_ms = uv_now(topology->loop);
    node->info_call.done = on_info;
    node->config_call.done = on_config;
    node->rights_call.done = on_rights;
    node->nodes_call.done = cluster_on_nodes;
    node->slots_call.done = cluster_on_slots;
    list_init(&node->watches);
    list_init(&node->unreplicated);
    list_append(&topology->nodes, &node->link);
    topology->node_count++;
    for (int kind = 0; kind < REDIS_LANES; kind++) {
        struct redis_lane *lane = &node->lanes[kind];
        lane->node = node;
        lane->kind = (enum redis_lane_kind)kind;
        list_init(&lane->queue);
        lane->reply_bytes = READ_MAX_BYTES;
        redis_conn_init(&lane->conn, topology->loop, topology->options, topology->tls,
                        kind == REDIS_LANE_NEWS ? &news_events : &lane_events);
    }
    node->lanes[REDIS_LANE_APPEND].conn.stall_ms += (uint64_t)topology->options->wait_ms;
    return node;
}

static struct redis_node *find(struct redis_topology *topology,
                               const struct redis_address *address) {
    for (struct list *link = topology->nodes.next; link != &topology->nodes; link = link->next) {
        struct redis_node *node = container_of(link, struct redis_node, link);
        if (redis_address_equal(&node->address, address))
            return node;
    }
    return NULL;
}

struct redis_node *node_get(struct redis_topology *topology, const struct redis_address *address) {
    struct redis_node *node = find(topology, address);
    if (!node && topology->node_count < REDIS_NODES_MAX)
        node = node_new(topology, address);
    for (int kind = 0; node && kind < REDIS_LANES; kind++)
        if (!node->lanes[kind].conn.is_open)
            redis_conn_open(&node->lanes[kind].conn, &node->address);
    return node;
}

void node_close(struct redis_node *node) {
    node->is_announced = false;
    for (int kind = 0; kind < REDIS_LANES; kind++) {
        struct redis_lane *lane = &node->lanes[kind];
        bool was_ready = redis_conn_is_ready(&lane->conn);
        redis_conn_close(&lane->conn);
        if (was_ready)
            node->topology->events->down(lane);
    }
}

void node_free(struct redis_node *node) {
    node_close(node);
    list_remove(&node->link);
    node->topology->node_count--;
    free(node);
}

void node_tick(struct redis_node *node, uint64_t now_ms) {
    for (int kind = 0; kind < REDIS_LANES; kind++)
        redis_conn_tick(&node->lanes[kind].conn, now_ms);
    if (now_ms - node->promise_asked_ms > (node->promise.evicts ? EVICTS_MS : PROMISE_MS))
        ask_promise(node, now_ms);
    tick_rights(node, now_ms);
}

static bool is_unused(const struct redis_node *node) {
    for (int kind = 0; kind < REDIS_LANES; kind++)
        if (!list_empty(&node->lanes[kind].conn.calls) || !list_empty(&node->lanes[kind].queue))
            return false;
    return list_empty(&node->watches) && list_empty(&node->unreplicated) && !node->holds;
}

void node_free_idle(struct redis_topology *topology, uint64_t now_ms) {
    for (struct list *link = topology->nodes.next, *next; link != &topology->nodes; link = next) {
        struct redis_node *node = container_of(link, struct redis_node, link);
        next = link->next;
        if (redis_node_is_serving(node) || node == topology->home || !is_unused(node))
            node->idle_ms = now_ms;
        else if (now_ms - node->idle_ms > IDLE_MS)
            node_free(node);
    }
}

bool redis_node_is_serving(const struct redis_node *node) {
    return node->topology->slots ? node->slots > 0 : node == node->topology->home;
}

bool redis_node_is_ready(const struct redis_node *node) {
    for (int kind = 0; kind < REDIS_LANES; kind++)
        if (!redis_lane_is_ready(&node->lanes[kind]))
            return false;
    return true;
}
