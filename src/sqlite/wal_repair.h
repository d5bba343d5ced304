/*
 * A flipped bit in a write-ahead log that was left behind.
 *
 * SQLite reads such a log up to the first frame whose checksum is wrong, and takes everything
 * behind it for the remains of a write that was cut short. After a power cut that is right. If a
 * bit has flipped it is not: commits that were synced and acknowledged would be gone without a
 * word. So before SQLite opens the file, we look at it ourselves.
 *
 * A frame with one bit wrong is put right: no torn write looks like that. The checksum is weak, so
 * it may fit several bits; then the bit stays, the checksums are made to fit, and the seals of the
 * rows (seal.h) tell which update is damaged.
 *
 * Where one bit is not enough, and a later commit is whole, that commit was written after this one
 * was synced, and the damage cannot be mended. Where no later commit is whole, it is a write that
 * was cut short.
 *
 * Format: https://www.sqlite.org/fileformat2.html#walformat
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum wal_state {
    WAL_WHOLE,    /* or none is there, or the last write was cut short */
    WAL_REPAIRED, /* a bit was put right; a line is logged */
    WAL_DAMAGED,  /* `error` says what cannot be mended */
    WAL_FAILED,   /* `error` says what could not be read or written */
};

/*
 * Looks at the write-ahead log of the database `path`. With `may_write` false nothing is changed:
 * WAL_REPAIRED then means that it would be. `is_synced` false: commits were not synced one by one,
 * so a power cut may leave damage anywhere, and WAL_DAMAGED is never returned. Nobody may have the
 * database open.
 */
enum wal_state wal_repair(const char *path, bool may_write, bool is_synced, char *error,
                          size_t error_size);
