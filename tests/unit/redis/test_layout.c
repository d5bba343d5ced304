/* The Redis store's parts that need no Redis: settings, keys, slots, records, and what a Redis
 * promises. */
#include "redis/layout.h"
#include "redis/options.h"
#include "redis/promise.h"
#include "support.h"

/* --- Settings --------------------------------------------------------------------------------- */

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
        "h:6379",      "http://h",    "redis://h:0",    "redis://h:70000",
        "redis://h:x", "redis://h/x", "redis://h?db=1", "redis://%zz:p@h",
        "redis://u@h", "unix://run",  "unix:///s?db=x", "unix:///s?x",
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
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(load(bad[i]));
        redis_options_deinit(&options);
    }
}

/* --- Keys ------------------------------------------------------------------------------------- */

static void check_key(const struct redis_layout *layout, enum redis_key key, struct slice channel,
                      const char *wanted) {
    struct buf out = {0};
    redis_layout_key(layout, &out, key, channel);
    assert_text(((struct slice){out.data, out.len}), wanted);
    if (key == REDIS_KEY_NEWS) {
        char name[512];
        size_t len;
        assert_true(redis_layout_channel(layout, (struct slice){out.data, out.len}, name, &len));
        assert_slices(((struct slice){name, len}), channel);
    }
    buf_deinit(&out);
}

static void test_keys(void **state) {
    (void)state;
    struct redis_layout plain = {.prefix = "lpolling:"}, other = {.prefix = "p:", .db = 3},
                        cluster = {.prefix = "lpolling:", .is_cluster = true};
    check_key(&plain, REDIS_KEY_TOTAL, SLICE("a"), "lpolling:total:a");
    check_key(&plain, REDIS_KEY_UPDATES, SLICE("{a}%"), "lpolling:updates:{a}%");
    check_key(&plain, REDIS_KEY_NEWS, SLICE("{a}%"), "lpolling:news:{a}%");
    check_key(&other, REDIS_KEY_META, SLICE("a"), "p:meta:a");
    check_key(&other, REDIS_KEY_NEWS, SLICE("a"), "p:news@3:a");
    check_key(&cluster, REDIS_KEY_TOTAL, SLICE("a"), "lpolling:total:{a}");
    check_key(&cluster, REDIS_KEY_NEWS, SLICE("}a{b}%"), "lpolling:news:{%7Da%7Bb%7D%25}");
    char name[64];
    size_t len;
    assert_false(redis_layout_channel(&plain, SLICE("lpolling:total:a"), name, &len));
    assert_false(redis_layout_channel(&plain, SLICE("lpolling:news:"), name, &len));
    assert_false(redis_layout_channel(&other, SLICE("p:news:a"), name, &len));
    assert_false(redis_layout_channel(&cluster, SLICE("lpolling:news:a"), name, &len));
    assert_false(redis_layout_channel(&cluster, SLICE("lpolling:news:{}"), name, &len));
}

/* As `CLUSTER KEYSLOT` says. */
static void test_slots(void **state) {
    (void)state;
    struct redis_layout layout = {.prefix = "lpolling:", .is_cluster = true},
                        tagged = {.prefix = "{foo}:", .is_cluster = true};
    assert_int_equal(redis_layout_slot(&layout, SLICE("123456789")), 12739);
    assert_int_equal(redis_layout_slot(&layout, SLICE("foo")), 12182);
    assert_int_equal(redis_layout_slot(&layout, SLICE("a")), 15495);
    assert_int_equal(redis_layout_slot(&tagged, SLICE("a")), 12182);
}

/* --- Records ---------------------------------------------------------------------------------- */

static void check_record(const struct update_parts *parts) {
    struct update *update = update_new(parts);
    struct buf text = {0};
    buf_puts(&text, "7 1795520551476 ");
    redis_record_write(&text, update);
    struct slice body = update_body(update);
    buf_append(&text, body.data, body.len);
    struct redis_record record;
    assert_true(redis_record_parse((struct slice){text.data, text.len}, &record));
    assert_int_equal(record.ts, 7);
    assert_int_equal(record.at_ms, 1795520551476);
    assert_int_equal(record.body_len, body.len);
    assert_slices(record.rest, body);
    assert_int_equal(record.parts.has_raw, parts->has_raw);
    if (parts->has_raw)
        assert_slices(record.parts.raw, parts->raw);
    assert_slices(record.parts.query, parts->query);
    assert_slices(record.parts.headers, parts->headers);
    assert_slices(record.parts.method, parts->method);
    for (size_t len = 0; len < text.len - body.len; len++) /* a part of one is none */
        assert_false(redis_record_parse((struct slice){text.data, len}, &record));
    buf_deinit(&text);
    update_unref(update);
}

static void test_records(void **state) {
    (void)state;
    check_record(&(struct update_parts){.body = SLICE("{}"), .method = SLICE("POST")});
    check_record(&(struct update_parts){.body = SLICE("{\"a\":\"b\"}"),
                                        .has_raw = true,
                                        .raw = SLICE("\0\n 1 2"),
                                        .query = SLICE("a=b c"),
                                        .headers = SLICE("{\"x\":\"y\"}"),
                                        .method = SLICE("POST")});
    check_record(
        &(struct update_parts){.body = SLICE("{}"), .has_raw = true, .method = SLICE("POST")});
    static const char *const bad[] = {
        "",
        "1",
        "1 2 3 4 5 6\n",
        "x 2 2 -1 0 0 0\n",
        "0 2 2 -1 0 0 0\n",
        "1 -2 2 -1 0 0 0\n",
        "1 2 -2 -1 0 0 0\n",
        "1 2 2 5 0 0 0\nabc",
        "1 2 2 -1 9 0 0\nabc",
        "1 2 2 -1 0 0 0 \n",
        "1  2 -1 0 0 0\n",
        "1 2 2 -1 -1 0 0\n",
        "1 2 2 -1 0 0 99999\n",
        "99999999999999999999 2 2 -1 0 0 0\n",
    };
    struct redis_record record;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(redis_record_parse(slice_of(bad[i]), &record));
}

/* --- Promises --------------------------------------------------------------------------------- */

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
        cmocka_unit_test(test_host_and_port),
        cmocka_unit_test(test_url),
        cmocka_unit_test(test_sentinels_and_wait),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_slots),
        cmocka_unit_test(test_records),
        cmocka_unit_test(test_promises),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
