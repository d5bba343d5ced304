#include "http/budget.h"

#include <malloc.h>

static uint64_t max, used;
static bool was_high; /* a sixteenth of it was in use, and more than a 64th still is */

void budget_init(uint64_t max_bytes) {
    max = max_bytes;
}

bool budget_has(size_t bytes) {
    return used + bytes <= max;
}

void budget_take(size_t bytes) {
    used += bytes;
    was_high |= used > max / 16;
}

void budget_give(size_t bytes) {
    used -= bytes;
    if (!was_high || used > max / 64)
        return;
    was_high = false;
    malloc_trim(0);
}

uint64_t budget_used(void) {
    return used;
}
