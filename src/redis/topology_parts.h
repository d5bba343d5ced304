/*
 * What the parts of the topology lend to each other; nobody else includes it.
 *
 *   topology.c   the nodes together; doubts; what is away
 *   node.c       one node: its lanes, what it promises
 *   cluster.c    the map of a cluster's slots
 *   sentinel.c   the master that the Sentinels name
 */
#pragma once

#include "redis/topology.h"

/* --- topology.c ------------------------------------------------------------------------------- */

/* Asks who serves what, unless a question is under way. */
void topology_ask(struct redis_topology *topology);

/* Does not use a lane until a question is answered that is asked from now on. */
void topology_doubt(struct redis_lane *lane);
/* Does the same with all lanes of a node, and holds back what they bring. */
void topology_doubt_node(struct redis_node *node);
/* Question number `question` has been answered, by `witness` or (NULL) by the Sentinels, and what
 * it said has been taken over: earlier doubts are settled. */
void topology_settle_doubts(struct redis_topology *topology, const struct redis_node *witness,
                            uint64_t question);
/* Whether a lane that is needed may not be used before a question is answered. */
bool topology_has_doubts(const struct redis_topology *topology);

/* Logs that something is away, and why; other reasons of the same outage only now and then. */
void topology_note_away(struct redis_topology *topology, const struct redis_address *address,
                        const char *reason);
/* All may be well again. */
void topology_note_up(struct redis_topology *topology);

/* --- node.c ----------------------------------------------------------------------------------- */

/* The node at `address`, open, made if there is none; NULL when memory is out or there are too
 * many. */
struct redis_node *node_get(struct redis_topology *topology, const struct redis_address *address);
/* Closes its lanes; calls under way are answered with NULL. */
void node_close(struct redis_node *node);
/* Closes it, takes it out of the topology and frees it. */
void node_free(struct redis_node *node);
void node_tick(struct redis_node *node, uint64_t now_ms);
/* Frees the nodes that have served nothing for a while. */
void node_free_idle(struct redis_topology *topology, uint64_t now_ms);

/* --- cluster.c -------------------------------------------------------------------------------- */

/* The replies to CLUSTER SLOTS and CLUSTER NODES. */
void cluster_on_slots(struct redis_call *call, const redisReply *reply);
void cluster_on_nodes(struct redis_call *call, const redisReply *reply);
/* Asks one of the nodes for the slots, unless a question is under way. */
void cluster_ask(struct redis_topology *topology);
/* Asks when it is time. */
void cluster_tick(struct redis_topology *topology, uint64_t now_ms);
/* Asks a node whether it is giving a slot away, when it is time. */
void cluster_ask_migrating(struct redis_node *node, uint64_t now_ms);
