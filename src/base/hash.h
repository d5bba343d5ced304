/* The hash of everything that clients name. Its key is this process's own, so that nobody can make
 * names collide. */
#pragma once

#include "base/slice.h"
#include <stdint.h>

/* Before the first hash_of(). */
void hash_init(void);

/* SipHash-2-4. */
uint64_t hash_of(struct slice bytes);
