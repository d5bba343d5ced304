/*
 * The source of a command's updates: a channel from some place on, in order, for ever.
 *
 * It is a loop of long polls that says what happens one event at a time; how the updates come is
 * nobody else's business. Nothing is lost: it goes on behind the last update that it gave, whatever
 * is cut, refused or away. A line that looks alive and is not, a sleep of the machine and a changed
 * network are noticed within 90 seconds.
 */
#pragma once

#include "base/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FEED_EPOCH_MAX = 32, FEED_COUNT_MAX = 10000 };

/* Behind the update `ts` of the data that `epoch` names; "" is an epoch that is not known. */
struct feed_place {
    uint64_t ts;
    char epoch[FEED_EPOCH_MAX + 1];
};

enum feed_start {
    FEED_BEHIND, /* the place */
    FEED_NOW,
    FEED_LAST,   /* with the last `count` updates */
    FEED_SINCE,  /* a time */
    FEED_SERVER, /* where the server knows that the consumer `as` is; without what this machine has
                  * handled by the place, if that is of the same epoch */
};

/* Texts stay the caller's. */
struct feed_options {
    const char *url; /* sound, see link.h */
    enum feed_start start;
    struct feed_place place;
    uint64_t count;
    const char *since, *as; /* NULL: not given */
    const char *const *where;
    size_t where_count;
    bool is_full;       /* events have the whole request */
    bool asks_first;    /* before it waits, at first and after trouble, it asks whether it can */
    int64_t sleep_ms;   /* how long a poll waits; 0: 25 seconds */
    int64_t backoff_ms; /* the first pause after a failure; 0: half a second */
};

enum feed_kind {
    FEED_UPDATE,
    FEED_MISSED,  /* `count` updates are gone */
    FEED_RESET,   /* the channel's data is other data; it goes on behind `to` */
    FEED_READY,   /* the server answers: for the first time, or again after trouble */
    FEED_MOVED,   /* nothing for us, but the place is known, or another */
    FEED_TROUBLE, /* `error`; it is tried again in `pause_ms` */
    FEED_REFUSED, /* `status` and `error`: asking again cannot help */
    FEED_STOPPED, /* the command must end: see stop.h */
};

/* Texts are valid until the next event. */
struct feed_event {
    enum feed_kind kind;
    struct feed_place to; /* where the feed is as soon as this event is handled */
    uint64_t ts;
    struct slice update; /* the update */
    struct slice item;   /* the whole request as in view=full; empty without is_full */
    uint64_t count;
    uint64_t newest; /* the channel's newest id, as far as is known */
    bool is_again;   /* FEED_READY: after trouble */
    const char *error;
    int status;
    int64_t pause_ms;
};

/* NULL without memory. */
struct feed *feed_new(const struct feed_options *options);
void feed_free(struct feed *feed);

/* Waits for the next event. After FEED_REFUSED and FEED_STOPPED there is none. */
void feed_next(struct feed *feed, struct feed_event *event);
