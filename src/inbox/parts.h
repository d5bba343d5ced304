/*
 * What the parts of the inbox share; nobody outside src/inbox includes it.
 *
 *   inbox.c    pushes and polls of a store that is this process's own
 *   follow.c   the same for a store that others write to as well
 *   polls.c    a poll's way to its answer: decide, park, wake
 *   views.c    the same for polls with a filter
 *   looks.c    looking through updates for them
 *   consumers.c, cursors.c   cursors that are kept here
 *   reads.c    reading a channel from the store
 *   cache.c    the channels in memory
 */
#pragma once

#include "base/table.h"
#include "base/turn.h"
#include "inbox/channel.h"
#include "inbox/consumers.h"
#include "inbox/inbox.h"
#include "inbox/looks.h"
#include "inbox/views.h"

struct follow;

enum { PURGES_NOTED = 256 };

/* What depends on who writes to the store; chosen once, in inbox_new(). */
struct inbox_mode {
    /* inbox_poll() */
    bool (*poll)(struct inbox *inbox, uint64_t hash, struct slice name, struct poll *poll);
    void (*read_done)(struct inbox *inbox, struct channel *channel, struct store_read *read);
    /* Whether a poll in channel->loading can be decided, where the channel is loaded; those
     * behind one that cannot, cannot. NULL: it can. */
    bool (*is_ready)(const struct channel *channel, const struct poll *poll);
    /* A poll's cursor is ahead of the channel in memory. */
    void (*poll_ahead)(struct inbox *inbox, struct channel *channel, struct poll *poll);
    /* A parked poll was woken, and no read could be started for it. */
    void (*poll_unread)(struct inbox *inbox, struct poll *poll);
    /* A poll has looked through a page, from poll->ts on it has not seen anything. */
    void (*go_on)(struct inbox *inbox, struct channel *channel, struct poll *poll);
    /* Takes over an update of this process that is durable now. NULL: the store tells of it, as
     * it does of everybody's. */
    void (*stored)(struct inbox *inbox, struct store_append *append);
    /* The time of a parked poll is over: true when it goes on for one more look at the store.
     * NULL: never. */
    bool (*look_again)(struct channel *channel, struct poll *poll);
    /* The poll of a stream, which is parked on the channel, asks again where it is. NULL: the
     * store has told all that there is. */
    void (*ask_again)(struct inbox *inbox, struct channel *channel);
    /* The channel leaves memory. NULL: nothing to do. */
    void (*forgotten)(struct inbox *inbox, struct channel *channel);
};

struct inbox {
    uv_loop_t *loop;
    struct store *store;
    struct inbox_options options;
    struct inbox_events events;
    const struct inbox_mode *mode;
    struct follow *follow;   /* of a shared store; else NULL */
    struct table channels;   /* all in memory, by name */
    struct list by_use;      /* the same, least recently used first, */
    struct list only_pushed; /* but for those that nobody polls: they are here, likewise */
    size_t only_pushed_count;
    struct list waking;    /* those whose polls at the front are to be decided, or woken */
    struct list ending;    /* polls whose outcome is known: poll_end() */
    struct list again;     /* held polls that are to go on */
    struct turn_task wake; /* answers some of these polls */
    uint32_t turn;         /* the turn of the loop in which this many more polls may be answered: */
    uint32_t answers_left;
    uint32_t writes;          /* pushes, purges and what is to be forgotten, that are under way */
    uint32_t reads_abandoned; /* their polls were cancelled; those under way have it as the owner */
    struct update **picked;   /* room for the updates of one answer, */
    bool *wanted;             /* and for what a filter says of those of a page */
    struct filters filters;
    struct table views;     /* struct view: of all channels */
    struct table consumers; /* struct consumer: the same */
    struct keeper *keeper;  /* consumers.c's */
    bool has_forgotten;     /* what a channel was at: a push may have come since a poll knew it */
    uint64_t purges;        /* inbox_purges() */
    struct purged {
        uint64_t hash, gone;
    } purged[PURGES_NOTED]; /* the newest; number N is at N % PURGES_NOTED */
    size_t look_bytes;      /* of the updates that wait for the worker */
    struct list looks;      /* that wait for it, and whether it has one */
    bool is_looking;
    struct list idle_views; /* of all channels, that which has been idle for longest first */
    struct list roomless;   /* views whose updates are to be looked at by it, when there is room */
};

/* --- inbox.c ---------------------------------------------------------------------------------- */

/* Notes that a channel was purged, in memory or not, for inbox_may_be_purged(). */
void inbox_note_purge(struct inbox *inbox, uint64_t hash, uint64_t gone);

/* --- cache.c ---------------------------------------------------------------------------------- */

/* NULL when there is none. */
struct channel *cache_find(struct inbox *inbox, uint64_t hash, struct slice name);
/* The one in memory, or a new one; NULL when memory is out. */
struct channel *cache_get(struct inbox *inbox, uint64_t hash, struct slice name);
/* Makes the channel the most recently used. */
void cache_touch(struct inbox *inbox, struct channel *channel);
/* The same by a poll: from now on its updates stay in memory. */
void cache_polled(struct inbox *inbox, struct channel *channel);
/* The same by a push. */
void cache_pushed(struct inbox *inbox, struct channel *channel);
/* The one that goes next; NULL when there is none. */
struct channel *cache_oldest(struct inbox *inbox);
/* Frees the channel; nobody may be using it. */
void cache_forget(struct inbox *inbox, struct channel *channel);
/* One reason less to keep the channel in memory. Without any it goes, unless it is loaded. */
void cache_unpin(struct inbox *inbox, struct channel *channel);
/* Frees what was not used for longest until the cache fits into CACHE_SIZE, or for a bounded time.
 * Channels that nobody has polled go first, and all but the newest 4,096 of them at once: one more
 * read for a poll that wants none of what is there. */
void cache_trim(struct inbox *inbox);

/* --- reads.c ---------------------------------------------------------------------------------- */

/* Reads a channel for `owner`, or for itself where that is NULL. There are as many reads as polls
 * that need one: the store bounds what they take. NULL when memory is out, or when too many are
 * under way whose polls are gone. */
struct store_read *read_start(struct inbox *inbox, struct channel *channel, int64_t position,
                              uint32_t limit, struct poll *owner);
/* The poll that it was for is cancelled. */
void read_abandon(struct store_read *read);
/* Reads what the poll asks for; false as above. */
bool read_for_poll(struct inbox *inbox, struct channel *channel, struct poll *poll);

/* Whether the poll at the front waits for an update that is there. */
static inline bool channel_has_new(const struct channel *channel) {
    return !list_empty(&channel->polls) &&
           (uint64_t)container_of(channel->polls.next, struct poll, link)->ts < channel->total;
}

/* --- polls.c ---------------------------------------------------------------------------------- */

/* How many updates are read for the poll at once. */
uint32_t poll_page_limit(const struct poll *poll);

/* The ts that a position stands for in a channel with `total` updates; of a time, the channel's
 * end. */
uint64_t poll_cursor(int64_t position, uint64_t total);

/* Whether the poll must wait for the channel's first read: the channel is not loaded, or was only
 * pushed to so far, and the poll wants what is not in memory. Those who come together share it. */
bool poll_needs_load(const struct channel *channel, const struct poll *poll);

/* Answers the poll from memory, parks it, or reads for it. The channel must be loaded. */
void poll_decide(struct inbox *inbox, struct channel *channel, struct poll *poll);
/* The same for those in channel->loading that are ready, a slice a turn. */
void polls_decide_ready(struct inbox *inbox, struct channel *channel);

/* Parks it at the channel's end, or before all others: its cursor stays, and is the furthest
 * behind. */
void poll_park(struct inbox *inbox, struct channel *channel, struct poll *poll);
void poll_park_first(struct channel *channel, struct poll *poll);
void poll_unpark(struct inbox *inbox, struct poll *poll);

/* The filter has left out `count` updates. */
void poll_skip(struct poll *poll, uint64_t count);

/* A poll begins: sets what is the inbox's of it. */
void poll_begin(struct poll *poll);
/* inbox_poll_as() of a poll that has begun. */
bool poll_as(struct inbox *inbox, struct slice channel, struct poll *poll, struct slice consumer);
/* The same of one whose consumer was forgotten, which had confirmed `ts`. */
bool poll_as_gone(struct inbox *inbox, struct slice channel, struct poll *poll, uint64_t ts);
/* Ends it; a stream's poll is held. `channel` may be NULL with an error, or without a stream. */
void poll_finish(struct inbox *inbox, struct channel *channel, struct poll *poll,
                 struct answer *answer);
/* Ends the poll with an answer that it shares with no other. */
void poll_answer(struct inbox *inbox, struct channel *channel, struct poll *poll,
                 struct answer *answer);
/* Ends it with an error, without updates, or with what `read` brought for it. */
void poll_fail(struct inbox *inbox, struct poll *poll, enum store_error error);
/* The same with an error, without updates, or with a reset (POLL_RESET), for polls that end
 * together: a slice of them a turn. The poll must be in no list. */
enum { POLL_RESET = 255 };
void poll_end(struct inbox *inbox, struct channel *channel, struct poll *poll, int outcome);
void poll_answer_empty(struct inbox *inbox, struct channel *channel, struct poll *poll);
void poll_answer_read(struct inbox *inbox, struct channel *channel, struct poll *poll,
                      const struct store_read *read);
/* Ends it because of read->is_reset. */
void poll_reset(struct inbox *inbox, struct channel *channel, struct poll *poll,
                const struct store_read *read);
/* A held poll goes on no more. */
void poll_let_go(struct inbox *inbox, struct poll *poll);

/* Lets the poll wait for its channel's first read. */
void poll_wait_for_load(struct channel *channel, struct poll *poll);

/* Takes over the channel's newest update, whose ts is the next. */
void channel_take(struct inbox *inbox, struct channel *channel, struct update *update);
/* Keeps what was read, if it is the newest of the channel, and more than is in memory. */
void channel_take_read(struct inbox *inbox, struct channel *channel, const struct store_read *read);
/* The channel's updates up to `gone` are purged: nobody gets them from memory any more. Also for a
 * channel on which another process did it. */
void channel_purged(struct inbox *inbox, struct channel *channel, uint64_t gone);

struct restart {
    uint64_t total, epoch; /* the channel's now */
    bool is_reset; /* its parked polls have seen what does not exist any more, whatever the total */
    bool is_new_life; /* channel_restart() sets it: the epoch is another */
};

/* The channel has begun anew: what is in memory of it is void. */
void channel_restart(struct inbox *inbox, struct channel *channel, struct restart restart);
/* Ends those of its parked polls that have seen what does not exist any more. */
void polls_reset(struct inbox *inbox, struct channel *channel, struct list *polls,
                 const struct restart *restart);

/* Wakes the polls that wait for what is new, or can be decided, a slice a turn. */
void polls_wake(struct inbox *inbox, struct channel *channel);
/* turn_task: answers a slice of those in inbox->ending and inbox->waking. */
void polls_answer_slice(struct turn_task *task);
