/* BUFFER_SIZE: what is taken counts until it is given back, and what clients send is taken. */
#include "support.h"

#include "http/budget.h"
#include "http/inbuf.h"

enum { MAX = 1600 };

static int set_up(void **state) {
    (void)state;
    budget_init(MAX);
    return budget_used() != 0;
}

static void test_taken_and_given(void **state) {
    (void)state;
    assert_true(budget_has(MAX));
    assert_false(budget_has(MAX + 1));
    budget_take(1000);
    assert_int_equal(budget_used(), 1000);
    assert_int_equal(budget_left(), 600);
    assert_true(budget_has(600));
    assert_false(budget_has(601));
    budget_give(1000);
    assert_int_equal(budget_used(), 0);
    assert_true(budget_has(MAX));
}

/* One that is larger than all there is fits, as long as hardly anything else is kept. */
static void test_one_that_is_large(void **state) {
    (void)state;
    assert_true(budget_has_for_one(2 * MAX));
    budget_take(MAX / 16);
    assert_true(budget_has_for_one(2 * MAX));
    budget_take(1);
    assert_false(budget_has_for_one(2 * MAX));
    assert_true(budget_has_for_one(MAX / 2));
    budget_take(2 * MAX);
    assert_int_equal(budget_left(), 0);
    budget_give(2 * MAX + MAX / 16 + 1);
}

static void test_what_clients_send(void **state) {
    (void)state;
    static char bytes[2 * MAX];
    struct inbuf in = {0};
    assert_true(inbuf_append(&in, bytes, 1000));
    uint64_t used = budget_used();
    assert_true(used >= 1000);
    assert_false(inbuf_append(&in, bytes, MAX));
    assert_int_equal(budget_used(), used);
    assert_int_equal(in.len, 1000);
    inbuf_free(&in);
    assert_int_equal(budget_used(), 0);
    assert_false(inbuf_keep(&in, bytes, MAX + 1));
    assert_true(inbuf_keep(&in, bytes, MAX));
    assert_int_equal(budget_used(), MAX);
    assert_true(inbuf_keep(&in, bytes, 0));
    assert_int_equal(budget_used(), 0);
    assert_true(inbuf_restore(&in, bytes, 2 * MAX)); /* it was kept by the program before */
    assert_int_equal(budget_used(), 2 * MAX);
    inbuf_free(&in);
    assert_int_equal(budget_used(), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_taken_and_given, set_up),
        cmocka_unit_test_setup(test_one_that_is_large, set_up),
        cmocka_unit_test_setup(test_what_clients_send, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
