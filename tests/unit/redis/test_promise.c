/* What a Redis promises, read from its INFO and CONFIG. */
#include "redis/promise.h"
#include "support.h"

static void check_promise(const char *info, const char *fsync, const char *line, const char *risk) {
    struct redis_promise promise = {0};
    redis_promise_read_info(&promise, slice_of(info));
    redisReply value = {.type = REDIS_REPLY_STRING, .str = (char *)fsync, .len = strlen(fsync)};
    redisReply *pair[] = {&value, &value};
    redisReply reply = {.type = REDIS_REPLY_ARRAY, .elements = *fsync ? 2 : 0, .element = pair};
    redis_promise_read_config(&promise, &reply);
    struct buf out = {0};
    redis_promise_write(&promise, &out);
    assert_true(out.len >= strlen(line) && memcmp(out.data, line, strlen(line)) == 0);
    buf_deinit(&out);
    const char *said = redis_promise_risk(&promise);
    assert_int_equal(said != NULL, risk != NULL);
    if (risk)
        assert_non_null(strstr(said, risk));
}

static void test_promises(void **state) {
    (void)state;
    check_promise(
        "# Server\r\nredis_version:7.0.15\r\naof_enabled:1\r\nconnected_slaves:1\r\nmaxmemory:0\r\n"
        "maxmemory_policy:allkeys-lru\r\n",
        "always",
        "redis 7.0.15: appendonly yes, appendfsync always, 1 replica, maxmemory-policy allkeys-lru",
        NULL);
    check_promise("redis_version:7\naof_enabled:0\nconnected_slaves:0\nmaxmemory_policy:noeviction",
                  "always", "redis 7: appendonly no, 0 replicas, maxmemory-policy noeviction",
                  "appendonly is off");
    check_promise("aof_enabled:1\n", "everysec", "redis : appendonly yes, appendfsync everysec",
                  "about a second");
    check_promise("aof_enabled:1\n", "no", "redis ", "its machine crashes");
    check_promise("aof_enabled:1\n", "", "redis : appendonly yes, appendfsync not known",
                  "not known");
    check_promise("aof_enabled:1\nmaxmemory:100\nmaxmemory_policy:volatile-ttl\n", "always",
                  "redis ", "evicts");
    check_promise("aof_enabled:1\nmaxmemory:100\nmaxmemory_policy:noeviction\n", "always", "redis ",
                  NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_promises),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
