/*
 * The inbox over a store that others append to as well: what is told, read, lost and answered comes
 * in every order that two connections to one Redis can bring.
 */
#include "waiters.h"

/* Polls on from where the waiter is. */
static void poll_on(int i, bool may_wait) {
    start(i, "c", (int64_t)waiters[i].cursor, READ_MAX_UPDATES, may_wait);
}

static void test_a_poll_waits_for_the_subscription_then_reads(void **state) {
    (void)state;
    fake_add("c", 1);
    waiters[0].cursor = 1;
    poll_on(0, true);
    assert_true(
        list_empty(&fake.asked)); /* a read now could miss what comes before the subscription */
    fake_add("c", 1);
    fake_turn_on();
    fake_serve_read(STORE_OK);
    fake_serve_reads();
    assert_int_equal(waiters[0].cursor, 2);
}

static void test_news_told_during_the_read_are_not_lost(void **state) {
    (void)state;
    poll_on(0, true);
    fake_turn_on();
    fake_do_read();
    fake_add("c", 1); /* after the read was done, before its answer */
    fake_tell_one();
    fake_answer_read(STORE_OK);
    settle();
    assert_int_equal(waiters[0].cursor, 1);
    assert_int_equal(waiters[0].seen, 1);
}

static void test_a_wake_needs_no_read(void **state) {
    (void)state;
    poll_on(0, true);
    settle();
    assert_int_equal(waiters[0].poll.state, POLL_PARKED);
    fake_add("c", 1);
    fake_tell_one();
    run_wakes();
    assert_int_equal(waiters[0].cursor, 1);
    assert_true(list_empty(&fake.asked));
}

static void test_a_gap_leads_to_a_read(void **state) {
    (void)state;
    poll_on(0, true);
    settle();
    fake_add("c", 2);
    fake_lose_one(); /* the first is lost on its way */
    fake_tell_one();
    assert_int_equal(waiters[0].answers, 0);
    settle();
    assert_int_equal(waiters[0].cursor, 2);
    assert_int_equal(waiters[0].seen, 2);
}

static void test_parked_polls_outlive_the_loss_of_the_store(void **state) {
    (void)state;
    poll_on(0, true);
    settle();
    fake_turn_off();
    fake_add("c", 1);
    assert_int_equal(waiters[0].poll.state, POLL_PARKED);
    settle();
    assert_int_equal(waiters[0].cursor, 1);
}

static void test_a_counter_that_went_back_is_said(void **state) {
    (void)state;
    fake_add("c", 7);
    waiters[0].cursor = waiters[1].cursor = 7;
    poll_on(0, true);
    settle();
    fake_turn_off();
    fake_restart("c", 3);
    settle();
    assert_int_equal(waiters[0].resets, 1);
    assert_int_equal(waiters[0].cursor, 3);
    poll_on(1, false);
    settle();
    assert_int_equal(waiters[1].resets, 1);
}

static void test_a_counter_that_went_back_and_on_is_said(void **state) {
    (void)state;
    fake_add("c", 5);
    waiters[0].cursor = 4;
    poll_on(0, true);
    settle();
    poll_on(0, true);
    settle();
    fake_turn_off();
    fake_restart("c", 8); /* the updates of another life */
    settle();
    assert_int_equal(waiters[0].resets, 1);
}

static void test_polls_whose_time_is_over_look_once_more(void **state) {
    (void)state;
    poll_on(0, true);
    poll_on(1, true);
    settle();
    for (int i = 0; i < 2; i++) { /* they come back to a channel that is loaded */
        cancel(i);
        poll_on(i, true);
    }
    fake_add("c", 1); /* not told yet */
    inbox_expire(inbox, &waiters[0].poll, true);
    inbox_expire(inbox, &waiters[1].poll, true);
    assert_int_equal(waiters[0].answers + waiters[1].answers, 0);
    fake_serve_read(STORE_OK);
    fake_serve_read(STORE_OK);
    assert_int_equal(waiters[0].cursor, 1);
    assert_int_equal(waiters[1].cursor, 1);
    poll_on(0, true);
    inbox_expire(inbox, &waiters[0].poll, false);
    assert_int_equal(waiters[0].answers, 1);
}

static void test_a_cursor_ahead_of_the_news_is_no_reset(void **state) {
    (void)state;
    poll_on(0, true);
    settle();
    fake_add("c", 1); /* told later; another process has answered the push with its ts */
    waiters[1].cursor = 1;
    poll_on(1, true);
    fake_serve_read(STORE_OK);
    assert_int_equal(waiters[1].answers, 0);
    settle();
    assert_int_equal(waiters[1].answers, 0);
    assert_int_equal(waiters[1].poll.state, POLL_PARKED);
}

static void test_a_failed_read_fails_those_who_wait_for_it(void **state) {
    (void)state;
    poll_on(0, true);
    fake_turn_on();
    fake_serve_read(STORE_AWAY);
    assert_int_equal(waiters[0].errors, 1);
    poll_on(0, true);
    settle();
    assert_int_equal(waiters[0].poll.state, POLL_PARKED);
}

/* --- Everything at random
 * ---------------------------------------------------------------------- */

enum { WAITERS = 40, ROUNDS = 39, STEPS = 20000 };

static void delete_some(struct fake_channel *channel) {
    channel->gone += random_below(3);
    channel->gone = channel->gone < channel->total ? channel->gone : channel->total;
}

static void step(void) {
    int i = (int)random_below(WAITERS);
    switch (random_below(16)) {
    case 0:
    case 1:
    case 2: fake_add("c", 1); break;
    case 3:
    case 4: fake_tell_one(); break;
    case 5:
    case 6: fake_do_read(); break;
    case 7:
    case 8: fake_answer_read(random_below(5000) ? STORE_OK : STORE_AWAY); break;
    case 9: fake_turn_on(); break;
    case 10:
        if (!random_below(10))
            fake_turn_off();
        break;
    case 11:
        if (!random_below(20))
            delete_some(fake_channel("c"));
        break;
    case 12: turn(); break;
    case 13: cancel(i); break;
    default:
        if (!waiters[i].is_polling)
            poll_on(i, random_below(4));
    }
}

/* Nobody sleeps on data: whoever waits has seen everything, once. */
static void check_waiters(void) {
    for (int i = 0; i < WAITERS; i++) {
        const struct waiter *waiter = &waiters[i];
        assert_true(!waiter->is_polling || (uint64_t)waiter->poll.ts == fake_channel("c")->total);
        assert_int_equal(waiter->resets, 0);
        assert_int_equal(waiter->seen + waiter->all_missed, waiter->cursor);
    }
}

static void test_no_order_of_events_loses_an_update(void **state) {
    (void)state;
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        seed = round;
        for (int i = 0; i < STEPS; i++)
            step();
        settle();
        for (int i = 0; i < WAITERS; i++)
            if (!waiters[i].is_polling)
                poll_on(i, true);
        settle();
        check_waiters();
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        SHARED_TEST(test_a_poll_waits_for_the_subscription_then_reads),
        SHARED_TEST(test_news_told_during_the_read_are_not_lost),
        SHARED_TEST(test_a_wake_needs_no_read),
        SHARED_TEST(test_a_gap_leads_to_a_read),
        SHARED_TEST(test_parked_polls_outlive_the_loss_of_the_store),
        SHARED_TEST(test_a_counter_that_went_back_is_said),
        SHARED_TEST(test_a_counter_that_went_back_and_on_is_said),
        SHARED_TEST(test_polls_whose_time_is_over_look_once_more),
        SHARED_TEST(test_a_cursor_ahead_of_the_news_is_no_reset),
        SHARED_TEST(test_a_failed_read_fails_those_who_wait_for_it),
        SHARED_TEST(test_no_order_of_events_loses_an_update),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
