/*
 * A position in a channel, in one number:
 *
 *     ts ≥ 0                behind the update with this ts
 *     -K, to -10^18         before the last K updates
 *     position_since(ms)    behind the newest update that was stored before that time
 *     POSITION_NOW          behind the newest update
 *
 * All but the first depend on what the channel holds when they are looked for.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define POSITION_NOW INT64_MIN
#define POSITION_LAST_MIN (-(int64_t)1000000000000000000) /* -K is not below it */
#define POSITION_SINCE_MAX_MS ((int64_t)100000000000000000)

/* `ms` since 1970: 0 to POSITION_SINCE_MAX_MS. */
static inline int64_t position_since(int64_t ms) {
    return INT64_MIN + 1 + ms;
}

static inline bool position_is_since(int64_t position) {
    return position < POSITION_LAST_MIN && position != POSITION_NOW;
}

/* The time of one that position_is_since(). */
static inline int64_t position_since_ms(int64_t position) {
    return position - (INT64_MIN + 1);
}
