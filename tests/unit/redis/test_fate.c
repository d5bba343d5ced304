/* What becomes of an operation whose reply has come, or cannot come. */
#include "redis/fate.h"
#include "support.h"

static redisReply *error(const char *text) {
    static redisReply reply;
    reply = (redisReply){.type = REDIS_REPLY_ERROR, .str = (char *)text, .len = strlen(text)};
    return &reply;
}

static void check(struct redis_fate fate, enum redis_fate_kind kind, enum store_error error) {
    assert_int_equal(fate.kind, kind);
    assert_int_equal(fate.error, error);
}

static void test_a_reply_counts_only_if_it_is_believed(void **state) {
    (void)state;
    redisReply done = {.type = REDIS_REPLY_ARRAY};
    for (int may_fail_over = 0; may_fail_over <= 1; may_fail_over++) {
        check(redis_fate_of(&done, true, true, may_fail_over), FATE_DONE, STORE_OK);
        check(redis_fate_of(&done, false, true, may_fail_over), FATE_DONE, STORE_OK);
        check(redis_fate_of(&done, true, false, may_fail_over), FATE_ANSWER, STORE_UNSURE);
        check(redis_fate_of(&done, false, false, may_fail_over), FATE_AGAIN, STORE_AWAY);
    }
}

static void test_a_lost_connection(void **state) {
    (void)state;
    check(redis_fate_of(NULL, true, true, true), FATE_ANSWER, STORE_UNSURE);
    check(redis_fate_of(NULL, false, true, true), FATE_AGAIN, STORE_AWAY);
}

static void test_redirections(void **state) {
    (void)state;
    check(redis_fate_of(error("MOVED 1 h:2"), true, true, true), FATE_MOVED, STORE_CLUSTER_DOWN);
    check(redis_fate_of(error("ASK 1 h:2"), false, true, true), FATE_ASK, STORE_CLUSTER_DOWN);
    /* Redis 6 wraps what a script's command says; there is no address in front. */
    check(redis_fate_of(error("ERR Error running script: MOVED 1 h:2"), true, true, true),
          FATE_ANSWER, STORE_FAILED);
}

static void test_a_script_that_is_not_known(void **state) {
    (void)state;
    check(redis_fate_of(error("NOSCRIPT No matching script."), true, true, false), FATE_SCRIPT,
          STORE_AWAY);
}

/* Nothing was done: it may be tried elsewhere, whoever said so. */
static void test_errors_of_a_role_pass_where_another_may_take_it(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum store_error error;
    } errors[] = {
        {"READONLY You can't write against a read only replica.", STORE_READ_ONLY},
        {"MASTERDOWN Link with MASTER is down", STORE_READ_ONLY},
        {"NOREPLICAS Not enough good replicas to write.", STORE_TOO_FEW_REPLICAS},
        {"ERR Error running script: -NOREPLICAS Not enough", STORE_TOO_FEW_REPLICAS},
    };
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        for (int is_believed = 0; is_believed <= 1; is_believed++) {
            check(redis_fate_of(error(errors[i].text), true, is_believed, true), FATE_LATER,
                  errors[i].error);
            check(redis_fate_of(error(errors[i].text), true, is_believed, false), FATE_ANSWER,
                  errors[i].error);
        }
}

/* The words of Redis 7, and of Redis 8 and later. */
static void test_rights_that_lack(void **state) {
    (void)state;
    static const char *const texts[] = {
        "NOPERM User bob has no permissions to run the 'get' command",
        "ERR The user executing the script can't run this command or subcommand",
        "ERR ACL failure in script: User bob has no permissions to run the 'get' command",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        check(redis_fate_of(error(texts[i]), true, true, true), FATE_ANSWER, STORE_REFUSED);
}

static void test_a_cluster_that_is_down_is_tried_again(void **state) {
    (void)state;
    check(redis_fate_of(error("CLUSTERDOWN The cluster is down"), true, true, true), FATE_LATER,
          STORE_CLUSTER_DOWN);
    check(redis_fate_of(error("TRYAGAIN Multiple keys"), true, true, false), FATE_LATER,
          STORE_CLUSTER_DOWN);
}

static void test_other_errors_are_final(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum store_error error;
    } errors[] = {
        {"LOADING Redis is loading the dataset in memory", STORE_LOADING},
        {"OOM command not allowed when used memory > 'maxmemory'.", STORE_OUT_OF_MEMORY},
        {"NOPERM this user has no permissions", STORE_REFUSED},
        {"WRONGPASS invalid username-password pair", STORE_REFUSED},
        {"ERR invalid password", STORE_REFUSED},
        {"WRONGTYPE Operation against a key", STORE_DAMAGED},
        {"DAMAGED the counter is not a whole number below 2^53", STORE_DAMAGED},
    };
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        check(redis_fate_of(error(errors[i].text), true, true, true), FATE_ANSWER, errors[i].error);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_reply_counts_only_if_it_is_believed),
        cmocka_unit_test(test_a_lost_connection),
        cmocka_unit_test(test_redirections),
        cmocka_unit_test(test_a_script_that_is_not_known),
        cmocka_unit_test(test_errors_of_a_role_pass_where_another_may_take_it),
        cmocka_unit_test(test_rights_that_lack),
        cmocka_unit_test(test_a_cluster_that_is_down_is_tried_again),
        cmocka_unit_test(test_other_errors_are_final),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
