/* What stands against serving, as the script's reply says. */
#include "redis/rights.h"
#include "support.h"

static struct redis_rights read_error(const char *text) {
    struct redis_rights rights = {.error = STORE_AWAY, .missing = "before", .obstacle = "before"};
    redisReply reply = {.type = REDIS_REPLY_ERROR, .str = (char *)text, .len = strlen(text)};
    redis_rights_read(&rights, &reply);
    return rights;
}

/* The script returns `count` times the same text. */
static struct redis_rights read_missing(const char *text, size_t count) {
    struct redis_rights rights = {.error = STORE_AWAY, .missing = "before", .obstacle = "before"};
    redisReply one = {.type = REDIS_REPLY_STRING, .str = (char *)text, .len = strlen(text)};
    redisReply *all[64];
    assert_true(count <= 64);
    for (size_t i = 0; i < count; i++)
        all[i] = &one;
    redisReply reply = {.type = REDIS_REPLY_ARRAY, .elements = count, .element = all};
    redis_rights_read(&rights, &reply);
    return rights;
}

static void test_nothing_is_wrong(void **state) {
    (void)state;
    struct redis_rights rights = read_missing("", 0);
    assert_int_equal(rights.error, STORE_OK);
    assert_string_equal(rights.missing, "");
    assert_string_equal(rights.obstacle, "");
}

static void test_what_is_missing(void **state) {
    (void)state;
    struct redis_rights rights = read_missing("INCR p:total:*", 2);
    assert_int_equal(rights.error, STORE_REFUSED);
    assert_string_equal(rights.missing, "INCR p:total:*, INCR p:total:*");
    rights = read_missing("INCR lpolling:total:*", 30);
    const char *more = strstr(rights.missing, " and ");
    assert_non_null(more);
    assert_string_equal(more, " and 20 more");
    char prefix[400];
    memset(prefix, 'x', sizeof prefix - 1);
    prefix[sizeof prefix - 1] = '\0';
    assert_string_equal(read_missing(prefix, 3).missing, " and 3 more");
}

static void test_obstacles(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum store_error error;
    } cases[] = {
        {"OOM command not allowed when used memory > 'maxmemory'.", STORE_OUT_OF_MEMORY},
        {"READONLY You can't write against a read only replica.", STORE_READ_ONLY},
        {"NOREPLICAS Not enough good replicas to write.", STORE_TOO_FEW_REPLICAS},
        {"MISCONF Redis is configured to save RDB snapshots, but", STORE_FAILED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct redis_rights rights = read_error(cases[i].text);
        assert_int_equal(rights.error, cases[i].error);
        assert_string_equal(rights.obstacle, cases[i].text);
        assert_string_equal(rights.missing, "");
    }
    struct redis_rights rights =
        read_error("NOPERM this user has no permissions to run the 'eval' command");
    assert_int_equal(rights.error, STORE_REFUSED);
    assert_string_equal(rights.missing, "EVAL");
}

/* A Redis before 7 does not know such scripts; nor does what is no Redis at all. */
static void test_what_says_nothing(void **state) {
    (void)state;
    assert_int_equal(read_error("ERR Error compiling script (new function): user_script:1:").error,
                     STORE_OK);
    assert_int_equal(read_error("ERR unknown command").error, STORE_OK);
    struct redis_rights rights = {.error = STORE_AWAY};
    redisReply pong = {.type = REDIS_REPLY_STATUS, .str = (char *)"PONG", .len = 4};
    redis_rights_read(&rights, &pong);
    assert_int_equal(rights.error, STORE_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_wrong),
        cmocka_unit_test(test_what_is_missing),
        cmocka_unit_test(test_obstacles),
        cmocka_unit_test(test_what_says_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
