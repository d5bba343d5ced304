/* Pushes into a store of our own, also while their channel is being loaded. */
#include "waiters.h"

static void test_push(void **state) {
    (void)state;
    make_inbox();
    assert_non_null(push("a"));
    assert_int_equal(pushes_done, 0);
    fake_answer_append(STORE_OK);
    assert_int_equal(pushes_done, 1);
    assert_int_equal(last_pushed_ts, 1);
    assert_int_equal(counters.pushes, 1);
    struct waiter *waiter = wait_for(0, "a", 1);
    assert_int_equal(counters.polls_parked, 1);
    push("a");
    fake_answer_append(STORE_FAILED);
    run_wakes();
    assert_int_equal(pushes_failed, 1);
    assert_int_equal(counters.pushes, 1);
    assert_int_equal(waiter->answers, 0); /* what is not stored is not delivered */
    push("a");
    turn();
    assert_int_equal(waiter->answers, 0); /* nor is it before it is stored */
    fake_answer_append(STORE_OK);
    run_wakes();
    check_answer(waiter, 2, 2, 2, 0);
    assert_false(inbox_is_writing(inbox));
    inbox_cancel_push(push("a"));
    assert_true(inbox_is_writing(inbox));
    fake_answer_append(STORE_OK);
    assert_false(inbox_is_writing(inbox));
    assert_int_equal(pushes_without_owner, 1);
    check_answer(ask(0, "a", 2), 3, 3, 3, 0);
}

static void test_channels_are_apart(void **state) {
    (void)state;
    make_inbox();
    wait_for(0, "a", 0);
    wait_for(1, "b", 0);
    fake_serve_read(STORE_OK);
    fake_serve_read(STORE_OK);
    push_durable("b", 1);
    run_wakes();
    assert_int_equal(waiters[0].answers, 0);
    check_answer(&waiters[1], 1, 1, 1, 0);
    assert_int_equal(counters.polls_parked, 1);
}

static void test_push_while_loading(void **state) {
    (void)state;
    make_inbox();
    fake_add("a", 3);
    wait_for(0, "a", 0); /* makes the load */
    wait_for(1, "a", 0);
    wait_for(2, "a", 3);
    wait_for(3, "a", 4);
    wait_for(4, "a", 2);
    push_durable("a", 1); /* the store did this before the read */
    fake_serve_reads();
    run_wakes();
    check_answer(&waiters[0], 1, 4, 4, 0);
    check_answer(&waiters[1], 1, 4, 4, 0);
    check_answer(&waiters[2], 4, 4, 4, 0);
    check_answer(&waiters[4], 3, 4, 4, 0);
    assert_int_equal(waiters[3].answers, 0);
    assert_int_equal(counters.polls_parked, 1);
    push_durable("a", 1);
    run_wakes();
    check_answer(&waiters[3], 5, 5, 5, 0);
}

/* The read was done first, then the append: whoever waits for the next one gets it. */
static void test_push_behind_the_load(void **state) {
    (void)state;
    make_inbox();
    fake_add("a", 3);
    wait_for(0, "a", 3);
    wait_for(1, "a", -1);
    push("a");
    fake_serve_reads();
    check_answer(&waiters[1], 3, 3, 3, 0);
    assert_int_equal(waiters[0].answers, 0);
    fake_answer_append(STORE_OK);
    run_wakes();
    check_answer(&waiters[0], 4, 4, 4, 0);
}

/* A load that fails behind a push: the channel is known through the push. */
static void test_failed_load_behind_a_push(void **state) {
    (void)state;
    make_inbox();
    fake_add("a", 3);
    wait_for(0, "a", 4);
    wait_for(1, "a", 4);
    push_durable("a", 1);
    fake_serve_read(STORE_FAILED);
    check_error(&waiters[0], STORE_FAILED);
    assert_int_equal(waiters[1].answers, 0);
    push_durable("a", 1);
    run_wakes();
    check_answer(&waiters[1], 5, 5, 5, 0);
}

/* A channel that the store has forgotten begins anew; a push shows it. */
static void test_restart_seen_by_a_push(void **state) {
    (void)state;
    make_inbox();
    fake_add("a", 3);
    fake_channel("a")->gone = 1;
    struct waiter *waiter = ask(0, "a", 0);
    fake_serve_read(STORE_OK);
    check_answer(waiter, 2, 3, 3, 1);
    wait_for(0, "a", 3);
    fake_restart("a", 0);
    push_durable("a", 1);
    run_wakes();
    assert_true(waiters[0].answers == 1 && waiters[0].reset);
    assert_int_equal(waiters[0].ts, 0);
    check_answer(ask(0, "a", 0), 1, 1, 1, 0);
}

static void test_batch(void **state) {
    (void)state;
    make_inbox();
    poll_once("a");
    assert_non_null(push_batch("a", 600));
    assert_int_equal(counters.pushes, 0);
    fake_answer_append(STORE_OK);
    assert_int_equal(pushes_done, 1);
    assert_int_equal(last_pushed_ts, 600);
    assert_int_equal(counters.pushes, 600);
    assert_int_equal(counters.push_bytes, 1200);
    check_answer(ask(0, "a", 344), 345, 600, 600, 0); /* as many as a channel keeps in memory */
    wait_for(1, "a", 600);
    inbox_cancel_push(push_batch("a", 1));
    fake_answer_append(STORE_OK);
    assert_int_equal(pushes_without_owner, 1);
    run_wakes();
    check_answer(&waiters[1], 601, 601, 601, 0);
}

/* Polls that wait get all of a batch, each in its pages, also where less is kept. */
static void test_batch_wakes(void **state) {
    (void)state;
    options.channel_max_updates = 30;
    make_inbox();
    push_durable("a", 1);
    for (int i = 0; i < 8; i++)
        start(i, "a", 1, i % 2 ? 10 : READ_MAX_UPDATES, true);
    assert_int_equal(counters.polls_parked, 8);
    push_batch("a", 1000);
    turn();
    assert_int_equal(waiters[0].answers, 0); /* it is not stored */
    fake_answer_append(STORE_OK);
    run_wakes();
    for (int i = 0; i < 8; i++)
        check_answer(&waiters[i], 2, i % 2 ? 11 : 1001, 1001, 0);
    assert_int_equal(counters.polls_parked, 0);
    struct waiter *waiter = ask(9, "a", 970);
    fake_serve_reads();
    check_answer(waiter, 972, 1001, 1001, 1); /* what is kept */
}

static void test_failed_batch(void **state) {
    (void)state;
    make_inbox();
    push_durable("a", 1);
    wait_for(0, "a", 1);
    push_batch("a", 100);
    push("a");
    fake_answer_append(STORE_FAILED);
    run_wakes();
    assert_int_equal(pushes_failed, 1);
    assert_int_equal(waiters[0].answers, 0);
    fake_answer_append(STORE_OK);
    run_wakes();
    check_answer(&waiters[0], 2, 2, 2, 0);
    assert_int_equal(counters.pushes, 2);
}

static void test_batch_while_loading(void **state) {
    (void)state;
    make_inbox();
    fake_add("a", 3);
    wait_for(0, "a", 0); /* makes the load */
    wait_for(1, "a", 3);
    wait_for(2, "a", 5);
    wait_for(3, "a", 6);
    push_batch("a", 3);
    fake_answer_append(STORE_OK); /* the store did this before the read */
    fake_serve_reads();
    run_wakes();
    check_answer(&waiters[0], 1, 6, 6, 0);
    check_answer(&waiters[1], 4, 6, 6, 0);
    check_answer(&waiters[2], 6, 6, 6, 0);
    assert_int_equal(waiters[3].answers, 0);
}

/* The store has found those of odd number to have come before. */
static void push_again(uint32_t count) {
    struct store_append *append = push_batch("a", count);
    append->deliveries = calloc(count, sizeof *append->deliveries);
    for (uint32_t i = 0; i < count; i += 2)
        append->deliveries[i] = (struct delivery){.is_once = true, .same_as = 1};
    fake_answer_append(STORE_OK);
    run_wakes();
}

static void test_what_came_before_wakes_nobody(void **state) {
    (void)state;
    make_inbox();
    push_durable("a", 2);
    wait_for(0, "a", 2);
    push_again(1);
    assert_int_equal(waiters[0].answers, 0);
    push_again(3);
    check_answer(&waiters[0], 3, 3, 3, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        INBOX_TEST(test_push),
        INBOX_TEST(test_channels_are_apart),
        INBOX_TEST(test_push_while_loading),
        INBOX_TEST(test_push_behind_the_load),
        INBOX_TEST(test_failed_load_behind_a_push),
        INBOX_TEST(test_restart_seen_by_a_push),
        INBOX_TEST(test_batch),
        INBOX_TEST(test_batch_wakes),
        INBOX_TEST(test_failed_batch),
        INBOX_TEST(test_batch_while_loading),
        INBOX_TEST(test_what_came_before_wakes_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
