/* The reply that an address asks for, and what of a query is longline's own. */
#include "api/wish.h"
#include "need.h"

static void check_at(const char *query, int status, const char *type, const char *text,
                     const char *lines, int line) {
    struct wanted wanted = {0};
    if (!wish_read(slice_of(query), &wanted) || wanted_failed(&wanted) ||
        http_status_code(wanted.status) != status)
        _fail(__FILE__, line);
    assert_slices_at(slice_of(wanted.content_type ? wanted.content_type : ""), slice_of(type),
                     __FILE__, line);
    assert_slices_at((struct slice){wanted.text.data, wanted.text.len}, slice_of(text), __FILE__,
                     line);
    assert_slices_at((struct slice){wanted.lines.data, wanted.lines.len}, slice_of(lines), __FILE__,
                     line);
    wanted_deinit(&wanted);
}

#define check(query, status, type, text)                                                           \
    check_at(query, status, type, text, WANTED_SANDBOX, __LINE__)
#define check_ignored(query, names)                                                                \
    check_at(query, 200, PLAIN, "OK", "X-Ignored: " names "\r\n" WANTED_SANDBOX, __LINE__)
#define PLAIN "text/plain; charset=utf-8"

static void test_replies(void **state) {
    (void)state;
    check(".reply=ok", 200, PLAIN, "ok");
    check("a=1&.reply=a+b%26c&.reply=last%20one", 200, PLAIN, "last one");
    check(".reply=", 200, PLAIN, "");
    check(".reply", 200, PLAIN, "");
    check(".status=202", 202, PLAIN, "OK");
    check(".status=206", 206, PLAIN, "OK");
    check(".status=299", 299, PLAIN, "OK");
    check(".type=application/json&.reply=%7B%7D", 200, "application/json; charset=utf-8", "{}");
    check(".type=text/xml&.reply=<Response/>", 200, "text/xml; charset=utf-8", "<Response/>");
    check(".type=Application%2FXML", 200, "application/xml; charset=utf-8", "OK");
    /* No header can be set: a line break is the text's. */
    check(".reply=a%0d%0aX:+1", 200, PLAIN, "a\r\nX: 1");
}

static void test_replies_without_a_body(void **state) {
    (void)state;
    check(".status=204&.reply=x", 204, "", "x");
    check_at(".status=205", 205, "", "OK", WANTED_SANDBOX "Content-Length: 0\r\n", __LINE__);
}

static void test_what_cannot_be_is_passed_over(void **state) {
    (void)state;
    static const char *const statuses[] = {"500", "199", "300", "", "2e2", "0200x"};
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++) {
        char query[32];
        snprintf(query, sizeof query, ".status=%s", statuses[i]);
        check_ignored(query, ".status");
    }
    check_ignored(".type=text/html", ".type");
    check_ignored(".type=text/plain;charset=x", ".type");
    check_ignored(".type=text/html&.type=image/svg%2bxml&.status=1", ".type, .status");
    check_ignored(".reply=%ff", ".reply");
    char query[WANTED_TEXT_MAX_BYTES + 16] = ".reply=";
    struct wanted wanted = {0};
    memset(query + 7, 'x', WANTED_TEXT_MAX_BYTES);
    assert_true(wish_read(slice_of(query), &wanted));
    assert_int_equal(wanted.text.len, WANTED_TEXT_MAX_BYTES);
    wanted_deinit(&wanted);
    query[7 + WANTED_TEXT_MAX_BYTES] = 'x';
    check_ignored(query, ".reply");
}

static void test_no_wish(void **state) {
    (void)state;
    static const char *const queries[] = {"",          "a=1.5",        ".replies=1",
                                          "a.reply=1", ".once&.key=a", ".Reply=1"};
    for (size_t i = 0; i < sizeof queries / sizeof *queries; i++) {
        struct wanted wanted = {0};
        assert_false(wish_read(slice_of(queries[i]), &wanted));
    }
}

static void test_stripping(void **state) {
    (void)state;
    static const char *const pairs[][2] = {
        {"", ""},
        {"a=1&b", "a=1&b"},
        {".other=1&a=.5", ".other=1&a=.5"},
        {".reply=ok", ""},
        {"a=1&.reply=ok&b&c=%2E&.status=204", "a=1&b=&c=%2E"},
        {".once&.key=a&.type=x&a=1", "a=1"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct buf out = {0};
        assert_text(wish_strip(slice_of(pairs[i][0]), &out), pairs[i][1]);
        buf_deinit(&out);
    }
}

/* It is what was asked for, or it has failed. */
static void test_without_memory(void **state) {
    (void)state;
    bool is_over = false;
    for (failing_allocation = 1; !is_over; failing_allocation++) {
        struct wanted wanted = {0};
        allocations = 0;
        assert_true(IN_NEED(wish_read(SLICE(".status=202&.reply=ok&.type=x"), &wanted)));
        is_over = allocations < failing_allocation;
        if (!wanted_failed(&wanted)) {
            assert_int_equal(http_status_code(wanted.status), 202);
            assert_text(((struct slice){wanted.text.data, wanted.text.len}), "ok");
            assert_text(((struct slice){wanted.lines.data, wanted.lines.len}),
                        "X-Ignored: .type\r\n" WANTED_SANDBOX);
        }
        wanted_deinit(&wanted);
    }
    assert_true(failing_allocation > 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replies),
        cmocka_unit_test(test_replies_without_a_body),
        cmocka_unit_test(test_what_cannot_be_is_passed_over),
        cmocka_unit_test(test_no_wish),
        cmocka_unit_test(test_stripping),
        cmocka_unit_test(test_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
