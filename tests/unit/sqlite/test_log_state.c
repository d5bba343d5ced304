/* What a start makes of `meta` and the log, and the stages of rows past a channel's bound. */
#include "support.h"

#include "sqlite/log_state.h"

static void test_new_file(void **state) {
    (void)state;
    struct log_meta meta = {.channel_max = 100};
    struct log_found found = {0};
    struct log_state got = log_state_at_start(&meta, &found, 100);
    assert_int_equal(got.last_seq, 0);
    assert_int_equal(got.checkpoint_seq, 0);
    assert_int_equal(got.last_channel_id, 0);
    assert_int_equal(got.rows, 0);
    assert_int_equal(log_excess_total(&got.excess), 0);
    assert_false(got.pass.is_open);
}

/* The log behind the counts is added to them; the rows of `channel` do not include it yet. */
static void test_log_ahead_of_checkpoint(void **state) {
    (void)state;
    struct log_meta meta = {.checkpoint = 50,
                            .last_channel = 3,
                            .channel_max = 100,
                            .counted_seq = 60,
                            .rows = 40,
                            .excess = 5};
    struct log_found found = {
        .last_seq = 90, .last_channel_id = 7, .rows_after = 30, .full_after = 2};
    struct log_state got = log_state_at_start(&meta, &found, 100);
    assert_int_equal(got.last_seq, 90);
    assert_int_equal(got.checkpoint_seq, 50);
    assert_int_equal(got.last_channel_id, 7);
    assert_int_equal(got.rows, 70);
    assert_int_equal(got.excess.fresh, 7); /* until the next checkpoint includes them */
    assert_int_equal(log_excess_total(&got.excess), 7);
}

/* Where everything is deleted, only `meta` knows which seqs and ids are used. */
static void test_emptied_log(void **state) {
    (void)state;
    struct log_meta meta = {
        .checkpoint = 90, .last_channel = 7, .channel_max = 100, .counted_seq = 90};
    struct log_found found = {0};
    struct log_state got = log_state_at_start(&meta, &found, 100);
    assert_int_equal(got.last_seq, 90);
    assert_int_equal(got.checkpoint_seq, 90);
    assert_int_equal(got.last_channel_id, 7);
    assert_int_equal(got.rows, 0);
}

static void test_bound_on_count_changed(void **state) {
    (void)state;
    struct log_meta meta = {.checkpoint = 90, .channel_max = 100, .rows = 40, .excess = 5};
    struct log_found found = {.last_seq = 90, .rows_after = 30, .full_after = 2};
    assert_int_equal(log_state_at_start(&meta, &found, 99).excess.ready, 5 + 2 + 70);
    assert_int_equal(log_state_at_start(&meta, &found, 100).excess.ready, 5 + 2);
    assert_int_equal(log_state_at_start(&meta, &found, 101).excess.ready, 5 + 2);
    /* Only rows from before a bound was raised may be missing. */
    assert_int_equal(log_state_at_start(&meta, &found, 99).raised_seq, 0);
    assert_int_equal(log_state_at_start(&meta, &found, 100).raised_seq, 0);
    assert_int_equal(log_state_at_start(&meta, &found, 101).raised_seq, 90);
    meta.raised_seq = 33;
    assert_int_equal(log_state_at_start(&meta, &found, 100).raised_seq, 33);
}

/* Nothing is known but what the log says: everything must be counted, and may be missing. */
static void test_damaged_meta(void **state) {
    (void)state;
    struct log_meta meta = {.is_damaged = true};
    struct log_found found = {
        .last_seq = 90, .last_channel_id = 7, .rows_after = 70, .full_after = 2};
    struct log_state got = log_state_at_start(&meta, &found, 100);
    assert_int_equal(got.checkpoint_seq, 0);
    assert_int_equal(got.last_seq, 90);
    assert_int_equal(got.rows, 70);
    assert_int_equal(log_excess_total(&got.excess), 72);
    assert_int_equal(got.raised_seq, 90);
}

static void check_excess(const struct log_excess *excess, int64_t fresh, int64_t in_checkpoint,
                         int64_t ready, int64_t in_pass) {
    assert_int_equal(excess->fresh, fresh);
    assert_int_equal(excess->in_checkpoint, in_checkpoint);
    assert_int_equal(excess->ready, ready);
    assert_int_equal(excess->in_pass, in_pass);
    assert_int_equal(log_excess_total(excess), fresh + in_checkpoint + ready + in_pass);
}

/* A pass deletes what was ready when it was opened, whatever comes meanwhile. */
static void test_stages(void **state) {
    (void)state;
    struct log_excess excess = {.fresh = 10};
    log_excess_checkpoint_opened(&excess);
    check_excess(&excess, 0, 10, 0, 0);
    excess.fresh += 3;
    log_excess_checkpoint_done(&excess);
    check_excess(&excess, 3, 0, 10, 0);
    log_excess_pass_opened(&excess);
    check_excess(&excess, 3, 0, 0, 10);
    log_excess_checkpoint_opened(&excess);
    excess.fresh += 2;
    log_excess_checkpoint_done(&excess);
    check_excess(&excess, 2, 0, 3, 10);
    log_excess_deleted(&excess, 9);
    check_excess(&excess, 2, 0, 3, 1);
    log_excess_pass_done(&excess, true);
    check_excess(&excess, 2, 0, 3, 0);
}

/* What a pass leaves is for the next one; what it finds beyond what it came for, others need not
 * delete. */
static void test_pass_that_ends_early(void **state) {
    (void)state;
    struct log_excess excess = {.fresh = 2, .in_checkpoint = 3, .ready = 5, .in_pass = 10};
    log_excess_deleted(&excess, 6);
    log_excess_pass_done(&excess, false);
    check_excess(&excess, 2, 3, 9, 0);
    log_excess_pass_opened(&excess);
    log_excess_deleted(&excess, 11);
    check_excess(&excess, 2, 1, 0, 0);
    log_excess_deleted(&excess, 100);
    check_excess(&excess, 0, 0, 0, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_new_file),
        cmocka_unit_test(test_log_ahead_of_checkpoint),
        cmocka_unit_test(test_emptied_log),
        cmocka_unit_test(test_bound_on_count_changed),
        cmocka_unit_test(test_pass_that_ends_early),
        cmocka_unit_test(test_stages),
        cmocka_unit_test(test_damaged_meta),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
