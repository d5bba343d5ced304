/*
 * The inbox over a store that others append to as well: what is told, what is read, what is lost and what is answered
 * comes in every order that two connections to one Redis can bring.
 */
#include "base/counters.h"
#include "base/hash.h"
#include "base/turn.h"
#include "inbox/inbox.h"
#include "support.h"

enum { UPDATES_MAX = 100000, WAITERS = 40 };

/* --- The store: one channel, in which everybody can append ------------------------------------- */

static uint64_t total, gone;
static int64_t first_at; /* tells the updates of one life of the channel from those of the next */
static struct store_watch *the_watch;
static const struct store_events *events;
static bool is_on;
static uint64_t told; /* the newest ts that news have been sent of */

/* Reads that were asked for, and those that have been done but not answered. */
static struct list asked, done;
/* News on their way. */
static struct update *news[UPDATES_MAX];
static size_t news_first, news_last;

static struct update *make_update(uint64_t ts) {
    char body[64];
    snprintf(body, sizeof body, "{\"life\":%lld,\"n\":%llu}", (long long)first_at,
             (unsigned long long)ts);
    struct update_parts parts = {.body = slice_of(body), .method = SLICE("POST")};
    struct update *update = update_new(&parts);
    update->ts = ts;
    update->at_ms = first_at;
    return update;
}

static void fake_append(struct store *store, struct store_append *append) {
    (void)store, (void)append;
    fail_msg("others append");
}

static void fake_read(struct store *store, struct store_read *read) {
    (void)store;
    list_append(&asked, &read->op.link);
}

static void fake_listen(struct store *store, const struct store_events *store_events) {
    (void)store;
    events = store_events;
}

static void fake_watch(struct store *store, struct store_watch *watch) {
    (void)store;
    assert_null(the_watch);
    the_watch = watch;
}

static void fake_unwatch(struct store *store, struct store_watch *watch) {
    (void)store;
    assert_ptr_equal(the_watch, watch);
    the_watch = NULL;
    is_on = false;
}

static const struct store_ops fake_ops = {.append = fake_append,
                                          .read = fake_read,
                                          .listen = fake_listen,
                                          .watch = fake_watch,
                                          .unwatch = fake_unwatch};
static struct store fake_store = {&fake_ops};

static void append(void) {
    total++;
    if (is_on && news_last < UPDATES_MAX)
        news[news_last++] = make_update(total);
}

/* The subscription begins: what is appended from now on is told. */
static void turn_on(void) {
    if (!the_watch || is_on)
        return;
    is_on = true;
    events->watched(the_watch);
}

static void drop_news(void) {
    while (news_first < news_last)
        update_unref(news[news_first++]);
}

static void turn_off(void) {
    if (!the_watch || !is_on)
        return;
    is_on = false;
    drop_news();
    events->lost(the_watch);
}

static void tell_one(void) {
    if (news_first == news_last)
        return;
    struct update *update = news[news_first++];
    if (the_watch && is_on)
        events->news(the_watch, update);
    update_unref(update);
}

/* Does the oldest read that was asked for; it is answered later. */
static void do_read(void) {
    struct list *link = list_shift(&asked);
    if (!link)
        return;
    struct store_read *read = container_of(link, struct store_read, op.link);
    int64_t after = read->after_ts < 0 ? (int64_t)total + read->after_ts : read->after_ts;
    if (after < (int64_t)gone)
        after = (int64_t)gone;
    read->total = total;
    read->gone = gone;
    read->updates = malloc((read->limit + 1) * sizeof(struct update *));
    while (after < (int64_t)total && read->count < read->limit)
        read->updates[read->count++] = make_update((uint64_t)++after);
    list_append(&done, link);
}

static void answer_read(enum store_error error) {
    struct list *link = list_shift(&done);
    if (!link)
        return;
    struct store_read *read = container_of(link, struct store_read, op.link);
    read->error = error;
    if (error) {
        while (read->count)
            update_unref(read->updates[--read->count]);
    }
    read->op.done(&read->op);
}

/* --- Those who poll --------------------------------------------------------------------------- */

struct waiter {
    struct poll poll;
    bool is_polling;
    int answers, errors, resets;
    uint64_t ts; /* as of the last answer */
    uint64_t seen;
};

static uv_loop_t loop;
static struct inbox *inbox;
static struct waiter waiters[WAITERS];

static void on_poll_done(struct poll *poll, struct answer *answer) {
    struct waiter *waiter = container_of(poll, struct waiter, poll);
    waiter->is_polling = false;
    waiter->answers++;
    if (answer->error) {
        waiter->errors++;
        return;
    }
    if (answer->reset) {
        waiter->resets++;
    } else if (answer->count) {
        assert_int_equal(answer->updates[0]->ts,
                         waiter->ts + answer->missed + 1); /* nothing is passed over unsaid */
        assert_int_equal(answer->ts, answer->updates[answer->count - 1]->ts);
    } else {
        assert_int_equal(answer->ts, waiter->ts + answer->missed);
    }
    assert_true(!answer->missed || waiter->ts + answer->missed <= gone);
    for (uint32_t i = 1; i < answer->count; i++)
        assert_int_equal(answer->updates[i]->ts, answer->updates[i - 1]->ts + 1);
    waiter->seen += answer->count;
    waiter->ts = answer->ts;
}

static void on_answer_end(struct answer *answer) {
    (void)answer;
}

static void on_push_done(void *owner, const struct update *update, enum store_error error) {
    (void)owner, (void)update, (void)error;
}

static const struct inbox_events inbox_events = {on_poll_done, on_answer_end, on_push_done};

static void poll_channel(struct waiter *waiter, bool may_wait) {
    waiter->is_polling = true;
    waiter->poll.ts = (int64_t)waiter->ts;
    waiter->poll.limit = READ_MAX_UPDATES;
    waiter->poll.may_wait = may_wait;
    assert_true(inbox_poll(inbox, SLICE("c"), &waiter->poll));
}

static int64_t test_clock(void) {
    return 1700000000000;
}

static int set_up(void **state) {
    (void)state;
    hash_init();
    uv_loop_init(&loop);
    turn_init(&loop);
    list_init(&asked);
    list_init(&done);
    memset(waiters, 0, sizeof waiters);
    memset(&counters, 0, sizeof counters);
    total = gone = told = 0;
    first_at = 1699999990000;
    is_on = false;
    the_watch = NULL;
    news_first = news_last = 0;
    static const struct inbox_options options = {.channel_max_updates = 1000,
                                                 .ttl_ms = 1000000,
                                                 .cache_max_bytes = 64 << 20,
                                                 .load_max_ms = 100000,
                                                 .clock_ms = test_clock};
    inbox = inbox_new(&loop, &fake_store, &options, &inbox_events);
    assert_non_null(inbox);
    return 0;
}

/* Nothing is on its way, and whoever polls waits at the end. */
static bool is_settled(void) {
    bool is_still =
        list_empty(&asked) && list_empty(&done) && news_first == news_last && (is_on || !the_watch);
    for (int i = 0; i < WAITERS; i++)
        is_still &= !waiters[i].is_polling ||
                    (waiters[i].poll.state == POLL_PARKED && (uint64_t)waiters[i].poll.ts == total);
    return is_still;
}

static void on_alive(uv_timer_t *timer) {
    (void)timer;
}

/* Everything that is under way comes to its end, or some seconds pass. */
static void settle(void) {
    uv_timer_t alive; /* keeps the loop turning: what failed is tried again after a pause */
    uv_timer_init(&loop, &alive);
    uv_timer_start(&alive, on_alive, 1, 1);
    uint64_t end = uv_hrtime() + (uint64_t)5 * 1000000000;
    do {
        turn_on();
        while (news_first < news_last)
            tell_one();
        while (!list_empty(&asked))
            do_read();
        while (!list_empty(&done))
            answer_read(STORE_OK);
        uv_run(&loop, UV_RUN_ONCE);
    } while (!is_settled() && uv_hrtime() < end);
    uv_close((uv_handle_t *)&alive, NULL);
    while (uv_loop_alive(&loop))
        uv_run(&loop, UV_RUN_NOWAIT);
}

static int tear_down(void **state) {
    (void)state;
    for (int i = 0; i < WAITERS; i++) {
        inbox_cancel(&waiters[i].poll);
        waiters[i].is_polling = false;
    }
    settle();
    drop_news();
    assert_int_equal(counters.polls_parked, 0);
    inbox_stop(inbox);
    inbox_free(inbox);
    turn_deinit();
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(counters.cache_bytes, 0);
    return uv_loop_close(&loop);
}

/* --- Tests ------------------------------------------------------------------------------------ */

static void test_a_poll_waits_for_the_subscription_then_reads(void **state) {
    (void)state;
    append();
    waiters[0].ts = 1;
    poll_channel(&waiters[0], true);
    assert_true(list_empty(&asked)); /* a read now could miss what comes before the subscription */
    append();
    turn_on();
    do_read();
    answer_read(STORE_OK);
    if (!list_empty(&asked)) {
        do_read();
        answer_read(STORE_OK);
    }
    assert_int_equal(waiters[0].ts, 2);
}

static void test_news_told_during_the_read_are_not_lost(void **state) {
    (void)state;
    poll_channel(&waiters[0], true);
    turn_on();
    do_read();
    append(); /* after the read was done, before its answer */
    tell_one();
    answer_read(STORE_OK);
    settle();
    assert_int_equal(waiters[0].ts, 1);
    assert_int_equal(waiters[0].seen, 1);
}

static void test_a_wake_needs_no_read(void **state) {
    (void)state;
    poll_channel(&waiters[0], true);
    settle();
    assert_int_equal(waiters[0].poll.state, POLL_PARKED);
    append();
    tell_one();
    while (uv_loop_alive(&loop))
        uv_run(&loop, UV_RUN_NOWAIT);
    assert_int_equal(waiters[0].ts, 1);
    assert_true(list_empty(&asked));
}

static void test_a_gap_leads_to_a_read(void **state) {
    (void)state;
    poll_channel(&waiters[0], true);
    settle();
    append();
    append();
    update_unref(news[news_first++]); /* the first is lost on its way */
    tell_one();
    assert_int_equal(waiters[0].answers, 0);
    settle();
    assert_int_equal(waiters[0].ts, 2);
    assert_int_equal(waiters[0].seen, 2);
}

static void test_parked_polls_outlive_the_loss_of_the_store(void **state) {
    (void)state;
    poll_channel(&waiters[0], true);
    settle();
    turn_off();
    append();
    assert_int_equal(waiters[0].poll.state, POLL_PARKED);
    settle();
    assert_int_equal(waiters[0].ts, 1);
}

static void test_a_counter_that_went_back_is_said(void **state) {
    (void)state;
    total = 7;
    waiters[0].ts = waiters[1].ts = 7;
    poll_channel(&waiters[0], true);
    settle();
    turn_off();
    total = 3;
    first_at++;
    settle();
    assert_int_equal(waiters[0].resets, 1);
    assert_int_equal(waiters[0].ts, 3);
    poll_channel(&waiters[1], false);
    settle();
    assert_int_equal(waiters[1].resets, 1);
}

static void test_a_counter_that_went_back_and_on_is_said(void **state) {
    (void)state;
    for (int i = 0; i < 5; i++)
        append();
    waiters[0].ts = 4;
    poll_channel(&waiters[0], true);
    settle();
    poll_channel(&waiters[0], true);
    settle();
    turn_off();
    total = 8; /* the updates of another life */
    first_at++;
    settle();
    assert_int_equal(waiters[0].resets, 1);
}

static void test_polls_whose_time_is_over_look_once_more(void **state) {
    (void)state;
    poll_channel(&waiters[0], true);
    poll_channel(&waiters[1], true);
    settle();
    for (int i = 0; i < 2; i++) { /* they come back to a channel that is loaded */
        inbox_cancel(&waiters[i].poll);
        poll_channel(&waiters[i], true);
    }
    append(); /* not told yet */
    inbox_expire(inbox, &waiters[0].poll, true);
    inbox_expire(inbox, &waiters[1].poll, true);
    assert_int_equal(waiters[0].answers + waiters[1].answers, 0);
    do_read();
    answer_read(STORE_OK);
    do_read();
    answer_read(STORE_OK);
    assert_int_equal(waiters[0].ts, 1);
    assert_int_equal(waiters[1].ts, 1);
    poll_channel(&waiters[0], true);
    inbox_expire(inbox, &waiters[0].poll, false);
    assert_int_equal(waiters[0].answers, 2);
}

static void test_a_cursor_ahead_of_the_news_is_no_reset(void **state) {
    (void)state;
    poll_channel(&waiters[0], true);
    settle();
    append(); /* told later; another process has answered the push with its ts */
    waiters[1].ts = 1;
    poll_channel(&waiters[1], true);
    do_read();
    answer_read(STORE_OK);
    assert_int_equal(waiters[1].answers, 0);
    settle();
    assert_int_equal(waiters[1].answers, 0);
    assert_int_equal(waiters[1].poll.state, POLL_PARKED);
}

static void test_a_failed_read_fails_those_who_wait_for_it(void **state) {
    (void)state;
    poll_channel(&waiters[0], true);
    turn_on();
    do_read();
    answer_read(STORE_AWAY);
    assert_int_equal(waiters[0].errors, 1);
    poll_channel(&waiters[0], true);
    settle();
    assert_int_equal(waiters[0].poll.state, POLL_PARKED);
}

/* --- Everything at random ---------------------------------------------------------------------- */

static uint64_t seed;

static uint32_t random_below(uint32_t bound) {
    seed = seed * 6364136223846793005 + 1442695040888963407;
    return (uint32_t)(seed >> 33) % bound;
}

static void step(void) {
    struct waiter *waiter = &waiters[random_below(WAITERS)];
    switch (random_below(16)) {
    case 0:
    case 1:
    case 2: append(); break;
    case 3:
    case 4: tell_one(); break;
    case 5:
    case 6: do_read(); break;
    case 7:
    case 8: answer_read(random_below(5000) ? STORE_OK : STORE_AWAY); break;
    case 9: turn_on(); break;
    case 10:
        if (!random_below(10))
            turn_off();
        break;
    case 11:
        if (!random_below(20)) { /* retention */
            gone += random_below(3);
            gone = gone < total ? gone : total;
        }
        break;
    case 12: uv_run(&loop, UV_RUN_NOWAIT); break;
    case 13:
        if (waiter->is_polling) {
            inbox_cancel(&waiter->poll);
            waiter->is_polling = false;
        }
        break;
    default:
        if (!waiter->is_polling)
            poll_channel(waiter, random_below(4));
    }
}

static void test_no_order_of_events_loses_an_update(void **state) {
    (void)state;
    for (seed = 1; seed < 40;) {
        uint64_t round = seed;
        for (int i = 0; i < 20000 && news_last < UPDATES_MAX - 1000; i++)
            step();
        settle();
        for (int i = 0; i < WAITERS; i++) {
            struct waiter *waiter = &waiters[i];
            if (!waiter->is_polling)
                poll_channel(waiter, true);
        }
        settle();
        for (int i = 0; i < WAITERS; i++) {
            /* Nobody sleeps on data: whoever waits has seen everything. */
            assert_true(!waiters[i].is_polling || (uint64_t)waiters[i].poll.ts == total);
            assert_int_equal(waiters[i].resets, 0);
        }
        news_first = news_last = 0;
        seed = round + 1;
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_poll_waits_for_the_subscription_then_reads, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_news_told_during_the_read_are_not_lost, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_wake_needs_no_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_gap_leads_to_a_read, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_parked_polls_outlive_the_loss_of_the_store, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_counter_that_went_back_is_said, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_counter_that_went_back_and_on_is_said, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_polls_whose_time_is_over_look_once_more, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_cursor_ahead_of_the_news_is_no_reset, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_failed_read_fails_those_who_wait_for_it, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_no_order_of_events_loses_an_update, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
