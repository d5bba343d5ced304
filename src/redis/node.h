/*
 * A node: one Redis with three connections, its lanes: appends, reads, and news (pub/sub).
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

#include "inbox/store.h"
#include "redis/conn.h"
#include "redis/promise.h"
#include "redis/rights.h"
#include <stdbool.h>
#include <stdint.h>

/* The largest cluster has so many masters, together with those that were masters a moment ago. */
enum { REDIS_NODES_MAX = 256 };

enum redis_lane_kind { REDIS_LANE_APPEND, REDIS_LANE_READ, REDIS_LANE_NEWS, REDIS_LANES };

struct redis_lane {
    struct redis_conn conn;
    struct redis_node *node;
    enum redis_lane_kind kind;
    uint64_t doubt;   /* the first question whose answer ends it; 0: no doubt */
    uint64_t back_ms; /* when its Redis was last heard of again, after a silence or a loss */
    /* The store's: */
    struct list queue;    /* struct op: those that are to be sent here */
    unsigned under_way;   /* those that have been */
    size_t reply_bytes;   /* as much as a reply to a read may be, going by those before */
    uint64_t answered_ms; /* when the last reply came */
};

struct redis_node {
    struct list link; /* in topology->nodes */
    struct redis_topology *topology;
    struct redis_address address;
    struct redis_lane lanes[REDIS_LANES];
    unsigned slots;   /* of the cluster's, that it serves */
    uint64_t idle_ms; /* since when it serves nothing */
    struct redis_promise promise;
    struct redis_rights rights;
    struct redis_call info_call, config_call, rights_call, nodes_call, slots_call;
    uint64_t slots_question; /* the last question for the slots that it was asked */
    bool is_asking_slots;
    uint64_t nodes_asked_ms;
    bool is_asking_nodes;
    bool is_migrating;         /* it gives a slot away: pushes may go to the node that gets it */
    uint64_t promise_asked_ms; /* when it was asked what it promises */
    bool is_asking_promise;
    uint64_t promised_ms;     /* when it answered that */
    uint64_t evicted_ms;      /* when it was last seen to have evicted keys; 0: never */
    uint64_t rights_asked_ms; /* when it was asked what stands against serving */
    bool is_asking_rights;
    bool wants_rights; /* it has refused something: ask soon */
    bool is_announced; /* the log has said what it promises */
    /* The store's: */
    struct list watches;      /* struct store_watch */
    struct list unreplicated; /* appends done that wait for WAIT */
    bool wants_wait;          /* appends have been sent since the last WAIT */
    bool is_waiting;          /* WAIT is under way: what is sent now would stand behind it */
    unsigned holds;           /* operations that are to be sent here, redirected by ASK */
};

/* Whether the node is the master of some channels. */
bool redis_node_is_serving(const struct redis_node *node);
/* Whether all its lanes may be used. */
bool redis_node_is_ready(const struct redis_node *node);

/* Whether replies are believed: the lane is not in doubt. */
bool redis_lane_is_trusted(const struct redis_lane *lane);
/* Whether commands may be sent. */
bool redis_lane_is_ready(const struct redis_lane *lane);
