/*
 * Consumers: cursors that are kept here, for those who cannot keep one (`as` of docs/protocol.md).
 *
 * A channel's consumers are loaded from the store when the first of them polls, and change in
 * memory; what has changed is saved within half a second, all of a channel in one operation. On a
 * shared store others change them too: a poll that wants to go on where its consumer is has them
 * loaded anew. A cursor never goes back, so what is in memory and what is loaded become one by the
 * larger ts.
 *
 *   consumers.c  the consumers of a channel, and their polls
 *   cursors.c    loading, saving and forgetting them in the store
 *
 * The inbox's own (parts.h).
 */
#pragma once

#include "base/turn.h"
#include "inbox/inbox.h"

/* Of a channel. */
struct consumers {
    struct channel *channel;
    struct list all;          /* struct consumer */
    struct list waiting;      /* polls, until the list is loaded */
    struct list unsaved_link; /* in keeper->unsaved: holds the channel */
    uint64_t total;           /* the channel's newest ts that one of them was told */
    uint32_t count;
    bool is_loaded, is_loading;
};

struct consumer {
    struct table_node node; /* in inbox->consumers */
    struct list link;       /* in its channel's */
    struct consumers *consumers;
    uint64_t ts;
    int64_t used_ms, saved_used_ms; /* by the store's clock; 0: it has not polled yet,
 * UNKNOWN_MS: the store did not know the time */
    uint32_t polls;                 /* that use it */
    uint32_t saves;                 /* that are under way */
    bool is_unsaved;
    bool is_stored;  /* the store has it, as far as is known */
    bool was_stored; /* it had it when the load under way began, and nothing changed since */
    bool was_reset;  /* what the store has is too large a ts, */
    bool is_lowered; /* and so may be what the load under way brings */
    bool is_gone;    /* forgotten: freed when no poll uses it */
    uint8_t name_len;
    char name[];
};

/* Saves what has changed a moment later, and lets polls go on whose consumers are loaded. */
struct keeper {
    uv_timer_t timer;
    struct inbox *inbox;
    struct list unsaved; /* struct consumers */
    uint32_t saves;      /* operations that are under way */
    bool is_stopped;
    void (*stopped)(void);  /* to be called when there are none; else NULL */
    struct list ready;      /* polls that can go on, */
    struct turn_task go_on; /* and what lets some of them */
};

/* --- consumers.c ------------------------------------------------------------------------------ */

/* Frees those of a channel; none may be polling. */
void consumers_free(struct inbox *inbox, struct channel *channel);

/* NULL when there is none. */
struct consumer *consumer_find(struct inbox *inbox, struct consumers *consumers, struct slice name);
/* A new one; NULL when memory is out. */
struct consumer *consumer_add(struct inbox *inbox, struct consumers *consumers, struct slice name);
/* Takes it out of its channel; polls may go on using it. */
void consumer_drop(struct inbox *inbox, struct consumer *consumer);
/* Whether there is nothing to save, */
bool consumer_is_saved(const struct consumer *consumer);
/* and nobody uses it. */
bool consumer_is_free(const struct consumer *consumer);

/* Where the poll begins is in a channel with `total` updates: confirms what it says that it has
 * confirmed, once. */
void consumer_reached(struct inbox *inbox, struct poll *poll, uint64_t total);
/* The same for one that gets this answer. */
void consumer_answered(struct inbox *inbox, struct poll *poll, const struct answer *answer);
/* It is answered, or cancelled: lets go of its consumer. */
void consumer_leave(struct inbox *inbox, struct poll *poll);
/* It does not wait for them to be loaded any more. */
void consumer_stop_waiting(struct poll *poll);

/* They are loaded: lets the polls that waited for that go on. */
void consumers_release(struct inbox *inbox, struct consumers *consumers);
/* turn_task: does so for some. */
void consumers_go_on(struct turn_task *task);

/* --- cursors.c -------------------------------------------------------------------------------- */

/* Makes what saves them. False when memory is out. */
bool consumers_init(struct inbox *inbox);
/* Saves what has changed, and nothing after that. Calls `stopped` when it is saved, or a second
 * later. */
void consumers_stop(struct inbox *inbox, void (*stopped)(void));
/* Frees when the loop runs once more. */
void consumers_deinit(struct inbox *inbox);

/* Begins to load them, unless that is under way. False when memory is out. */
bool consumers_load(struct inbox *inbox, struct consumers *consumers);
/* The consumer is to be saved. */
void consumer_changed(struct inbox *inbox, struct consumer *consumer);
/* Adds its cursor to a list that has room for it. */
void consumer_put(struct store_cursors *cursors, const struct consumer *consumer);
