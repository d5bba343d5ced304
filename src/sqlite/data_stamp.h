/*
 * The stamp of a clean close: what the data file was then (its inode, size and times), written into
 * the lock file. If it still fits at the next start, nobody has touched the data file in between.
 *
 * A start takes it away before anything is stored. So there is none after a crash, and none in a
 * copy of a directory whose server was running; and it fits no file that was put in its place.
 */
#pragma once

#include <stdbool.h>

/* Writes the stamp of the data file `path`, which is synced first. It must be closed. Without a
 * stamp where that fails, and where a write-ahead log was left. */
void data_stamp_put(int lock_fd, const char *path);

/* Takes the stamp away for good. Whether the data file `path`, not opened yet, still fits it. */
bool data_stamp_take(int lock_fd, const char *path);
