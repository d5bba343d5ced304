/*
 * Sockets that whoever starts the process has opened for it (sd_listen_fds(3)): LISTEN_FDS of them,
 * from descriptor 3 on, for the process LISTEN_PID.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum { ACTIVATION_MAX = 16 };

/* Takes them: `fds` gets the sockets, and `count` how many there are, 0 for none. The variables are
 * gone from the environment then, so that no child takes them for its own. False, with one line in
 * `error`, when one of them is no listening stream socket, or there are too many. */
bool activation_take(int fds[ACTIVATION_MAX], int *count, char *error, size_t error_size);
