#include "redis/topology.h"
#include "base/log.h"
#include "redis/sentinel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ASK_MS = 5000,        /* from one question for the slots to the next */
    ASK_SOON_MS = 100,    /* ... when something hints at a change */
    SLOTS_STALL_MS = 200, /* another node is asked when one does not answer for so long */
    ELECTORATE_MIN = 3,   /* fewer masters cannot elect another */
    PROMISE_MS = 10000,
    NODES_MS = 1000,
    NODE_IDLE_MS = 5000, /* a node that serves nothing is closed after so long */
    NODES_MAX = 2000,
    AWAY_LOG_MS = 5000, /* another reason of the same outage is logged after so long */
};

static const struct redis_conn_events lane_events[REDIS_LANES];

/* --- Nodes ------------------------------------------------------------------------------------ */

static void on_info(struct redis_call *call, const redisReply *reply);
static void on_config(struct redis_call *call, const redisReply *reply);
static void on_nodes(struct redis_call *call, const redisReply *reply);
static void on_slots(struct redis_call *call, const redisReply *reply);

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
    node->slots_call.done = on_slots;
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
    node->is_announced = false;
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

/* The node at `address`, open, made where there is none; NULL when memory is out or there are
 * too many. */
struct redis_node *topology_get_node(struct redis_topology *topology,
                                     const struct redis_address *address) {
    struct redis_node *node = find_node(topology, address);
    if (!node && topology->node_count < NODES_MAX)
        node = node_new(topology, address);
    if (node && !node->lanes[0].is_open)
        node_open(node);
    return node;
}

bool redis_node_is_trusted(const struct redis_node *node, enum redis_lane lane) {
    return !node->doubts[lane] || !redis_topology_may_fail_over(node->topology);
}

bool redis_node_is_ready(const struct redis_node *node, enum redis_lane lane) {
    return redis_conn_is_ready(&node->lanes[lane]) && redis_node_is_trusted(node, lane);
}

static bool is_node_ready(const struct redis_node *node) {
    for (int lane = 0; lane < REDIS_LANES; lane++)
        if (!redis_node_is_ready(node, (enum redis_lane)lane))
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

/* --- Doubts ----------------------------------------------------------------------------------- */

static void ask_slots(struct redis_topology *topology, uint64_t now_ms);

/* Asks who serves what, unless a question is under way; whoever answers is asked again where
 * that is needed. */
static void ask(struct redis_topology *topology) {
    if (topology->sentinels)
        sentinel_ask(topology->sentinels);
    else if (topology->slots || !topology->is_known)
        ask_slots(topology, uv_now(topology->loop));
}

static void doubt(struct redis_node *node, enum redis_lane lane) {
    struct redis_topology *topology = node->topology;
    node->doubts[lane] = topology->questions + 1;
    if (!redis_node_is_trusted(node, lane))
        ask(topology);
}

void topology_doubt_node(struct redis_node *node) {
    for (int lane = 0; lane < REDIS_LANES; lane++) {
        if (!redis_node_is_ready(node, (enum redis_lane)lane))
            continue;
        node->doubts[lane] = node->topology->questions + 1;
        if (lane != REDIS_LANE_READ)
            redis_conn_hold(&node->lanes[lane]);
    }
}

/* Whether the doubts about a node matter: something is to be sent there. */
static bool is_needed(const struct redis_node *node) {
    return redis_topology_is_serving(node) || node->holds;
}

bool topology_has_doubts(const struct redis_topology *topology) {
    for (struct list *link = topology->nodes.next; link != &topology->nodes; link = link->next) {
        const struct redis_node *node = container_of(link, struct redis_node, link);
        for (int lane = 0; is_needed(node) && lane < REDIS_LANES; lane++)
            if (redis_conn_is_ready(&node->lanes[lane]) && node->doubts[lane])
                return true;
    }
    return false;
}

/* A node that serves nothing stays in doubt, but what it said is handed on: errors still mean
 * something. */
static void settle_lane(struct redis_node *node, enum redis_lane lane) {
    struct redis_conn *conn = &node->lanes[lane];
    bool is_over = is_needed(node);
    if (is_over)
        node->doubts[lane] = 0;
    redis_conn_release(conn);
    if (is_over && redis_node_is_ready(node, lane))
        node->topology->events->ready(node, lane);
}

static unsigned count_masters(const struct redis_topology *topology) {
    unsigned masters = 0;
    for (struct list *link = topology->nodes.next; link != &topology->nodes; link = link->next)
        masters += redis_topology_is_serving(container_of(link, struct redis_node, link));
    return masters;
}

void topology_settle_doubts(struct redis_topology *topology, const struct redis_node *witness,
                            uint64_t question) {
    bool may_elect = topology->slots && count_masters(topology) >= ELECTORATE_MIN;
    if (may_elect && !redis_topology_is_serving(witness))
        return; /* it may be a master under another name */
    for (struct list *link = topology->nodes.next; link != &topology->nodes; link = link->next) {
        struct redis_node *node = container_of(link, struct redis_node, link);
        if (may_elect && node == witness)
            continue; /* it cannot speak for itself */
        for (int lane = 0; lane < REDIS_LANES; lane++)
            if (node->doubts[lane] && node->doubts[lane] <= question)
                settle_lane(node, (enum redis_lane)lane);
    }
    if (redis_topology_is_up(topology))
        *topology->away = '\0';
    if (topology_has_doubts(topology))
        ask(topology);
}

/* --- Lanes ------------------------------------------------------------------------------------ */

/* Logs that something is away: the same address and reason, or others of the same outage, only
 * some seconds later. */
void topology_note_away(struct redis_topology *topology, const struct redis_address *address,
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
    doubt(node, lane);
    if (!topology->is_known)
        ask(topology);
    if (redis_node_is_trusted(node, lane))
        topology->events->ready(node, lane);
    if (redis_topology_is_up(topology))
        *topology->away = '\0';
}

static void lane_down(struct redis_node *node, enum redis_lane lane, const char *reason) {
    struct redis_topology *topology = node->topology;
    node->is_announced = false;
    topology->is_suspect = true;
    if (redis_topology_is_serving(node) || !topology->is_known)
        topology_note_away(topology, &node->address, reason);
    topology->events->down(node, lane);
}

/* What comes is held back, but for the answers to questions and reads, which can be done again. */
static bool lane_silent(struct redis_node *node, enum redis_lane lane) {
    doubt(node, lane);
    return !redis_node_is_trusted(node, lane) && lane != REDIS_LANE_READ;
}

static void append_ready(struct redis_conn *conn) {
    lane_ready(conn, container_of(conn, struct redis_node, lanes[REDIS_LANE_APPEND]),
               REDIS_LANE_APPEND);
}

static void append_down(struct redis_conn *conn, const char *reason) {
    lane_down(container_of(conn, struct redis_node, lanes[REDIS_LANE_APPEND]), REDIS_LANE_APPEND,
              reason);
}

static bool append_silent(struct redis_conn *conn) {
    return lane_silent(container_of(conn, struct redis_node, lanes[REDIS_LANE_APPEND]),
                       REDIS_LANE_APPEND);
}

static void read_ready(struct redis_conn *conn) {
    lane_ready(conn, container_of(conn, struct redis_node, lanes[REDIS_LANE_READ]),
               REDIS_LANE_READ);
}

static void read_down(struct redis_conn *conn, const char *reason) {
    lane_down(container_of(conn, struct redis_node, lanes[REDIS_LANE_READ]), REDIS_LANE_READ,
              reason);
}

static bool read_silent(struct redis_conn *conn) {
    return lane_silent(container_of(conn, struct redis_node, lanes[REDIS_LANE_READ]),
                       REDIS_LANE_READ);
}

static void news_ready(struct redis_conn *conn) {
    lane_ready(conn, container_of(conn, struct redis_node, lanes[REDIS_LANE_NEWS]),
               REDIS_LANE_NEWS);
}

static void news_down(struct redis_conn *conn, const char *reason) {
    lane_down(container_of(conn, struct redis_node, lanes[REDIS_LANE_NEWS]), REDIS_LANE_NEWS,
              reason);
}

static bool news_silent(struct redis_conn *conn) {
    return lane_silent(container_of(conn, struct redis_node, lanes[REDIS_LANE_NEWS]),
                       REDIS_LANE_NEWS);
}

static void news_message(struct redis_conn *conn, const redisReply *reply) {
    struct redis_node *node = container_of(conn, struct redis_node, lanes[REDIS_LANE_NEWS]);
    node->topology->events->message(node, reply);
}

static const struct redis_conn_events lane_events[REDIS_LANES] = {
    [REDIS_LANE_APPEND] = {append_ready, append_down, NULL, append_silent},
    [REDIS_LANE_READ] = {read_ready, read_down, NULL, read_silent},
    [REDIS_LANE_NEWS] = {news_ready, news_down, news_message, news_silent},
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

static bool take_range(struct redis_node *asked, const redisReply *range) {
    struct redis_topology *topology = asked->topology;
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
    if (!set_address(&address, asked, has_host ? host->str : "", has_host ? host->len : 0,
                     master->element[1]->integer))
        return false;
    struct redis_node *node = topology_get_node(topology, &address);
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
static bool take_slots(struct redis_node *asked, const redisReply *reply) {
    struct redis_topology *topology = asked->topology;
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
        take_range(asked, reply->element[i]);
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
    struct redis_node *node = container_of(call, struct redis_node, slots_call);
    struct redis_topology *topology = node->topology;
    node->is_asking_slots = false;
    if (!reply)
        return;
    bool has_changed = !topology->is_known;
    if (reply->type == REDIS_REPLY_ARRAY) {
        has_changed = take_slots(node, reply) || topology->has_moved;
        topology->has_moved = false;
    } else if (!topology->slots) { /* it says that it is in no cluster, or may not say */
        topology->is_known = true;
    }
    if (has_changed)
        topology->events->changed(topology);
    bool is_late = uv_now(topology->loop) - call->sent_ms > REDIS_SILENCE_MS;
    if (topology->slots && reply->type == REDIS_REPLY_ARRAY && !is_late)
        topology_settle_doubts(topology, node, node->slots_question);
}

static bool is_asking_slots(const struct redis_topology *topology, uint64_t now_ms) {
    if (now_ms - topology->asked_ms > SLOTS_STALL_MS)
        return false;
    for (struct list *link = topology->nodes.next; link != &topology->nodes; link = link->next)
        if (container_of(link, struct redis_node, link)->is_asking_slots)
            return true;
    return false;
}

/* Asks the ready node that has not been asked for the longest time. */
static void ask_slots(struct redis_topology *topology, uint64_t now_ms) {
    struct redis_node *chosen = NULL;
    if (is_asking_slots(topology, now_ms))
        return;
    for (struct list *link = topology->nodes.next; link != &topology->nodes; link = link->next) {
        struct redis_node *node = container_of(link, struct redis_node, link);
        if (redis_conn_is_ready(&node->lanes[REDIS_LANE_READ]) && !node->is_asking_slots &&
            (!chosen || node->slots_question < chosen->slots_question))
            chosen = node;
    }
    if (!chosen)
        return;
    chosen->slots_question = ++topology->questions;
    chosen->is_asking_slots = true;
    topology->is_suspect = false;
    topology->asked_ms = now_ms;
    redis_conn_words(&chosen->lanes[REDIS_LANE_READ], &chosen->slots_call, "CLUSTER", "SLOTS",
                     NULL);
}

static void tick_slots(struct redis_topology *topology, uint64_t now_ms) {
    if (topology->sentinels || (topology->is_known && !topology->slots))
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
    struct redis_node *node = topology_get_node(topology, &address);
    if (node && is_moved && topology->slots) {
        topology->slots[slot] = node;
        count_slots(topology);
        topology->is_suspect = topology->has_moved = true;
    }
    return node;
}

/* --- The whole -------------------------------------------------------------------------------- */

struct redis_node *redis_topology_node(struct redis_topology *topology, struct slice channel) {
    if (!topology->is_known)
        return NULL;
    return topology->slots ? topology->slots[redis_layout_slot(&topology->layout, channel)]
                           : topology->home;
}

bool redis_topology_may_fail_over(const struct redis_topology *topology) {
    return topology->slots || topology->sentinels;
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
        if (topology->sentinels && node != topology->home)
            node_close(node); /* it has had a moment for what it owed; the rest is not known */
        for (int lane = 0; lane < REDIS_LANES; lane++)
            redis_conn_tick(&node->lanes[lane], now_ms);
        if (now_ms - node->asked_ms > PROMISE_MS)
            ask_promise(node, now_ms);
        ask_nodes(node, now_ms);
    }
    if (topology->home && is_node_ready(topology->home))
        topology->home_well_ms = now_ms;
    tick_slots(topology, now_ms);
    if (topology->sentinels)
        sentinel_tick(topology->sentinels, now_ms);
    close_idle(topology, now_ms);
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
    };
    list_init(&topology->nodes);
    redis_layout_init();
    if (options->tls) {
        topology->tls = tls_context_new(options->tls_ca, error, error_size);
        if (!topology->tls)
            return false;
    }
    if (!options->sentinel_count)
        return true;
    topology->sentinels = sentinel_new(topology);
    if (!topology->sentinels) {
        tls_context_free(topology->tls);
        snprintf(error, error_size, "out of memory");
    }
    return topology->sentinels != NULL;
}

void redis_topology_start(struct redis_topology *topology) {
    if (topology->sentinels)
        sentinel_open(topology->sentinels);
    else
        topology->home = topology_get_node(topology, &topology->options->address);
}

void redis_topology_deinit(struct redis_topology *topology) {
    sentinel_free(topology->sentinels);
    for (struct list *link; (link = list_shift(&topology->nodes));) {
        struct redis_node *node = container_of(link, struct redis_node, link);
        node_close(node);
        free(node);
    }
    free(topology->slots);
    tls_context_free(topology->tls);
}
