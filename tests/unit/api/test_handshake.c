/* What services ask before they send to an address, and what they hear. */
#include "api/handshake.h"
#include "requests.h"

#define PLAIN "text/plain; charset=utf-8"
#define JSON "application/json; charset=utf-8"

/* Reads a request with these headers (lines with CRLF), query and body. */
static bool ask(const char *method, const char *headers, const char *query, struct slice body,
                struct wanted *wanted) {
    struct buf text = {0};
    buf_printf(&text, "%s /c HTTP/1.1\r\nHost: h\r\n%sContent-Length: %zu\r\n\r\n", method, headers,
               body.len);
    buf_append(&text, body.data, body.len);
    struct parsed parsed;
    parse_request(&parsed, (struct slice){text.data, text.len});
    *wanted = (struct wanted){0};
    bool found = handshake_read(&parsed.request, slice_of(query), wanted);
    parsed_deinit(&parsed);
    buf_deinit(&text);
    return found;
}

static void check_at(const char *method, const char *headers, const char *query, struct slice body,
                     const char *type, const char *text, const char *lines, int line) {
    struct wanted wanted;
    if (!ask(method, headers, query, body, &wanted) || wanted_failed(&wanted) ||
        wanted.status != HTTP_OK)
        _fail(__FILE__, line);
    assert_slices_at(slice_of(wanted.content_type), slice_of(type), __FILE__, line);
    assert_slices_at((struct slice){wanted.text.data, wanted.text.len}, slice_of(text), __FILE__,
                     line);
    assert_slices_at((struct slice){wanted.lines.data, wanted.lines.len}, slice_of(lines), __FILE__,
                     line);
    wanted_deinit(&wanted);
}

#define check(method, headers, query, body, text)                                                  \
    check_at(method, headers, query, SLICE(body), PLAIN, text, WANTED_SANDBOX, __LINE__)

static void check_none_at(const char *method, const char *headers, const char *query,
                          struct slice body, int line) {
    struct wanted wanted;
    if (ask(method, headers, query, body, &wanted))
        _fail(__FILE__, line);
}

#define check_none(method, headers, query, body)                                                   \
    check_none_at(method, headers, query, SLICE(body), __LINE__)

static void test_bodies(void **state) {
    (void)state;
    check("POST", "", "", "{\"type\":\"url_verification\",\"challenge\":\"c0ffee\"}", "c0ffee");
    check("POST", "", "a=1",
          "{\"token\":\"t\",\"challenge\":\"\\u0041\",\"type\":\"url_verification\"}", "A");
    check("POST", "Twitch-Eventsub-Message-Type: webhook_callback_verification\r\n", "",
          "{\"challenge\":\"tw\",\"subscription\":{}}", "tw");
    check_none("POST", "", "", "{\"challenge\":\"c0ffee\"}");
    check_none("POST", "", "", "{\"type\":\"event\",\"challenge\":\"c0ffee\"}");
    check_none("POST", "", "", "{\"type\":\"url_verification\",\"challenge\":5}");
    check_none("POST", "", "", "{\"type\":\"url_verification\",\"challenge\":\"\"}");
    check_none("POST", "", "", "{\"type\":\"url_verification\",\"challenge\":\"a\"");
    check_none("POST", "", "", "{\"a\":{\"type\":\"url_verification\",\"challenge\":\"a\"}}");
    check_none("POST", "Twitch-Eventsub-Message-Type: notification\r\n", "",
               "{\"challenge\":\"tw\"}");
}

static void test_queries(void **state) {
    (void)state;
    check("GET", "", "hub.mode=subscribe&hub.challenge=115820&hub.verify_token=x", "", "115820");
    check("GET", "", "hub.mode=unsubscribe&hub.challenge=a%2Bb+c&ts=1", "", "a+b c");
    check("GET", "", "challenge=xyz", "", "xyz");
    check("POST", "", "validationToken=abc%20def", "", "abc def");
    check("GET", "", "validationToken=<b>", "", "<b>");
    check_none("GET", "", "", "");
    check_none("GET", "", "ts=1&challenge=xyz", "");
    check_none("GET", "", "challenge=xyz&sleep=5", "");
    check_none("GET", "", "hub.challenge=1", "");
    check_none("GET", "", "challenge=", "");
    check_none("GET", "", "challenge=%ff", "");
    check_none("POST", "", "challenge=xyz", "{}");
    check_none("POST", "", "hub.mode=a&hub.challenge=xyz", "{}");
    check_none("HEAD", "", "validationToken=xyz", "");
    check_none("HEAD", "", "hub.mode=a&hub.challenge=xyz", "");
}

static void test_headers(void **state) {
    (void)state;
    check_at("POST", "X-Hook-Secret: s3cret\r\n", "", SLICE(""), PLAIN, "",
             WANTED_SANDBOX "X-Hook-Secret: s3cret\r\n", __LINE__);
    check_at("POST", "smartsheet-hook-challenge: 7b-2\r\n", "", SLICE("{}"), JSON,
             "{\"smartsheetHookResponse\":\"7b-2\"}",
             WANTED_SANDBOX "Smartsheet-Hook-Response: 7b-2\r\n", __LINE__);
    check_at("GET", "X-Okta-Verification-Challenge: a\"b\r\n", "", SLICE(""), JSON,
             "{\"verification\":\"a\\\"b\"}", WANTED_SANDBOX, __LINE__);
    check_none("POST", "X-Okta-Verification-Challenge: a\r\n", "", "{}");
    check_none("GET", "X-Hook-Secret: a\r\n", "", "");
    check_none("POST", "X-Hook-Secret: a b\r\n", "", "");
    check_none("POST", "X-Hook-Secret: \xC3\xA9\r\n", "", "");
    check_none("POST", "X-Hook-Secret:\r\n", "", "");
}

static void test_limits(void **state) {
    (void)state;
    struct wanted wanted;
    for (size_t len = WANTED_TEXT_MAX_BYTES; len <= WANTED_TEXT_MAX_BYTES + 1; len++) {
        char query[WANTED_TEXT_MAX_BYTES + 16] = "challenge=";
        memset(query + 10, 'x', len);
        bool found = ask("GET", "", query, SLICE(""), &wanted);
        assert_int_equal(found, len == WANTED_TEXT_MAX_BYTES);
        wanted_deinit(&wanted);
    }
    for (size_t len = HANDSHAKE_HEADER_MAX_BYTES; len <= HANDSHAKE_HEADER_MAX_BYTES + 1; len++) {
        char header[HANDSHAKE_HEADER_MAX_BYTES + 24] = "X-Hook-Secret: ";
        memset(header + 15, 'x', len);
        memcpy(header + 15 + len, "\r\n", 3);
        bool found = ask("POST", header, "", SLICE(""), &wanted);
        assert_int_equal(found, len == HANDSHAKE_HEADER_MAX_BYTES);
        wanted_deinit(&wanted);
    }
}

static void test_consent(void **state) {
    (void)state;
    struct parsed parsed;
    struct buf lines = {0};
    parse_request(&parsed, SLICE("OPTIONS /c HTTP/1.1\r\nHost: h\r\n"
                                 "webhook-request-origin: ev.example\r\n\r\n"));
    assert_true(handshake_consent(&parsed.request, &lines));
    assert_slices(((struct slice){lines.data, lines.len}),
                  SLICE("WebHook-Allowed-Origin: ev.example\r\nWebHook-Allowed-Rate: *\r\n"));
    parsed_deinit(&parsed);
    buf_deinit(&lines);
    parse_request(&parsed, SLICE("OPTIONS /c HTTP/1.1\r\nHost: h\r\n"
                                 "WebHook-Request-Origin: a b\r\n\r\n"));
    assert_false(handshake_consent(&parsed.request, &lines));
    parsed_deinit(&parsed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bodies),  cmocka_unit_test(test_queries),
        cmocka_unit_test(test_headers), cmocka_unit_test(test_limits),
        cmocka_unit_test(test_consent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
