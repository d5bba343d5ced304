/* The query of a DELETE. */
#include "api/purge.h"
#include "support.h"

static void check_purge(const char *query, uint64_t wanted) {
    uint64_t upto = 0;
    if (!purge_parse(slice_of(query), &upto) || upto != wanted)
        fail_msg("%s", query);
}

static void test_upto(void **state) {
    (void)state;
    uint64_t upto = 0;
    assert_true(purge_parse((struct slice){0}, &upto));
    assert_int_equal(upto, UINT64_MAX);
    check_purge("upto=0", 0);
    check_purge("upto=000017", 17);
    check_purge("upto=9223372036854775807", INT64_MAX);
    check_purge("&upto=1&", 1);
}

static void test_slips(void **state) {
    (void)state;
    static const char *const slips[] = {
        "",
        "&",
        "upto",
        "upto=",
        "upto=-1",
        "upto=+1",
        "upto=1.0",
        "upto=1 ",
        "UPTO=1",
        "upto=1e",
        "upto=%31",
        "upto=9223372036854775808",
        "upto=18446744073709551617",
        "upto=99999999999999999999999999",
        "upto=1&upto=1",
        "upto=1&x",
        "x&upto=1",
        "as=bot",
    };
    uint64_t upto;
    for (size_t i = 0; i < sizeof slips / sizeof *slips; i++)
        if (purge_parse(slice_of(slips[i]), &upto))
            fail_msg("%s", slips[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_upto),
        cmocka_unit_test(test_slips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
