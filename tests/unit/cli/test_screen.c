/* What people see: JSON in lines, and no control characters of others. */
#include "cli/screen.h"
#include "support.h"

static void check(void (*put)(struct buf *out, struct slice text), const char *text,
                  const char *wanted) {
    struct buf out = {0};
    put(&out, slice_of(text));
    assert_text(((struct slice){out.data, out.len}), wanted);
    buf_deinit(&out);
}

static void put_pretty(struct buf *out, struct slice json) {
    screen_put_pretty(out, json, false);
}

static void put_coloured(struct buf *out, struct slice json) {
    screen_put_pretty(out, json, true);
}

static void test_text(void **state) {
    (void)state;
    check(screen_put_text, "a\033[2J\x7f\xc2\x9b\xc2\xa0\xe2\x98\x83\n",
          "a\\u001b[2J\\u007f\\u009b\xc2\xa0\xe2\x98\x83\\u000a");
    check(screen_put_text, "\xc2", "\xc2");
    check(screen_put_text, "a\xe2\x80\xaeg\xe2\x81\xa9\xe2\x80\xa9\xe2\x80",
          "a\\u202eg\\u2069\xe2\x80\xa9\xe2\x80");
}

static void test_line(void **state) {
    (void)state;
    check(screen_put_line, "{\r\n \"a\" :\n1}\n", "{ \"a\" :1}");
    check(screen_put_line, "\n\n", "");
}

static void test_pretty(void **state) {
    (void)state;
    check(put_pretty, " 5 ", "5\n");
    check(put_pretty, "{}", "{}\n");
    check(put_pretty, "[ ]", "[]\n");
    check(
        put_pretty, "[1,[],{\"a\":{\"b\" : \"x\\\"]\" , \"c\":[ null,true]}}]",
        "[\n  1,\n  [],\n  {\n    \"a\": {\n      \"b\": \"x\\\"]\",\n      \"c\": [\n        null,"
        "\n        true\n      ]\n    }\n  }\n]\n");
    check(
        put_coloured, "{\"a\":[\"b\",1]}",
        "{\n  \033[34m\"a\"\033[0m: [\n    \033[32m\"b\"\033[0m,\n    \033[33m1\033[0m\n  ]\n}\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_line),
        cmocka_unit_test(test_pretty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
