/* The names of channels, roughly: none that is known is ever unknown. */
#include "need.h"

#include "base/hash.h"
#include "sqlite/known_names.h"

static struct known_names names;

static int set_up(void **state) {
    (void)state;
    names = (struct known_names){0};
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    known_names_deinit(&names);
    failing_allocation = allocations = 0;
    return 0;
}

static uint64_t hash_of_number(uint32_t number) {
    return hash_of((struct slice){(const char *)&number, sizeof number});
}

static void add(uint32_t from, uint32_t to) {
    is_counting = true;
    for (uint32_t i = from; i < to; i++)
        known_names_add(&names, hash_of_number(i));
    is_counting = false;
}

static uint32_t count_known(uint32_t from, uint32_t to) {
    uint32_t count = 0;
    for (uint32_t i = from; i < to; i++)
        count += known_names_may_have(&names, hash_of_number(i));
    return count;
}

/* Before the start has seen all names, one that it has not heard of yet may be there. */
static void test_incomplete(void **state) {
    (void)state;
    add(0, 10);
    assert_int_equal(count_known(0, 1000), 1000);
}

static void test_none(void **state) {
    (void)state;
    known_names_complete(&names);
    assert_int_equal(count_known(0, 1000), 0);
    assert_int_equal(names.layer_count, 0);
}

static void test_many(void **state) {
    (void)state;
    enum { COUNT = 80000, LAYERS = 3 };
    known_names_complete(&names);
    add(0, COUNT);
    add(0, COUNT); /* takes no more room */
    assert_int_equal(count_known(0, COUNT), COUNT);
    assert_int_equal(names.layer_count, LAYERS);
    uint32_t wrong = count_known(COUNT, 2 * COUNT);
    if (wrong > COUNT / 200)
        fail_msg("%u of %u unknown names may be known", wrong, COUNT);
}

/* It has its bound, and names beyond it are known, too. */
static void test_full(void **state) {
    (void)state;
    enum { EACH = 100 };
    known_names_complete(&names);
    for (uint32_t i = 0; i < KNOWN_NAMES_LAYERS + 2; i++) {
        add(i * EACH, (i + 1) * EACH);
        names.room = 0;
    }
    assert_int_equal(names.layer_count, KNOWN_NAMES_LAYERS);
    assert_int_equal(count_known(0, (KNOWN_NAMES_LAYERS + 2) * EACH),
                     (KNOWN_NAMES_LAYERS + 2) * EACH);
}

/* A name that found no place may be any. */
static void test_no_memory(void **state) {
    (void)state;
    failing_allocation = 1;
    add(0, 2);
    known_names_complete(&names);
    assert_int_equal(names.layer_count, 1);
    assert_int_equal(count_known(0, 1000), 1000);
}

/* Names go where there is a place. */
static void test_no_memory_to_grow(void **state) {
    (void)state;
    failing_allocation = 2;
    known_names_complete(&names);
    add(0, KNOWN_NAMES_FIRST + 100);
    assert_int_equal(names.layer_count, 2);
    assert_int_equal(count_known(0, KNOWN_NAMES_FIRST + 100), KNOWN_NAMES_FIRST + 100);
    assert_true(count_known(100000, 101000) < 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_incomplete, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_none, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_full, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_memory, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_memory_to_grow, set_up, tear_down),
    };
    hash_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
