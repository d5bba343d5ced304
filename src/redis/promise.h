/*
 * What a Redis promises of an acknowledged update, read from its INFO and its configuration.
 */
#pragma once

#include "base/buf.h"
#include "base/slice.h"
#include <hiredis/hiredis.h>
#include <stdbool.h>

struct redis_promise {
    bool is_known;
    bool appendonly;
    bool evicts;     /* maxmemory is set, and its policy deletes keys */
    bool is_cluster; /* it is a node of a cluster */
    int replicas;
    uint64_t evicted_keys;
    int64_t clock_ms; /* Redis' clock, since the epoch; 0: not known */
    char version[24];
    char appendfsync[16]; /* "" where CONFIG is not allowed */
    char policy[32];
};

void redis_promise_read_info(struct redis_promise *promise, struct slice info);
/* The reply to CONFIG GET appendfsync. */
void redis_promise_read_config(struct redis_promise *promise, const redisReply *reply);

/* Appends one line: `redis 7.0.15: appendonly yes, appendfsync always, 0 replicas,
 * maxmemory-policy noeviction`. */
void redis_promise_write(const struct redis_promise *promise, struct buf *line);

/* How acknowledged updates could be lost; NULL: they could not. */
const char *redis_promise_risk(const struct redis_promise *promise);
