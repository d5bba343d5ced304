/*
 * A store that answers when the test says so: appends, reads, news and losses come in any order.
 *
 * It is this process's own, or shared with others, who append with fake_add(). A shared one has one
 * subscription for all watched channels, and one queue of news.
 */
#pragma once

#include "base/list.h"
#include "inbox/store.h"
#include "support.h"

struct fake_channel {
    char name[16];
    uint64_t total, gone; /* updates up to `gone` have been deleted */
    struct update **updates;
    uint64_t capacity;
    int life; /* tells the updates of one life of the channel from those of the next */
    struct store_watch *watch;
    bool is_on; /* its updates are told */
    struct store_cursor *cursors;
    uint32_t cursor_count;
};

enum { FAKE_CHANNELS_MAX = 5000 };

struct fake_store {
    struct store store;
    struct fake_channel channels[FAKE_CHANNELS_MAX];
    int channel_count;
    struct list appends;                     /* that wait */
    struct list purges;                      /* that wait */
    struct list asked;                       /* reads that were asked for */
    struct list done;                        /* reads that were done, but not answered */
    struct list news;                        /* told by the store, but not here yet */
    struct list cursors_asked, cursors_done; /* the same of consumers' cursors */
    int reads_made;
    uint64_t keep;         /* updates that a channel keeps */
    uint64_t damage_every; /* every so manieth update is damaged: reads leave it out; 0: none */
    uint32_t page;         /* updates that one read brings, whatever its limit */
    int64_t now_ms;
    const struct store_events *events;
    bool is_shared;
    bool is_closing; /* nothing may be asked any more */
};

/* The one store of the test. */
extern struct fake_store fake;

/* Empties it; every channel keeps everything at first. */
void fake_init(bool is_shared);
/* Frees the updates. Fails when anybody else still holds one. */
void fake_deinit(void);

/* The channel; an empty one when it is new. */
struct fake_channel *fake_channel(const char *name);

/* Appends `count` updates that the inbox did not push. A watched channel's are news. */
void fake_add(const char *name, int count);
/* Resets the channel's counter, then appends `total` other updates. Nobody is told. */
void fake_restart(const char *name, uint64_t total);
/* Somebody else purges the channel up to `upto`. That is news where it is watched. */
void fake_purge(const char *name, uint64_t upto);
/* How many updates after `from`, up to `to`, are damaged. */
uint64_t fake_damaged(uint64_t from, uint64_t to);

/* --- Answers ---------------------------------------------------------------------------------- */

/* Does the oldest append that waits, and answers it. There must be one. */
void fake_answer_append(enum store_error error);

/* Does the oldest read that was asked for: it finds what there is now. */
void fake_do_read(void);
/* Answers the oldest read that was done. */
void fake_answer_read(enum store_error error);
/* Both at once. There must be one. */
void fake_serve_read(enum store_error error);
/* Serves all reads, also those that their answers lead to. */
void fake_serve_reads(void);

/* Does the oldest purge that waits, and answers it. There must be one. */
void fake_answer_purge(enum store_error error);

/* Does the oldest operation on cursors, or answers the oldest that was done: with an error as if it
 * had not been done, unless `is_done`. Without one nothing happens. */
void fake_do_cursors(enum store_error error, bool is_done);
void fake_answer_cursors(void);
/* Does and answers all. */
void fake_serve_cursors(enum store_error error);
/* What is stored of a consumer; NULL when it is not known. */
struct store_cursor *fake_cursor(const char *channel, const char *name);
/* Somebody else saves a cursor, or forgets one. */
void fake_save_cursor(const char *channel, const char *name, uint64_t ts);
void fake_forget_cursor(const char *channel, const char *name);

/* --- Telling, of a shared store --------------------------------------------------------------- */

/* The subscription begins: what is appended to watched channels from now on is told. */
void fake_turn_on(void);
/* It ends, and the news on their way are lost. */
void fake_turn_off(void);
/* The oldest news arrive, or are lost; without news nothing happens. */
void fake_tell_one(void);
void fake_lose_one(void);

/* Whether nothing is on its way, and every watched channel's updates are told. */
bool fake_is_still(void);
