/* Purges: nobody gets from memory what is gone, and nobody who waits is disturbed. */
#include "waiters.h"

static void purge(const char *channel, uint64_t upto) {
    assert_non_null(inbox_purge(inbox, slice_of(channel), upto, inbox));
    fake_answer_purge(STORE_OK);
}

static void test_what_is_in_memory_goes(void **state) {
    (void)state;
    make_inbox();
    poll_once("a");
    push_durable("a", 10);
    uint64_t bytes = counters.cache_bytes;
    purge("a", 4);
    assert_true(counters.cache_bytes < bytes);
    assert_int_equal(last_gone, 4);
    int reads = fake.reads_made;
    check_answer(ask(1, "a", 0), 5, 10, 10, 4);
    check_answer(ask(2, "a", 3), 5, 10, 10, 1);
    check_answer(ask(3, "a", 7), 8, 10, 10, 0);
    purge("a", UINT64_MAX);
    check_answer(ask(4, "a", 0), 1, 0, 10, 10);
    check_answer(ask(5, "a", 9), 1, 0, 10, 1);
    assert_int_equal(fake.reads_made, reads);
    push_durable("a", 1);
    check_answer(ask(6, "a", 0), 11, 11, 11, 10);
    assert_int_equal(fake.reads_made, reads);
    assert_int_equal(inbox_purges(inbox), 2);
}

static void test_those_who_wait_go_on(void **state) {
    (void)state;
    make_inbox();
    struct waiter *plain = wait_for(0, "a", 0);
    struct waiter *filtered = start_where(1, "a", "method:GET", 0, READ_MAX_UPDATES, true);
    fake_serve_reads();
    push_durable("a", 3);
    run_wakes();
    check_answer(plain, 1, 3, 3, 0);
    plain = wait_for(2, "a", 3);
    purge("a", UINT64_MAX);
    run_wakes();
    assert_int_equal(counters.polls_parked, 2);
    assert_int_equal(plain->answers + filtered->answers, 0);
    push_durable("a", 1);
    run_wakes();
    check_answer(plain, 4, 4, 4, 0);
    assert_int_equal(filtered->answers, 0);
    cancel(1);
}

/* Those that were woken, and whose turn has not come yet, are behind. */
static void test_those_who_are_being_woken(void **state) {
    (void)state;
    make_inbox();
    for (int i = 0; i < 2000; i++)
        i % 2 ? start_where(i, "a", "method:POST", 0, 10, true) : wait_for(i, "a", 0);
    fake_serve_reads();
    run_wakes();
    assert_int_equal(counters.polls_parked, 2000);
    push("a");
    fake_answer_append(STORE_OK);
    while (counters.polls_parked > 900) /* some of those with a filter are answered, too */
        turn();
    assert_true(counters.polls_parked);
    purge("a", UINT64_MAX);
    int before = polls_done;
    run_wakes();
    assert_true(polls_done > before);
    fake_serve_reads();
    assert_int_equal(counters.polls_parked, 0);
    uint64_t got = 0, missed = 0;
    for (int i = 0; i < 2000; i++) {
        assert_int_equal(waiters[i].answers, 1);
        assert_int_equal(waiters[i].count + waiters[i].missed, 1);
        assert_int_equal(waiters[i].count, waiters[i].order < before);
        got += waiters[i].count;
        missed += waiters[i].missed;
    }
    assert_true(got && missed);
}

static void test_the_owner_is_gone_and_the_store_fails(void **state) {
    (void)state;
    make_inbox();
    struct store_purge *handle = inbox_purge(inbox, SLICE("a"), 1, inbox);
    inbox_cancel_purge(handle);
    fake_answer_purge(STORE_OK);
    assert_int_equal(purges_without_owner, 1);
    wait_for(0, "a", 0);
    push_durable("a", 2);
    inbox_purge(inbox, SLICE("a"), UINT64_MAX, inbox);
    fake_answer_purge(STORE_FAILED);
    assert_int_equal(purges_failed, 1);
    check_answer(ask(1, "a", 0), 1, 2, 2, 0);
}

/* The worker looks through a page while what is on it is purged. */
static void test_while_the_worker_looks(void **state) {
    (void)state;
    make_inbox();
    static char body[200000];
    memset(body, ' ', sizeof body);
    memcpy(body, "{\"n\":1", 6);
    body[sizeof body - 1] = '}';
    wait_for(0, "a", 0);
    for (int i = 0; i < 3; i++) {
        push_body("a", (struct slice){body, sizeof body});
        fake_answer_append(STORE_OK);
    }
    struct waiter *one = start_where(1, "a", "body.n:1", 0, 10, true);
    assert_int_equal(one->answers, 0);
    purge("a", 2);
    while (!one->answers)
        turn();
    check_answer(one, 3, 3, 3, 2);
}

/* Of those that were given before a purge, and are told after it. */
static void test_which_answers_may_hold_what_is_purged(void **state) {
    (void)state;
    make_inbox();
    push_durable("a", 3);
    push_durable("b", 3);
    uint64_t before = inbox_purges(inbox);
    purge("a", 2);
    assert_true(inbox_may_be_purged(inbox, SLICE("a"), 2, before));
    assert_false(inbox_may_be_purged(inbox, SLICE("a"), 3, before));
    assert_false(inbox_may_be_purged(inbox, SLICE("b"), 1, before));
    assert_false(inbox_may_be_purged(inbox, SLICE("not in memory"), 1, before));
    uint64_t after = inbox_purges(inbox);
    assert_false(inbox_may_be_purged(inbox, SLICE("a"), 2, after));
    purge("a", 2); /* nothing new is gone */
    assert_int_equal(inbox_purges(inbox), after);
    for (int i = 0; i < 300; i++) { /* more than are noted */
        push_durable("c", 1);
        purge("c", UINT64_MAX);
    }
    assert_true(inbox_may_be_purged(inbox, SLICE("not in memory"), 1, before));
    assert_false(inbox_may_be_purged(inbox, SLICE("b"), 1, before));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        INBOX_TEST(test_what_is_in_memory_goes),
        INBOX_TEST(test_those_who_wait_go_on),
        INBOX_TEST(test_those_who_are_being_woken),
        INBOX_TEST(test_the_owner_is_gone_and_the_store_fails),
        INBOX_TEST(test_while_the_worker_looks),
        INBOX_TEST(test_which_answers_may_hold_what_is_purged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
