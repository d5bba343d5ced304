/*
 * `longline health`: asks a running server whether it serves, as a container's health check does.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum { HEALTH_TIMEOUT_S = 3 }; /* until the whole answer is there; looking a name up comes on top */

/*
 * Asks GET /-/health of the first address in `listen`, which is well-formed. True when the server
 * serves. `line` then holds its answer; else its answer, or why there is none.
 */
bool health_ask(const char *listen, char *line, size_t line_size);
