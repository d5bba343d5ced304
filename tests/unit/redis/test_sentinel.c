/* What follows from the words of the Sentinels. */
#include "redis/sentinel.h"
#include "support.h"

static struct redis_word names(const char *master, long long epoch) {
    struct redis_word word = {.is_told = true, .epoch = epoch, .master.port = 6379};
    snprintf(word.master.host, sizeof word.master.host, "%s", master);
    return word;
}

static struct redis_word replaces(const char *master, long long epoch) {
    struct redis_word word = names(master, epoch);
    word.is_failing_over = true;
    return word;
}

static const struct redis_word silent;

/* The master that three words come to; NULL: none. `is_sure` must be right, too. */
static void check(struct redis_word a, struct redis_word b, struct redis_word c,
                  long long known_epoch, bool is_away, const char *master, bool is_sure) {
    struct redis_word words[] = {a, b, c};
    struct redis_verdict verdict = redis_sentinel_judge(words, 3, known_epoch, is_away);
    assert_int_equal(verdict.word != NULL, master != NULL);
    if (master)
        assert_string_equal(verdict.word->master.host, master);
    assert_int_equal(verdict.is_sure, is_sure);
}

static void test_one_word_is_enough(void **state) {
    (void)state;
    check(names("old", 1), names("old", 1), names("old", 1), 0, false, "old", true);
    check(silent, silent, names("old", 1), 1, false, "old", true);
    check(silent, silent, silent, 0, false, NULL, false);
}

static void test_the_newest_configuration_counts(void **state) {
    (void)state;
    check(names("old", 1), names("new", 2), names("old", 1), 1, false, "new", true);
    check(names("new", 2), names("old", 1), silent, 2, false, "new", true);
}

static void test_nobody_vouches_for_a_master_that_is_being_replaced(void **state) {
    (void)state;
    check(names("old", 1), replaces("old", 1), names("old", 1), 1, false, "old", false);
    check(replaces("old", 1), silent, silent, 1, false, "old", false);
    /* The new one is vouched for, even if a Sentinel is still busy with the old one. */
    check(names("new", 2), replaces("old", 1), silent, 1, false, "new", true);
}

static void test_an_older_configuration_does_not_count(void **state) {
    (void)state;
    check(names("old", 1), silent, silent, 2, false, NULL, false);
    check(names("old", 1), names("old", 1), names("old", 1), 2, false, NULL, false);
    check(names("old", 1), silent, silent, 2, true, NULL, false);
}

static void test_most_sentinels_may_have_been_set_up_anew(void **state) {
    (void)state;
    check(names("other", 0), names("other", 0), silent, 7, true, "other", true);
    check(names("other", 0), names("other", 0), names("new", 7), 7, true, "new", true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_word_is_enough),
        cmocka_unit_test(test_the_newest_configuration_counts),
        cmocka_unit_test(test_nobody_vouches_for_a_master_that_is_being_replaced),
        cmocka_unit_test(test_an_older_configuration_does_not_count),
        cmocka_unit_test(test_most_sentinels_may_have_been_set_up_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
