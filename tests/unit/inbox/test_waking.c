/* Waking parked polls: who shares an answer, how many a turn, what happens in between. */
#include "waiters.h"

/* All that wait for the same share one answer; they are woken in the order in which they parked. */
static void test_shared_answer(void **state) {
    (void)state;
    make_inbox();
    push_durable("a", 1);
    for (int i = 0; i < 300; i++)
        wait_for(i, "a", 1);
    push_durable("a", 1);
    run_wakes();
    assert_int_equal(answers_made, 1);
    for (int i = 0; i < 300; i++) {
        check_answer(&waiters[i], 2, 2, 2, 0);
        assert_int_equal(waiters[i].order, i);
    }
    for (int i = 0; i < 20; i++)
        start(i, "a", 2, i < 10 ? 1 : 2, true);
    push_durable("a", 2);
    run_wakes();
    assert_int_equal(answers_made, 3);
    for (int i = 0; i < 20; i++)
        check_answer(&waiters[i], 3, i < 10 ? 3 : 4, 4, 0);
}

/* Many are woken in slices, a bounded number in a turn of the loop. */
static void test_slices(void **state) {
    (void)state;
    make_inbox();
    push_durable("a", 1);
    for (int i = 0; i < 2000; i++)
        wait_for(i, "a", 1);
    push_durable("a", 1);
    int turns = 0, before = polls_done;
    for (; uv_loop_alive(&loop); turns++) {
        turn();
        assert_true(polls_done - before <= 512);
        before = polls_done;
    }
    assert_true(turns >= 4);
    for (int i = 0; i < 2000; i++)
        check_answer(&waiters[i], 2, 2, 2, 0);
    assert_int_equal(counters.polls_parked, 0);
}

/* A small channel does not wait for a large one's end. */
static void test_slices_are_fair(void **state) {
    (void)state;
    make_inbox();
    push_durable("a", 1);
    push_durable("b", 1);
    for (int i = 0; i < 2500; i++)
        wait_for(i, "a", 1);
    wait_for(2500, "b", 1);
    push_durable("a", 1);
    push_durable("b", 1);
    turn();
    turn();
    assert_int_equal(waiters[2500].answers, 1);
    assert_true(polls_done < 2000);
}

/* Pushes, cancels and new polls between two slices: nobody misses an update or gets it twice. */
static void test_between_slices(void **state) {
    (void)state;
    make_inbox();
    push_durable("a", 1);
    for (int i = 0; i < 1500; i++)
        wait_for(i, "a", 1);
    push_durable("a", 1);
    turn();
    turn();
    assert_true(polls_done > 0 && polls_done < 1500);
    for (int i = 1400; i < 1450; i++)
        cancel(i);
    wait_for(2000, "a", 2); /* parks behind those that are not woken yet */
    assert_int_equal(waiters[2000].answers, 0);
    check_answer(ask(2001, "a", 1), 2, 2, 2, 0);
    push_durable("a", 1);
    run_wakes();
    for (int i = 0; i < 1500; i++) {
        if (i >= 1400 && i < 1450) {
            assert_int_equal(waiters[i].answers, 0);
            continue;
        }
        assert_int_equal(waiters[i].answers, 1);
        assert_int_equal(waiters[i].first, 2);
        assert_int_equal(waiters[i].missed, 0);
        assert_in_range(waiters[i].last, 2, 3);
    }
    assert_int_equal(waiters[1499].last, 3);
    check_answer(&waiters[2000], 3, 3, 3, 0);
    assert_int_equal(counters.polls_parked, 0);
}

/* More updates in one go than a channel keeps: whoever waited gets them all. */
static void test_burst_beyond_the_bound(void **state) {
    (void)state;
    options.channel_max_updates = 3;
    make_inbox();
    push_durable("a", 1);
    for (int i = 0; i < 1200; i++)
        wait_for(i, "a", 1);
    uint64_t bytes = counters.cache_bytes;
    push_durable("a", 400);
    run_wakes();
    assert_true(counters.cache_bytes < bytes + 512 * sizeof(void *) + 1000); /* the burst is gone */
    for (int i = 0; i < 1200; i++)
        check_answer(&waiters[i], 2, 401, 401, 0);
    /* Afterwards the bound holds again. */
    struct waiter *waiter = ask(0, "a", 1);
    fake_serve_reads();
    check_answer(waiter, 399, 401, 401, 397);
    push_durable("a", 1);
    waiter = ask(0, "a", 1);
    fake_serve_reads();
    check_answer(waiter, 400, 402, 402, 398);
}

/* Runs the loop until nothing is to be done; returns how many turns answered polls, a bounded
 * number each. */
static int count_slices(void) {
    int turns = 0, before = polls_done;
    while (uv_loop_alive(&loop)) {
        turn();
        assert_true(polls_done - before <= 512);
        turns += polls_done > before;
        before = polls_done;
    }
    return turns;
}

/* So are polls that wait for their channel's load. One that goes meanwhile is not answered, and
 * one that waits longer does not miss the next update. */
static void test_loads_in_slices(void **state) {
    (void)state;
    make_inbox();
    fake_add("a", 1);
    for (int i = 0; i < 2000; i++)
        wait_for(i, "a", i == 1990 ? 1 : 0);
    int before = polls_done;
    fake_serve_read(STORE_OK);
    assert_true(polls_done - before <= 513);
    cancel(1995);
    assert_true(count_slices() >= 2);
    for (int i = 0; i < 2000; i++)
        if (i != 1990 && i != 1995)
            check_answer(&waiters[i], 1, 1, 1, 0);
    assert_int_equal(waiters[1995].answers, 0);
    assert_int_equal(waiters[1990].poll.state, POLL_PARKED);
    push_durable("a", 1);
    run_wakes();
    check_answer(&waiters[1990], 2, 2, 2, 0);
}

/* And those that end with an error. */
static void test_failures_in_slices(void **state) {
    (void)state;
    make_inbox();
    for (int i = 0; i < 2000; i++)
        wait_for(i, "a", 0);
    int before = polls_done;
    fake_serve_read(STORE_FAILED);
    assert_true(polls_done - before <= 512);
    assert_int_equal(waiters[1999].poll.state, POLL_ENDING);
    cancel(1999);
    assert_true(count_slices() >= 2);
    for (int i = 0; i < 1999; i++)
        check_error(&waiters[i], STORE_FAILED);
    assert_int_equal(waiters[1999].answers, 0);
}

/* And those whose channel begins anew. */
static void test_resets_in_slices(void **state) {
    (void)state;
    make_inbox();
    push_durable("a", 9);
    for (int i = 0; i < 2000; i++)
        wait_for(i, "a", 9);
    fake_restart("a", 3);
    int before = polls_done;
    push_durable("a", 1);
    assert_true(polls_done - before <= 512);
    assert_true(count_slices() >= 2);
    for (int i = 0; i < 2000; i++) {
        assert_true(waiters[i].reset);
        assert_int_equal(waiters[i].ts, 3);
        assert_int_equal(waiters[i].answers, 1);
    }
    assert_int_equal(counters.polls_parked, 0);
}

static void test_what_expires_as_it_comes(void **state) {
    (void)state;
    make_inbox();
    push_durable("a", 1);
    wait_for(0, "a", 1);
    push_durable("a", 1);
    fake.now_ms += options.ttl_ms + 1;
    run_wakes();
    check_answer(&waiters[0], 2, 2, 2, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        INBOX_TEST(test_shared_answer),
        INBOX_TEST(test_slices),
        INBOX_TEST(test_loads_in_slices),
        INBOX_TEST(test_failures_in_slices),
        INBOX_TEST(test_resets_in_slices),
        INBOX_TEST(test_slices_are_fair),
        INBOX_TEST(test_between_slices),
        INBOX_TEST(test_burst_beyond_the_bound),
        INBOX_TEST(test_what_expires_as_it_comes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
