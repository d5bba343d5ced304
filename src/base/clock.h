/* The wall clock. Deadlines use the monotonic one instead: wheel_now_ms(), uv_now(). */
#pragma once

#include <stdint.h>

/* Milliseconds since the epoch. */
int64_t clock_wall_ms(void);
