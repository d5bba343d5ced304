/*
 * Damaged updates: rows of the log whose seal is broken, that SQLite cannot read, or that are gone
 * and should not be.
 *
 * Each is logged once, counted, and left out of what is read. Where its link to the channel's
 * update before it is lost, a reader searches the log for that once, and notes here where it
 * leads. What is noted is bounded: beyond that the search is made again, and the log line is not
 * written.
 */
#pragma once

#include "base/slice.h"
#include <stdbool.h>
#include <stdint.h>

enum { DAMAGE_NOTES_MAX = 1024 };

struct damage {
    struct damage_note {
        int64_t seq;
        int64_t older_seq; /* the channel's next readable update before it; 0: none, -1: unknown */
    } notes[DAMAGE_NOTES_MAX];
    int count;
    uint64_t updates; /* found since the start */
};

/* What was noted of `seq`; NULL: nothing. */
struct damage_note *damage_find(struct damage *damage, int64_t seq);

/* Logs and counts the damaged update `ts` of `channel`, and notes where the channel goes on behind
 * it. Nothing happens if it is noted already, but for `older_seq` where that is not -1. */
void damage_report(struct damage *damage, struct slice channel, int64_t ts, int64_t seq,
                   int64_t older_seq);
