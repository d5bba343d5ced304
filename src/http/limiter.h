/*
 * The rate limit: how many requests a client may make in a window of time, which begins with its
 * first request. It remembers at most LIMITER_MAX_CLIENTS, and then forgets the one whose window
 * began first.
 */
#pragma once

#include "base/pack.h"
#include <stdbool.h>
#include <stdint.h>

enum { LIMITER_MAX_CLIENTS = 100000 };

struct limiter;

struct limiter_verdict {
    bool allowed;
    uint64_t remaining;     /* in this window */
    uint64_t retry_after_s; /* at least 1, when not allowed */
};

/* NULL when memory is out. */
struct limiter *limiter_new(uint64_t limit, uint64_t frame_ms);
void limiter_free(struct limiter *limiter);

/* Writes what it remembers, and goes on with that in another process: its monotonic clock is the
 * same. A limiter that is NULL has nothing, and forgets what it reads. */
void limiter_save(const struct limiter *limiter, struct pack *out);
void limiter_restore(struct limiter *limiter, struct unpack *in);

uint64_t limiter_limit(const struct limiter *limiter);

/* Counts a request of the client at `ip` (IPv4 as ::ffff:a.b.c.d; IPv6 counts by /64) at
 * `now_ms` of the monotonic clock. Without memory it allows. */
struct limiter_verdict limiter_take(struct limiter *limiter, const uint8_t ip[16], uint64_t now_ms);
