/* A reply to a poll, taken apart; and what is none. */
#include "cli/page.h"
#include "support.h"

static void test_a_page(void **state) {
    (void)state;
    struct page page;
    assert_true(
        page_parse(SLICE(" {\"ok\":true,\"ts\":12,\"epoch\":\"00c0ffee00c0ffee\",\"missed\":2,"
                         "\"skipped\":5,\"reset\":true,\"new\":{},\"updates\":[{},[1,2]]}"),
                   &page));
    assert_int_equal(page.ts, 12);
    assert_int_equal(page.missed, 2);
    assert_int_equal(page.skipped, 5);
    assert_int_equal(page.count, 2);
    assert_true(page.is_reset);
    assert_text(page.epoch, "00c0ffee00c0ffee");
    assert_text(page.updates, "[{},[1,2]]");
    assert_true(page_parse(SLICE("{\"updates\":[],\"ts\":0,\"ok\":true}"), &page));
    assert_int_equal(page.count + page.missed + page.epoch.len + page.is_reset, 0);
}

static void test_no_page(void **state) {
    (void)state;
    static const char *const texts[] = {
        "",
        "null",
        "[1]",
        "{\"ok\":true}",
        "{\"ok\":true,\"ts\":1}",
        "{\"ok\":true,\"updates\":[]}",
        "{\"ok\":true,\"ts\":\"1\",\"updates\":[]}",
        "{\"ok\":true,\"ts\":-1,\"updates\":[]}",
        "{\"ok\":true,\"ts\":99999999999999999999,\"updates\":[]}",
        "{\"ok\":true,\"ts\":1,\"updates\":{}}",
        "{\"ok\":false,\"ts\":1,\"updates\":[]}",
        "{\"ok\":1,\"ts\":1,\"updates\":[]}",
        "{\"ok\":true,\"ts\":1,\"updates\":[]} x",
        "{\"ok\":true,\"ts\":1,\"updates\":[{\"n\":",
    };
    struct page page;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (page_parse(slice_of(texts[i]), &page))
            fail_msg("%s", texts[i]);
    assert_true(
        page_parse(SLICE("{\"ok\":true,\"ts\":1,\"epoch\":\"a&b=c\",\"updates\":[]}"), &page));
    assert_int_equal(page.epoch.len, 0);
}

static bool is_error(const char *text, const char *wanted) {
    struct buf description = {0};
    bool is = page_parse_error(slice_of(text), 403, &description);
    if (is)
        assert_text(((struct slice){description.data, description.len}), wanted);
    buf_deinit(&description);
    return is;
}

static void test_errors(void **state) {
    (void)state;
    assert_true(
        is_error("{\"ok\":false,\"error_code\":403,\"error_description\":\"a\\\"b\"}", "a\"b"));
    assert_true(is_error("{\"ok\":false,\"error_code\":403}", ""));
    assert_false(is_error("{\"ok\":false,\"error_code\":404,\"error_description\":\"a\"}", ""));
    assert_false(is_error("{\"ok\":true,\"error_code\":403,\"error_description\":\"a\"}", ""));
    assert_false(is_error("{\"error_code\":403}", ""));
    assert_false(is_error("<html>", ""));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_page),
        cmocka_unit_test(test_no_page),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
