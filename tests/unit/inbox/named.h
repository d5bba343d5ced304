/*
 * What the tests of named consumers share: polls of channel "c", as a consumer whose cursor the
 * inbox keeps.
 */
#pragma once

#include "waiters.h"

#define WAITS true
#define CONFIRMS_NOW true

/* Timers fire, as if their time had come: what has changed is saved. */
void save(void);
/* Reads and loads, and whatever they lead to. */
void serve(void);
void save_and_serve(void);
/* Stops the inbox and begins anew on the same store. */
void restart(void);

/* Asks as a consumer, and gets an answer. */
struct waiter *get(int i, const char *name, int64_t ts);
void check_lag(const char *name, uint64_t lag);
/* What the store has confirmed; UINT64_MAX: it does not know the name. */
uint64_t stored(const char *name);
/* A name for each number; valid until the next. */
char *number_name(int i);

/* On a shared store: makes an inbox. The channel stays in memory, and has `total` updates. */
void keep(int total);
