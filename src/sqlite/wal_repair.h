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
 * Where one bit is not enough, it may be a write that was cut short, or damage to what was on the
 * disk. Commits are synced one by one, except for those that are marked (lax.h). So a frame that
 * stands before the end of an unmarked commit was on the disk if anything goes on behind that end,
 * and the damage cannot be mended. What is known of the end of a log is written down in
 * docs/decisions/2026-11-30-power-cuts.md.
 */
#pragma once

#include "sqlite/wal_format.h"

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
 * database open. `end` becomes where SQLite will find the log's end.
 */
enum wal_state wal_repair(const char *path, bool may_write, bool is_synced, struct wal_end *end,
                          char *error, size_t error_size);
