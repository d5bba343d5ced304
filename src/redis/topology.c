#include "redis/topology.h"
#include "base/log.h"
#include "redis/cluster.h"
#include "redis/sentinel.h"
#include "redis/topology_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    AWAY_LOG_MS = 5000, /* another reason of the same outage is logged after so long */
    HEARSAY_MS = 100,   /* in so long all nodes of a cluster have heard of an election */
};

/* --- Doubts ----------------------------------------------------------------------------------- */

/* Whether there is a cluster, as far as is known. */
static bool may_be_cluster(const struct redis_topology *topology) {
    return !topology->sentinels && (topology->slots || !topology->is_known);
}

void topology_ask(struct redis_topology *topology) {
    if (topology->sentinels)
        sentinel_ask(topology->sentinels);
    else if (may_be_cluster(topology))
        cluster_ask(topology);
}

void topology_doubt(struct redis_lane *lane) {
    struct redis_topology *topology = lane->node->topology;
    lane->doubt = topology->questions + 1;
    if (!redis_lane_is_trusted(lane))
        topology_ask(topology);
}

void topology_doubt_node(struct redis_node *node) {
    for (int kind = 0; kind < REDIS_LANES; kind++) {
        struct redis_lane *lane = &node->lanes[kind];
        if (!redis_lane_is_ready(lane))
            continue;
        lane->doubt = node->topology->questions + 1;
        if (kind != REDIS_LANE_READ)
            redis_conn_hold(&lane->conn);
    }
}

/* Whether the doubts about a node matter: something is to be sent there. */
static bool is_needed(const struct redis_node *node) {
    return redis_node_is_serving(node) || node->holds;
}

bool topology_has_doubts(const struct redis_topology *topology) {
    for (struct list *link = topology->nodes.next; link != &topology->nodes; link = link->next) {
        const struct redis_node *node = container_of(link, struct redis_node, link);
        for (int kind = 0; is_needed(node) && kind < REDIS_LANES; kind++)
            if (redis_conn_is_ready(&node->lanes[kind].conn) && node->lanes[kind].doubt)
                return true;
    }
    return false;
}

/* A node that serves nothing stays in doubt, but what it said is handed on: errors still mean
 * something. */
static void settle(struct redis_lane *lane) {
    bool is_over = is_needed(lane->node);
    if (is_over)
        lane->doubt = 0;
    redis_conn_release(&lane->conn);
    if (is_over && redis_lane_is_ready(lane))
        lane->node->topology->events->ready(lane);
}

static unsigned count_masters(const struct redis_topology *topology) {
    unsigned masters = 0;
    for (struct list *link = topology->nodes.next; link != &topology->nodes; link = link->next)
        masters += redis_node_is_serving(container_of(link, struct redis_node, link));
    return masters;
}

/* A cluster's nodes hear of an election by message, one after another: what one of them says of
 * a node that is just back may be older than the election. */
static bool is_too_early(const struct redis_lane *lane, const struct redis_node *witness) {
    return witness && lane->back_ms && witness->slots_call.sent_ms < lane->back_ms + HEARSAY_MS;
}

void topology_settle_doubts(struct redis_topology *topology, const struct redis_node *witness,
                            uint64_t question) {
    unsigned masters = count_masters(topology);
    bool is_any_early = false;
    for (struct list *link = topology->nodes.next; link != &topology->nodes; link = link->next) {
        struct redis_node *node = container_of(link, struct redis_node, link);
        if (witness &&
            !redis_cluster_may_vouch(masters, redis_node_is_serving(witness), node == witness))
            continue;
        for (int kind = 0; kind < REDIS_LANES; kind++) {
            struct redis_lane *lane = &node->lanes[kind];
            if (!lane->doubt || lane->doubt > question)
                continue;
            if (is_too_early(lane, witness))
                is_any_early = true;
            else
                settle(lane);
        }
    }
    topology_note_up(topology);
    if (is_any_early)
        topology->is_suspect = true; /* asked again with a later tick */
    else if (topology_has_doubts(topology))
        topology_ask(topology);
}

/* --- What is away ----------------------------------------------------------------------------- */

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

void topology_note_up(struct redis_topology *topology) {
    if (redis_topology_is_up(topology))
        *topology->away = '\0';
}

/* --- The whole -------------------------------------------------------------------------------- */

struct redis_node *redis_topology_node(const struct redis_topology *topology,
                                       struct slice channel) {
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
        return topology->home && redis_node_is_ready(topology->home);
    unsigned served = 0;
    for (struct list *link = topology->nodes.next; link != &topology->nodes; link = link->next) {
        struct redis_node *node = container_of(link, struct redis_node, link);
        served += node->slots;
        if (node->slots && !redis_node_is_ready(node))
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
        node_tick(node, now_ms);
        cluster_ask_migrating(node, now_ms);
    }
    if (topology->home && redis_node_is_ready(topology->home))
        topology->home_well_ms = now_ms;
    if (topology->sentinels)
        sentinel_tick(topology->sentinels, now_ms);
    else if (may_be_cluster(topology))
        cluster_tick(topology, now_ms);
    node_free_idle(topology, now_ms);
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
        topology->home = node_get(topology, &topology->options->address);
}

void redis_topology_deinit(struct redis_topology *topology) {
    sentinel_free(topology->sentinels);
    for (struct list *link = topology->nodes.next, *next; link != &topology->nodes; link = next) {
        next = link->next;
        node_free(container_of(link, struct redis_node, link));
    }
    free(topology->slots);
    tls_context_free(topology->tls);
}
