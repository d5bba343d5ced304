/*
 * Sentinel: which Redis is the master. One connection to one Sentinel at a time; the next one is
 * tried when it fails or is silent.
 *
 * Below stands what topology.c lends to it; nobody outside src/redis includes this header.
 */
#pragma once

#include "redis/topology.h"

enum { TOPOLOGY_ASK_SOON_MS = 100 }; /* between two questions, when something hints at a change */

/* Prepares the connection; it is opened by redis_topology_start(). */
void sentinel_init(struct redis_topology *topology);
/* Asks for the master, unless a question is under way. */
void sentinel_ask(struct redis_topology *topology, uint64_t now_ms);
/* Asks when it is time, or when a node is in doubt. Nothing without Sentinels. */
void sentinel_tick(struct redis_topology *topology, uint64_t now_ms);

/* --- topology.c ------------------------------------------------------------------------------- */

/* The node at `address`, open, made if there is none; NULL when memory is out or there are too
 * many. */
struct redis_node *topology_get_node(struct redis_topology *topology,
                                     const struct redis_address *address);
void topology_close_node(struct redis_node *node);
/* Logs that something is away, and why; other reasons of the same outage only now and then. */
void topology_note_away(struct redis_topology *topology, const struct redis_address *address,
                        const char *reason);
/* Question number `question` has been answered, by `witness` or (NULL) by a Sentinel, and what
 * it said has been taken over: earlier doubts about connections are settled. */
void topology_settle_doubts(struct redis_topology *topology, const struct redis_node *witness,
                            uint64_t question);
/* Whether a connection that is needed may not be used before a question is answered. */
bool topology_has_doubts(const struct redis_topology *topology);
