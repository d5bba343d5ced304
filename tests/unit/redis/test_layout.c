/* Keys, slots and records. */
#include "redis/layout.h"
#include "support.h"

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
    assert_false(redis_layout_channel(&cluster, SLICE("lpolling:news:{ab"), name, &len));
    assert_false(redis_layout_channel(&cluster, SLICE("lpolling:news:ab}"), name, &len));
}

/* As `CLUSTER KEYSLOT` says. */
static void test_slots(void **state) {
    (void)state;
    struct redis_layout layout = {.prefix = "lpolling:", .is_cluster = true},
                        tagged = {.prefix = "{foo}:", .is_cluster = true},
                        spoilt = {.prefix = "p{}", .is_cluster = true},
                        open = {.prefix = "p{", .is_cluster = true};
    assert_int_equal(redis_layout_slot(&layout, SLICE("123456789")), 12739);
    assert_int_equal(redis_layout_slot(&layout, SLICE("foo")), 12182);
    assert_int_equal(redis_layout_slot(&layout, SLICE("a")), 15495);
    assert_int_equal(redis_layout_slot(&tagged, SLICE("a")), 12182);
    assert_int_equal(redis_layout_slot(&spoilt, SLICE("a")), 10192);
    assert_int_equal(redis_layout_slot(&open, SLICE("a")), 2690);
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
    static char method[70000] = "1 2 2 -1 0 0 65536\n"; /* an update's has 16 bits */
    memset(method + strlen(method), 'x', 65536);
    assert_false(redis_record_parse(slice_of(method), &record));
    memcpy(method, "1 2 2 -1 0 0 65535", 18);
    assert_true(redis_record_parse(slice_of(method), &record));
}

/* --- What is damaged -------------------------------------------------------------------------- */

static enum redis_item judge(const char *body, const char *text) {
    struct redis_record record;
    struct slice slice = slice_of(text ? text : "");
    return redis_item_judge(slice_of(body), text ? &slice : NULL, 7, &record);
}

static void test_items(void **state) {
    (void)state;
    assert_int_equal(judge("{}", "7 1 2 -1 0 0 4\nPOST"), REDIS_ITEM_WHOLE);
    assert_int_equal(judge("{}", "7 1 2 -1 0 2 4\n{}POST"), REDIS_ITEM_WHOLE);
    assert_int_equal(judge("\"upstream took this\"", NULL), REDIS_ITEM_BARE);
    static const char *const bodies[] = {"", "{", "{}}", "{\"a\":\"\xff\"}", "\0{}", "x"};
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        char text[48];
        snprintf(text, sizeof text, "7 1 %zu -1 0 0 4\nPOST", strlen(bodies[i]));
        assert_int_equal(judge(bodies[i], text), REDIS_ITEM_DAMAGED);
        assert_int_equal(judge(bodies[i], NULL), REDIS_ITEM_DAMAGED);
    }
    static const char *const records[] = {
        "",
        "x",
        "8 1 2 -1 0 0 4\nPOST",           /* another update's */
        "7 1 2 -1 0 0 5\nPOST",           /* cut off */
        "7 1 2 -1 0 2 4\n{x\nPOST",       /* headers that are no JSON */
        "7 1 2 -1 0 2 4\n[]POST",         /* ... or no object */
        "7 1 2 -1 0 5 4\n\"\xff\"x}POST", /* ... or not UTF-8 */
    };
    for (size_t i = 0; i < sizeof records / sizeof *records; i++)
        assert_int_equal(judge("{}", records[i]), REDIS_ITEM_DAMAGED);
    assert_int_equal(judge("{}", "7 1 3 -1 0 0 4\nPOST"), REDIS_ITEM_BARE); /* of another text */
    char deep[2 * 501 + 1];
    memset(deep, '[', 501);
    memset(deep + 501, ']', 501);
    deep[1002] = '\0';
    assert_int_equal(judge(deep, NULL), REDIS_ITEM_DAMAGED); /* no consumer could read it */
    assert_int_equal(redis_record_ts(SLICE("12 1 2")), 12);
    assert_int_equal(redis_record_ts(SLICE("x12 1 2")), 0);
    assert_int_equal(redis_record_ts(SLICE("12")), 0);
    assert_int_equal(redis_record_ts(SLICE("-12 ")), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_slots),
        cmocka_unit_test(test_records),
        cmocka_unit_test(test_items),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
