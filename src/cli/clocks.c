#include "cli/clocks.h"
#include "base/clock.h"

#include <time.h>

enum { SLEPT_MS = 8000 };

int64_t clocks_boot_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

struct clocks clocks_now(void) {
    int64_t steady_ms = clock_steady_ms();
    return (struct clocks){clock_wall_ms() - steady_ms, clocks_boot_ms() - steady_ms};
}

bool clocks_have_jumped(const struct clocks *before) {
    struct clocks now = clocks_now();
    int64_t wall_ms = now.wall_ms - before->wall_ms, boot_ms = now.boot_ms - before->boot_ms;
    return wall_ms > SLEPT_MS || wall_ms < -SLEPT_MS || boot_ms > SLEPT_MS;
}
