/* What is noted of damaged updates, and how much of it. */
#include "fixture.h"

#include "sqlite/damage.h"

static void test_each_is_counted_once(void **state) {
    (void)state;
    struct damage damage = {0};
    for (int times = 0; times < 3; times++)
        damage_report(&damage, SLICE("a"), 7, 70, -1);
    assert_int_equal(damage.updates, 1);
    assert_int_equal(damage_find(&damage, 70)->older_seq, -1);
    damage_report(&damage, SLICE("a"), 7, 70, 60);
    damage_report(&damage, SLICE("a"), 7, 70, -1);
    assert_int_equal(damage.updates, 1);
    assert_int_equal(damage_find(&damage, 70)->older_seq, 60);
    assert_null(damage_find(&damage, 60));
    damage_deinit(&damage);
}

static void test_notes_are_bounded(void **state) {
    (void)state;
    struct damage damage = {.updates = DAMAGE_NOTES_MAX};
    damage.capacity = damage.count = DAMAGE_NOTES_MAX;
    damage.notes = calloc(damage.capacity, sizeof *damage.notes);
    damage_report(&damage, SLICE("a"), 7, 70, -1);
    damage_report(&damage, SLICE("a"), 7, 70, -1);
    assert_int_equal(damage.count, DAMAGE_NOTES_MAX);
    assert_int_equal(damage.updates, DAMAGE_NOTES_MAX + 2);
    assert_null(damage_find(&damage, 70));
    damage_deinit(&damage);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_is_counted_once),
        cmocka_unit_test(test_notes_are_bounded),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
