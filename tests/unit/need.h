/*
 * Memory that runs out where a test says so. The test is linked with `need` of meson.build, and
 * only one of its files includes this.
 */
#pragma once

#include "support.h"

static bool is_counting;       /* what allocates now is what is tested */
static int allocations;        /* so far */
static int failing_allocation; /* the one that fails, from 1 on; 0: none */

static bool allocation_fails(void) {
    return is_counting && ++allocations == failing_allocation;
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size) {
    return allocation_fails() ? NULL : __real_malloc(size);
}

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size) {
    return allocation_fails() ? NULL : __real_calloc(count, size);
}

void *__real_realloc(void *at, size_t size);
void *__wrap_realloc(void *at, size_t size);
void *__wrap_realloc(void *at, size_t size) {
    return allocation_fails() ? NULL : __real_realloc(at, size);
}

/* What a call returns, while the allocation that is to fail may be among those that it makes. */
#define IN_NEED(call)                                                                              \
    ({                                                                                             \
        is_counting = true;                                                                        \
        __typeof__(call) said = (call);                                                            \
        is_counting = false;                                                                       \
        said;                                                                                      \
    })
