/* The log: a line is one line, secrets are none, and nobody fills it. */
#include "base/log.h"
#include "support.h"

#include <unistd.h>

/* What a value of this text becomes in a line. */
static void check_value(const char *value, const char *wanted) {
    int ends[2], errors = dup(STDERR_FILENO);
    char said[512] = "";
    assert_int_equal(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    log_info("event", "key", value, NULL);
    dup2(errors, STDERR_FILENO);
    assert_true(read(ends[0], said, sizeof said - 1) > 0);
    close(errors);
    close(ends[0]);
    close(ends[1]);
    const char *from = strstr(said, "key=");
    assert_non_null(from);
    assert_string_equal(from + 4, wanted);
}

static void test_lines(void **state) {
    (void)state;
    log_init(LOG_LEVEL_INFO, false);
    check_value("plain", "plain\n");
    check_value("two\nlines", "\"two\\nlines\"\n");
    check_value("a b", "\"a b\"\n");
    check_value("a\"b", "\"a\\\"b\"\n");
}

/* What stands for a secret is this process's own. */
static void test_secrets(void **state) {
    (void)state;
    log_init(LOG_LEVEL_INFO, false);
    struct log_text before = log_secret(SLICE("name"));
    assert_string_equal(log_secret(SLICE("name")).text, before.text);
    log_init(LOG_LEVEL_INFO, false);
    assert_string_not_equal(log_secret(SLICE("name")).text, before.text);
}

static void test_limits(void **state) {
    (void)state;
    struct log_limit limit = {0};
    for (uint64_t second = 7; second < 9; second++) {
        for (int i = 0; i < LOG_LIMIT_PER_S; i++)
            assert_true(log_may_say(&limit, second));
        assert_false(log_may_say(&limit, second));
    }
    assert_int_equal(limit.unsaid, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_secrets),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
