/*
 * The lock that keeps two processes off one data file: an flock() on a file beside it, NAME-lock.
 *
 * The file lock goes with the process, however it ends; the lock file stays, with the stamp of the
 * last clean close in it (data_stamp.h).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

/* Takes the lock for the data file `path`, which is created if it is missing. Returns a
 * descriptor to be closed when the file is; -1 on failure, with one line in `error`. */
int data_lock(const char *path, char *error, size_t error_size);

/* Whether a process holds the lock. Makes no file. */
bool data_is_locked(const char *path);

/* What the system says of the write-ahead log beside the data file; zeros when there is none. False
 * when that is not certain. */
bool data_stat_wal(const char *path, struct stat *status);

/* Whether a write-ahead log stands beside the data file, or cannot be ruled out. */
bool data_has_wal(const char *path);

/* Whether nobody uses the data file, and all of it is in the file itself. */
bool data_is_alone(const char *path);
