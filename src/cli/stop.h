/*
 * What ends a command that runs: SIGINT, SIGTERM and SIGHUP, each unless it was ignored when we
 * began (as by nohup), and a reader of our output that has gone.
 * Every wait of a command ends at once when it comes.
 */
#pragma once

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Once, before the first wait. With `watches_output`, a closed pipe on standard output counts. */
void stop_init(bool watches_output);

/* Whether the command must end. */
bool stop_is_asked(void);

/* Sleeps; returns at once when the command must end, and a second after the machine has slept. */
void stop_sleep(int64_t ms);

enum { STOP_FDS = 2 };

/* What another wait must listen to as well: it is over when any of them has an event. */
size_t stop_fds(struct pollfd fds[STOP_FDS]);
