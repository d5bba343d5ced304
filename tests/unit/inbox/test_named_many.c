/* Many polls of one consumer, and many consumers of one channel. */
#include "named.h"

static void test_a_load_that_fails(void **state) {
    (void)state;
    make_inbox();
    push_durable("c", 1);
    for (int i = 0; i < 2000; i++)
        start_as(i, "c", "bot", FROM_CONFIRMED, WAITS, !CONFIRMS_NOW);
    fake_serve_cursors(STORE_AWAY);
    int now = polls_done;
    assert_in_range(now, 1, 1999); /* not all at once */
    cancel(1999);
    run_wakes();
    for (int i = 0; i < 1999; i++)
        check_error(&waiters[i], STORE_AWAY);
    assert_int_equal(waiters[1999].answers, 0);
    list_consumers(0, "c");
    serve();
    assert_int_equal(waiters[0].listed, 0);
    check_answer(get(0, "bot", FROM_CONFIRMED), 1, 1, 1, 0);
}

static void test_a_load_for_many(void **state) {
    (void)state;
    make_inbox();
    poll_once("c");
    push_durable("c", 1);
    for (int i = 0; i < 2000; i++)
        start_as(i, "c", "bot", FROM_CONFIRMED, !WAITS, !CONFIRMS_NOW);
    fake_serve_cursors(STORE_OK);
    fake_serve_reads();
    turn();
    assert_in_range(polls_done, 1, 1999); /* not all at once */
    serve();
    for (int i = 0; i < 2000; i++)
        check_answer(&waiters[i], 1, 1, 1, 0);
}

static void test_a_thousand_names(void **state) {
    (void)state;
    make_inbox();
    push_durable("c", 2);
    for (int i = 0; i < CONSUMERS_MAX; i++)
        get(0, number_name(i), 1);
    check_error(get(0, "more", FROM_CONFIRMED), STORE_CONSUMERS_FULL);
    check_error(get(0, number_name(7), FROM_CONFIRMED), STORE_OK);
    list_consumers(0, "c");
    assert_int_equal(waiters[0].listed, CONSUMERS_MAX);
    /* After a restart many come before those that are stored are loaded. */
    restart();
    for (int i = 0; i < 50; i++)
        start_as(i, "c", number_name(CONSUMERS_MAX + i), FROM_CONFIRMED, !WAITS, !CONFIRMS_NOW);
    start_as(50, "c", number_name(3), FROM_CONFIRMED, !WAITS, !CONFIRMS_NOW);
    serve();
    for (int i = 0; i < 50; i++)
        check_error(&waiters[i], STORE_CONSUMERS_FULL);
    check_answer(&waiters[50], 2, 2, 2, 0);
    list_consumers(0, "c");
    assert_int_equal(waiters[0].listed, CONSUMERS_MAX);
    for (uint32_t i = 1; i < CONSUMERS_MAX; i++) /* "n1" before "n10" */
        assert_true(strcmp(listed[i - 1].name, listed[i].name) < 0);
    forget(0, "c", number_name(5));
    serve();
    check_error(get(0, "more", FROM_CONFIRMED), STORE_OK);
}

/* As long as they are not loaded, nobody knows which of the names are new. */
static void test_names_that_come_before_the_load(void **state) {
    (void)state;
    make_inbox();
    push_durable("c", 1);
    for (int i = 0; i < 2 * CONSUMERS_MAX; i++)
        start_as(i, "c", number_name(i), FROM_CONFIRMED, !WAITS, !CONFIRMS_NOW);
    struct waiter *more = start_as(2 * CONSUMERS_MAX, "c", "more", 0, !WAITS, !CONFIRMS_NOW);
    check_error(more, STORE_CONSUMERS_FULL);
    serve();
    list_consumers(0, "c");
    assert_int_equal(waiters[0].listed, CONSUMERS_MAX);
}

static void test_expires(void **state) {
    (void)state;
    options.ttl_ms = 1000;
    make_inbox();
    push_durable("c", 2);
    for (int i = 0; i < CONSUMERS_MAX; i++)
        get(0, number_name(i), 2);
    save_and_serve();
    fake.now_ms += 900;
    get(0, number_name(1), -1);
    struct waiter *parked = start_as(1, "c", number_name(2), 2, WAITS, !CONFIRMS_NOW);
    fake.now_ms += 900;
    list_consumers(0, "c");
    assert_int_equal(waiters[0].listed, 2);
    fake.now_ms += 200;
    assert_int_equal(parked->answers, 0);
    inbox_expire(inbox, &parked->poll, false); /* it has been used until now */
    check_error(get(0, "new", FROM_CONFIRMED), STORE_OK);
    check_lag(number_name(2), 0);
    check_lag(number_name(1), 2);
}

static void test_others_forget_when_it_is_full(void **state) {
    (void)state;
    keep(2);
    for (int i = 0; i < CONSUMERS_MAX; i++)
        get(0, number_name(i), 1);
    check_error(get(0, "more", 1), STORE_CONSUMERS_FULL);
    save_and_serve();
    fake_forget_cursor("c", number_name(9));
    check_error(get(0, "more", 1), STORE_OK);
    check_error(get(0, "even more", 1), STORE_CONSUMERS_FULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        INBOX_TEST(test_a_load_that_fails), INBOX_TEST(test_a_load_for_many),
        INBOX_TEST(test_a_thousand_names),  INBOX_TEST(test_names_that_come_before_the_load),
        INBOX_TEST(test_expires),           SHARED_TEST(test_others_forget_when_it_is_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
