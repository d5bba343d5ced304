/*
 * How long the next poll may wait, and when it follows: the rules of every client (clients/).
 *
 *     good reply              at once; the backoff starts over
 *     empty reply, at once    after as long as after a first error
 *     cut by a proxy          at once, and shorter; from the third in a row on after up to 0.5 s
 *     silence                 as an error, and the next poll is shorter
 *     429, 503                after Retry-After (at most 60 s), if there is one, times 1 to 1.5
 *     all else                after 0.5 s, 1, 2, ... 30, each times 0.5 to 1
 *
 * A poll that a proxy cuts is no failure. The next one asks for three quarters of the time that it
 * reached, and those that then last their whole time grow again.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
    PACE_SLEEP_MS = 25000,
    PACE_FIRST_MS = 500, /* the first pause after an error */
    PACE_LAST_MS = 30000,
    PACE_RETRY_AFTER_MAX_S = 60,
};

struct pace {
    int64_t sleep_ms, sleep_max_ms; /* how long the next poll waits */
    int64_t first_ms, step_ms;
    unsigned cuts; /* in a row */
};

/* How a poll failed. */
struct pace_failure {
    bool is_cut;           /* the connection ended, or a 408 or 5xx came */
    bool is_silent;        /* nothing came for too long */
    int64_t waited_ms;     /* how long the server had the poll; 0 if it was not to wait */
    int64_t retry_after_s; /* of a 429 or 503; -1: none */
};

void pace_init(struct pace *pace, int64_t sleep_ms, int64_t first_ms);

/* Takes a good reply. Returns how long to pause. */
int64_t pace_replied(struct pace *pace, bool is_idle, int64_t waited_ms);

/* Takes a failure. Returns how long to pause; `*is_told` says whether somebody must be told. */
int64_t pace_failed(struct pace *pace, const struct pace_failure *failure, bool *is_told);

/* The pause before the next attempt; it doubles. */
int64_t pace_step(struct pace *pace);

/* Retry-After as a pause: those that were told the same must not come back together. */
int64_t pace_retry_after(int64_t seconds);
