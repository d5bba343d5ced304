/*
 * The place of a command, in a file that outlives it: the old place or the new one, never half of
 * it, whatever is killed or loses its power. Beside it is a lock: one process at a time.
 */
#pragma once

#include "cli/feed.h"

#include <stdbool.h>

struct state;

enum state_opened { STATE_OPEN, STATE_LOCKED, STATE_FAILED };

/*
 * Opens and locks the file at `path`; without a path one in XDG_STATE_HOME that is named after
 * `command` and a hash of `identity`: it tells no secret. On failure `error` says in one line why;
 * STATE_LOCKED comes after two seconds.
 */
enum state_opened state_open(struct state **state, const char *path, const char *command,
                             struct slice identity, char *error, size_t error_size);
void state_close(struct state *state);

/* Reads the place. False when there is none yet, and with `*is_bad` for a file that holds none. */
bool state_load(const struct state *state, struct feed_place *place, bool *is_bad);

/* Keeps the place: it is on disk when this returns. False and errno when that fails. */
bool state_save(struct state *state, const struct feed_place *place);

const char *state_path(const struct state *state);
