/* The inbox over the fake store, and those who poll it and push into it. */
#pragma once

#include "base/counters.h"
#include "fake_store.h"
#include "inbox/inbox.h"
#include <uv.h>

enum { WAITERS_MAX = 5000 };

struct waiter {
    struct poll poll;
    const char *channel;
    const char *where; /* its filter's only condition; NULL: none */
    int64_t from;      /* the cursor that the poll began with */
    bool is_polling;
    /* The answer to its last poll: */
    int answers;
    enum store_error error;
    bool reset;
    uint64_t ts, total, missed, epoch;
    uint32_t count, skipped;
    uint64_t first, last; /* of the updates */
    int answer;           /* which answer it was */
    uint64_t lag;         /* of one with a name */
    uint32_t listed;      /* of one that wants the consumers listed */
    int order;            /* how many polls had been answered before */
    /* Of all its polls: */
    int errors, resets;
    uint64_t cursor;           /* its last */
    uint64_t seen, all_missed; /* how many updates it got, and did not get, */
    uint64_t all_skipped;      /* or did not want */
};

extern uv_loop_t loop;
extern struct inbox *inbox;
extern struct inbox_options
    options; /* set_up() sets them; a test may change them before make_inbox() */
extern struct waiter waiters[WAITERS_MAX];
extern int polls_done, answers_made;
extern bool are_replies_lost; /* there is no room to send answers */
extern int pushes_done, pushes_failed, pushes_without_owner;
extern int purges_done, purges_failed, purges_without_owner;
extern uint64_t last_pushed_ts, last_gone;

/* For a store of our own, or a shared one. The test calls make_inbox(). */
int set_up(void **state);
int set_up_shared(void **state);
/* Ends all polls, frees the inbox, and looks for what is left. */
int tear_down(void **state);
void make_inbox(void);
/* It saves what consumers have confirmed, and the store closes. */
void stop_inbox(void);

#define INBOX_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define SHARED_TEST(test) cmocka_unit_test_setup_teardown(test, set_up_shared, tear_down)

/* --- Polling and pushing ---------------------------------------------------------------------- */

/* Waiter `i` polls. */
struct waiter *start(int i, const char *channel, int64_t ts, uint32_t limit, bool may_wait);
/* The same without a limit: it waits, or does not. */
struct waiter *wait_for(int i, const char *channel, int64_t ts);
struct waiter *ask(int i, const char *channel, int64_t ts);
/* Waiter 0 polls the channel, so its updates stay in memory from now on. Then counts begin at 0. */
void poll_once(const char *channel);
/* Polls with a filter. */
struct waiter *start_where(int i, const char *channel, const char *where, int64_t ts,
                           uint32_t limit, bool may_wait);
/* It polls as a consumer, from where it is, or from `ts` where that is not FROM_CONFIRMED; with
 * `confirms_now` it confirms what it gets. */
#define FROM_CONFIRMED INT64_MAX
struct waiter *start_as(int i, const char *channel, const char *name, int64_t ts, bool may_wait,
                        bool confirms_now);
/* It wants the channel's consumers; which ones is in `listed`. */
struct waiter *list_consumers(int i, const char *channel);
extern struct store_cursor listed[2 * CONSUMERS_MAX];
/* It forgets one. */
struct waiter *forget(int i, const char *channel, const char *name);
void cancel(int i);

struct store_append *push_body(const char *channel, struct slice body);
struct store_append *push(const char *channel);
/* A push of `count` updates, all or none. */
struct store_append *push_batch(const char *channel, uint32_t count);
/* Pushes `count` updates that the store has taken when this returns. */
void push_durable(const char *channel, int count);

/* --- Time ------------------------------------------------------------------------------------- */

/* One turn of the loop. */
void turn(void);
/* Turns the loop until all who are to be woken have been. */
void run_wakes(void);
/* A shared store: all that is under way comes to its end, or some seconds pass. */
void settle(void);

uint32_t random_below(uint32_t bound);
extern uint64_t seed;

/* --- Checking --------------------------------------------------------------------------------- */

/* The waiter has got exactly the updates `first` to `last` of `total` (none when last < first). */
#define check_answer(waiter, first, last, total, missed)                                           \
    check_answer_at(waiter, first, last, total, missed, __LINE__, __FILE__)
void check_answer_at(const struct waiter *waiter, uint64_t first, uint64_t last, uint64_t total,
                     uint64_t missed, int line, const char *file);
/* Whether it is parked, and has seen, or did not want, all there is. */
bool has_seen_all(const struct waiter *waiter);
/* Its poll, the only one, was answered with an error. */
#define check_error(waiter, wanted)                                                                \
    (assert_int_equal((waiter)->answers, 1), assert_int_equal((waiter)->error, wanted))
