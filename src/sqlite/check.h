/*
 * `longline check`: reads all of a data file and says what is whole.
 *
 * It changes nothing. The server may be running; then the write-ahead log is read as SQLite sees
 * it.
 */
#pragma once

#include <stdio.h>

enum check_result { CHECK_WHOLE, CHECK_DAMAGED, CHECK_FAILED };

/* Writes the findings to `out`, and to `progress`, if not NULL, how far it is. CHECK_FAILED: the
 * file is not there, not ours, or cannot be opened. */
enum check_result check_file(const char *path, FILE *out, FILE *progress);

/* The same for a file that has another name to whoever reads the findings. */
enum check_result check_file_as(const char *path, const char *name, FILE *out, FILE *progress);
