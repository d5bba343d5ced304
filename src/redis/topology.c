#include "redis/topology.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ASK_SOON_MS =
        100, /* from one question for the slots to the next, when something hints at a change */
    ASK_MS = 5000, /* ... and when nothing does */
    SENTINEL_MS = 200,
    PROMISE_MS = 10000,
    NODES_MS = 1000,
    NODE_IDLE_MS = 5000, /* a node that serves nothing is closed after so long */
    NODES_MAX = 2000,
    HOME_AWAY_MS = 3000, /* a master that has been away for so long is not held on to */
    AWAY_LOG_MS = 5000,  /* another reason of the same outage is logged after so long */
};

static const struct redis_conn_events lane_events[REDIS_LANES];

/* --- Nodes ------------------------------------------------------------------------------------ */

static void on_info(struct redis_call *call, const redisReply *reply);
static void on_config(struct redis_call *call, const redisReply *reply);
static void on_nodes(struct redis_call *call, const redisReply *reply);

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
    node->nodes_call.done = on_nodes;
    list_init(&node->watches);
    list_init(&node->unreplicated);
    list_append(&topology->nodes, &node->link);
    topology->node_count++;
    for (int lane = 0; lane < REDIS_LANES; lane++)
        redis_conn_init(&node->lanes[lane], topology->loop, topology->options, topology->tls,
                        &lane_events[lane]);
    node->lanes[REDIS_LANE_APPEND].stall_ms += (uint64_t)topology->options->wait_ms;
    return node;
}

static void node_open(struct redis_node *node) {
    for (int lane = 0; lane < REDIS_LANES; lane++)
        redis_conn_open(&node->lanes[lane], &node->address);
}

static void node_close(struct redis_node *node) {
    for (int lane = 0; lane < REDIS_LANES; lane++) {
        bool was_ready = redis_conn_is_ready(&node->lanes[lane]);
        redis_conn_close(&node->lanes[lane]);
        if (was_ready)
            node->topology->events->down(node, (enum redis_lane)lane);
    }
}

static struct redis_node *find_node(struct redis_topology *topology,
                                    const struct redis_address *address) {
    for (struct list *link = topology->nodes.next; link != &topology->nodes; link = link->next) {
        struct redis_node *node = container_of(link, struct redis_node, link);
        if (redis_address_equal(&node->address, address))
            return node;
    }
    return NULL;
}

/* The node at `address`, made where there is none; NULL when memory is out or there are too many. */
static struct redis_node *get_node(struct redis_topology *topology,
                                   const struct redis_address *address) {
    struct redis_node *node = find_node(topology, address);
    if (node)
        return node;
    node = topology->node_count < NODES_MAX ? node_new(topology, address) : NULL;
    if (node)
        node_open(node);
    return node;
}

static bool is_node_ready(const struct redis_node *node) {
    for (int lane = 0; lane < REDIS_LANES; lane++)
        if (!redis_conn_is_ready(&node->lanes[lane]))
            return false;
    return true;
}

bool redis_topology_is_serving(const struct redis_node *node) {
    return node->topology->slots ? node->slots > 0 : node == node->topology->home;
}

static bool is_unused(const struct redis_node *node) {
    for (int lane = 0; lane < REDIS_LANES; lane++)
        if (!list_empty(&node->lanes[lane].calls))
            return false;
    return list_empty(&node->watches) && list_empty(&node->unreplicated) && !node->holds;
}

/* Closes the nodes that have served nothing for a while. */
static void close_idle(struct redis_topology *topology, uint64_t now_ms) {
    for (struct list *link = topology->nodes.next, *next; link != &topology->nodes; link = next) {
        struct redis_node *node = container_of(link, struct redis_node, link);
        next = link->next;
        if (redis_topology_is_serving(node) || node == topology->home || !is_unused(node)) {
            node->idle_ms = now_ms;
        } else if (now_ms - node->idle_ms > NODE_IDLE_MS) {
            if (topology->asked == node)
                topology->asked = NULL;
            list_remove(&node->link);
            topology->node_count--;
            node_close(node);
            free(node);
        }
    }
}

/* --- What a node promises --------------------------------------------------------------------- */

static void ask_promise(struct redis_node *node, uint64_t now_ms) {
    struct redis_conn *conn = &node->lanes[REDIS_LANE_READ];
    if (node->is_asking || !redis_conn_is_ready(conn))
        return;
    node->is_asking = true;
    node->asked_ms = now_ms;
    redis_conn_words(conn, &node->info_call, "INFO", NULL);
    redis_conn_words(conn, &node->config_call, "CONFIG", "GET", "appendfsync", NULL);
}

static void on_info(struct redis_call *call, const redisReply *reply) {
    struct redis_node *node = container_of(call, struct redis_node, info_call);
    if (reply && reply->type == REDIS_REPLY_STRING)
        redis_promise_read_info(&node->promise, (struct slice){reply->str, reply->len});
}

static void on_config(struct redis_call *call, const redisReply *reply) {
    struct redis_node *node = container_of(call, struct redis_node, config_call);
    node->is_asking = false;
    if (!reply || !node->promise.is_known)
        return;
    struct redis_promise *promise = &node->promise;
    bool is_first = !node->is_announced;
    node->is_announced = true;
    redis_promise_read_config(promise, reply);
    if (!is_first)
        return;
    struct buf line = {0};
    redis_promise_write(promise, &line);
    buf_putc(&line, '\0');
    const char *risk = redis_promise_risk(promise);
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

/* --- Lanes ------------------------------------------------------------------------------------ */

static void ask_slots(struct redis_topology *topology, uint64_t now_ms);

/* Logs that something is away: the same address and reason, or others of the same outage, only some seconds later. */
static void note_away(struct redis_topology *topology, const struct redis_address *address,
                      const char *reason) {
    struct redis_address_text text = redis_address_text(address);
    bool is_new = !*topology->away;
    bool is_same =
        strcmp(text.text, topology->told_address.text) == 0 && strcmp(reason, topology->told) == 0;
    bool is_told = topology->told_ms && uv_now(topology->loop) - topology->told_ms < AWAY_LOG_MS;
    bool is_known = !is_new && is_same; /* this outage has been told */
    topology->away_address = text;
    snprintf(topology->away, sizeof topology->away, "%s", reason);
    if (is_known || (is_told && (is_same || !is_new)))
        return;
    topology->told_ms = uv_now(topology->loop);
    topology->told_address = text;
    snprintf(topology->told, sizeof topology->told, "%s", reason);
    log_warn("redis away", "address", text.text, "reason", reason, NULL);
}

static void lane_ready(struct redis_conn *conn, struct redis_node *node, enum redis_lane lane) {
    struct redis_topology *topology = node->topology;
    if (conn->tries > 1)
        topology->reconnects++;
    if (lane == REDIS_LANE_READ)
        ask_promise(node, uv_now(topology->loop));
    if (!topology->is_known && lane == REDIS_LANE_READ && !topology->options->sentinel_count &&
        !topology->is_asking)
        ask_slots(topology, uv_now(topology->loop));
    topology->events->ready(node, lane);
    if (redis_topology_is_up(topology))
        *topology->away = '\0';
}

static void lane_down(struct redis_node *node, enum redis_lane lane, const char *reason) {
    struct redis_topology *topology = node->topology;
    node->is_announced = false;
    topology->is_suspect = true;
    if (redis_topology_is_serving(node) || !topology->is_known)
        note_away(topology, &node->address, reason);
    topology->events->down(node, lane);
}

static void append_ready(struct redis_conn *conn) {
    lane_ready(conn, container_of(conn, struct redis_node, lanes[REDIS_LANE_APPEND]),
               REDIS_LANE_APPEND);
}

static void append_down(struct redis_conn *conn, const char *reason) {
    lane_down(container_of(conn, struct redis_node, lanes[REDIS_LANE_APPEND]), REDIS_LANE_APPEND,
              reason);
}

static void read_ready(struct redis_conn *conn) {
    lane_ready(conn, container_of(conn, struct redis_node, lanes[REDIS_LANE_READ]),
               REDIS_LANE_READ);
}

static void read_down(struct redis_conn *conn, const char *reason) {
    lane_down(container_of(conn, struct redis_node, lanes[REDIS_LANE_READ]), REDIS_LANE_READ,
              reason);
}

static void news_ready(struct redis_conn *conn) {
    lane_ready(conn, container_of(conn, struct redis_node, lanes[REDIS_LANE_NEWS]),
               REDIS_LANE_NEWS);
}

static void news_down(struct redis_conn *conn, const char *reason) {
    lane_down(container_of(conn, struct redis_node, lanes[REDIS_LANE_NEWS]), REDIS_LANE_NEWS,
              reason);
}

static void news_message(struct redis_conn *conn, const redisReply *reply) {
    struct redis_node *node = container_of(conn, struct redis_node, lanes[REDIS_LANE_NEWS]);
    node->topology->events->message(node, reply);
}

static const struct redis_conn_events lane_events[REDIS_LANES] = {
    [REDIS_LANE_APPEND] = {append_ready, append_down, NULL},
    [REDIS_LANE_READ] = {read_ready, read_down, NULL},
    [REDIS_LANE_NEWS] = {news_ready, news_down, news_message},
};

/* --- Slots on their way ----------------------------------------------------------------------- */

/* In the line of the node itself, `[93->-` is a slot whose keys it is giving away. */
static void on_nodes(struct redis_call *call, const redisReply *reply) {
    struct redis_node *node = container_of(call, struct redis_node, nodes_call);
    node->is_asking_nodes = false;
    if (!reply || reply->type != REDIS_REPLY_STRING)
        return;
    const char *myself = strstr(reply->str, "myself");
    const char *end = myself ? strchr(myself, '\n') : NULL;
    const char *leaving = myself ? strstr(myself, "->-") : NULL;
    node->is_migrating = leaving && (!end || leaving < end);
}

static void ask_nodes(struct redis_node *node, uint64_t now_ms) {
    struct redis_conn *conn = &node->lanes[REDIS_LANE_READ];
    if (!node->slots || node->is_asking_nodes || now_ms - node->nodes_asked_ms < NODES_MS ||
        !redis_conn_is_ready(conn))
        return;
    node->is_asking_nodes = true;
    node->nodes_asked_ms = now_ms;
    redis_conn_words(conn, &node->nodes_call, "CLUSTER", "NODES", NULL);
}

/* --- The map of a cluster --------------------------------------------------------------------- */

/* What a reply says of an address: no host, or "?", is the one that was asked. */
static bool set_address(struct redis_address *address, const struct redis_node *asked,
                        const char *host, size_t len, long long port) {
    if (len > REDIS_HOST_MAX_BYTES || port < 1 || port > 65535)
        return false;
    *address = asked->address;
    address->port = (uint16_t)port;
    if (len && !(len == 1 && *host == '?')) {
        memcpy(address->host, host, len);
        address->host[len] = '\0';
    }
    return true;
}

static bool take_range(struct redis_topology *topology, const redisReply *range) {
    if (range->type != REDIS_REPLY_ARRAY || range->elements < 3)
        return false;
    long long first = range->element[0]->integer, last = range->element[1]->integer;
    const redisReply *master = range->element[2];
    if (first < 0 || last < first || last >= REDIS_SLOTS || master->type != REDIS_REPLY_ARRAY ||
        master->elements < 2)
        return false;
    const redisReply *host = master->element[0];
    struct redis_address address;
    bool has_host = host->type == REDIS_REPLY_STRING;
    if (!set_address(&address, topology->asked, has_host ? host->str : "", has_host ? host->len : 0,
                     master->element[1]->integer))
        return false;
    struct redis_node *node = get_node(topology, &address);
    for (long long slot = first; node && slot <= last; slot++)
        topology->slots[slot] = node;
    return true;
}

static void count_slots(struct redis_topology *topology) {
    for (struct list *link = topology->nodes.next; link != &topology->nodes; link = link->next)
        container_of(link, struct redis_node, link)->slots = 0;
    for (int slot = 0; slot < REDIS_SLOTS; slot++)
        if (topology->slots[slot])
            topology->slots[slot]->slots++;
}

/* Takes the map over; true when it differs from the one before. */
static bool take_slots(struct redis_topology *topology, const redisReply *reply) {
    size_t size = REDIS_SLOTS * sizeof(struct redis_node *);
    struct redis_node **before = topology->slots;
    topology->slots = calloc(1, size);
    if (!topology->slots) {
        topology->slots = before;
        return false;
    }
    if (!before)
        log_info("redis cluster", "ranges", log_number(reply->elements).text, NULL);
    for (size_t i = 0; i < reply->elements; i++)
        take_range(topology, reply->element[i]);
    count_slots(topology);
    const char *brace = strchr(topology->options->prefix, '{');
    const char *close = brace ? strchr(brace, '}') : NULL;
    if (!before && brace && (!close || close == brace + 1))
        log_error("redis cluster cannot serve this REDIS_PREFIX", "reason",
                  "its { spoils the hash tag: leave it out, or close it around a tag", NULL);
    topology->layout.is_cluster = true;
    topology->is_known = reply->elements > 0;
    bool differs = !before || memcmp(before, topology->slots, size) != 0;
    free(before);
    return differs;
}

static void on_slots(struct redis_call *call, const redisReply *reply) {
    struct redis_topology *topology = container_of(call, struct redis_topology, slots_call);
    topology->is_asking = false;
    if (!reply || !topology->asked)
        return;
    bool was_known = topology->is_known;
    if (reply->type == REDIS_REPLY_ARRAY) {
        bool differs = take_slots(topology, reply);
        if (!differs && !topology->has_moved)
            return;
        topology->has_moved = false;
    } else if (!topology->slots) { /* it says that it is in no cluster, or may not say */
        topology->is_known = true;
    }
    if (topology->slots || !was_known)
        topology->events->changed(topology);
}

/* Asks one ready node after the other. */
static void ask_slots(struct redis_topology *topology, uint64_t now_ms) {
    for (struct list *link = topology->nodes.next; link != &topology->nodes; link = link->next) {
        struct redis_node *node = container_of(link, struct redis_node, link);
        struct redis_conn *conn = &node->lanes[REDIS_LANE_READ];
        if (!redis_conn_is_ready(conn))
            continue;
        list_remove(&node->link); /* the next question goes to the next node */
        list_append(&topology->nodes, &node->link);
        topology->asked = node;
        topology->is_asking = true;
        topology->is_suspect = false;
        topology->asked_ms = now_ms;
        redis_conn_words(conn, &topology->slots_call, "CLUSTER", "SLOTS", NULL);
        return;
    }
}

static void tick_slots(struct redis_topology *topology, uint64_t now_ms) {
    if (topology->options->sentinel_count || (topology->is_known && !topology->slots) ||
        topology->is_asking)
        return;
    bool is_suspect = topology->is_suspect || !redis_topology_is_up(topology);
    if (now_ms - topology->asked_ms >= (is_suspect ? ASK_SOON_MS : ASK_MS))
        ask_slots(topology, now_ms);
}

struct redis_node *redis_topology_redirect(struct redis_topology *topology, struct redis_node *from,
                                           const char *error) {
    /* MOVED 3999 127.0.0.1:6381 */
    unsigned slot, port;
    int host_at = 0;
    bool is_moved = strncmp(error, "MOVED ", 6) == 0;
    const char *colon = topology->slots ? strrchr(error, ':') : NULL;
    if (!colon || sscanf(error, is_moved ? "MOVED %u %n" : "ASK %u %n", &slot, &host_at) != 1 ||
        !host_at || sscanf(colon, ":%u", &port) != 1 || slot >= REDIS_SLOTS ||
        error + host_at > colon)
        return NULL;
    struct redis_address address;
    if (!set_address(&address, from, error + host_at, (size_t)(colon - error) - (size_t)host_at,
                     port))
        return NULL;
    struct redis_node *node = get_node(topology, &address);
    if (node && is_moved && topology->slots) {
        topology->slots[slot] = node;
        count_slots(topology);
        topology->is_suspect = topology->has_moved = true;
    }
    return node;
}

/* --- Sentinel --------------------------------------------------------------------------------- */

static struct redis_topology *of_sentinel(struct redis_conn *conn) {
    return container_of(conn, struct redis_topology, sentinel);
}

static void set_home(struct redis_topology *topology, const struct redis_address *address) {
    struct redis_node *home = topology->home;
    if (home && redis_address_equal(&home->address, address))
        return;
    log_info("redis master", "address", redis_address_text(address).text, NULL);
    topology->home = get_node(topology, address); /* the old one closes when it is idle */
    topology->is_known = topology->home != NULL;
    topology->events->changed(topology);
}

static void next_sentinel(struct redis_topology *topology) {
    topology->sentinel_index =
        (topology->sentinel_index + 1) % (unsigned)topology->options->sentinel_count;
    topology->sentinel.address = topology->options->sentinels[topology->sentinel_index];
}

/* The value of a field of a reply that is a list of names and values; NULL when there is none. */
static const char *field_of(const redisReply *reply, const char *name) {
    for (size_t i = 0; i + 1 < reply->elements; i += 2)
        if (reply->element[i]->str && strcmp(reply->element[i]->str, name) == 0)
            return reply->element[i + 1]->str;
    return NULL;
}

static void on_epoch(struct redis_call *call, const redisReply *reply) {
    struct redis_topology *topology = container_of(call, struct redis_topology, epoch_call);
    const char *epoch =
        reply && reply->type == REDIS_REPLY_ARRAY ? field_of(reply, "config-epoch") : NULL;
    topology->told_epoch = epoch ? atoll(epoch) : 0;
}

/* A sentinel that has not heard of a failover yet names the old master: its epoch is lower. */
static void on_master(struct redis_call *call, const redisReply *reply) {
    struct redis_topology *topology = container_of(call, struct redis_topology, sentinel_call);
    topology->is_asking = false;
    if (!reply)
        return;
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
        reply->element[0]->type == REDIS_REPLY_STRING &&
        reply->element[1]->type == REDIS_REPLY_STRING) {
        struct redis_address address = {.port = (uint16_t)atoi(reply->element[1]->str)};
        snprintf(address.host, sizeof address.host, "%s", reply->element[0]->str);
        bool is_home_well = uv_now(topology->loop) - topology->home_well_ms < HOME_AWAY_MS;
        if (topology->told_epoch < topology->epoch && is_home_well)
            return; /* else the sentinels may have been set up anew */
        topology->epoch = topology->told_epoch;
        set_home(topology, &address);
        return;
    }
    char reason[160];
    snprintf(reason, sizeof reason, "the sentinel knows no master named \"%s\"",
             topology->options->master);
    redis_conn_fail(&topology->sentinel, reply->type == REDIS_REPLY_ERROR ? reply->str : reason);
}

static void sentinel_ready(struct redis_conn *conn) {
    of_sentinel(conn)->is_suspect = true;
}

static void sentinel_down(struct redis_conn *conn, const char *reason) {
    struct redis_topology *topology = of_sentinel(conn);
    if (!topology->home || !redis_topology_is_up(topology))
        note_away(topology, &conn->address, reason);
    next_sentinel(topology);
    if (conn->retry_ms > uv_now(conn->loop) + REDIS_BACKOFF_MIN_MS && topology->sentinel_index)
        conn->retry_ms =
            uv_now(conn->loop) + REDIS_BACKOFF_MIN_MS; /* another one may answer at once */
}

static const struct redis_conn_events sentinel_events = {sentinel_ready, sentinel_down, NULL};

static void tick_sentinel(struct redis_topology *topology, uint64_t now_ms) {
    if (!topology->options->sentinel_count)
        return;
    redis_conn_tick(&topology->sentinel, now_ms);
    uint64_t wait_ms = topology->is_suspect ? ASK_SOON_MS : SENTINEL_MS;
    if (topology->is_asking || !redis_conn_is_ready(&topology->sentinel) ||
        now_ms - topology->asked_ms < wait_ms)
        return;
    topology->is_asking = true;
    topology->is_suspect = false;
    topology->asked_ms = now_ms;
    const char *master = topology->options->master;
    redis_conn_words(&topology->sentinel, &topology->epoch_call, "SENTINEL", "MASTER", master,
                     NULL);
    redis_conn_words(&topology->sentinel, &topology->sentinel_call, "SENTINEL",
                     "get-master-addr-by-name", master, NULL);
}

/* --- The whole -------------------------------------------------------------------------------- */

struct redis_node *redis_topology_node(struct redis_topology *topology, struct slice channel) {
    if (!topology->is_known)
        return NULL;
    return topology->slots ? topology->slots[redis_layout_slot(&topology->layout, channel)]
                           : topology->home;
}

bool redis_topology_may_fail_over(const struct redis_topology *topology) {
    return topology->slots || topology->options->sentinel_count;
}

void redis_topology_suspect(struct redis_topology *topology) {
    topology->is_suspect = true;
}

bool redis_topology_is_up(const struct redis_topology *topology) {
    if (!topology->is_known)
        return false;
    if (!topology->slots)
        return topology->home && is_node_ready(topology->home);
    unsigned served = 0;
    for (struct list *link = topology->nodes.next; link != &topology->nodes; link = link->next) {
        struct redis_node *node = container_of(link, struct redis_node, link);
        served += node->slots;
        if (node->slots && !is_node_ready(node))
            return false;
    }
    return served == REDIS_SLOTS;
}

void redis_topology_tick(struct redis_topology *topology, uint64_t now_ms) {
    for (struct list *link = topology->nodes.next, *next; link != &topology->nodes; link = next) {
        struct redis_node *node = container_of(link, struct redis_node, link);
        next = link->next;
        for (int lane = 0; lane < REDIS_LANES; lane++)
            redis_conn_tick(&node->lanes[lane], now_ms);
        if (now_ms - node->asked_ms > PROMISE_MS)
            ask_promise(node, now_ms);
        ask_nodes(node, now_ms);
    }
    if (topology->home && is_node_ready(topology->home))
        topology->home_well_ms = now_ms;
    tick_slots(topology, now_ms);
    tick_sentinel(topology, now_ms);
    close_idle(topology, now_ms);
}

void redis_topology_flush(struct redis_topology *topology) {
    for (struct list *link = topology->nodes.next; link != &topology->nodes; link = link->next) {
        struct redis_node *node = container_of(link, struct redis_node, link);
        for (int lane = 0; lane < REDIS_LANES; lane++)
            redis_conn_flush(&node->lanes[lane]);
    }
    redis_conn_flush(&topology->sentinel);
}

bool redis_topology_init(struct redis_topology *topology, uv_loop_t *loop,
                         const struct redis_options *options,
                         const struct redis_topology_events *events, char *error,
                         size_t error_size) {
    *topology = (struct redis_topology){
        .loop = loop,
        .options = options,
        .events = events,
        .layout = {.prefix = options->prefix, .db = options->db},
        .slots_call.done = on_slots,
        .epoch_call.done = on_epoch,
        .sentinel_call.done = on_master,
    };
    list_init(&topology->nodes);
    redis_layout_init();
    if (options->tls) {
        topology->tls = tls_context_new(options->tls_ca, error, error_size);
        if (!topology->tls)
            return false;
    }
    redis_conn_init(&topology->sentinel, loop, options, topology->tls, &sentinel_events);
    topology->sentinel.pass = *options->sentinel_pass ? options->sentinel_pass : NULL;
    topology->sentinel.db = 0;
    return true;
}

void redis_topology_start(struct redis_topology *topology) {
    if (topology->options->sentinel_count)
        redis_conn_open(&topology->sentinel, &topology->options->sentinels[0]);
    else
        topology->home = get_node(topology, &topology->options->address);
}

void redis_topology_deinit(struct redis_topology *topology) {
    redis_conn_close(&topology->sentinel);
    for (struct list *link; (link = list_shift(&topology->nodes));) {
        struct redis_node *node = container_of(link, struct redis_node, link);
        node_close(node);
        free(node);
    }
    free(topology->slots);
    tls_context_free(topology->tls);
}
