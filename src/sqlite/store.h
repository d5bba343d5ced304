/*
 * The SQLite store, and the memory store, which is the same code without a file.
 *
 * A store on a file works on a thread of its own; see store.c for what passes between the threads.
 */
#pragma once

#include "inbox/store.h"

/* Opens the file options->path, or memory if that is NULL. NULL on failure, with one line in
 * `error`. After turn_init(). */
struct store *store_sqlite_open(uv_loop_t *loop, const struct store_options *options, char *error,
                                size_t error_size);

/* Whether store_sqlite_open() would know the file `path`, which another process may be using. False,
 * with one line in `error`, if not. */
bool store_sqlite_knows(const char *path, char *error, size_t error_size);
