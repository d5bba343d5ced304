/* The REDIS_* settings. */
#include "need.h"
#include "redis/options.h"

static struct redis_options options;
static char error[256];

static bool load(struct config config) {
    if (!config.redis_host)
        config.redis_host = "127.0.0.1";
    if (!config.redis_port)
        config.redis_port = 6379;
    const char **texts[] = {
        &config.redis_url,           &config.redis_user,   &config.redis_pass,
        &config.redis_tls_ca,        &config.redis_prefix, &config.redis_master,
        &config.redis_sentinel_pass, &config.redis_wait,   &config.redis_sentinel};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (!*texts[i])
            *texts[i] = "";
    return redis_options_init(&options, &config, error, sizeof error);
}

static void check_address(const char *wanted) {
    assert_string_equal(redis_address_text(&options.address).text, wanted);
}

static void test_host_and_port(void **state) {
    (void)state;
    assert_true(load((struct config){
        .redis_host = "redis.example", .redis_port = 7000, .redis_pass = "s:/@", .redis_db = 3}));
    check_address("redis.example:7000");
    assert_string_equal(options.pass, "s:/@");
    assert_null(options.user);
    assert_int_equal(options.db, 3);
    redis_options_deinit(&options);
    assert_true(load((struct config){.redis_host = "/run/redis.sock"}));
    check_address("/run/redis.sock");
    redis_options_deinit(&options);
}

static void test_url(void **state) {
    (void)state;
    static const struct {
        const char *url, *address, *user, *pass;
        int64_t db;
        bool tls;
    } good[] = {
        {"redis://h", "h:6379", NULL, NULL, 0, false},
        {"redis://h:1", "h:1", NULL, NULL, 0, false},
        {"redis://h/", "h:6379", NULL, NULL, 0, false},
        {"redis:///3", "127.0.0.1:6379", NULL, NULL, 3, false},
        {"redis://h:1/15", "h:1", NULL, NULL, 15, false},
        {"redis://:p%40ss@h", "h:6379", NULL, "p@ss", 0, false},
        {"redis://u:p:q@h", "h:6379", "u", "p:q", 0, false},
        {"redis://u%3A:@h", "h:6379", "u:", "", 0, false},
        {"redis://u:a@b@h:9", "h:9", "u", "a@b", 0, false},
        {"rediss://[::1]:7/2", "[::1]:7", NULL, NULL, 2, true},
        {"redis://[::1]", "[::1]:6379", NULL, NULL, 0, false},
        {"unix:///run/r.sock", "/run/r.sock", NULL, NULL, 0, false},
        {"unix:///run/r.sock?db=4", "/run/r.sock", NULL, NULL, 4, false},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(load((struct config){.redis_url = good[i].url}));
        check_address(good[i].address);
        assert_int_equal(options.db, good[i].db);
        assert_int_equal(options.tls, good[i].tls);
        assert_int_equal(options.user != NULL, good[i].user != NULL);
        assert_int_equal(options.pass != NULL, good[i].pass != NULL);
        if (good[i].user)
            assert_string_equal(options.user, good[i].user);
        if (good[i].pass)
            assert_string_equal(options.pass, good[i].pass);
        redis_options_deinit(&options);
    }
    static const char *const bad[] = {
        "h:6379",         "http://h",
        "redis://h:0",    "redis://h:70000",
        "redis://h:x",    "redis://h/x",
        "redis://h?db=1", "redis://%zz:p@h",
        "redis://u@h",    "unix://run",
        "unix:///s?db=x", "unix:///s?x",
        "redis://h:",     "redis://h:99999999999999999999",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(load((struct config){.redis_url = bad[i]}));
        assert_non_null(strstr(error, "REDIS_"));
        redis_options_deinit(&options);
    }
}

static void test_sentinels_and_wait(void **state) {
    (void)state;
    assert_true(load((struct config){
        .redis_sentinel = "a:1,b,[::1]:3", .redis_master = "mymaster", .redis_wait = "2:150"}));
    assert_int_equal(options.sentinel_count, 3);
    assert_string_equal(redis_address_text(&options.sentinels[0]).text, "a:1");
    assert_string_equal(redis_address_text(&options.sentinels[1]).text, "b:26379");
    assert_string_equal(redis_address_text(&options.sentinels[2]).text, "[::1]:3");
    assert_int_equal(options.wait_replicas, 2);
    assert_int_equal(options.wait_ms, 150);
    redis_options_deinit(&options);
    static const struct config bad[] = {
        {.redis_sentinel = "a:1"},
        {.redis_sentinel = "a:1,,b", .redis_master = "m"},
        {.redis_sentinel = "a:x", .redis_master = "m"},
        {.redis_wait = "1"},
        {.redis_wait = "0:5"},
        {.redis_wait = "1:0"},
        {.redis_wait = "1:5x"},
        {.redis_user = "u"},
        {.redis_host = "/s", .redis_tls = 1},
        {.redis_url = "redis://h", .redis_tls = 1},
        {.redis_sentinel = "1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17", .redis_master = "m"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(load(bad[i]));
        redis_options_deinit(&options);
    }
}

/* The kernel, and a name, take no more. */
static void test_lengths(void **state) {
    (void)state;
    char path[301], url[400];
    memset(path, '/', sizeof path);
    for (size_t len = 1; len <= 300; len++) {
        path[len] = '\0';
        assert_int_equal(load((struct config){.redis_host = path}), len <= 107);
        redis_options_deinit(&options);
        snprintf(url, sizeof url, "unix://%s", path);
        assert_int_equal(load((struct config){.redis_url = url}), len <= 107);
        redis_options_deinit(&options);
        path[len] = '/';
    }
    memset(path, 'a', sizeof path);
    for (size_t len = 250; len <= 260; len++) {
        path[len] = '\0';
        assert_int_equal(load((struct config){.redis_host = path}), len <= 255);
        redis_options_deinit(&options);
        path[len] = 'a';
    }
}

char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);
char *__wrap_strdup(const char *text) {
    return allocation_fails() ? NULL : __real_strdup(text);
}

static void test_without_memory(void **state) {
    (void)state;
    for (failing_allocation = 1; failing_allocation <= 3; failing_allocation++) {
        allocations = 0;
        assert_int_equal(IN_NEED(load((struct config){.redis_url = "redis://u:p@h"})),
                         failing_allocation > 2);
        redis_options_deinit(&options);
        allocations = 0;
        assert_int_equal(IN_NEED(load((struct config){.redis_user = "u", .redis_pass = "p"})),
                         failing_allocation > 2);
        redis_options_deinit(&options);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_host_and_port),      cmocka_unit_test(test_url),
        cmocka_unit_test(test_sentinels_and_wait), cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
