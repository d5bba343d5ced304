/*
 * `longline new`: prints a new secret address, or with --keys the three addresses of a channel.
 */
#pragma once

/* Returns an exit code. */
int new_run(int argc, char **argv);
