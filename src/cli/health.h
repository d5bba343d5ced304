/*
 * `longline health`: asks a running server whether it serves, as a container's health check does.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum { HEALTH_TIMEOUT_S = 3 }; /* for the whole answer; resolving a name is not included */

/*
 * Asks GET /-/health of the first address in `listen`, which is well-formed. True when the server
 * serves. `line` then holds its answer; else its answer, or why there is none.
 */
bool health_ask(const char *listen, char *line, size_t line_size);
