/*
 * The budget of BUFFER_SIZE: how much memory requests that came in part, pushes under way and
 * unsent replies may take together. Loop thread only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void budget_init(uint64_t max_bytes);

/* Whether `bytes` more would fit. */
bool budget_has(size_t bytes);

/* Whether `bytes` more would fit, or nearly nothing else is counted: what is larger than all of it
 * must get through at some time. */
bool budget_has_for_one(size_t bytes);
/* The same for more of what has `own` bytes of those that are counted. */
bool budget_has_more_for_one(size_t bytes, size_t own);

/* How many more would fit. */
size_t budget_left(void);

/*
 * Counts `bytes`, whether they fit or not; budget_give() takes them back. After a time of much use
 * budget_give() lets the system have the memory again: left to itself, glibc keeps what lies
 * between small blocks that are still in use.
 */
void budget_take(size_t bytes);
void budget_give(size_t bytes);

uint64_t budget_used(void);
