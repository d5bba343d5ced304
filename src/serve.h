/*
 * `longline serve`: builds the parts of a server from the store upwards, and wires them.
 */
#pragma once

enum { EXIT_CANNOT_START = 1, EXIT_USAGE = 2 };

/* With the arguments of the program. Returns its exit code. */
int serve_run(int argc, char **argv);
