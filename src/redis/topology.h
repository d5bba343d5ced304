/*
 * Which Redis serves which channel: one server, the master that Sentinel names, or the nodes of a
 * cluster.
 *
 * A node is a Redis with three connections, its lanes: appends, reads, and news (pub/sub). Whether
 * there is a cluster is found out by asking. Its map of slots is asked for every few seconds, and
 * whenever something hints that it is old (MOVED, a node that is away). The Sentinels are asked
 * ten times a second. A node that serves nothing any more is closed when nobody has waited for it
 * for some seconds; a master that the Sentinels have replaced is closed with the next tick.
 *
 * A master that was frozen or cut off does not know, when it comes back, that another has taken its
 * place: it accepts updates that will be wiped. So a lane is in doubt as soon as it is ready, and
 * when its Redis was silent, or the Sentinels are replacing it. The doubt ends when the Sentinels,
 * or another node of the cluster, answer a question that was asked after the doubt began, and still
 * name the node as a master. Nothing is sent on a lane in doubt, and no reply on it is believed:
 * appends and news are held back, reads are repeated. A lone Redis is never in doubt, because there
 * is nobody to ask.
 */
#pragma once

#include "redis/conn.h"
#include "redis/layout.h"
#include "redis/promise.h"
#include <stdbool.h>
#include <stdint.h>

enum redis_lane { REDIS_LANE_APPEND, REDIS_LANE_READ, REDIS_LANE_NEWS, REDIS_LANES };

struct redis_topology;
struct redis_sentinels;

struct redis_node {
    struct list link; /* in topology->nodes */
    struct redis_topology *topology;
    struct redis_address address;
    struct redis_conn lanes[REDIS_LANES];
    uint64_t
        doubts[REDIS_LANES]; /* the first question whose answer ends the doubt; 0: there is none */
    unsigned slots;          /* of the cluster's, that it serves */
    uint64_t idle_ms;        /* since when it serves nothing */
    struct redis_promise promise;
    struct redis_call info_call, config_call, nodes_call, slots_call;
    uint64_t slots_question; /* the last question for the slots that it was asked */
    bool is_asking_slots;
    uint64_t nodes_asked_ms;
    bool is_asking_nodes;
    bool is_migrating; /* it gives a slot away: pushes may go to the node that gets it */
    uint64_t asked_ms; /* for its promise */
    bool is_asking;
    bool is_announced; /* the log has said what it promises */
    /* The store's: */
    struct list watches;      /* struct store_watch */
    struct list unreplicated; /* appends done that wait for WAIT */
    bool wants_wait;          /* appends have been sent since the last WAIT */
    bool is_waiting;          /* WAIT is under way: what is sent now would stand behind it */
    unsigned holds;           /* operations that are to be sent here, redirected by ASK */
};

struct redis_topology_events {
    /* The lane can be used. */
    void (*ready)(struct redis_node *node, enum redis_lane lane);
    void (*down)(struct redis_node *node, enum redis_lane lane);
    void (*message)(struct redis_node *node, const redisReply *reply);
    /* Channels may be served by other nodes than before. */
    void (*changed)(struct redis_topology *topology);
};

struct redis_topology {
    uv_loop_t *loop;
    const struct redis_options *options;
    const struct redis_topology_events *events;
    struct tls_context *tls;
    struct redis_layout layout;
    struct list nodes;
    int node_count;
    struct redis_node *home;   /* the one that the settings or Sentinel name; NULL: not known yet */
    struct redis_node **slots; /* of a cluster: REDIS_SLOTS */
    bool is_known;             /* whether there is a cluster is known */
    bool is_suspect;           /* ask soon */
    uint64_t questions;        /* asked so far */
    bool has_moved;            /* a node has said that another one serves a slot */
    uint64_t asked_ms, home_well_ms;
    struct redis_sentinels *sentinels; /* NULL: none */
    uint64_t reconnects;
    struct redis_address_text away_address;
    char away[160]; /* why the last try to reach that address failed; "" while all is well */
    struct redis_address_text told_address; /* what the log has said of that, and when */
    char told[160];
    uint64_t told_ms;
};

/* False, with one line in `error`, when the certificates of REDIS_TLS_CA cannot be read or
 * memory is out. */
bool redis_topology_init(struct redis_topology *topology, uv_loop_t *loop,
                         const struct redis_options *options,
                         const struct redis_topology_events *events, char *error,
                         size_t error_size);
void redis_topology_start(struct redis_topology *topology);
/* Calls under way are answered with NULL. */
void redis_topology_deinit(struct redis_topology *topology);

/* The node of a channel; NULL while that is not known. */
struct redis_node *redis_topology_node(struct redis_topology *topology, struct slice channel);

/* Takes note of what `MOVED SLOT ADDRESS` or `ASK SLOT ADDRESS` says, replied by `from`. Returns
 * the node that is named; NULL when that cannot be read. */
struct redis_node *redis_topology_redirect(struct redis_topology *topology, struct redis_node *from,
                                           const char *error);

/* Whether the node is the master of some channels. */
bool redis_topology_is_serving(const struct redis_node *node);

/* Whether nobody may know better than the node itself that it is a master. */
bool redis_node_is_trusted(const struct redis_node *node, enum redis_lane lane);

/* Whether commands may be sent. */
bool redis_node_is_ready(const struct redis_node *node, enum redis_lane lane);

/* Whether another Redis may take the master's place. */
bool redis_topology_may_fail_over(const struct redis_topology *topology);

/* Something hints that what is known is old. */
void redis_topology_suspect(struct redis_topology *topology);

/* Whether every node that serves something is ready for appends, reads and news. */
bool redis_topology_is_up(const struct redis_topology *topology);

void redis_topology_tick(struct redis_topology *topology, uint64_t now_ms);
