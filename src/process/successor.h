/*
 * The program that this process becomes at an upgrade: the file that it was started as, whatever is
 * there by then. It gets the same arguments and environment, and a variable that says where it
 * finds what is handed over.
 *
 * Before anything is given up, the program is run once as a child that only says whether it would
 * start (`serve --check-upgrade`). One that passes that and then does not start goes back: it
 * becomes the program that was there before, with the same state.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

enum { SUCCESSOR_CHECK_MS = 10000 };

#define SUCCESSOR_CHECK_FLAG "--check-upgrade"
/* The variable: "STATE OLD PATH", two descriptors and successor_path(). OLD is -1 where there is no
 * way back. */
#define SUCCESSOR_HANDOVER "LONGLINE_HANDOVER"

/* Notes how the process was started. If it took over from another program, `*state` gets the
 * descriptor of what that left, else -1. */
void successor_init(int argc, char **argv, int *state);

/* Why the program that should have replaced this one did not start; NULL: there was none, or this
 * is it. */
const char *successor_failure(void);

/* The file; "" when it is not known. */
const char *successor_path(void);

/* Runs the check, with `version` behind its flag. `done` gets NULL, or one line that says what is
 * wrong; it is called in a later turn of the loop. */
void successor_check(uv_loop_t *loop, const char *version, void (*done)(const char *error));
/* It matters no more; done() is not called. Harmless when none is under way. */
void successor_cancel(void);

/* A file without a name, for what is handed over; -1 on failure, with errno. */
int successor_make_state(void);

/* Makes sure of the way back, while there is time: false if the present program cannot be opened.
 * successor_become() must follow, or successor_close_present(). */
bool successor_open_present(void);
void successor_close_present(void);

/* Becomes the program, with what stands in `state`. Where that fails, becomes the present one once
 * more, which finds why in successor_failure(). Returns only when that fails too. */
void successor_become(int state);

/* After a start that failed: becomes the program that was there before, which gets told of it.
 * Returns when there is none, or it cannot. */
void successor_go_back(int state, const char *failure);

/* The start went well: there is no way back from here. */
void successor_settle(void);
