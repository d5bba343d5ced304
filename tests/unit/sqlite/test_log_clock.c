/* The log's own clock across restarts, and while the wall clock jumps. */
#include "fixture.h"

#include "sqlite/log_clock.h"

enum { T = 1000000000 };

static struct log_time resume(struct log_time then, int64_t wall_ms) {
    return log_time_resume(then, wall_ms, false);
}

static void test_new_file(void **state) {
    (void)state;
    assert_int_equal(resume((struct log_time){0}, T).log_ms, T);
}

static void test_a_stop_counts_for_a_day_at_most(void **state) {
    (void)state;
    struct log_time then = {.log_ms = T, .wall_ms = T};
    assert_int_equal(resume(then, T + 5).log_ms, T + 5);
    assert_int_equal(resume(then, T + DAY_MS).log_ms, T + DAY_MS);
    assert_int_equal(resume(then, T + DAY_MS + 1).log_ms, T + DAY_MS);
    assert_int_equal(resume(then, T + (int64_t)9 * DAY_MS).log_ms, T + DAY_MS);
    assert_int_equal(resume(then, T - 5).log_ms, T);
    assert_int_equal(resume(then, 0).log_ms, T);
}

static void test_an_upgrade_counts_for_a_minute_at_most(void **state) {
    (void)state;
    struct log_time then = {.log_ms = T, .wall_ms = T, .unseen_ms = 7};
    assert_int_equal(log_time_resume(then, T + 5, true).log_ms, T + 5);
    assert_int_equal(log_time_resume(then, T + DAY_MS, true).log_ms, T + 60000);
    assert_int_equal(log_time_resume(then, T - DAY_MS, true).log_ms, T - 7);
}

/* What a wrong clock added, a right one takes back; never more. */
static void test_to_and_fro(void **state) {
    (void)state;
    struct log_time time = {.log_ms = T, .wall_ms = T};
    for (int i = 0; i < 20; i++) {
        time = resume(time, T + (int64_t)8 * DAY_MS);
        assert_int_equal(time.log_ms, T + DAY_MS);
        time = resume(time, T);
        assert_int_equal(time.log_ms, T);
        assert_int_equal(time.unseen_ms, 0);
    }
    time = resume(time, T - (int64_t)100 * DAY_MS);
    time = resume(time, T);
    assert_int_equal(time.log_ms, T + DAY_MS);
}

/* Ages go on by the steady clock, whatever the wall clock does. */
static void test_while_it_runs(void **state) {
    (void)state;
    struct log_clock clock;
    log_clock_start(&clock, &options, (struct log_time){0});
    int64_t begun = log_clock_now(&clock);
    wall_jump_ms = (int64_t)800 * DAY_MS;
    now_ms += HOUR_MS;
    log_clock_watch(&clock);
    assert_int_equal(log_clock_now(&clock), begun + HOUR_MS);
    struct log_time time = log_clock_time(&clock);
    assert_int_equal(time.log_ms, begun + HOUR_MS);
    assert_int_equal(time.wall_ms, now_ms); /* what it would be without the jump */
}

/* The time is noted every hour: a kill loses nothing of it. */
static void test_after_a_kill(void **state) {
    (void)state;
    open_log();
    assert_int_equal(push("a"), 1);
    for (int hour = 0; hour < 6 * 24; hour++) {
        now_ms += HOUR_MS;
        maintain();
    }
    assert_int_equal(push("a"), 2);
    crash();
    check_read("a", 0, 10, 2, 1, 2);
    now_ms += DAY_MS;
    settle();
    check_read("a", 0, 10, 2, 2, 2);
    assert_int_equal(stats().updates, 1);
}

/* A clock that was set back over a restart takes time back, but no update is older than the one
 * before: a channel's end is found, and its ids go on. */
static void test_born_never_goes_back(void **state) {
    (void)state;
    open_log();
    assert_true(push_many("a", 1, 200));
    close_log();
    now_ms += DAY_MS / 2; /* nobody sees it */
    open_log();
    assert_true(push_many("a", 201, 100));
    close_log();
    wall_jump_ms = -DAY_MS;
    open_log();
    assert_true(push_many("a", 301, 1));
    for (int hour = 0; hour < 8 * 24; hour++) {
        struct store_read *read = read_channel("a", 0);
        assert_in_range(read->end, 0, 301);
        assert_int_equal(read->total, 301);
        if (read->count)
            assert_int_equal(read->updates[read->count - 1]->ts, 301);
        read_free(read);
        now_ms += HOUR_MS;
        maintain();
    }
    check_read("a", 0, 1000, 301, 1, 0);
    assert_int_equal(push("a"), 302);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new_file),
        cmocka_unit_test(test_a_stop_counts_for_a_day_at_most),
        cmocka_unit_test(test_an_upgrade_counts_for_a_minute_at_most),
        cmocka_unit_test(test_to_and_fro),
        LOG_TEST(test_while_it_runs),
        LOG_TEST(test_after_a_kill),
        LOG_TEST(test_born_never_goes_back),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
