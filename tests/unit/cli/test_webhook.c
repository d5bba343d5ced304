/* A request out of view=full: exact bytes, and nothing that could not have been sent. */
#include "cli/webhook.h"
#include "need.h"

static struct webhook webhook;

static int tear_down(void **state) {
    (void)state;
    webhook_deinit(&webhook);
    webhook = (struct webhook){0};
    return 0;
}

static void read_item(const char *item) {
    assert_true(webhook_read(&webhook, slice_of(item)));
}

static struct slice text_of(const struct buf *buf) {
    return (struct slice){buf->data, buf->len};
}

static void test_the_whole(void **state) {
    (void)state;
    read_item(
        "{\"ts\":7,\"at\":1795506304321,\"method\":\"PUT\",\"path\":\"/a%20b\",\"from\":\"::1\","
        "\"query\":\"a=%41&b\",\"headers\":{\"a\":\"1\",\"content-type\":\"x\",\"e\":\"\"},"
        "\"body\":{},\"raw\":\"\\u00e9\\\"\\u0000\\n\"}");
    assert_int_equal(webhook.ts, 7);
    assert_int_equal(webhook.at, 1795506304321);
    assert_text(text_of(&webhook.method), "PUT");
    assert_text(text_of(&webhook.path), "/a%20b");
    assert_text(text_of(&webhook.query), "a=%41&b");
    assert_text(text_of(&webhook.from), "::1");
    assert_slices(text_of(&webhook.body), SLICE("\xc3\xa9\"\0\n"));
    assert_string_equal(webhook_header(&webhook, "content-type"), "x");
    assert_string_equal(webhook_header(&webhook, "e"), "");
    assert_null(webhook_header(&webhook, "content"));
    size_t count = 0;
    const char *name, *value;
    for (struct slice rest = webhook_headers(&webhook); webhook_next_header(&rest, &name, &value);)
        count++;
    assert_int_equal(count, 3);
}

static void test_bytes(void **state) {
    (void)state;
    read_item("{\"raw_base64\":\"AP97\"}");
    assert_slices(text_of(&webhook.body), SLICE("\0\xff{"));
    read_item("{\"raw_base64\":\"\"}");
    assert_int_equal(webhook.body.len, 0);
    read_item("{\"raw_base64\":\"A*\"}");
    assert_int_equal(webhook.body.len, 0);
}

static void test_a_second_one_has_nothing_of_the_first(void **state) {
    (void)state;
    read_item(
        "{\"ts\":7,\"method\":\"PUT\",\"path\":\"/a\",\"query\":\"q\",\"headers\":{\"a\":\"1\"},"
        "\"raw\":\"x\"}");
    read_item("{}");
    assert_int_equal(webhook.ts, 0);
    assert_text(text_of(&webhook.method), "POST");
    assert_int_equal(webhook.path.len + webhook.query.len + webhook.headers.len + webhook.body.len,
                     0);
    assert_string_equal(webhook.path.data, "");
}

static void test_what_could_not_have_been_sent(void **state) {
    (void)state;
    read_item(
        "{\"method\":\"GET /x\",\"path\":\"/a b\",\"query\":\"a\\r\\nX: y\",\"from\":\"a\\n\","
        "\"headers\":{\"a\":\"1\\r\\nb: 2\",\"b c\":\"1\",\"d:\":\"1\",\"\":\"1\","
        "\"n\":\"x\\u0000y\",\"z\\n\":\"1\",\"o\":{},\"\\u0000\":\"1\",\"del\":\"\\u007f\","
        "\"ok\":\"a\\tb \\u00ff\"}}");
    assert_text(text_of(&webhook.method), "POST");
    assert_int_equal(webhook.path.len + webhook.query.len + webhook.from.len, 0);
    assert_slices(text_of(&webhook.headers), SLICE("ok\0a\tb \xc3\xbf\0"));
    read_item("{\"headers\":[\"a\",\"1\"]}");
    assert_int_equal(webhook.headers.len, 0);
}

static bool is_plain(const char *headers, const char *body) {
    char item[512];
    snprintf(item, sizeof item, "{\"headers\":{%s},%s}", headers, body);
    read_item(item);
    return !webhook_header(&webhook, "content-encoding") &&
           !webhook_header(&webhook, "content-length");
}

static void test_what_longline_has_undone(void **state) {
    (void)state;
#define GZIP "\"content-encoding\":\"gzip\""
    assert_true(is_plain(GZIP ",\"content-length\":\"25\"", "\"raw\":\"{}\""));
    assert_true(is_plain(GZIP, "\"raw\":\"{}\""));
    assert_true(is_plain("\"content-encoding\":\"X-Gzip , deflate\"", "\"raw\":\"{}\""));
    assert_false(is_plain(GZIP ",\"content-length\":\"2\"", "\"raw_base64\":\"H4s=\""));
    assert_false(is_plain(GZIP, "\"raw\":\"x\",\"body\":{\"body_base64\":\"eA==\"}"));
    assert_false(is_plain(GZIP, "\"raw\":\"\",\"body\":{}"));
    assert_true(is_plain(GZIP ",\"content-length\":\"x\"", "\"raw\":\"[1]\",\"body\":[1]"));
    assert_false(is_plain("\"content-encoding\":\"br\"", "\"raw\":\"{}\""));
    assert_false(is_plain("\"content-encoding\":\"gzip, br\"", "\"raw\":\"{}\""));
    assert_false(is_plain(GZIP, "\"raw\":\"{}\",\"coded_base64\":\"H4s=\""));
    assert_int_equal(webhook.body.len, 2);
    assert_true(is_plain("\"x\":\"1\"," GZIP ",\"y\":\"2\"", "\"raw\":\"{}\""));
    assert_slices(webhook_headers(&webhook), SLICE("x\0"
                                                   "1\0y\0"
                                                   "2\0"));
}

static void check_event(const char *headers, const char *raw, const char *wanted) {
    char item[512];
    struct buf event = {0};
    snprintf(item, sizeof item, "{\"headers\":{%s},\"raw\":\"%s\"}", headers, raw);
    read_item(item);
    webhook_write_event(&webhook, &event);
    assert_string_equal(event.data, wanted);
    buf_deinit(&event);
}

static void test_events(void **state) {
    (void)state;
    check_event("\"x-github-event\":\"push\"", "{\\\"type\\\":\\\"x\\\"}", "push");
    check_event("", "{\\\"type\\\":\\\"charge.succeeded\\\"}", "charge.succeeded");
    check_event("", "{\\\"type\\\":5}", "");
    check_event("", "no JSON", "");
    check_event(
        "",
        "{\\\"type\\\":\\\"12345678901234567890123456789012345678901234567890123456789012345"
        "\\\"}",
        "");
    check_event("\"x-github-event\":"
                "\"12345678901234567890123456789012345678901234567890123456789012345\"",
                "", "");
}

/* All of it is there, or it says that it is not. */
static void test_without_memory(void **state) {
    (void)state;
    static const char item[] =
        "{\"ts\":7,\"method\":\"P\\u0055T\",\"path\":\"/\\u0061\",\"query\":\"\\u0071\","
        "\"from\":\"\\u003a:1\",\"headers\":{\"\\u0061\":\"\\u0031\"},\"coded_base64\":\"AP97\"}";
    failing_allocation = 0;
    do {
        webhook_deinit(&webhook);
        failing_allocation++;
        allocations = 0;
        bool is_read = IN_NEED(webhook_read(&webhook, slice_of(item)));
        assert_int_equal(is_read, allocations < failing_allocation);
    } while (allocations >= failing_allocation);
    assert_true(failing_allocation > 10);
    assert_text(text_of(&webhook.method), "PUT");
    assert_text(text_of(&webhook.query), "q");
    assert_text(text_of(&webhook.from), "::1");
    assert_string_equal(webhook_header(&webhook, "a"), "1");
    assert_slices(text_of(&webhook.body), SLICE("\0\xff{"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_the_whole, tear_down),
        cmocka_unit_test_teardown(test_bytes, tear_down),
        cmocka_unit_test_teardown(test_a_second_one_has_nothing_of_the_first, tear_down),
        cmocka_unit_test_teardown(test_what_could_not_have_been_sent, tear_down),
        cmocka_unit_test_teardown(test_what_longline_has_undone, tear_down),
        cmocka_unit_test_teardown(test_events, tear_down),
        cmocka_unit_test_teardown(test_without_memory, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
