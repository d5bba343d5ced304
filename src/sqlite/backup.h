/*
 * `longline backup`: writes a copy of a data file, of one moment, while the server may be running.
 *
 * The copy is complete, checked (check.h) and synced before it has its name, and it replaces
 * nothing. It needs no mark: a start knows that it is not the file of the last stop
 * (data_stamp.h), and begins a new epoch.
 */
#pragma once

#include <stdbool.h>
#include <stdio.h>

/* Copies the data file `from` to the new file `to`. Says on `out` what it holds, on `errors` what
 * went wrong, and on `progress`, if not NULL, how far it is. Unless it is done, nothing is left,
 * not even after SIGINT, SIGTERM or SIGHUP, which end the process. */
bool backup_file(const char *from, const char *to, FILE *out, FILE *errors, FILE *progress);
