/* When the next poll follows: after good replies, cuts, silence, errors and Retry-After. */
#include "cli/pace.h"
#include "support.h"

#include <sodium.h>

static struct pace pace;
static bool is_told;

static int set_up(void **state) {
    (void)state;
    pace_init(&pace, 20000, 1000);
    return sodium_init() < 0;
}

static int64_t cut(int64_t waited_ms) {
    return pace_failed(
        &pace, &(struct pace_failure){.is_cut = true, .waited_ms = waited_ms, .retry_after_s = -1},
        &is_told);
}

static int64_t lose(int64_t retry_after_s) {
    return pace_failed(&pace, &(struct pace_failure){.retry_after_s = retry_after_s}, &is_told);
}

static void test_good_replies_follow_at_once(void **state) {
    (void)state;
    assert_int_equal(pace_replied(&pace, false, 5), 0);
    assert_int_equal(pace_replied(&pace, true, 20000), 0);
    assert_in_range(pace_replied(&pace, true, 999), 500, 1000);
}

static void test_errors_double(void **state) {
    (void)state;
    static const int64_t steps_ms[] = {1000, 2000, 4000, 8000, 16000, 30000, 30000};
    for (size_t i = 0; i < sizeof steps_ms / sizeof *steps_ms; i++) {
        assert_in_range(lose(-1), steps_ms[i] / 2, steps_ms[i]);
        assert_true(is_told);
    }
    pace_replied(&pace, false, 0);
    assert_in_range(lose(-1), 500, 1000);
}

static void test_retry_after(void **state) {
    (void)state;
    assert_in_range(lose(7), 7000, 10500);
    assert_in_range(lose(100000), 60000, 90000);
    assert_in_range(lose(0), 500, 1000);
    assert_in_range(lose(-1), 1000, 2000);
}

static void test_cuts_are_no_failures(void **state) {
    (void)state;
    lose(-1);
    assert_int_equal(cut(12000), 0);
    assert_false(is_told);
    assert_int_equal(pace.sleep_ms, 9000);
    assert_int_equal(cut(9000), 0);
    assert_true(is_told);
    assert_int_equal(pace.sleep_ms, 6750);
    assert_in_range(cut(500), 250, 500);
    assert_false(is_told);
    assert_int_equal(pace.sleep_ms, 1000);
    assert_in_range(lose(-1), 500, 1000);
}

static void test_what_is_no_cut(void **state) {
    (void)state;
    assert_in_range(cut(499), 500, 1000);
    assert_in_range(cut(0), 1000, 2000);
    assert_in_range(cut(25001), 2000, 4000);
    assert_int_equal(pace.sleep_ms, 20000);
}

static void test_polls_grow_again(void **state) {
    (void)state;
    cut(4000);
    assert_int_equal(pace.sleep_ms, 3000);
    pace_replied(&pace, true, 2249);
    assert_int_equal(pace.sleep_ms, 3000);
    pace_replied(&pace, true, 2250);
    assert_int_equal(pace.sleep_ms, 3750);
    for (int i = 0; i < 20; i++)
        pace_replied(&pace, true, pace.sleep_ms);
    assert_int_equal(pace.sleep_ms, 20000);
}

static void test_silence_shortens(void **state) {
    (void)state;
    struct pace_failure silence = {.is_silent = true, .waited_ms = 35000, .retry_after_s = -1};
    assert_in_range(pace_failed(&pace, &silence, &is_told), 500, 1000);
    assert_int_equal(pace.sleep_ms, 15000);
    silence.waited_ms = 0;
    pace_failed(&pace, &silence, &is_told);
    assert_int_equal(pace.sleep_ms, 15000);
}

static void test_a_short_sleep_stays(void **state) {
    (void)state;
    pace_init(&pace, 600, 20);
    cut(700);
    assert_int_equal(pace.sleep_ms, 600);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_good_replies_follow_at_once, set_up),
        cmocka_unit_test_setup(test_errors_double, set_up),
        cmocka_unit_test_setup(test_retry_after, set_up),
        cmocka_unit_test_setup(test_cuts_are_no_failures, set_up),
        cmocka_unit_test_setup(test_what_is_no_cut, set_up),
        cmocka_unit_test_setup(test_polls_grow_again, set_up),
        cmocka_unit_test_setup(test_silence_shortens, set_up),
        cmocka_unit_test_setup(test_a_short_sleep_stays, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
