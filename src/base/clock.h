/*
 * The clocks of the process.
 *
 * The wall clock may jump, by years and both ways; it says when an update came. Deadlines use the
 * loop's own clock: wheel_now_ms(), uv_now().
 */
#pragma once

#include <stdint.h>

/* Milliseconds since the epoch. */
int64_t clock_wall_ms(void);

/* Milliseconds since some moment before the start; no jump of the wall clock moves it, and it
 * stands still while the machine sleeps. */
int64_t clock_steady_ms(void);
