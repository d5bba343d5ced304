/*
 * A thread beside the loop, for work that would hold it up: long computations on memory that nobody
 * else touches meanwhile.
 *
 * It does one work after the other, in the order in which they came. It starts with the first one;
 * where the system gives no thread, the loop does the work itself. A process has one, and it
 * stands here. Loop thread only, but for work.run().
 */
#pragma once

#include "base/list.h"
#include <stdbool.h>
#include <uv.h>

/* Embedded in what it works on. */
struct work {
    struct list link;
    void (*run)(struct work *work);  /* on the thread */
    void (*done)(struct work *work); /* on the loop, after run(); in a later turn at the earliest */
};

/* 0, or libuv's error. */
int worker_init(uv_loop_t *loop);

/* No work may be under way: while there is some, the loop does not end. It must run once more. */
void worker_deinit(void);

/* The work and its memory must stay until done(). */
void worker_submit(struct work *work);
