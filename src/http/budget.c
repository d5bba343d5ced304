#include "http/budget.h"

#include "base/clock.h"

#include <malloc.h>

enum {
    HIGH_BYTES = 16 << 20, /* in use: worth giving back to the system when it is free again */
    TRIM_MS = 5000, /* from one time to the next: it holds up the loop for some milliseconds */
    /* Of glibc's malloc. A block as large as this is the system's again when it is freed, whatever
     * thread it was made for; and as much as this may lie free at the end of the heap. */
    MMAP_BYTES = 512 << 10,
    KEPT_BYTES = 4 << 20,
};

static uint64_t max, used;
static bool was_high;
static int64_t trimmed_ms;

void budget_init(uint64_t max_bytes) {
    max = max_bytes;
    mallopt(M_MMAP_THRESHOLD, MMAP_BYTES);
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES);
}

bool budget_has(size_t bytes) {
    return used + bytes <= max;
}

bool budget_has_for_one(size_t bytes) {
    return budget_has_more_for_one(bytes, 0);
}

bool budget_has_more_for_one(size_t bytes, size_t own) {
    return budget_has(bytes) || used - own <= max / 16;
}

size_t budget_left(void) {
    return used < max ? max - used : 0;
}

void budget_take(size_t bytes) {
    used += bytes;
    was_high |= used > HIGH_BYTES;
}

void budget_give(size_t bytes) {
    used -= bytes;
    if (!was_high || used > HIGH_BYTES / 4)
        return;
    int64_t now_ms = clock_steady_ms();
    if (now_ms - trimmed_ms < TRIM_MS)
        return; /* with a later one */
    was_high = false;
    trimmed_ms = now_ms;
    malloc_trim(0);
}

uint64_t budget_used(void) {
    return used;
}
