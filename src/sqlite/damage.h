/*
 * Damaged updates: rows of the log whose seal is broken, that SQLite cannot read, or that are gone
 * and should not be.
 *
 * Each is logged once, counted, and left out of what is read. Where its link to the channel's
 * update before it is lost, a reader searches the log for that once, and notes here where it
 * leads. Notes are bounded: beyond that, and when memory is out, the search is made again, and the
 * update is counted again, without a line.
 */
#pragma once

#include "base/slice.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { DAMAGE_NOTES_MAX = 65536 };

struct damage_note {
    int64_t seq;
    int64_t older_seq; /* the channel's next readable update before it; 0: none, -1: unknown */
};

struct damage {
    struct damage_note *notes;
    size_t count, capacity;
    uint64_t updates; /* found since the start */
};

void damage_deinit(struct damage *damage);

/* What was noted of `seq`; NULL: nothing. */
struct damage_note *damage_find(struct damage *damage, int64_t seq);

/* Logs and counts the damaged update `ts` of `channel`, and notes where the channel goes on behind
 * it. Nothing happens if it is noted already, but for `older_seq` where that is not -1. */
void damage_report(struct damage *damage, struct slice channel, int64_t ts, int64_t seq,
                   int64_t older_seq);
