/* What can be said of a cluster from its texts alone. */
#pragma once

#include "base/slice.h"
#include <stdbool.h>
#include <stdint.h>

/* `MOVED SLOT HOST:PORT` or `ASK SLOT HOST:PORT`: another node serves the slot. */
struct redis_redirect {
    bool is_ask; /* only for one command */
    unsigned slot;
    struct slice host; /* "" or "?": that of the node which says so */
    uint16_t port;
};

/* False for any other error. The host points into `error`. */
bool redis_redirect_parse(const char *error, struct redis_redirect *redirect);

/* Whether the node that replied this to CLUSTER NODES is giving a slot away. */
bool redis_nodes_is_migrating(const char *text);

/*
 * Whether a node's map of the slots ends doubts about a master, which may be the node itself
 * (`is_self`). Few masters cannot elect another. Otherwise nobody speaks for itself; and who is no
 * master by its own map may be the same one under another name.
 */
bool redis_cluster_may_vouch(unsigned masters, bool is_master, bool is_self);
