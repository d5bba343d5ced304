/*
 * Whether the machine has slept: the monotonic clock stands still meanwhile, the boot clock and the
 * wall clock go on. A wall clock that is set counts as well, which costs a poll.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* How far the other clocks are ahead of the monotonic one. */
struct clocks {
    int64_t wall_ms, boot_ms;
};

/* Milliseconds since the machine was started, those that it slept included. */
int64_t clocks_boot_ms(void);

struct clocks clocks_now(void);

/* Whether the machine has slept since. */
bool clocks_have_jumped(const struct clocks *before);
