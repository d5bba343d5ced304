#include "redis/cluster.h"
#include "base/log.h"
#include "redis/topology_parts.h"

#include <stdlib.h>
#include <string.h>

enum {
    ASK_MS = 5000,       /* from one question for the slots to the next */
    ASK_SOON_MS = 100,   /* ... when something hints at a change */
    STALL_MS = 200,      /* another node is asked when one does not answer for so long */
    MIGRATING_MS = 1000, /* how often a node is asked whether it gives a slot away */
    ELECTORATE_MIN = 3,  /* fewer masters cannot elect another */
};

/* --- Texts ------------------------------------------------------------------------------------ */

bool redis_redirect_parse(const char *error, struct redis_redirect *redirect) {
    struct slice rest = slice_of(error), kind = {0}, slot;
    slice_cut(&rest, ' ', &kind);
    if (!slice_cut(&rest, ' ', &slot) || !rest.data)
        return false;
    bool is_ask = slice_equal(kind, SLICE("ASK"));
    const char *colon = memrchr(rest.data, ':', rest.len);
    uint64_t number, port;
    if ((!is_ask && !slice_equal(kind, SLICE("MOVED"))) || !colon ||
        !slice_number(slot, REDIS_SLOTS - 1, &number))
        return false;
    struct slice host = {rest.data, (size_t)(colon - rest.data)};
    if (!slice_number(slice_after(rest, host.len + 1), 65535, &port) || !port ||
        host.len > REDIS_HOST_MAX_BYTES)
        return false;
    *redirect = (struct redis_redirect){is_ask, (unsigned)number, host, (uint16_t)port};
    return true;
}

/* In the line of the node itself, `[93->-` is a slot whose keys it is giving away. */
bool redis_nodes_is_migrating(const char *text) {
    const char *myself = strstr(text, "myself");
    const char *end = myself ? strchr(myself, '\n') : NULL;
    const char *leaving = myself ? strstr(myself, "->-") : NULL;
    return leaving && (!end || leaving < end);
}

bool redis_cluster_may_vouch(unsigned masters, bool is_master, bool is_self) {
    return masters < ELECTORATE_MIN || (is_master && !is_self);
}

/* --- Slots on their way ----------------------------------------------------------------------- */

void cluster_on_nodes(struct redis_call *call, const redisReply *reply) {
    struct redis_node *node = container_of(call, struct redis_node, nodes_call);
    node->is_asking_nodes = false;
    if (reply && reply->type == REDIS_REPLY_STRING)
        node->is_migrating = redis_nodes_is_migrating(reply->str);
}

void cluster_ask_migrating(struct redis_node *node, uint64_t now_ms) {
    struct redis_conn *conn = &node->lanes[REDIS_LANE_READ].conn;
    if (!node->slots || node->is_asking_nodes || now_ms - node->nodes_asked_ms < MIGRATING_MS ||
        !redis_conn_is_ready(conn))
        return;
    node->is_asking_nodes = true;
    node->nodes_asked_ms = now_ms;
    redis_conn_words(conn, &node->nodes_call, "CLUSTER", "NODES", NULL);
}

/* --- The map ---------------------------------------------------------------------------------- */

/* The node at an address that `from` has named; NULL when that is no address, or memory is out. */
static struct redis_node *named_node(const struct redis_node *from, struct slice host,
                                     long long port) {
    if (host.len > REDIS_HOST_MAX_BYTES || port < 1 || port > 65535)
        return NULL;
    struct redis_address address = from->address;
    address.port = (uint16_t)port;
    if (host.len && !slice_equal(host, SLICE("?"))) {
        memcpy(address.host, host.data, host.len);
        address.host[host.len] = '\0';
    }
    return node_get(from->topology, &address);
}

/* {first, last, {host, port, ...}, replicas...} */
static void take_range(struct redis_node *asked, const redisReply *range) {
    if (range->type != REDIS_REPLY_ARRAY || range->elements < 3)
        return;
    long long first = range->element[0]->integer, last = range->element[1]->integer;
    const redisReply *master = range->element[2];
    if (first < 0 || last < first || last >= REDIS_SLOTS || master->type != REDIS_REPLY_ARRAY ||
        master->elements < 2)
        return;
    const redisReply *host = master->element[0];
    struct slice name = {"", 0};
    if (host->type == REDIS_REPLY_STRING)
        name = (struct slice){host->str, host->len};
    struct redis_node *node = named_node(asked, name, master->element[1]->integer);
    for (long long slot = first; node && slot <= last; slot++)
        asked->topology->slots[slot] = node;
}

static void count_slots(struct redis_topology *topology) {
    for (struct list *link = topology->nodes.next; link != &topology->nodes; link = link->next)
        container_of(link, struct redis_node, link)->slots = 0;
    for (int slot = 0; slot < REDIS_SLOTS; slot++)
        if (topology->slots[slot])
            topology->slots[slot]->slots++;
}

/* A cluster was found. */
static void announce(const struct redis_topology *topology, size_t ranges) {
    log_info("redis cluster", "ranges", log_number(ranges).text, NULL);
    const char *brace = strchr(topology->options->prefix, '{');
    const char *close = brace ? strchr(brace, '}') : NULL;
    if (brace && (!close || close == brace + 1))
        log_error("redis cluster cannot serve this REDIS_PREFIX", "reason",
                  "its { spoils the hash tag: leave it out, or close it around a tag", NULL);
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
        announce(topology, reply->elements);
    for (size_t i = 0; i < reply->elements; i++)
        take_range(asked, reply->element[i]);
    count_slots(topology);
    topology->layout.is_cluster = true;
    topology->is_known = reply->elements > 0;
    bool differs = !before || memcmp(before, topology->slots, size) != 0;
    free(before);
    return differs;
}

void cluster_on_slots(struct redis_call *call, const redisReply *reply) {
    struct redis_node *node = container_of(call, struct redis_node, slots_call);
    struct redis_topology *topology = node->topology;
    node->is_asking_slots = false;
    /* What was asked earlier is old: a master that was away may answer late, and knows no
     * better. */
    if (!reply || node->slots_question < topology->map_question)
        return;
    bool has_changed = !topology->is_known;
    if (reply->type == REDIS_REPLY_ARRAY) {
        has_changed = take_slots(node, reply) || topology->has_moved;
        topology->map_question = node->slots_question;
        topology->has_moved = false;
    } else if (!topology->slots) { /* it is in no cluster, or this user may not ask */
        topology->is_known = !node->promise.is_cluster;
        if (node->promise.is_cluster && reply->type == REDIS_REPLY_ERROR)
            topology_note_away(topology, &node->address, reply->str);
    }
    if (has_changed)
        topology->events->changed(topology);
    bool is_late = uv_now(topology->loop) - call->sent_ms > REDIS_SILENCE_MS;
    if (topology->slots && reply->type == REDIS_REPLY_ARRAY && !is_late)
        topology_settle_doubts(topology, node, node->slots_question);
}

struct redis_node *redis_topology_redirect(struct redis_topology *topology, struct redis_node *from,
                                           const char *error) {
    struct redis_redirect redirect;
    if (!topology->slots || !redis_redirect_parse(error, &redirect))
        return NULL;
    struct redis_node *node = named_node(from, redirect.host, redirect.port);
    if (node && !redirect.is_ask) {
        topology->slots[redirect.slot] = node;
        count_slots(topology);
        topology->is_suspect = topology->has_moved = true;
    }
    return node;
}

/* --- Asking ----------------------------------------------------------------------------------- */

static bool is_asking(const struct redis_topology *topology, uint64_t now_ms) {
    if (now_ms - topology->asked_ms > STALL_MS)
        return false;
    for (struct list *link = topology->nodes.next; link != &topology->nodes; link = link->next)
        if (container_of(link, struct redis_node, link)->is_asking_slots)
            return true;
    return false;
}

/* The ready node that has not been asked for the longest time; NULL when there is none. */
static struct redis_node *choose(const struct redis_topology *topology) {
    struct redis_node *chosen = NULL;
    for (struct list *link = topology->nodes.next; link != &topology->nodes; link = link->next) {
        struct redis_node *node = container_of(link, struct redis_node, link);
        if (redis_conn_is_ready(&node->lanes[REDIS_LANE_READ].conn) && !node->is_asking_slots &&
            (!chosen || node->slots_question < chosen->slots_question))
            chosen = node;
    }
    return chosen;
}

void cluster_ask(struct redis_topology *topology) {
    uint64_t now_ms = uv_now(topology->loop);
    struct redis_node *node = is_asking(topology, now_ms) ? NULL : choose(topology);
    if (!node)
        return;
    node->slots_question = ++topology->questions;
    node->is_asking_slots = true;
    topology->is_suspect = false;
    topology->asked_ms = now_ms;
    redis_conn_words(&node->lanes[REDIS_LANE_READ].conn, &node->slots_call, "CLUSTER", "SLOTS",
                     NULL);
}

void cluster_tick(struct redis_topology *topology, uint64_t now_ms) {
    bool is_suspect = topology->is_suspect || !redis_topology_is_up(topology);
    if (now_ms - topology->asked_ms >= (is_suspect ? ASK_SOON_MS : ASK_MS))
        cluster_ask(topology);
}
