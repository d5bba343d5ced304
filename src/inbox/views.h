/*
 * Views: what the polls of a channel that have the same filter share.
 *
 * Whether an update is wanted is found out once for all of them: when the first of them parks, the
 * view looks at every update that comes, and wakes them all if it is one of theirs. It remembers
 * the latest results, also for polls that come a moment later. A view that no poll uses stays for a
 * while, as its polls will be back.
 *
 * Updates that are too much for a turn of the loop are looked at by the worker (looks.c).
 *
 * The inbox's own (parts.h).
 */
#pragma once

#include "inbox/channel.h"
#include "inbox/filter.h"
#include "inbox/inbox.h"

struct look;

enum { VIEW_KNOWN = 256 }; /* updates whose results it remembers */

struct view {
    struct table_node node; /* in inbox->views */
    struct list link;       /* in a list of its channel's views */
    struct channel *channel;
    struct filter *filter;
    struct list polls; /* parked, in the order of their cursors */
    uint64_t looked;   /* while there are any: updates up to this ts have been looked at for them */
    struct look *look; /* the worker is looking for them */
    struct list inbox_link; /* in inbox->roomless, while the worker has no room for that; in
                               inbox->idle_views, while it is idle */
    bool is_idle;           /* without parked polls, in views->idle */
    /* What they are to be woken with, and up to which ts it goes; NULL: nothing. */
    struct update **wanted;
    uint32_t wanted_count;
    uint64_t wanted_end;
    uint64_t known_first, known_last; /* the results that are known; bit ts % VIEW_KNOWN; 0: none */
    uint64_t known[VIEW_KNOWN / 64];
};

/* Of a channel. */
struct views {
    struct list idle;   /* without parked polls, used last at the end */
    struct list parked; /* with parked polls that have seen everything, or wait for the worker */
    struct list behind; /* with parked polls for which there is something to do */
    uint32_t idle_count;
    uint32_t parked_count; /* of polls */
};

/* Whether there are updates to look at, or polls to wake. */
static inline bool views_have_work(const struct channel *channel) {
    return channel->views && !list_empty(&channel->views->behind);
}

/* The channel has a newer update. */
static inline void views_note_news(struct channel *channel) {
    if (channel->views)
        list_splice(&channel->views->behind, &channel->views->parked);
}

/* Does some of it, as far as the turn has time: each poll that is answered, and each look, is one
 * of `*left`, which is 0 when there is no time left. */
void views_work(struct inbox *inbox, struct channel *channel, uint32_t *left);

/* Frees the view that has been idle for longest; false when there is none. */
bool views_free_one(struct inbox *inbox);

/* The view of the filter; NULL when memory is out. */
struct view *view_get(struct inbox *inbox, struct channel *channel, struct filter *filter);

/* Parks a poll that has seen everything; it ends where memory is out. */
void view_park(struct inbox *inbox, struct channel *channel, struct poll *poll);
/* Takes it out again: its cursor stands behind what was looked at for it. */
void view_unpark(struct inbox *inbox, struct poll *poll);

/* The channel has begun anew: resets polls as polls_reset() does. */
struct restart;
void views_restart(struct inbox *inbox, struct channel *channel, const struct restart *restart);
/* The channel's updates up to `gone` are purged; polls_wake() follows. */
void views_purged(struct channel *channel, uint64_t gone);
/* No poll may be parked. */
void views_free(struct inbox *inbox, struct channel *channel);

/* Whether the result for the update with this ts is known. */
static inline bool view_knows(const struct view *view, uint64_t ts) {
    return view->known_first && ts >= view->known_first && ts <= view->known_last;
}

/* Whether the update is wanted: known, or found out now. */
bool view_wants(struct view *view, const struct update *update);

/* There may be something to do for its polls; polls_wake() follows. */
void view_retry(struct view *view);

/* It is known which of the `count` updates behind view->looked are wanted: keeps those, for its
 * polls to be woken with. */
void view_looked(struct view *view, struct update **updates, uint32_t count, const bool *wanted);
