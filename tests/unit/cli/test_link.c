/* The addresses that a command is given. */
#define CURL_LOADS
#include "cli/curl.h"

#include "cli/link.h"
#include "need.h"

#include <sysexits.h>

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
    check_request("http://h/hooks", "/a/..b", "", "/hooks/a/..b");
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

/* Redirects are not followed: what is wrong with the address, the reply says. */
static void test_redirects(void **state) {
    (void)state;
    assert_string_equal(link_redirect_hint("http://h/x", 301), ": is it https://?");
    assert_string_equal(link_redirect_hint("HTTPS://h/x", 308), ": is it another address?");
    assert_string_equal(link_redirect_hint("https://h/x", 200), "");
}

/* --- Without memory --------------------------------------------------------------------------- */

static struct curl_library whole;

static CURLU *make_url(void) {
    return allocation_fails() ? NULL : whole.curl_url();
}

static CURLUcode set_part(CURLU *url, CURLUPart part, const char *text, unsigned flags) {
    return text && allocation_fails() ? CURLUE_OUT_OF_MEMORY
                                      : whole.curl_url_set(url, part, text, flags);
}

#if LIBCURL_VERSION_MAJOR < 8
#define CONST_FROM_8_ON
#else
#define CONST_FROM_8_ON const
#endif

static CURLUcode get_part(CONST_FROM_8_ON CURLU *url, CURLUPart part, char **text, unsigned flags) {
    return allocation_fails() ? CURLUE_OUT_OF_MEMORY : whole.curl_url_get(url, part, text, flags);
}

static char *escape(CURL *easy, const char *text, int len) {
    return allocation_fails() ? NULL : whole.curl_easy_escape(easy, text, len);
}

char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);
char *__wrap_strdup(const char *text) {
    return allocation_fails() ? NULL : __real_strdup(text);
}

static int begin_need(void **state) {
    (void)state;
    whole = curl_library;
    curl_library.curl_url = make_url;
    curl_library.curl_url_set = set_part;
    curl_library.curl_url_get = get_part;
    curl_library.curl_easy_escape = escape;
    return 0;
}

static int end_need(void **state) {
    (void)state;
    curl_library = whole;
    return 0;
}

static bool has_memory(void) {
    return allocations < failing_allocation;
}

static void read_channel_in_need(void) {
    char url[] = "https://h/a/-/chat#x/room";
    const char *wrong = IN_NEED(link_read_channel(url));
    if (has_memory())
        assert_null(wrong);
    else
        assert_int_equal(link_complain(wrong), EX_OSERR);
}

/* Without its query it would be another target. */
static void parse_target_in_need(void) {
    struct link_target target;
    const char *wrong = IN_NEED(link_parse_target("http://h/a?k=1", &target));
    if (!has_memory())
        assert_int_equal(link_complain(wrong), EX_OSERR);
    else
        assert_string_equal(target.query, "k=1");
    link_target_deinit(&target);
}

/* An identity that is another would be another place. */
static void write_identity_in_need(void) {
    struct buf out = {0};
    is_counting = true;
    link_write_identity("http://H:80/x/?a=b", &out);
    is_counting = false;
    assert_int_equal(out.failed, !has_memory());
    if (!out.failed)
        assert_text(((struct slice){out.data, out.len}), "http://h/x");
    buf_deinit(&out);
}

static void escape_in_need(void) {
    struct buf out = {0};
    is_counting = true;
    link_escape(&out, "a b");
    is_counting = false;
    assert_int_equal(out.failed, !has_memory());
    buf_deinit(&out);
}

static void test_without_memory(void **state) {
    (void)state;
    static void (*const calls[])(void) = {read_channel_in_need, parse_target_in_need,
                                          write_identity_in_need, escape_in_need};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        failing_allocation = 0;
        do {
            failing_allocation++;
            allocations = 0;
            calls[i]();
        } while (!has_memory());
        assert_true(failing_allocation > 2);
    }
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
        cmocka_unit_test(test_redirects),
        cmocka_unit_test_setup_teardown(test_without_memory, begin_need, end_need),
    };
    const char *error;
    return curl_load(&error) ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
