/* The addresses that a command is given. */
#include "cli/curl.h"
#include "cli/link.h"
#include "support.h"

/* `wanted` is what becomes of the address; NULL when it is none. */
static void check_channel(const char *text, const char *wanted) {
    char *url = strdup(text);
    const char *wrong = link_read_channel(url);
    if (!wrong != !!wanted)
        fail_msg("%s: %s", text, wrong ? wrong : url);
    if (wanted)
        assert_string_equal(url, wanted);
    free(url);
}

static void test_channels(void **state) {
    (void)state;
    static const char *const good[] = {"http://h/x",          "https://h:81/a/b?q#f",
                                       "HTTP://[::1]:3000/x", "http://user:pw@h/x",
                                       "http://h/x/",         "http://h/x/#/f"};
    static const char *const bad[] = {"",          "h/x",         "h:3000/x",   "ftp://h/x",
                                      "http://h",  "http://h/",   "http://h//", "http:///x y",
                                      "file:///x", "http://h/?x", "http://h/#", "#x",
                                      "/#x",       "http://h/#/x"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        check_channel(good[i], good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        check_channel(bad[i], NULL);
}

static void test_pages(void **state) {
    (void)state;
    check_channel("https://h/#x", "https://h/x");
    check_channel("https://h/a/b/#x", "https://h/a/b/x");
    check_channel("https://h/-/chat#x", "https://h/x");
    check_channel("https://h/a/-/chat#x/room", "https://h/a/x");
    check_channel("https://h/#x%2F/room/filter?", "https://h/x%2F");
    check_channel("https://h/?a=b/#c/d", "https://h/c?a=b/");
    check_channel("https://h/#x?y", NULL);
    check_channel("https://h/#x#y", NULL);
}

static void check_poll(const char *url, const char *wanted) {
    struct buf out = {0};
    assert_true(link_write_poll(url, SLICE("ts=1"), &out));
    assert_string_equal(out.data, wanted);
    buf_deinit(&out);
}

static void test_polls(void **state) {
    (void)state;
    check_poll("http://h/x", "http://h/x?ts=1");
    check_poll("http://h/x?a=b#c", "http://h/x?ts=1");
    check_poll("http://h/x#c?d", "http://h/x?ts=1");
}

static void check_same(const char *one, const char *other, bool is_same) {
    struct buf a = {0}, b = {0};
    link_write_identity(one, &a);
    link_write_identity(other, &b);
    assert_int_equal(slice_equal((struct slice){a.data, a.len}, (struct slice){b.data, b.len}),
                     is_same);
    buf_deinit(&a);
    buf_deinit(&b);
}

static void test_spellings(void **state) {
    (void)state;
    check_same("http://h/x", "http://H:80/x//?a=b#c", true);
    check_same("https://h:443/x", "https://h/x/", true);
    check_same("http://h/x", "http://h/X", false);
    check_same("http://h/x", "https://h/x", false);
    check_same("http://h:81/x", "http://h/x", false);
}

static void check_target(const char *url, const char *path, const char *query, bool is_plain) {
    struct link_target target;
    assert_null(link_parse_target(url, &target));
    assert_string_equal(target.path, path);
    assert_string_equal(target.query, query);
    assert_int_equal(target.is_plain, is_plain);
    link_target_deinit(&target);
}

static void test_targets(void **state) {
    (void)state;
    struct link_target target;
    check_target("http://h", "/", "", true);
    check_target("https://h:1/", "/", "", false);
    check_target("http://h/a/../b//?q=%20#f", "/a/../b//", "q=%20", true);
    assert_non_null(link_parse_target("h:80", &target));
    assert_non_null(link_parse_target("", &target));
}

static void check_request(const char *target_url, const char *path, const char *query,
                          const char *wanted) {
    struct link_target target;
    struct buf out = {0};
    assert_null(link_parse_target(target_url, &target));
    assert_true(link_write_target(&target, slice_of(path), slice_of(query), &out));
    assert_string_equal(out.data, wanted);
    buf_deinit(&out);
    link_target_deinit(&target);
}

static void test_requests(void **state) {
    (void)state;
    check_request("http://h", "", "", "/");
    check_request("http://h", "/v1", "a=1", "/v1?a=1");
    check_request("http://h/hooks/", "", "", "/hooks/");
    check_request("http://h/hooks/?k=1", "/v1/", "a=1", "/hooks/v1/?k=1&a=1");
    check_request("http://h", "v1/x", "", "/v1/x");
    check_request("http://h?k=1", "v1", "", "/v1?k=1");
    check_request("http://h/hooks", "v1", "", "/hooks/v1");
    check_request("http://h/hooks/", "v1", "", "/hooks/v1");
    check_request("http://h/hooks?k=1", "/.well/..a/...", "", "/hooks/.well/..a/...?k=1");
}

/* Who may only send must not reach what lies beside the target. */
static void test_paths_that_lead_out(void **state) {
    (void)state;
    static const char *const paths[] = {
        "/..",  "/../admin",   "/a/../../admin", "/%2e%2E/admin", "/.%2e/admin", "/a%2F..%2fb",
        "..",   "../admin",    "/..\\admin",     "/x\\..\\y",     "/..%5Cadmin", "/..;a=b/admin",
        "/..;", "//..//admin",
    };
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        check_request("http://h/hooks", paths[i], "q", "/hooks?q");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_channels),
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_polls),
        cmocka_unit_test(test_spellings),
        cmocka_unit_test(test_targets),
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_paths_that_lead_out),
    };
    const char *error;
    return curl_load(&error) ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
