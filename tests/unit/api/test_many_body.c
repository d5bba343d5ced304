/* The body of a poll of many channels. */
#include "api/many_body.h"
#include "base/hash.h"
#include "requests.h"

#include <stdio.h>
#include <zlib.h>

static struct many_body body;

static void refuse_at(const char *text, enum http_error error, int line) {
    if (many_body_parse(&body, slice_of(text)) != error)
        _fail(__FILE__, line);
    many_body_deinit(&body);
}

#define refuse(text, error) refuse_at(text, error, __LINE__)

static void test_channels(void **state) {
    (void)state;
    const char *text =
        " {\"a\" : 41 , \"/b\":\"now\",\"\\u0063\\\"\":{\"epoch\":\"ff\", \"ts\": -3 },\"d\":7.0} ";
    assert_int_equal(many_body_parse(&body, slice_of(text)), HTTP_NO_ERROR);
    assert_int_equal(body.count, 4);
    static const struct {
        struct slice key, name;
        int64_t position;
    } wanted[] = {
        {SLICE("a"), SLICE("a"), 41},
        {SLICE("/b"), SLICE("b"), POSITION_NOW},
        {SLICE("\\u0063\\\""), SLICE("c\""), -3},
        {SLICE("d"), SLICE("d"), 7},
    };
    for (uint32_t i = 0; i < body.count; i++) {
        assert_true(slice_equal(body.channels[i].key, wanted[i].key));
        assert_true(slice_equal(body.channels[i].name, wanted[i].name));
        assert_int_equal(body.channels[i].position, wanted[i].position);
        assert_int_equal(body.channels[i].has_epoch, i == 2);
        assert_int_equal(body.channels[i].epoch, i == 2 ? 0xff : 0);
    }
    many_body_deinit(&body);
}

static void test_cursors(void **state) {
    (void)state;
    refuse("{\"a\":0}", HTTP_NO_ERROR);
    refuse("{\"a\":-999999999999999999}", HTTP_NO_ERROR);
    refuse("{\"a\":{\"ts\":\"now\",\"epoch\":\"\"}}", HTTP_NO_ERROR);
    static const char *const none[] = {
        "null",
        "true",
        "\"\"",
        "\"5\"",
        "\"NOW\"",
        "1e1",
        "1.5",
        "[]",
        "{}",
        "{\"epoch\":\"\"}",
        "{\"ts\":null}",
        "{\"ts\":1,\"epoch\":1}",
        "{\"ts\":1,\"x\":1}",
        "{\"ts\":{}}",
        "9999999999999999999",
        "[[[]]]",
    };
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        char text[128];
        snprintf(text, sizeof text, "{\"a\":0,\"b\":%s}", none[i]);
        refuse(text, ERROR_MANY_BODY);
    }
}

static void test_texts_that_are_no_body(void **state) {
    (void)state;
    refuse("", ERROR_MANY_BODY);
    refuse("{}", ERROR_MANY_BODY);
    refuse("[0]", ERROR_MANY_BODY);
    refuse("0", ERROR_MANY_BODY);
    refuse("{\"a\":0}x", ERROR_MANY_BODY);
    refuse("{\"\\ud800\":0}", ERROR_MANY_BODY);
    refuse("{\"\":0}", ERROR_MANY_NAME);
    refuse("{\"/\":0}", ERROR_MANY_NAME);
    refuse("{\"a\\/b\":0}", ERROR_MANY_NAME);
    refuse("{\"a\\u0000\":0}", ERROR_MANY_NAME);
    refuse("{\"a\":0,\"\\u0061\":0}", ERROR_MANY_NAME);
    refuse("{\"a\":0,\"/a\":0}", ERROR_MANY_NAME);
    refuse("{\"r_aaaaaaaaaaaaaaaaaaaaaaaaaa\":0,\"v_7hbjlw4eu26ztbnufm4kuyjplr\":0}",
           ERROR_MANY_NAME);
    refuse("{\"v_7hbjlw4eu26ztbnufm4kuyjplr\":0,\"/v_7hbjlw4eu26ztbnufm4kuyjplr\":0}",
           ERROR_MANY_NAME);
    refuse("{\"a\":0,\"w_7qjf5ox6vk2m4p3glbaewy2dry\":0}", ERROR_KEY_SENDS);
}

static void check_count(uint32_t count, enum http_error error) {
    struct buf text = {0};
    for (uint32_t i = 0; i < count; i++)
        buf_printf(&text, "%s\"%u\":0", i ? "," : "{", i);
    buf_append(&text, "}", 2);
    refuse(text.data, error);
    buf_deinit(&text);
}

static void test_limits(void **state) {
    (void)state;
    check_count(MANY_CHANNELS_MAX, HTTP_NO_ERROR);
    check_count(MANY_CHANNELS_MAX + 1, ERROR_MANY_BODY);
}

static void test_names_of_every_length(void **state) {
    (void)state;
    static char text[MANY_BODY_MAX_BYTES + 2];
    for (size_t len = 1; len <= 258; len++) {
        int at = snprintf(text, sizeof text, "{\"");
        for (size_t i = 0; i < len; i++)
            at += snprintf(text + at, sizeof text - (size_t)at, "\\u0061");
        snprintf(text + at, sizeof text - (size_t)at, "\":0}");
        refuse(text, len <= 256 ? HTTP_NO_ERROR : ERROR_MANY_NAME);
    }
    memset(text, ' ', sizeof text - 1);
    memcpy(text, "{\"a\":0}", 7);
    text[MANY_BODY_MAX_BYTES] = '\0';
    refuse(text, HTTP_NO_ERROR);
    text[MANY_BODY_MAX_BYTES] = ' ';
    refuse(text, ERROR_MANY_SIZE);
}

/* It is inflated on the loop, and BUFFER_SIZE does not count it. */
static void test_a_long_body_is_not_inflated(void **state) {
    (void)state;
    static unsigned char spaces[1 << 20], zipped[4096];
    uLongf len = sizeof zipped;
    memset(spaces, ' ', sizeof spaces);
    assert_int_equal(compress2(zipped, &len, spaces, sizeof spaces, 9), Z_OK);
    struct buf text = {0};
    buf_printf(&text,
               "POST /-/poll HTTP/1.1\r\nHost: x\r\nContent-Encoding: deflate\r\n"
               "Content-Length: %lu\r\n\r\n",
               len);
    buf_append(&text, zipped, len);
    struct parsed parsed;
    struct payload payload;
    parse_request(&parsed, (struct slice){text.data, text.len});
    assert_int_equal(many_body_read(&parsed.request, &payload, &body), ERROR_MANY_SIZE);
    assert_in_range(payload.inflated.len, 0, MANY_BODY_MAX_BYTES);
    payload_deinit(&payload);
    parsed_deinit(&parsed);
    buf_deinit(&text);
}

int main(void) {
    hash_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_channels),
        cmocka_unit_test(test_cursors),
        cmocka_unit_test(test_texts_that_are_no_body),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_names_of_every_length),
        cmocka_unit_test(test_a_long_body_is_not_inflated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
