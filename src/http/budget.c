#include "http/budget.h"

static uint64_t max, used;

void budget_init(uint64_t max_bytes) {
    max = max_bytes;
}

bool budget_has(size_t bytes) {
    return used + bytes <= max;
}

void budget_take(size_t bytes) {
    used += bytes;
}

void budget_give(size_t bytes) {
    used -= bytes;
}

uint64_t budget_used(void) {
    return used;
}
