/*
 * Following: the inbox over a store that others write to as well, where memory can be behind.
 *
 * A poll that does not wait is read from the store, always: it wants all that anybody acknowledged.
 * A poll that waits makes its channel watched: the store tells of every new update from some moment
 * on, and what came before is read. Then the channel is loaded, and its polls are answered from
 * memory. When the store loses a watched channel its parked polls stay; as soon as the store tells
 * of it again, the channel is re-read from what was known.
 * docs/decisions/2026-11-24-shared-store.md says why.
 *
 * Used by inbox.c alone.
 */
#pragma once

#include "inbox/store.h"
#include <stdbool.h>
#include <stdint.h>

struct inbox;
struct inbox_mode;
struct follow;

extern const struct inbox_mode follow_mode;

/* Listens to the inbox's store. NULL when memory is out. */
struct follow *follow_new(struct inbox *inbox);
/* The store is about to close: asks it for nothing any more. */
void follow_stop(struct follow *follow);
/* No channel may be watched. Frees when the loop runs once more. */
void follow_free(struct follow *follow);

/* How an update is recognized. */
struct follow_mark {
    uint64_t ts, hash; /* hash_of() its body; ts 0: not known */
    int64_t at_ms;
};

/* What is known of a channel when a read of it is answered. */
struct follow_view {
    bool is_known;               /* its total was known before */
    bool has_changed;            /* updates came after the read was started */
    uint64_t total;              /* its newest ts */
    uint64_t epoch;              /* 0: not known */
    struct follow_mark expected; /* what the read's first update should be; ts 0: anything */
};

enum follow_verdict {
    FOLLOW_SAME,      /* nothing new */
    FOLLOW_NEWER,     /* take over what was read */
    FOLLOW_STALE,     /* memory is newer than what was read: read again */
    FOLLOW_RESTARTED, /* the counter went back: what is known is void */
};

/* Judges what a successful read says about the channel. Pure. */
enum follow_verdict follow_judge(const struct follow_view *view, const struct store_read *read);
