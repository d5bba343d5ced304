/* What stays in memory. */
#include "waiters.h"

static void test_cache_is_trimmed(void **state) {
    (void)state;
    options.cache_max_bytes = 100000;
    make_inbox();
    char body[1000], name[16];
    memset(body, ' ', sizeof body);
    wait_for(2, "waiting", 0);
    fake_serve_read(STORE_OK);
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < 500; i++) {
            snprintf(name, sizeof name, "c%d", i);
            poll_once(name);
            push_body(name, (struct slice){body, sizeof body});
            fake_answer_append(STORE_OK);
            assert_true(counters.cache_bytes <= options.cache_max_bytes);
        }
    assert_true(counters.cache_bytes > options.cache_max_bytes / 2); /* and not for nothing */
    assert_in_range(counters.channels_resident, 10, 200);
    /* The recently used are there, the others are read again; nothing is lost. */
    check_answer(ask(1, "c499", 2), 3, 3, 3, 0);
    struct waiter *waiter = ask(1, "c0", 0);
    assert_int_equal(waiter->answers, 0);
    fake_serve_read(STORE_OK);
    check_answer(waiter, 1, 3, 3, 0);
    /* A channel with a poll stays. */
    assert_int_equal(waiters[2].poll.state, POLL_PARKED);
    push_durable("waiting", 1);
    run_wakes();
    check_answer(&waiters[2], 1, 1, 1, 0);
}

/* A burst reaches all polls that wait, even when the cache is too small for it. */
static void test_cache_too_small(void **state) {
    (void)state;
    options.cache_max_bytes = 1;
    options.channel_max_updates = 3; /* the store does not have all of it any more */
    make_inbox();
    for (int i = 0; i < 700; i++) {
        wait_for(i, "a", 0);
        if (i == 0)
            fake_serve_read(STORE_OK);
    }
    push_durable("a", 20);
    run_wakes();
    fake_serve_reads();
    for (int i = 0; i < 700; i++)
        check_answer(&waiters[i], 1, 20, 20, 0);
    struct waiter *waiter = ask(0, "a", 19);
    fake_serve_reads();
    check_answer(waiter, 20, 20, 20, 0);
}

/* What is pushed to, or polled, stays; of what is not, the oldest goes. */
static void test_least_recently_used_goes(void **state) {
    (void)state;
    options.cache_max_bytes = 20000;
    options.channel_max_updates = 3;
    make_inbox();
    char body[1000], name[16];
    memset(body, ' ', sizeof body);
    poll_once("polled");
    push_durable("polled", 1);
    poll_once("pushed");
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "c%d", i);
        poll_once(name);
        push_body(name, (struct slice){body, sizeof body});
        fake_answer_append(STORE_OK);
        push_durable("pushed", 1);
        check_answer(ask(0, "polled", 0), 1, 1, 1, 0);
    }
    check_answer(ask(0, "pushed", 197), 198, 200, 200, 0);
    assert_int_equal(fake.reads_made, 0);
    ask(0, "c0", 0);
    assert_int_equal(fake.reads_made, 1);
}

/* What nobody reads takes no memory for its updates. Those who come for it together share one read,
 * also where others were there before, and from then on it stays in memory. */
static void test_what_nobody_reads(void **state) {
    (void)state;
    make_inbox();
    push_durable("a", 1);
    uint64_t bytes = counters.cache_bytes;
    push_durable("a", 9);
    assert_int_equal(counters.cache_bytes, bytes);
    struct waiter *waiting = wait_for(0, "a", 10);
    assert_int_equal(waiting->poll.state, POLL_PARKED); /* it wants none of them */
    assert_int_equal(fake.reads_made, 0);
    for (int i = 1; i < 100; i++)
        ask(i, "a", 5);
    fake_serve_reads();
    for (int i = 1; i < 100; i++)
        check_answer(&waiters[i], 6, 10, 10, 0);
    push_durable("a", 1);
    run_wakes();
    check_answer(waiting, 11, 11, 11, 0);
    check_answer(ask(1, "a", 5), 6, 11, 11, 0);
    assert_int_equal(fake.reads_made, 1);
}

/* Pushes that are told of before the read is done send nobody to the store. */
static void test_pushes_beside_the_read_for_many(void **state) {
    (void)state;
    make_inbox();
    push_durable("a", 10);
    wait_for(0, "a", 10);
    push_durable("a", 1); /* that one is in memory */
    run_wakes();
    check_answer(&waiters[0], 11, 11, 11, 0);
    for (int i = 1; i < 100; i++)
        ask(i, "a", 5);
    push_durable("a", 2);
    run_wakes();
    cancel(1); /* whose read it is */
    fake_serve_reads();
    run_wakes();
    for (int i = 2; i < 100; i++)
        check_answer(&waiters[i], 6, 13, 13, 0);
    check_answer(ask(1, "a", 5), 6, 13, 13, 0);
    assert_int_equal(fake.reads_made, 1);
}

/* Where that read fails, only its poll learns of it. */
static void test_the_read_for_many_fails(void **state) {
    (void)state;
    make_inbox();
    push_durable("a", 3);
    struct waiter *first = ask(0, "a", 0), *second = ask(1, "a", 1);
    fake_serve_read(STORE_FAILED);
    check_error(first, STORE_FAILED);
    fake_serve_reads();
    check_answer(second, 2, 3, 3, 0);
}

/* Channels that nobody polls take little memory, however many there are: the newest stay, and what
 * one of them was at, so that a poll may wait without a read. One that was polled stays
 * beside them. */
static void test_channels_that_nobody_polls(void **state) {
    (void)state;
    enum { CHANNELS = 4500, STAY = 4096 };
    make_inbox();
    poll_once("polled");
    push_durable("polled", 1);
    for (int i = 0; i < CHANNELS; i++) {
        char name[16];
        snprintf(name, sizeof name, "c%d", i);
        push_durable(name, 1);
    }
    assert_int_equal(counters.channels_resident, STAY + 1);
    fake.reads_made = 0;
    check_answer(ask(1, "polled", 0), 1, 1, 1, 0);
    assert_int_equal(wait_for(2, "c4499", 1)->poll.state, POLL_PARKED);
    assert_int_equal(fake.reads_made, 0);
    struct waiter *waiter = ask(3, "c0", 0);
    assert_int_equal(fake.reads_made, 1);
    fake_serve_reads();
    check_answer(waiter, 1, 1, 1, 0);
}

/* One of them that is in use does not keep the others in memory. */
static void test_one_in_use_that_nobody_polls(void **state) {
    (void)state;
    options.cache_max_bytes = 20000;
    make_inbox();
    char body[1000], name[16];
    memset(body, ' ', sizeof body);
    push_durable("used", 1);
    forget(1, "used", "consumer"); /* which is under way */
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "c%d", i);
        poll_once(name);
        push_body(name, (struct slice){body, sizeof body});
        fake_answer_append(STORE_OK);
        assert_true(counters.cache_bytes <= options.cache_max_bytes);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        INBOX_TEST(test_cache_is_trimmed),
        INBOX_TEST(test_cache_too_small),
        INBOX_TEST(test_least_recently_used_goes),
        INBOX_TEST(test_what_nobody_reads),
        INBOX_TEST(test_pushes_beside_the_read_for_many),
        INBOX_TEST(test_the_read_for_many_fails),
        INBOX_TEST(test_channels_that_nobody_polls),
        INBOX_TEST(test_one_in_use_that_nobody_polls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
