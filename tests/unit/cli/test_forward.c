/* A request as it goes on to the target: as it came, or not at all. */
#define CURL_LOADS
#include "cli/curl.h"

#include "cli/courier.h"
#include "cli/exchange.h"
#include "cli/forward.h"
#include "need.h"

#include <sysexits.h>

static struct webhook webhook;
static struct courier_result result;
static void (*attempts)(const struct courier *courier);
static int requests;
static char headers[512], target[128], method[16];
static struct exchange_reply reply;
static struct curl_library whole;

/* Stands in for what asks a server: the test has the updates. */
int __wrap_courier_run(const struct courier *courier, const struct options *options);
int __wrap_courier_run(const struct courier *courier, const struct options *options) {
    assert_string_equal(options->words[0], "http://h/x");
    attempts(courier);
    return EX_OK;
}

void __wrap_exchange_run(struct exchange *exchange, const struct exchange_request *request,
                         struct exchange_reply *out);
void __wrap_exchange_run(struct exchange *exchange, const struct exchange_request *request,
                         struct exchange_reply *out) {
    assert_non_null(exchange);
    *headers = '\0';
    for (struct curl_slist *line = request->headers; line; line = line->next)
        snprintf(headers + strlen(headers), sizeof headers - strlen(headers), "%s|", line->data);
    snprintf(target, sizeof target, "%s", request->target);
    snprintf(method, sizeof method, "%s", request->method);
    *out = reply;
    requests++;
}

static void attempt(const struct courier *courier) {
    result = (struct courier_result){.verdict = COURIER_FAILED, .code = -1, .retry_after_s = -1};
    courier->attempt(courier->context, &webhook, &result);
}

static int forward(void (*run)(const struct courier *courier), const char *option) {
    char *words[] = {"http://h/x", "http://t/hooks?k=1", (char *)option};
    attempts = run;
    requests = 0;
    return forward_run(option ? 3 : 2, words);
}

#define SENT "Expect:|accept:|user-agent:|x-a: 1|content-type: text/plain|empty;|"

static void check_sent(const struct courier *courier) {
    reply = (struct exchange_reply){.status = 200};
    attempt(courier);
    assert_int_equal(result.verdict, COURIER_CONFIRMED);
    assert_string_equal(target, "/hooks/p?k=1&q=1");
    assert_string_equal(method, "PUT");
    assert_string_equal(headers, SENT);
}

static void check_host(const struct courier *courier) {
    attempt(courier);
    assert_string_equal(headers, SENT "host: service|");
}

/* What belongs to one connection stays behind. */
static void test_requests(void **state) {
    (void)state;
    assert_int_equal(forward(check_sent, NULL), EX_OK);
    assert_int_equal(forward(check_host, "--keep-host"), EX_OK);
}

static void check_verdicts(const struct courier *courier) {
    static const struct {
        struct exchange_reply reply;
        enum courier_verdict verdict;
        const char *text;
    } cases[] = {
        {{.status = 204}, COURIER_CONFIRMED, ""},
        {{.status = 302}, COURIER_REJECTED, ""},
        {{.status = 400}, COURIER_REJECTED, ""},
        {{.status = 408}, COURIER_FAILED, ""},
        {{.status = 425}, COURIER_FAILED, ""},
        {{.status = 429, .retry_after_s = 3}, COURIER_FAILED, ""},
        {{.status = 500, .retry_after_s = 3}, COURIER_FAILED, ""},
        {{.status = 503, .retry_after_s = 3}, COURIER_FAILED, ""},
        {{.end = EXCHANGE_SILENT, .error = "x"}, COURIER_FAILED, "no answer in time"},
        {{.end = EXCHANGE_CUT, .error = "cut"}, COURIER_FAILED, "cut"},
        {{.end = EXCHANGE_STOPPED}, COURIER_STOPPED, "stopped"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        reply = cases[i].reply;
        attempt(courier);
        int status = reply.status;
        assert_int_equal(result.verdict, cases[i].verdict);
        assert_int_equal(result.code, status ? status : -1);
        assert_string_equal(result.text, cases[i].text);
        assert_int_equal(result.retry_after_s, status == 429 || status == 503 ? 3 : -1);
    }
}

static void test_verdicts(void **state) {
    (void)state;
    assert_int_equal(forward(check_verdicts, NULL), EX_OK);
}

/* --- Without memory --------------------------------------------------------------------------- */

static struct curl_slist *append(struct curl_slist *list, const char *text) {
    return allocation_fails() ? NULL : whole.curl_slist_append(list, text);
}

/* No request goes out with less than there is. */
static void fail_each_allocation(const struct courier *courier) {
    reply = (struct exchange_reply){.status = 200};
    failing_allocation = 0;
    do {
        failing_allocation++;
        allocations = requests = 0;
        is_counting = true;
        attempt(courier);
        is_counting = false;
        assert_int_equal(requests, allocations < failing_allocation);
        assert_string_equal(result.text, requests ? "" : "out of memory");
        assert_int_equal(result.verdict, requests ? COURIER_CONFIRMED : COURIER_FAILED);
    } while (allocations >= failing_allocation);
    assert_true(failing_allocation > 6);
    assert_string_equal(headers, SENT);
}

static void test_without_memory(void **state) {
    (void)state;
    curl_library.curl_slist_append = append;
    assert_int_equal(forward(fail_each_allocation, NULL), EX_OK);
    curl_library = whole;
    failing_allocation = 1;
    allocations = 0;
    assert_int_equal(IN_NEED(forward(NULL, NULL)), EX_OSERR);
}

static void test_options(void **state) {
    (void)state;
    static const char *const bad[] = {"--timeout=3601", "--timeout=x", "--what", "word"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(forward(NULL, bad[i]), EX_USAGE);
    assert_int_equal(forward_run(2, (char *[]){"http://h/x", "t:80"}), EX_USAGE);
}

int main(void) {
    static const char item[] =
        "{\"ts\":7,\"method\":\"PUT\",\"path\":\"/p\",\"query\":\"q=1\",\"headers\":{\"x-a\":\"1\","
        "\"content-type\":\"text/plain\",\"proxy-authorization\":\"x\",\"Connection\":\"close\","
        "\"empty\":\"\",\"host\":\"service\",\"Expect\":\"100-continue\",\"te\":\"x\"},"
        "\"raw\":\"body\"}";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_without_memory),
        cmocka_unit_test(test_options),
    };
    const char *error;
    if (!curl_load(&error) || !webhook_read(&webhook, slice_of(item)))
        return 1;
    whole = curl_library;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    webhook_deinit(&webhook);
    return failed;
}
