/* Lists, numbers, blanks: what is read off the front of a slice. */
#include "support.h"

/* `wanted`: the items, each in brackets. */
static void check_cut_at(struct slice list, const char *wanted, const char *file, int line) {
    char got[128] = "";
    size_t len = 0;
    for (struct slice item; slice_cut(&list, ',', &item);)
        len += (size_t)snprintf(got + len, sizeof got - len, "[%.*s]", (int)item.len, item.data);
    assert_slices_at(slice_of(got), slice_of(wanted), file, line);
    assert_null(list.data);
}

#define check_cut(list, wanted) check_cut_at(SLICE(list), wanted, __FILE__, __LINE__)

static void test_cut(void **state) {
    (void)state;
    check_cut("", "[]");
    check_cut("a", "[a]");
    check_cut("a,b", "[a][b]");
    check_cut("a, b", "[a][ b]");
    check_cut(",", "[][]");
    check_cut("a,", "[a][]");
    check_cut(",a", "[][a]");
    check_cut("a,,b", "[a][][b]");
    struct slice none = {NULL, 0}, item;
    assert_false(slice_cut(&none, ',', &item));
}

static void test_number(void **state) {
    (void)state;
    uint64_t number = 99;
    assert_true(slice_number(SLICE("0"), 0, &number));
    assert_int_equal(number, 0);
    assert_true(slice_number(SLICE("007"), 7, &number));
    assert_int_equal(number, 7);
    assert_true(slice_number(SLICE("65535"), 65535, &number));
    assert_false(slice_number(SLICE("65536"), 65535, &number));
    assert_true(slice_number(SLICE("18446744073709551615"), UINT64_MAX, &number));
    assert_true(number == UINT64_MAX);
    assert_false(slice_number(SLICE("18446744073709551616"), UINT64_MAX, &number));
    assert_false(slice_number(SLICE("99999999999999999999999"), UINT64_MAX, &number));
    const char *const bad[] = {"", " ", "-1", "+1", "1 ", " 1", "1.0", "0x1", "a", "\xb2"};
    number = 5;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(slice_number(slice_of(bad[i]), 100, &number));
    assert_int_equal(number, 5);
}

static void test_blank(void **state) {
    (void)state;
    assert_text(skip_blank(SLICE("")), "");
    assert_text(skip_blank(SLICE(" \t\r\n ")), "");
    assert_text(skip_blank(SLICE(" \n{ }")), "{ }");
    assert_text(skip_blank(SLICE("\vx")), "\vx");
    assert_text(slice_trim(SLICE(" \ta b\t ")), "a b");
    assert_text(slice_trim(SLICE("\na\n")), "\na\n");
    assert_text(slice_trim(SLICE(" ")), "");
}

static void test_start(void **state) {
    (void)state;
    assert_true(slice_starts_with(SLICE("abc"), SLICE("ab")));
    assert_true(slice_starts_with(SLICE("abc"), SLICE("")));
    assert_true(slice_starts_with(SLICE("abc"), SLICE("abc")));
    assert_false(slice_starts_with(SLICE("ab"), SLICE("abc")));
    assert_false(slice_starts_with(SLICE("abc"), SLICE("b")));
    assert_text(slice_after(SLICE("abc"), 1), "bc");
    assert_text(slice_after(SLICE("abc"), 3), "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_number),
        cmocka_unit_test(test_blank),
        cmocka_unit_test(test_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
