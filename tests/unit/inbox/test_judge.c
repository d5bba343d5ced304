/* The inbox's pure decisions: where a poll stands, and what a read says about a channel. */
#include "base/hash.h"
#include "inbox/follow.h"
#include "inbox/parts.h"
#include "support.h"

/* --- A poll's cursor -------------------------------------------------------------------------- */

static void test_cursor(void **state) {
    (void)state;
    static const struct {
        int64_t ts;
        uint64_t total, cursor;
    } cases[] = {
        {0, 0, 0},
        {0, 9, 0},
        {5, 9, 5},
        {9, 9, 9},
        {10, 9, 10},
        {INT64_MAX, 9, INT64_MAX}, /* ahead stays ahead */
        {-1, 9, 8},
        {-8, 9, 1},
        {-9, 9, 0},
        {-10, 9, 0},
        {-1, 0, 0},
        {-1, 1, 0},
        {-1000000000000000000, 9, 0},
        {-1, INT64_MAX, INT64_MAX - 1},
        {INT64_MIN, 9, 9},
        {INT64_MIN + 1, 9, 9}, /* now, and some time */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (poll_cursor(cases[i].ts, cases[i].total) != cases[i].cursor)
            fail_msg("ts %lld of %llu", (long long)cases[i].ts, (unsigned long long)cases[i].total);
}

/* --- Judging a read --------------------------------------------------------------------------- */

static struct slice body;

static int set_up(void **state) {
    (void)state;
    hash_init();
    body = SLICE("{\"n\":7}");
    return 0;
}

static struct update *make_update(uint64_t ts, int64_t at_ms, struct slice text) {
    struct update_parts parts = {.body = text, .method = SLICE("POST")};
    struct update *update = update_new(&parts);
    assert_non_null(update);
    update->ts = ts;
    update->at_ms = at_ms;
    return update;
}

/* A read that found no updates. */
static enum follow_verdict judge_total(struct follow_view view, uint64_t total) {
    struct store_read read = {.total = total};
    return follow_judge(&view, &read);
}

/* A read whose first update is this one. */
static enum follow_verdict judge_first(struct follow_view view, uint64_t total, uint64_t ts,
                                       int64_t at_ms, struct slice text) {
    struct update *update = make_update(ts, at_ms, text);
    struct store_read read = {.total = total, .updates = &update, .count = 1};
    enum follow_verdict verdict = follow_judge(&view, &read);
    update_unref(update);
    return verdict;
}

static void test_unknown_is_newer(void **state) {
    (void)state;
    struct follow_view unknown = {.is_known = false};
    assert_int_equal(judge_total(unknown, 0), FOLLOW_NEWER);
    assert_int_equal(judge_total(unknown, 9), FOLLOW_NEWER);
    /* Whatever stands in memory, it means nothing before the total is known. */
    unknown.total = 5;
    assert_int_equal(judge_total(unknown, 3), FOLLOW_NEWER);
    assert_int_equal(judge_total(unknown, 5), FOLLOW_NEWER);
    unknown.has_changed = true;
    assert_int_equal(judge_total(unknown, 3), FOLLOW_NEWER);
}

static void test_totals(void **state) {
    (void)state;
    struct follow_view view = {.is_known = true, .total = 7};
    assert_int_equal(judge_total(view, 6), FOLLOW_RESTARTED);
    assert_int_equal(judge_total(view, 0), FOLLOW_RESTARTED);
    assert_int_equal(judge_total(view, 7), FOLLOW_SAME);
    assert_int_equal(judge_total(view, 8), FOLLOW_NEWER);
    view.has_changed = true;
    assert_int_equal(judge_total(view, 6), FOLLOW_STALE);
    assert_int_equal(judge_total(view, 0), FOLLOW_STALE);
    assert_int_equal(judge_total(view, 7), FOLLOW_SAME);
    assert_int_equal(judge_total(view, 8), FOLLOW_NEWER);
    view = (struct follow_view){.is_known = true};
    assert_int_equal(judge_total(view, 0), FOLLOW_SAME);
    assert_int_equal(judge_total(view, 1), FOLLOW_NEWER);
}

/* Whatever the numbers say; but one that is not known proves nothing. */
static void test_epochs(void **state) {
    (void)state;
    struct follow_view view = {.is_known = true, .total = 7, .epoch = 5};
    struct store_read read = {.total = 9, .epoch = 6};
    assert_int_equal(follow_judge(&view, &read), FOLLOW_RESTARTED);
    read.epoch = 5;
    assert_int_equal(follow_judge(&view, &read), FOLLOW_NEWER);
    read.epoch = 0;
    assert_int_equal(follow_judge(&view, &read), FOLLOW_NEWER);
    read.epoch = 6;
    view.epoch = 0;
    assert_int_equal(follow_judge(&view, &read), FOLLOW_NEWER);
}

/* The newest update is read again, to see whether it is still the same. */
static void test_expected_update(void **state) {
    (void)state;
    struct follow_view view = {
        .is_known = true,
        .total = 7,
        .expected = {.ts = 7, .at_ms = 1000, .hash = hash_of(body)},
    };
    assert_int_equal(judge_first(view, 7, 7, 1000, body), FOLLOW_SAME);
    assert_int_equal(judge_first(view, 9, 7, 1000, body), FOLLOW_NEWER);
    /* Another one has its ts, though the counter has caught up. */
    assert_int_equal(judge_first(view, 7, 7, 1000, SLICE("{\"n\":8}")), FOLLOW_RESTARTED);
    assert_int_equal(judge_first(view, 9, 7, 1000, SLICE("{\"n\":8}")), FOLLOW_RESTARTED);
    assert_int_equal(judge_first(view, 7, 7, 1001, body), FOLLOW_RESTARTED);
    assert_int_equal(judge_first(view, 7, 7, 999, body), FOLLOW_RESTARTED);
    /* News that came meanwhile do not change that. */
    view.has_changed = true;
    assert_int_equal(judge_first(view, 7, 7, 1001, body), FOLLOW_RESTARTED);
    view.total = 8;
    assert_int_equal(judge_first(view, 7, 7, 1001, body), FOLLOW_RESTARTED);
    assert_int_equal(judge_first(view, 7, 7, 1000, body), FOLLOW_STALE);
}

/* An update that lua-long-polling stored has no time: its body alone tells it from others. */
static void test_expected_without_time(void **state) {
    (void)state;
    struct follow_view view = {
        .is_known = true,
        .total = 7,
        .expected = {.ts = 7, .at_ms = 0, .hash = hash_of(body)},
    };
    assert_int_equal(judge_first(view, 7, 7, 1000, body), FOLLOW_SAME);
    assert_int_equal(judge_first(view, 7, 7, 0, body), FOLLOW_SAME);
    assert_int_equal(judge_first(view, 7, 7, 0, SLICE("{}")), FOLLOW_RESTARTED);
    view.expected.at_ms = 1000;
    assert_int_equal(judge_first(view, 7, 7, 0, body), FOLLOW_SAME);
    assert_int_equal(judge_first(view, 7, 7, 0, SLICE("{}")), FOLLOW_RESTARTED);
}

/* Only the expected update proves anything. */
static void test_nothing_to_recognize(void **state) {
    (void)state;
    struct follow_view view = {.is_known = true, .total = 7};
    assert_int_equal(judge_first(view, 7, 7, 1000, body), FOLLOW_SAME);
    assert_int_equal(judge_first(view, 8, 8, 1000, body), FOLLOW_NEWER);
    view.expected = (struct follow_mark){.ts = 7, .at_ms = 1000, .hash = hash_of(body)};
    assert_int_equal(judge_first(view, 8, 8, 2000, SLICE("{}")), FOLLOW_NEWER); /* 7 is gone */
    assert_int_equal(judge_first(view, 9, 6, 2000, SLICE("{}")), FOLLOW_NEWER);
    assert_int_equal(judge_total(view, 7), FOLLOW_SAME); /* so is everything */
    assert_int_equal(judge_total(view, 9), FOLLOW_NEWER);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cursor),
        cmocka_unit_test_setup(test_unknown_is_newer, set_up),
        cmocka_unit_test_setup(test_totals, set_up),
        cmocka_unit_test_setup(test_epochs, set_up),
        cmocka_unit_test_setup(test_expected_update, set_up),
        cmocka_unit_test_setup(test_expected_without_time, set_up),
        cmocka_unit_test_setup(test_nothing_to_recognize, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
