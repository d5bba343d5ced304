/* A start over Redis without memory: it says so, and the process ends. */
#include "base/loop_memory.h"
#include "base/turn.h"
#include "inbox/store.h"
#include "need.h"
#include "redis/options.h"
#include "redis/store.h"

#include <sys/wait.h>
#include <unistd.h>

enum { OPENED = 10, REFUSED, WRONG };

/* In a process of its own, as what was begun is left to its end. */
static void open_once(const struct redis_options *redis) {
    static const struct store_options options = {.channel_max_updates = 10, .ttl_ms = 1000};
    uv_loop_t loop;
    char error[256] = "";
    uv_loop_init(&loop);
    turn_init(&loop);
    allocations = 0;
    const struct store *store =
        IN_NEED(store_redis_open(&loop, &options, redis, error, sizeof error));
    bool is_told = strcmp(error, "out of memory") == 0;
    _exit(store && !*error                                         ? OPENED
          : !store && is_told && allocations >= failing_allocation ? REFUSED
                                                                   : WRONG);
}

static void check_start(const struct redis_options *redis, int refusals) {
    int status = 0, refused = 0;
    for (failing_allocation = 1; failing_allocation <= refusals + 1; failing_allocation++) {
        pid_t pid = fork();
        if (pid == 0)
            open_once(redis);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_not_equal(WEXITSTATUS(status), WRONG);
        refused += WEXITSTATUS(status) == REFUSED;
    }
    assert_int_equal(refused, refusals);
}

/* The store, and its Redis or its Sentinels. What is needed to connect, is tried again. */
static void test_starts(void **state) {
    (void)state;
    struct redis_options redis = {.address = {.host = "127.0.0.1", .port = 1},
                                  .prefix = "total:",
                                  .tls_ca = "",
                                  .timeout_ms = 1000};
    check_start(&redis, 2);
    redis.tls = true;
    check_start(&redis, 3);
    redis.sentinels[0] = redis.address;
    redis.sentinel_count = 1;
    redis.master = "m";
    redis.sentinel_pass = "";
    check_start(&redis, 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_starts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
