/* Settings: defaults, environment, flags, which beats which, and what is refused. */
#include "base/config.h"
#include "base/log.h"
#include "support.h"

static const char *const names[] = {
    "LISTEN",
    "DATA_PROVIDER",
    "DATA_PATH",
    "SYNC",
    "CHANNEL_STORAGE_MAXSIZE",
    "DATA_TTL",
    "REDIS_DATA_TTL",
    "MAX_BODY",
    "STRICT_JSON",
    "DATA_MAX_BYTES",
    "CACHE_SIZE",
    "BUFFER_SIZE",
    "CAPTURE_HEADERS",
    "MAX_CONNECTIONS",
    "IO_URING",
    "REQUEST_TIMEOUT",
    "IDLE_TIMEOUT",
    "RATE_LIMIT_FRAME",
    "RATE_LIMIT_LIMIT",
    "TRUST_PROXY",
    "REDIS_HOST",
    "REDIS_PORT",
    "REDIS_PASS",
    "REDIS_PREFIX",
    "LOG_LEVEL",
    "LOG_FORMAT",
};

static int clear_environment(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unsetenv(names[i]);
    return 0;
}

static struct config config;
static char error[512];

/* Loads with the flags given, separated by spaces. */
static bool load(const char *flags) {
    static char copy[1024];
    char *argv[16];
    int argc = 0;
    snprintf(copy, sizeof copy, "%s", flags);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "))
        argv[argc++] = word;
    memset(&config, 0xAA, sizeof config);
    *error = '\0';
    return config_load(&config, argc, argv, error, sizeof error);
}

static void test_defaults(void **state) {
    (void)state;
    assert_true(load(""));
    assert_string_equal(config.listen, "0.0.0.0:3000");
    assert_int_equal(config.data_provider, PROVIDER_SQLITE);
    assert_string_equal(config.data_path, "./longline.db");
    assert_int_equal(config.sync, SYNC_ALWAYS);
    assert_int_equal(config.channel_storage_maxsize, 1000);
    assert_int_equal(config.data_ttl, 604800);
    assert_int_equal(config.max_body, 33554432);
    assert_int_equal(config.data_max_bytes, 0);
    assert_int_equal(config.cache_size, 64);
    assert_int_equal(config.buffer_size, 256);
    assert_int_equal(config.capture_headers, 1);
    assert_int_equal(config.max_connections, 0);
    assert_int_equal(config.request_timeout, 60);
    assert_int_equal(config.idle_timeout, 75);
    assert_int_equal(config.rate_limit_frame, 60);
    assert_int_equal(config.rate_limit_limit, 0);
    assert_string_equal(config.trust_proxy, "loopback,private");
    assert_string_equal(config.redis_host, "127.0.0.1");
    assert_int_equal(config.redis_port, 6379);
    assert_string_equal(config.redis_prefix, "lpolling:");
    assert_int_equal(config.log_level, LOG_LEVEL_INFO);
    assert_int_equal(config.log_json, 0);
}

static void test_environment_and_flags(void **state) {
    (void)state;
    setenv("CACHE_SIZE", "7", 1);
    setenv("LISTEN", "[::]:80", 1);
    setenv("DATA_PROVIDER", "memory", 1);
    assert_true(load(""));
    assert_int_equal(config.cache_size, 7);
    assert_string_equal(config.listen, "[::]:80");
    assert_int_equal(config.data_provider, PROVIDER_MEMORY);
    assert_true(load("--cache-size 8 --listen=unix:/tmp/a=b --data-provider=sqlite"));
    assert_int_equal(config.cache_size, 8);
    assert_string_equal(config.listen, "unix:/tmp/a=b");
    assert_int_equal(config.data_provider, PROVIDER_SQLITE);
    assert_true(load("--cache-size=8 --cache-size=9"));
    assert_int_equal(config.cache_size, 9);
    setenv("CACHE_SIZE", "", 1); /* set, but empty: as if it were not set */
    assert_true(load(""));
    assert_int_equal(config.cache_size, 64);
}

/* MAX_BODY, where it is not set, is no more than a quarter of BUFFER_SIZE. */
static void test_a_small_buffer(void **state) {
    (void)state;
    assert_true(load("--buffer-size 64"));
    assert_int_equal(config.max_body, 16 << 20);
    assert_true(load("--buffer-size 64 --max-body 1000"));
    assert_int_equal(config.max_body, 1000);
}

static void test_other_names(void **state) {
    (void)state;
    setenv("DATA_PROVIDER", "localtable", 1);
    setenv("REDIS_DATA_TTL", "11", 1);
    assert_true(load(""));
    assert_int_equal(config.data_provider, PROVIDER_MEMORY);
    assert_int_equal(config.data_ttl, 11);
    setenv("DATA_TTL", "12", 1);
    assert_true(load(""));
    assert_int_equal(config.data_ttl, 12);
    assert_true(load("--data-ttl 13"));
    assert_int_equal(config.data_ttl, 13);
}

static void test_choices(void **state) {
    (void)state;
    static const struct {
        const char *flags;
        int sync, capture_headers, log_level, log_json;
    } cases[] = {
        {"--sync always --capture-headers on --log-level debug --log-format text", SYNC_ALWAYS, 1,
         LOG_LEVEL_DEBUG, 0},
        {"--sync interval --capture-headers off --log-level info --log-format json", SYNC_INTERVAL,
         0, LOG_LEVEL_INFO, 1},
        {"--sync never --capture-headers true --log-level warn", SYNC_NEVER, 1, LOG_LEVEL_WARN, 0},
        {"--sync NEVER --capture-headers FALSE --log-level ERROR", SYNC_NEVER, 0, LOG_LEVEL_ERROR,
         0},
        {"--capture-headers 1 --log-level warning", SYNC_ALWAYS, 1, LOG_LEVEL_WARN, 0},
        {"--capture-headers 0", SYNC_ALWAYS, 0, LOG_LEVEL_INFO, 0},
        {"--capture-headers no", SYNC_ALWAYS, 0, LOG_LEVEL_INFO, 0},
        {"--capture-headers yes", SYNC_ALWAYS, 1, LOG_LEVEL_INFO, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_true(load(cases[i].flags));
        assert_int_equal(config.sync, cases[i].sync);
        assert_int_equal(config.capture_headers, cases[i].capture_headers);
        assert_int_equal(config.log_level, cases[i].log_level);
        assert_int_equal(config.log_json, cases[i].log_json);
    }
}

/* Each mistake is refused with one line that names the setting. */
static void test_mistakes(void **state) {
    (void)state;
    static const struct {
        const char *flags, *named;
    } mistakes[] = {
        {"--cache-size 0", "--cache-size"},
        {"--cache-size -1", "--cache-size"},
        {"--cache-size +1", "--cache-size"},
        {"--cache-size 1x", "--cache-size"},
        {"--cache-size 0x10", "--cache-size"},
        {"--cache-size 1.5", "--cache-size"},
        {"--cache-size 99999999999999999999", "--cache-size"},
        {"--cache-size=", "--cache-size"},
        {"--redis-port 65536", "--redis-port"},
        {"--max-body 0", "--max-body"},
        {"--sync sometimes", "--sync"},
        {"--sync alway", "--sync"},
        {"--sync always=", "--sync"},
        {"--sync=", "--sync"},
        {"--data-provider mysql", "--data-provider"},
        {"--capture-headers maybe", "--capture-headers"},
        {"--cache-size", "--cache-size"},
        {"--no-such-flag 1", "no-such-flag"},
        {"--CACHE-SIZE 1", "CACHE-SIZE"},
        {"--cache_size 1", "cache_size"},
        {"--cache-siz 1", "cache-siz"},
        {"--", "--"},
        {"cache-size", "cache-size"},
        {"-c", "-c"},
    };
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        if (load(mistakes[i].flags))
            fail_msg("%s was taken", mistakes[i].flags);
        if (!strstr(error, mistakes[i].named) || strchr(error, '\n'))
            fail_msg("%s: \"%s\"", mistakes[i].flags, error);
    }
    setenv("DATA_TTL", "week", 1);
    assert_false(load(""));
    assert_non_null(strstr(error, "DATA_TTL"));
    unsetenv("DATA_TTL");
    setenv("REDIS_DATA_TTL", "week", 1);
    assert_false(load(""));
    assert_non_null(strstr(error, "REDIS_DATA_TTL"));
}

/* A mistake with a long value does not overrun the error. */
static void test_long_value(void **state) {
    (void)state;
    static char value[5000] = "--sync=";
    memset(value + 7, 'x', sizeof value - 8);
    char *argv[] = {value};
    char *small = malloc(32);
    assert_false(config_load(&config, 1, argv, small, 32));
    assert_true(strlen(small) < 32);
    value[2] = 'z';
    assert_false(config_load(&config, 1, argv, small, 32));
    free(small);
}

static bool is_told(const char *name, char *flag, size_t flag_size) {
    struct setting_told told;
    for (size_t at = 0; config_next(&at, &told);)
        if (strcmp(told.env, name) == 0 || strstr(told.help, name)) {
            snprintf(flag, flag_size, "%s", told.flag);
            return *told.help && *told.value;
        }
    return false;
}

static void test_every_setting_is_told(void **state) {
    (void)state;
    char flag[64];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!is_told(names[i], flag, sizeof flag))
            fail_msg("%s is not told", names[i]);
    assert_true(is_told("CHANNEL_STORAGE_MAXSIZE", flag, sizeof flag));
    assert_string_equal(flag, "channel-storage-maxsize");
}

static void test_choices_are_told_once_each(void **state) {
    (void)state;
    struct setting_told told;
    for (size_t at = 0; config_next(&at, &told);)
        if (strcmp(told.env, "DATA_PROVIDER") == 0)
            assert_string_equal(told.value, "sqlite|memory|redis");
        else if (strcmp(told.env, "PURGE") == 0)
            assert_string_equal(told.value, "off|on");
        else if (strcmp(told.env, "DATA_PATH") == 0)
            assert_string_equal(told.value, "FILE");
}

/* The settings without effect, as "NAME needs; NAME needs; ". */
static const char *idle_of(const char *flags) {
    static char text[512];
    struct idle_setting idle;
    size_t len = 0;
    assert_true(load(flags));
    *text = '\0';
    for (size_t at = 0; config_next_idle(&config, &at, &idle);)
        len += (size_t)snprintf(text + len, sizeof text - len, "%s %s; ", idle.env, idle.needs);
    return text;
}

static void test_settings_without_effect(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", ""},
        {"--data-path x --sync never --data-ttl 5 --data-max-bytes 1 --rate-limit-limit 1 "
         "--rate-limit-frame 1",
         ""},
        {"--redis-url redis://h --redis-wait 1:1",
         "REDIS_URL DATA_PROVIDER=redis; REDIS_WAIT DATA_PROVIDER=redis; "},
        {"--data-provider memory --sync never --data-path x --data-max-bytes 1",
         "SYNC DATA_PROVIDER=sqlite; "},
        {"--data-provider redis --redis-url redis://h --redis-host h --redis-master m",
         "REDIS_HOST no server in REDIS_URL; REDIS_MASTER REDIS_SENTINEL; "},
        {"--data-provider redis --redis-url redis://u:p@/3 --redis-host h --redis-port 9", ""},
        {"--data-provider redis --redis-url redis://u:p@h/3 --redis-port 9", ""},
        {"--data-provider redis --redis-url redis://[::1]/3 --redis-port 9", ""},
        {"--data-provider redis --redis-url rediss://u:p@h:1 --redis-port 9 --redis-tls-ca f",
         "REDIS_PORT a REDIS_URL without a port; "},
        {"--data-provider redis --redis-url unix:///s --redis-host h --redis-port 9 --redis-tls-ca "
         "f",
         "REDIS_HOST no server in REDIS_URL; REDIS_PORT no server in REDIS_URL; REDIS_TLS_CA "
         "REDIS_TLS=on; "},
        {"--data-provider redis --redis-tls on --redis-tls-ca f", ""},
        {"--data-provider redis --redis-sentinel h:1 --redis-master m --redis-host h --redis-port "
         "1",
         "REDIS_HOST no REDIS_SENTINEL; REDIS_PORT no REDIS_SENTINEL; "},
        {"--data-provider redis --sync never --data-path x --data-max-bytes 1",
         "SYNC DATA_PROVIDER=sqlite; DATA_MAX_BYTES DATA_PROVIDER=sqlite; "},
        {"--data-provider redis --redis-sentinel h:1 --redis-master m --redis-sentinel-pass p", ""},
        {"--rate-limit-frame 9", "RATE_LIMIT_FRAME RATE_LIMIT_LIMIT; "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(idle_of(cases[i][0]), cases[i][1]);

    setenv("REDIS_DATA_TTL", "5", 1); /* the older name of a setting that always has one */
    setenv("REDIS_HOST", "", 1);
    assert_string_equal(idle_of(""), "");
    setenv("REDIS_HOST", "h", 1);
    assert_string_equal(idle_of(""), "REDIS_HOST DATA_PROVIDER=redis; ");
    unsetenv("REDIS_HOST");
    setenv("PORT", "80", 1);
    assert_string_equal(idle_of(""), "PORT LISTEN=:PORT; ");
    assert_string_equal(idle_of("--listen :80"), "");
    unsetenv("PORT");
}

static void test_choices_read_as_a_sentence(void **state) {
    (void)state;
    assert_false(load("--sync x"));
    assert_string_equal(error, "--sync takes always, interval or never, not \"x\"");
    assert_false(load("--data-provider x"));
    assert_string_equal(error, "--data-provider takes sqlite, memory or redis, not \"x\"");
    assert_false(load("--purge x"));
    assert_string_equal(error, "--purge takes off or on, not \"x\"");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_defaults, clear_environment),
        cmocka_unit_test_setup(test_environment_and_flags, clear_environment),
        cmocka_unit_test_setup(test_a_small_buffer, clear_environment),
        cmocka_unit_test_setup(test_other_names, clear_environment),
        cmocka_unit_test_setup(test_choices, clear_environment),
        cmocka_unit_test_setup(test_mistakes, clear_environment),
        cmocka_unit_test_setup(test_long_value, clear_environment),
        cmocka_unit_test(test_every_setting_is_told),
        cmocka_unit_test(test_choices_are_told_once_each),
        cmocka_unit_test_setup(test_settings_without_effect, clear_environment),
        cmocka_unit_test_setup(test_choices_read_as_a_sentence, clear_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
