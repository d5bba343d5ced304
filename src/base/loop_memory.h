/*
 * Memory for libuv, which calls abort() where it cannot get what it needs for its array of
 * descriptors.
 *
 * During the start, libuv's being out of memory ends the process with one line. Afterwards, whoever
 * has a new descriptor reserves its place before libuv watches it, and does without it when there
 * is no memory. Loop thread only.
 */
#pragma once

#include <stdbool.h>
#include <uv.h>

/* Before any other call of libuv. `at_end` is called before a start ends the process, behind its
 * line; NULL: nothing is. */
void loop_memory_init(void (*at_end)(void));
/* The start is over. */
void loop_memory_started(void);

/* Makes sure that libuv can watch `fd`; false when memory is out. */
bool loop_memory_reserve(const uv_loop_t *loop, int fd);
/* The same for the descriptor that libuv is about to open itself. */
bool loop_memory_reserve_next(const uv_loop_t *loop);
