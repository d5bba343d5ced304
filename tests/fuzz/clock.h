/* The monotonic clock of a fuzzer stands still, but for a microsecond each time somebody looks: so
 * the same input does the same. */
#pragma once

#include <stdint.h>

void time_passes(uint64_t ms);
