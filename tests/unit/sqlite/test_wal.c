/* When the write-ahead log is large enough to be copied. */
#include "support.h"

#include "sqlite/wal.h"

static void test_bound(void **state) {
    (void)state;
    assert_false(wal_is_over(999, 1000, 0));
    assert_true(wal_is_over(1000, 1000, 0));
    assert_false(wal_is_over(0, 1000, 0));
}

/* A small bound on the data takes the write-ahead log into account; a large one changes nothing. */
static void test_quarter_of_data(void **state) {
    (void)state;
    assert_false(wal_is_over(99, 1000, 400));
    assert_true(wal_is_over(100, 1000, 400));
    assert_true(wal_is_over(1000, 1000, 4001));
    assert_false(wal_is_over(999, 1000, 8000));
    assert_false(wal_is_over(999, 1000, 3)); /* too small to quarter */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_quarter_of_data),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
