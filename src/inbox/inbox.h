/*
 * The inbox: channels, the polls that wait on them, and their recent updates in memory.
 *
 * It knows neither HTTP nor SQL. It lives on the loop thread alone: a poll looks at its channel's
 * total and parks with nothing in between, so no update slips through.
 *
 * Life of a poll: idle → (loading: its channel is being read for the first time) → one of
 *   answered            what it asks for is in memory, or it asks not to wait;
 *   reading → answered  what it asks for is on disk;
 *   parked  → answered  by the next push (inbox_events.poll_done), or taken out by inbox_cancel().
 * With a filter, it is looking in between: through the updates that were read, for those it wants.
 * A stream's poll is held when it is answered, and goes on from there (inbox_poll_again()).
 * Where many polls are to be answered at once, some are answered in this turn of the loop and the
 * others in the next ones: loading, parked or ending until then.
 *
 * Life of a channel: the first poll or push that names it makes it; its newest updates are kept in
 * memory from its first poll on. It stays while polls wait on it. Otherwise the least recently used
 * channels go when the cache (CACHE_SIZE) is full.
 * Its polls stand in the order of their cursors: a push wakes them from the front, in slices, until
 * the one at the front has seen everything. A poll that parks meanwhile stands behind.
 */
#pragma once

#include "base/list.h"
#include "base/slice.h"
#include "inbox/filter.h"
#include "inbox/store.h"
#include "inbox/update.h"
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct inbox;
struct channel;

enum poll_state {
    POLL_IDLE,
    POLL_LOADING,
    POLL_READING,
    POLL_LOOKING,
    POLL_PARKED,
    POLL_ENDING,
    POLL_FORGETTING,
    POLL_HELD, /* of a stream: answered, and not yet asked again */
};

/* A poll, embedded in whatever asks. The inbox uses it from inbox_poll() to its answer. A zeroed
 * poll is idle. */
struct poll {
    struct list link; /* in its channel, while loading or parked; in the inbox, while ending */
    union {
        struct channel *channel; /* while loading, parked without a filter, or held */
        struct view *view;       /* while parked with one */
        struct store_read *read; /* while reading */
        struct look *look;       /* while looking */
        uint64_t total;          /* while ending; of a stream's poll, `channel` */
        struct store_cursors *forgetting;
    };
    /* The caller's: */
    int64_t ts;            /* where it begins (position.h): the last update seen, most often */
    uint64_t epoch;        /* of what it has seen (store.h); 0: it does not say */
    struct filter *filter; /* until the poll is answered; NULL: it wants all */
    uint16_t limit;        /* 1 to READ_MAX_UPDATES */
    bool may_wait : 1;     /* park when there is nothing new */
    bool wants_epoch : 1;
    bool has_position : 1; /* of a consumer: `ts` says where it begins, */
    bool confirms : 1;     /* and it has confirmed that, */
    bool confirms_now : 1; /* and what it is answered with, by inbox_confirm_answer() */
    bool is_one_of_many : 1;
    bool is_stream : 1; /* after each answer it is held, until inbox_poll_again() */
    /* The inbox's: */
    bool was_parked : 1, is_judged : 1, is_waiting : 1, is_named : 1, is_roster : 1;
    uint8_t state; /* enum poll_state */
    uint8_t outcome;
    uint8_t pages; /* looked through */
    uint32_t asked_at;
    uint32_t skipped; /* updates that the filter has left out so far */
    union {
        struct consumer *consumer; /* is_named */
        struct consumers *roster;  /* is_roster: wants them listed */
    };
};

enum { ANSWER_MEMOS = 48 };

/* What a poll gets. Polls that wake together and ask for the same share one answer. */
struct answer {
    enum store_error error;
    bool reset;       /* the cursor was ahead of the channel, or of another life of it */
    uint64_t ts;      /* the new cursor */
    uint64_t total;   /* the channel's newest ts */
    uint64_t epoch;   /* the channel's; 0: not known */
    uint64_t missed;  /* updates after the cursor that are no longer kept, or damaged */
    uint32_t skipped; /* and those that the filter has left out */
    uint32_t count;
    struct update **updates;   /* oldest first; the inbox's */
    void *memos[ANSWER_MEMOS]; /* for what poll_done makes of this answer; NULL at first */
};

/* Leaves of it the first `count` updates, and what comes before them: the next poll gets the rest.
 * False where that cannot be said, as something in between is missing; it can for 0. */
bool answer_cut(struct answer *answer, uint32_t count);

struct inbox_events {
    void (*poll_done)(struct poll *poll, struct answer *answer);
    /* After the last poll_done() of an answer: free its memos. */
    void (*answer_end)(struct answer *answer);
    /* `owner` as given to inbox_push(), NULL if it was cancelled; `push` is valid during the
     * call. */
    void (*push_done)(void *owner, const struct store_append *push);
    /* The same of inbox_purge(). */
    void (*purge_done)(void *owner, const struct store_purge *purge);
};

struct inbox_options {
    uint64_t channel_max_updates;
    int64_t ttl_ms;
    uint64_t cache_max_bytes;
    /* How long a poll waits for its channel, on a shared store; while the store serves others it
     * may be ten times as long. */
    uint64_t load_max_ms;
};

/* The filter of `text`, see filter.h; it gets one more reference, for inbox_filter_unref(). */
enum filter_error inbox_filter(struct inbox *inbox, struct slice text, struct filter **filter);
void inbox_filter_unref(struct inbox *inbox, struct filter *filter);

/* NULL when memory is out. `store` is used, not owned. */
struct inbox *inbox_new(uv_loop_t *loop, struct store *store, const struct inbox_options *options,
                        const struct inbox_events *events);
/* Saves what consumers have confirmed, and asks the store for nothing more; calls `stopped` when
 * that is done, or a second later: then the store may close. No poll and no push may be under
 * way. */
void inbox_stop(struct inbox *inbox, void (*stopped)(void));
void inbox_free(struct inbox *inbox);

/*
 * Stores `update`, whose reference passes to the inbox, and later calls push_done(). The handle is
 * for inbox_cancel_push() and is valid until then. `delivery` is NULL if it has no id. NULL when
 * memory is out: nothing is stored, the update is freed, push_done() is not called.
 */
struct store_append *inbox_push(struct inbox *inbox, struct slice channel, struct update *update,
                                const struct delivery *delivery, void *owner);

/*
 * The same for 1 to APPEND_MAX_UPDATES updates, which are stored all or none. Their references and
 * the arrays, from malloc(), pass to the inbox, also when NULL is returned. `deliveries` has one
 * for each, or is NULL if none has an id.
 */
struct store_append *inbox_push_batch(struct inbox *inbox, struct slice channel,
                                      struct update **updates, struct delivery *deliveries,
                                      uint32_t count, void *owner);

/* The owner is gone: the update is still stored, but push_done() gets no owner. */
void inbox_cancel_push(struct store_append *push);

/*
 * Purges the channel's updates up to `upto`, UINT64_MAX: all that there are; later calls
 * purge_done(). From then on no poll is answered with them. Polls that wait for the channel's next
 * update go on waiting. The handle is for inbox_cancel_purge(). NULL when memory is out: nothing is
 * purged.
 */
struct store_purge *inbox_purge(struct inbox *inbox, struct slice channel, uint64_t upto,
                                void *owner);

/* The owner is gone: the purge goes on, but purge_done() gets no owner. */
void inbox_cancel_purge(struct store_purge *purge);

/* How many purges are noted here, each that made more updates go. */
uint64_t inbox_purges(const struct inbox *inbox);

/* Whether the update `ts` of a channel, which was answered when inbox_purges() was `purges`, may be
 * purged now. */
bool inbox_may_be_purged(struct inbox *inbox, struct slice channel, uint64_t ts, uint64_t purges);

/*
 * Answers `poll`, at once (poll_done() is called before this returns) or later. ts, epoch, filter,
 * limit, may_wait and wants_epoch must be set. False when memory is out: poll_done() is not called.
 */
bool inbox_poll(struct inbox *inbox, struct slice channel, struct poll *poll);

/*
 * The same for a consumer of the channel, by its name of 1 to CONSUMER_NAME_MAX_BYTES. Without
 * has_position it goes on behind what the consumer has confirmed. One name too many:
 * STORE_CONSUMERS_FULL.
 */
bool inbox_poll_as(struct inbox *inbox, struct slice channel, struct poll *poll,
                   struct slice consumer);
/* How many updates the poll's consumer has not confirmed, once this answer is sent. During
 * poll_done(). */
uint64_t inbox_lag(const struct poll *poll, const struct answer *answer);
/* The answer is being sent: confirms it, if the poll confirms_now. During poll_done(). */
void inbox_confirm_answer(struct inbox *inbox, struct poll *poll, const struct answer *answer);

/* The same for one that wants a list of the channel's consumers, as they are at the end. */
bool inbox_poll_consumers(struct inbox *inbox, struct slice channel, struct poll *poll);
/* Sets `count` and `list`, which is from malloc(), by name. During poll_done(). False when memory
 * is out. */
bool inbox_list_consumers(struct inbox *inbox, const struct poll *poll, struct store_cursors *out);

/*
 * How far behind the consumers in memory are: those of the channels that are there, if one of the
 * channel's has polled since it is. Looks at every channel in memory.
 */
struct inbox_lags {
    uint64_t consumers, behind; /* all, and those that have not confirmed everything */
    uint64_t updates, most;     /* not confirmed: by all together, and by one */
    int64_t oldest_ms;          /* the age of the oldest of them; at least so much, if it is not in
                                   memory */
};
void inbox_lags(const struct inbox *inbox, struct inbox_lags *lags);

/* Forgets a consumer; the poll, of which nothing need be set, gets an empty answer then. False when
 * memory is out. */
bool inbox_forget_consumer(struct inbox *inbox, struct slice channel, struct slice consumer,
                           struct poll *poll);

/*
 * A stream is a poll that asks again by itself. Each answer, but for an error, leaves it held: its
 * channel stays in memory. The caller sets `ts` and `epoch` to those of the answer, and calls this
 * when it wants more, in poll_done() or later. Then the poll parks, or is answered in one of the
 * next turns of the loop: never before this returns.
 */
void inbox_poll_again(struct inbox *inbox, struct poll *poll);
/* Whether there is something for a held poll already. */
bool inbox_is_behind(const struct poll *poll);

/* Forgets a poll that is under way; poll_done() will not be called. Harmless on an idle poll. */
void inbox_cancel(struct inbox *inbox, struct poll *poll);

/* What a poll asks about, for whoever goes on with it. */
struct poll_place {
    uint16_t channel_len;
    uint8_t consumer_len; /* 0: it has none, or it was forgotten: */
    bool is_gone;
    uint64_t confirmed; /* by one that was forgotten */
    bool is_known;      /* what the channel is at, as nobody but this process writes: */
    uint64_t total, epoch;
    char channel[CHANNEL_NAME_MAX_BYTES];
    char consumer[CONSUMER_NAME_MAX_BYTES];
};

/* Whether anything that changes a channel is under way, also for somebody who has gone. Until it is
 * over, what inbox_take_out() says of a poll may be wrong when the poll goes on. */
bool inbox_is_writing(const struct inbox *inbox);
/* Whether inbox_take_out() is possible: the poll waits for something that may take long. Any other
 * is answered soon. */
bool inbox_can_take_out(const struct inbox *inbox, const struct poll *poll);
/* Forgets the poll as inbox_cancel() does. `place`, and what the poll holds for its caller, with
 * `skipped` and `was_parked`, say how it goes on. */
void inbox_take_out(struct inbox *inbox, struct poll *poll, struct poll_place *place);
/* Lets a poll that was taken out, here or by another process, go on: as inbox_poll() and
 * inbox_poll_as() do. A stream's poll may wait. */
bool inbox_put_back(struct inbox *inbox, struct poll *poll, const struct poll_place *place);

/*
 * The time of a parked poll is up: answers it without updates. With `may_look`, a shared store is
 * read one last time if news could be late.
 */
void inbox_expire(struct inbox *inbox, struct poll *poll, bool may_look);
