/*
 * Which Redis serves which channel: one server, the master that the Sentinels name, or the nodes of
 * a cluster.
 *
 * Whether there is a cluster is found out by asking. Its map of slots is asked for every few
 * seconds, and whenever something hints that it is old (MOVED, a node that is away). The Sentinels
 * are asked ten times a second. A node that serves nothing any more is closed when nobody has
 * waited for it for some seconds; a master that the Sentinels have replaced, with the next tick.
 */
#pragma once

#include "redis/layout.h"
#include "redis/node.h"
#include <stdbool.h>
#include <stdint.h>

struct redis_sentinels;

struct redis_topology_events {
    /* The lane can be used. */
    void (*ready)(struct redis_lane *lane);
    void (*down)(struct redis_lane *lane);
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
    uint64_t map_question;     /* whose answer the map is */
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
struct redis_node *redis_topology_node(const struct redis_topology *topology, struct slice channel);

/* Takes note of what `MOVED SLOT ADDRESS` or `ASK SLOT ADDRESS` says, replied by `from`. Returns
 * the node that is named; NULL when that cannot be read. */
struct redis_node *redis_topology_redirect(struct redis_topology *topology, struct redis_node *from,
                                           const char *error);

/* Whether another Redis may take the master's place. */
bool redis_topology_may_fail_over(const struct redis_topology *topology);

/* Something hints that what is known is old. */
void redis_topology_suspect(struct redis_topology *topology);

/* Whether every node that serves something is ready for appends, reads and news. */
bool redis_topology_is_up(const struct redis_topology *topology);

void redis_topology_tick(struct redis_topology *topology, uint64_t now_ms);
