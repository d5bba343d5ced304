/* Over a shared store, as time passes: retries, checks, late loads, idle channels. */
#include "waiters.h"

static void on_handle(uv_handle_t *handle, void *type) {
    if (handle->type != *(uv_handle_type *)type || !uv_is_active(handle))
        return;
    if (handle->type == UV_TIMER)
        ((uv_timer_t *)handle)->timer_cb((uv_timer_t *)handle);
    else if (handle->type == UV_IDLE)
        ((uv_idle_t *)handle)->idle_cb((uv_idle_t *)handle);
    else
        ((uv_check_t *)handle)->check_cb((uv_check_t *)handle);
}

/* What the loop does before it looks at its sockets, and after. It has its own clock again as soon
 * as it runs. */
static void run_handles(uv_handle_type type) {
    uv_walk(&loop, on_handle, &type);
}

static void before_sockets(void) {
    run_handles(UV_TIMER);
    run_handles(UV_IDLE);
}

/* The inbox's tick, `ms` later. */
static void tick_after(uint64_t ms) {
    loop.time += ms;
    before_sockets();
    run_handles(UV_CHECK);
}

static void test_failed_reads_are_tried_again(void **state) {
    (void)state;
    static const uint64_t pauses[] = {100, 200, 400, 800, 1600, 3200, 5000, 5000};
    make_inbox();
    for (size_t i = 0; i < sizeof pauses / sizeof *pauses; i++) {
        wait_for(0, "c", 0);
        fake_turn_on();
        fake_serve_read(STORE_AWAY);
        check_error(&waiters[0], STORE_AWAY);
        tick_after(pauses[i] - 1);
        assert_true(list_empty(&fake.asked));
        tick_after(1);
    }
    fake_serve_read(STORE_OK);
    /* A read that succeeds makes the pause short again. */
    wait_for(0, "c", 0);
    fake_turn_off();
    fake_turn_on();
    fake_serve_read(STORE_AWAY);
    tick_after(99);
    assert_true(list_empty(&fake.asked));
    tick_after(1);
    fake_serve_read(STORE_OK);
}

/* Nothing has been heard since a poll came: the channel may have been flushed. */
static void test_silence_is_checked(void **state) {
    (void)state;
    make_inbox();
    fake_add("c", 3);
    wait_for(0, "c", 3);
    settle();
    fake_restart("c", 0);
    wait_for(1, "c", 3);
    tick_after(999);
    assert_true(list_empty(&fake.asked));
    tick_after(1);
    fake_serve_read(STORE_OK);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(waiters[i].answers, 1);
        assert_true(waiters[i].reset);
    }
    tick_after(5000); /* once */
    assert_true(list_empty(&fake.asked));
}

static void test_what_was_heard_is_not_checked(void **state) {
    (void)state;
    make_inbox();
    wait_for(0, "c", 0);
    settle();
    wait_for(1, "c", 0);
    fake_add("c", 1);
    fake_tell_one();
    wait_for(2, "c", 1);
    fake_add("c", 1);
    fake_tell_one();
    tick_after(5000);
    assert_true(list_empty(&fake.asked));
    run_wakes();
}

static void test_late_loads_fail(void **state) {
    (void)state;
    options.load_max_ms = 3000;
    make_inbox();
    wait_for(0, "c", 0); /* nobody tells of it */
    tick_after(2999);
    assert_int_equal(waiters[0].answers, 0);
    tick_after(1);
    check_error(&waiters[0], STORE_AWAY);
    /* The next has its own time. */
    wait_for(0, "c", 0);
    tick_after(2999);
    assert_int_equal(waiters[0].answers, 0);
    tick_after(1);
    check_error(&waiters[0], STORE_AWAY);
}

/* The loop was held up, and both are there: what the store says, and the time that is over. */
static void test_what_the_store_says_goes_before_the_tick(void **state) {
    (void)state;
    options.load_max_ms = 3000;
    make_inbox();
    wait_for(0, "c", 0);
    fake_turn_on();
    loop.time += 3000;
    before_sockets();
    fake_serve_read(STORE_OK);
    run_handles(UV_CHECK);
    assert_int_equal(waiters[0].answers, 0); /* it is parked */
}

/* The store serves one channel after the other: whoever waits for its turn is not late, within
 * bounds. */
static void test_a_busy_store_gets_more_time(void **state) {
    (void)state;
    enum { POLLS = 40 };
    options.load_max_ms = 3000;
    make_inbox();
    for (int i = 0; i < POLLS; i++) {
        static char names[POLLS][8];
        snprintf(names[i], sizeof names[i], "c%d", i);
        wait_for(i, names[i], 0);
    }
    fake_turn_on();
    int answered = 0, failed = 0;
    for (int second = 0; second < POLLS; second++) {
        tick_after(999);
        if (!list_empty(&fake.asked))
            fake_serve_read(STORE_OK);
        tick_after(1);
    }
    for (int i = 0; i < POLLS; i++) {
        failed += waiters[i].error == STORE_AWAY;
        answered += waiters[i].error == STORE_OK;
    }
    assert_in_range(answered, 25, 31);
    assert_int_equal(answered + failed, POLLS);
}

/* A load's time is that of the polls that wait for it now, not of those that are gone. */
static void test_a_load_begins_with_its_poll(void **state) {
    (void)state;
    options.load_max_ms = 3000;
    make_inbox();
    wait_for(0, "a", 0);
    loop.time += 1000;
    wait_for(1, "b", 0);
    cancel(1);
    loop.time += 1500;
    wait_for(1, "b", 0);
    tick_after(500);
    check_error(&waiters[0], STORE_AWAY);
    tick_after(2499);
    assert_int_equal(waiters[1].answers, 0);
    tick_after(1);
    check_error(&waiters[1], STORE_AWAY);
}

/* Polls look once more, one after the other: there is always one that waits. None is late. */
static void test_many_looks_are_not_late(void **state) {
    (void)state;
    enum { POLLS = 100 };
    options.load_max_ms = 3000;
    make_inbox();
    wait_for(0, "c", 0);
    settle();
    for (int i = 1; i < POLLS; i++)
        wait_for(i, "c", 0);
    inbox_expire(inbox, &waiters[0].poll, true);
    for (int i = 1; i < POLLS; i++) {
        wait_for(POLLS, "c", 0);
        fake_do_read();
        inbox_expire(inbox, &waiters[i].poll, true);
        fake_answer_read(STORE_OK);
        check_answer(&waiters[i - 1], 1, 0, 0, 0);
        tick_after(100);
        assert_int_equal(waiters[i].answers, 0);
        cancel(POLLS);
    }
    fake_serve_read(STORE_OK);
    check_answer(&waiters[POLLS - 1], 1, 0, 0, 0);
}

static void test_idle_channels_are_forgotten(void **state) {
    (void)state;
    make_inbox();
    wait_for(0, "a", 0);
    wait_for(1, "b", 0);
    settle();
    cancel(0);
    wait_for(0, "a", 0); /* now */
    cancel(0);
    cancel(1);
    wait_for(1, "b", 0);
    tick_after(9999);
    assert_non_null(fake_channel("a")->watch);
    tick_after(1);
    assert_null(fake_channel("a")->watch);
    assert_non_null(fake_channel("b")->watch);
    assert_int_equal(counters.channels_resident, 1);
    fake_serve_reads(); /* b was silent */
    cancel(1);
    tick_after(9999);
    assert_non_null(fake_channel("b")->watch);
    tick_after(1);
    assert_null(fake_channel("b")->watch);
    assert_int_equal(counters.channels_resident, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        SHARED_TEST(test_failed_reads_are_tried_again),
        SHARED_TEST(test_silence_is_checked),
        SHARED_TEST(test_what_was_heard_is_not_checked),
        SHARED_TEST(test_late_loads_fail),
        SHARED_TEST(test_what_the_store_says_goes_before_the_tick),
        SHARED_TEST(test_a_busy_store_gets_more_time),
        SHARED_TEST(test_a_load_begins_with_its_poll),
        SHARED_TEST(test_many_looks_are_not_late),
        SHARED_TEST(test_idle_channels_are_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
