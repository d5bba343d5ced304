/*
 * Stamps: what the files of the database were (their inodes, sizes and times). If one still fits at
 * the next start, nobody has touched them in between; it fits no file that was put in their place.
 *
 * That of a clean close is written into the lock file. A start takes it away before anything is
 * stored. So there is none after a crash, and none in a copy of a directory whose server was
 * running.
 *
 * That of an upgrade goes from one program to the next in memory: a power cut does not leave it,
 * and nothing waits for the disk.
 */
#pragma once

#include "base/buf.h"
#include "base/slice.h"

/* Writes the stamp of the data file `path`, which is synced first. It must be closed. Without a
 * stamp where that fails, and where a write-ahead log was left. */
void data_stamp_put(int lock_fd, const char *path);

/* Takes the stamp away for good. Whether the data file `path`, not opened yet, still fits it. */
bool data_stamp_take(int lock_fd, const char *path);

/* Adds a stamp of the data file `path` and its write-ahead log, both closed; nothing on failure. */
void data_stamp_tell(struct buf *stamp, const char *path);

/* Whether both, not opened yet, still fit it. */
bool data_stamp_fits(struct slice stamp, const char *path);
