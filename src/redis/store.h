/* The Redis store, which any number of processes share; see parts.h for how it is divided. */
#pragma once

#include "inbox/store.h"
#include "redis/options.h"

/* How many descriptors it may need at most. Without Sentinels: for a cluster of REDIS_NODES_MAX
 * masters, because what there is is found out later. */
uint64_t store_redis_descriptors(const struct redis_options *redis);

/* Opens the Redis store; `redis` must stay valid. It connects by itself, now and whenever it has
 * to. NULL on a failure that no time mends, and `error` holds one line. */
struct store *store_redis_open(uv_loop_t *loop, const struct store_options *options,
                               const struct redis_options *redis, char *error, size_t error_size);
