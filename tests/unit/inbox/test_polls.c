/* Polls over a store of our own: loading, reading, answering, cancelling. */
#include "waiters.h"

static void test_first_poll_loads(void **state) {
    (void)state;
    make_inbox();
    fake_add("a", 3);
    struct waiter *waiter = ask(0, "a", 0);
    assert_int_equal(waiter->answers, 0);
    assert_int_equal(fake.reads_made, 1);
    fake_serve_read(STORE_OK);
    check_answer(waiter, 1, 3, 3, 0);
    /* From then on it is in memory. */
    check_answer(ask(0, "a", 0), 1, 3, 3, 0);
    check_answer(ask(0, "a", 2), 3, 3, 3, 0);
    check_answer(ask(0, "a", 3), 1, 0, 3, 0);
    check_answer(ask(0, "a", -1), 3, 3, 3, 0);
    check_answer(ask(0, "a", -2), 2, 3, 3, 0);
    check_answer(ask(0, "a", -3), 1, 3, 3, 0);
    check_answer(ask(0, "a", -4), 1, 3, 3, 0);
    check_answer(ask(0, "a", -999999999999999999), 1, 3, 3, 0); /* what api lets through at most */
    assert_int_equal(fake.reads_made, 1);
}

static void test_damaged_updates_are_missed(void **state) {
    (void)state;
    fake.damage_every = 3;
    make_inbox();
    fake_add("a", 8); /* 3 and 6 are damaged */
    static const struct {
        int64_t ts;
        uint64_t first, last, missed;
    } cases[] = {{0, 1, 2, 0}, {2, 4, 5, 1}, {5, 7, 8, 1}, {3, 4, 5, 0}, {-6, 4, 5, 0}};
    for (int i = 0; i < 5; i++) {
        struct waiter *waiter = ask(i, "a", cases[i].ts);
        fake_serve_reads();
        check_answer(waiter, cases[i].first, cases[i].last, 8, cases[i].missed);
    }
}

static void test_unknown_channel(void **state) {
    (void)state;
    make_inbox();
    struct waiter *waiter = ask(0, "a", 0);
    fake_serve_read(STORE_OK);
    check_answer(waiter, 1, 0, 0, 0);
    check_answer(ask(0, "a", -7), 1, 0, 0, 0);
    waiter = wait_for(0, "a", -7);
    assert_int_equal(waiter->poll.state, POLL_PARKED);
    push_durable("a", 1);
    run_wakes();
    check_answer(waiter, 1, 1, 1, 0);
}

static void test_one_load_for_all(void **state) {
    (void)state;
    make_inbox();
    fake_add("a", 5);
    ask(0, "a", 0);
    ask(1, "a", 3);
    wait_for(2, "a", 5);
    wait_for(3, "a", 9);
    wait_for(4, "a", -2);
    wait_for(5, "a", 5);
    assert_int_equal(fake.reads_made, 1);
    assert_int_equal(polls_done, 0);
    fake_serve_read(STORE_OK);
    check_answer(&waiters[0], 1, 5, 5, 0);
    check_answer(&waiters[1], 4, 5, 5, 0);
    check_answer(&waiters[4], 4, 5, 5, 0);
    assert_true(waiters[3].reset && !waiters[3].error && waiters[3].ts == 5);
    assert_int_equal(counters.polls_parked, 2);
    push_durable("a", 1);
    run_wakes();
    check_answer(&waiters[2], 6, 6, 6, 0);
    check_answer(&waiters[5], 6, 6, 6, 0);
    assert_int_equal(counters.polls_parked, 0);
}

/* The poll that causes the load parks once, like those that join it. */
static void test_parks_once(void **state) {
    (void)state;
    make_inbox();
    for (int i = 0; i < 10; i++)
        wait_for(i, "a", 0);
    fake_serve_read(STORE_OK);
    assert_int_equal(counters.polls_parked, 10);
    push_durable("a", 1);
    run_wakes();
    for (int i = 0; i < 10; i++)
        check_answer(&waiters[i], 1, 1, 1, 0);
    assert_int_equal(counters.polls_parked, 0);
}

static void test_failed_load(void **state) {
    (void)state;
    make_inbox();
    fake_add("a", 2);
    ask(0, "a", 0);
    wait_for(1, "a", 2);
    fake_serve_read(STORE_FAILED);
    for (int i = 0; i < 2; i++) {
        check_error(&waiters[i], STORE_FAILED);
    }
    assert_int_equal(counters.polls_parked, 0);
    assert_int_equal(counters.channels_resident, 0);
    /* The next one tries again. */
    struct waiter *waiter = ask(0, "a", 0);
    assert_int_equal(fake.reads_made, 2);
    fake_serve_read(STORE_OK);
    check_answer(waiter, 1, 2, 2, 0);
}

static void test_backlog_is_read(void **state) {
    (void)state;
    make_inbox();
    fake_add("a", 900);
    struct waiter *waiter = ask(0, "a", 890);
    fake_serve_read(STORE_OK);
    check_answer(waiter, 891, 900, 900, 0);
    waiter = ask(0, "a", 10);
    assert_int_equal(waiter->poll.state, POLL_READING);
    fake_serve_read(STORE_OK);
    check_answer(waiter, 11, 900, 900, 0);
    waiter = start(0, "a", 10, 5, true);
    fake_serve_read(STORE_OK);
    assert_int_equal(waiter->ts, 15);
    check_answer(waiter, 11, 15, 900, 0);
    waiter = ask(0, "a", 10);
    fake_serve_read(STORE_FAILED);
    check_error(waiter, STORE_FAILED);
    check_answer(ask(0, "a", 899), 900, 900, 900, 0); /* the channel itself is as it was */
}

static void test_missed(void **state) {
    (void)state;
    options.channel_max_updates = 10;
    make_inbox();
    fake_add("a", 30);
    fake_channel("a")->gone = 25;
    struct waiter *waiter = ask(0, "a", 2);
    fake_serve_read(STORE_OK);
    check_answer(waiter, 26, 30, 30, 23);
    waiter = ask(0, "a", -10); /* whoever asks for the last K misses nothing */
    fake_serve_reads();
    check_answer(waiter, 26, 30, 30, 0);
    push_durable("b", 25);
    waiter = ask(0, "b", 3);
    fake_serve_reads();
    check_answer(waiter, 16, 25, 25, 12);
    /* What is gone is known: nothing is read for it. */
    int reads_made = fake.reads_made;
    check_answer(ask(0, "a", 2), 26, 30, 30, 23);
    assert_int_equal(fake.reads_made, reads_made);
    /* Neither does the poll that loads the channel miss anything of the last K. */
    fake_add("d", 30);
    fake_channel("d")->gone = 25;
    waiter = ask(0, "d", -10);
    fake_serve_read(STORE_OK);
    check_answer(waiter, 26, 30, 30, 0);
    /* All of it is gone. */
    fake_add("c", 8);
    fake_channel("c")->gone = 8;
    waiter = wait_for(0, "c", 3);
    fake_serve_read(STORE_OK);
    check_answer(waiter, 9, 8, 8, 5);
}

static void test_expired_in_memory(void **state) {
    (void)state;
    options.ttl_ms = 1000;
    make_inbox();
    poll_once("a");
    for (int i = 0; i < 10; i++, fake.now_ms += 100)
        push_durable("a", 1);
    /* Stored at 0, 100, … 900; it is 1,000. */
    check_answer(ask(0, "a", 0), 1, 10, 10, 0);
    fake.now_ms += 450;
    check_answer(ask(0, "a", 0), 6, 10, 10, 5);
    check_answer(ask(0, "a", 7), 8, 10, 10, 0);
    check_answer(ask(0, "a", -9), 6, 10, 10, 0);
    fake.now_ms += 1000;
    check_answer(ask(0, "a", 4), 11, 10, 10, 6);
    /* What has no time is not too old. */
    fake_channel("a")->updates[8]->born_ms = 0;
    check_answer(ask(0, "a", 4), 9, 10, 10, 4);
}

static void test_reset(void **state) {
    (void)state;
    make_inbox();
    push_durable("a", 3);
    struct waiter *waiter = wait_for(0, "a", 4);
    assert_int_equal(waiter->answers, 1);
    assert_true(!waiter->error && waiter->reset);
    assert_int_equal(waiter->ts, 3);
    assert_int_equal(waiter->count, 0);
    waiter = wait_for(0, "a", INT64_MAX);
    assert_true(waiter->reset);
}

/* A channel that the store has forgotten begins anew; a read shows it. */
static void test_restart_seen_by_a_read(void **state) {
    (void)state;
    make_inbox();
    fake_add("a", 900);
    fake_channel("a")->gone = 2;
    wait_for(0, "a", 900);
    fake_serve_read(STORE_OK);
    fake_restart("a", 3);
    ask(1, "a", 10);
    ask(2, "a", -899);
    fake_serve_read(STORE_OK);
    for (int i = 0; i < 2; i++) {
        assert_true(waiters[i].answers == 1 && waiters[i].reset);
        assert_int_equal(waiters[i].ts, 3);
        assert_int_equal(waiters[i].total, 3);
    }
    assert_int_equal(counters.polls_parked, 0);
    fake_serve_read(STORE_OK);
    check_answer(&waiters[2], 1, 3, 3, 0);
    check_answer(ask(0, "a", 0), 1, 3, 3, 0); /* what was read is in memory */
}

static void test_limit_and_bytes_in_memory(void **state) {
    (void)state;
    make_inbox();
    poll_once("a");
    poll_once("b");
    poll_once("c");
    push_durable("a", 100);
    check_answer(start(0, "a", 10, 1, true), 11, 11, 100, 0);
    check_answer(start(0, "a", 10, 7, true), 11, 17, 100, 0);
    check_answer(start(0, "a", -10, 7, true), 91, 97, 100, 0);
    enum { LEN = 300000 };
    char *body = calloc(1, 2 << 20);
    for (int i = 0; i < 8; i++) {
        push_body("b", (struct slice){body, LEN});
        fake_answer_append(STORE_OK);
    }
    check_answer(ask(0, "b", 0), 1, READ_MAX_BYTES / LEN, 8, 0);
    check_answer(ask(0, "b", 6), 7, 8, 8, 0);
    push_body("c", (struct slice){body, 2 << 20});
    push("c");
    fake_answer_append(STORE_OK);
    fake_answer_append(STORE_OK);
    check_answer(ask(0, "c", 0), 1, 1, 2, 0);
    free(body);
}

/* As many reads as polls need are under way: none is refused. */
static void test_many_reads(void **state) {
    (void)state;
    make_inbox();
    fake_add("a", 900);
    ask(0, "a", 900);
    fake_serve_read(STORE_OK);
    for (int i = 0; i < WAITERS_MAX; i++)
        assert_int_equal(start(i, "a", 10, 1, false)->poll.state, POLL_READING);
    fake_serve_reads();
    for (int i = 0; i < WAITERS_MAX; i++)
        check_answer(&waiters[i], 11, 11, 900, 0);
}

/* From then on no read is begun. */
static void abandon_reads_of_a(void) {
    enum { ABANDONED_MAX = 4096 };
    fake_add("a", 900);
    ask(0, "a", 900);
    fake_serve_read(STORE_OK);
    for (int i = 0; i < ABANDONED_MAX; i++) {
        start(0, "a", 10, 1, false);
        cancel(0);
    }
}

/* Whoever polls and hangs up, again and again, does not fill the memory with reads. */
static void test_abandoned_reads(void **state) {
    (void)state;
    make_inbox();
    abandon_reads_of_a();
    check_error(ask(1, "a", 10), STORE_FAILED);
    struct poll poll = {.ts = 0, .limit = 1};
    assert_false(inbox_poll(inbox, SLICE("b"), &poll));
    assert_int_equal(counters.channels_resident, 1);
    fake_serve_read(STORE_OK);
    struct waiter *waiter = start(2, "a", 10, 1, false);
    fake_serve_reads();
    check_answer(waiter, 11, 11, 900, 0);
}

/* A channel whose first read is not begun stays, with those who wait there. */
static void test_no_first_read(void **state) {
    (void)state;
    make_inbox();
    abandon_reads_of_a();
    push_durable("b", 1);
    struct waiter *waiter = wait_for(1, "b", 1);
    struct poll poll = {.ts = 0, .limit = 1};
    assert_false(inbox_poll(inbox, SLICE("b"), &poll));
    push_durable("b", 1);
    run_wakes();
    check_answer(waiter, 2, 2, 2, 0);
}

static void test_cancel_in_each_state(void **state) {
    (void)state;
    make_inbox();
    fake_add("a", 900);
    cancel(0);             /* idle */
    wait_for(0, "a", 0);   /* its read is the load */
    wait_for(1, "a", 900); /* loading */
    wait_for(2, "a", 900);
    cancel(0);
    cancel(1);
    assert_int_equal(waiters[1].poll.state, POLL_IDLE);
    fake_serve_read(STORE_OK);
    assert_int_equal(polls_done, 0);
    assert_int_equal(counters.polls_parked, 1);
    wait_for(3, "a", 900); /* parked */
    cancel(3);
    cancel(3);           /* twice is harmless */
    wait_for(4, "a", 5); /* reading */
    assert_int_equal(waiters[4].poll.state, POLL_READING);
    cancel(4);
    fake_serve_read(STORE_OK);
    assert_int_equal(polls_done, 0);
    assert_int_equal(counters.polls_parked, 1);
    push_durable("a", 1);
    run_wakes();
    assert_int_equal(polls_done, 1);
    check_answer(&waiters[2], 901, 901, 901, 0);
    /* A load all of whose polls are gone, which fails. */
    wait_for(0, "b", 0);
    wait_for(1, "b", 0);
    cancel(0);
    cancel(1);
    fake_serve_read(STORE_FAILED);
    assert_int_equal(polls_done, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        INBOX_TEST(test_first_poll_loads),
        INBOX_TEST(test_damaged_updates_are_missed),
        INBOX_TEST(test_unknown_channel),
        INBOX_TEST(test_one_load_for_all),
        INBOX_TEST(test_parks_once),
        INBOX_TEST(test_failed_load),
        INBOX_TEST(test_backlog_is_read),
        INBOX_TEST(test_missed),
        INBOX_TEST(test_expired_in_memory),
        INBOX_TEST(test_reset),
        INBOX_TEST(test_restart_seen_by_a_read),
        INBOX_TEST(test_limit_and_bytes_in_memory),
        INBOX_TEST(test_many_reads),
        INBOX_TEST(test_abandoned_reads),
        INBOX_TEST(test_no_first_read),
        INBOX_TEST(test_cancel_in_each_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
