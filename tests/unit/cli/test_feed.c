/*
 * A feed over replies that the test has written: what it tells, what it asks next, and for how long
 * it pauses before.
 */
#define CURL_LOADS
#include "cli/curl.h"

#include "cli/exchange.h"
#include "cli/feed.h"
#include "need.h"

#include <sysexits.h>

struct reply {
    enum exchange_end end;
    int status;
    const char *body;
    int64_t waited_ms, retry_after_s;
};

/* What is still to come; then the command must end. */
static const struct reply *replies;
static size_t replies_left;
static char asked[512]; /* the query of the last poll */
static int polls;
static int64_t paused_ms; /* before it */
static int64_t boot_ms;   /* now */

void __wrap_exchange_run(struct exchange *exchange, const struct exchange_request *request,
                         struct exchange_reply *reply);
void __wrap_exchange_run(struct exchange *exchange, const struct exchange_request *request,
                         struct exchange_reply *reply) {
    bool was_counting = is_counting;
    is_counting = false;
    assert_non_null(exchange);
    assert_true(replies_left);
    snprintf(asked, sizeof asked, "%s", strchr(request->url, '?'));
    *reply = (struct exchange_reply){.end = replies->end,
                                     .status = replies->status,
                                     .waited_ms = replies->waited_ms,
                                     .retry_after_s = replies->retry_after_s};
    snprintf(reply->error, sizeof reply->error, "why");
    buf_puts(&reply->body, replies->body ? replies->body : "");
    replies++;
    replies_left--;
    polls++;
    is_counting = was_counting;
}

void __wrap_stop_sleep(int64_t ms);
void __wrap_stop_sleep(int64_t ms) {
    paused_ms = ms;
}

int64_t __wrap_clocks_boot_ms(void);
int64_t __wrap_clocks_boot_ms(void) {
    return boot_ms;
}

bool __wrap_stop_is_asked(void);
bool __wrap_stop_is_asked(void) {
    return !replies_left;
}

static jmp_buf has_exited;
static int exit_code;

__attribute__((noreturn)) void __wrap_exit(int code);
void __wrap_exit(int code) {
    is_counting = false;
    exit_code = code;
    longjmp(has_exited, 1);
}

static struct feed *feed;
static struct feed_event event;

static void begin(const struct feed_options *options, const struct reply *script, size_t count) {
    struct feed_options all = *options;
    all.url = "http://h/x";
    replies = script;
    replies_left = count;
    polls = 0;
    feed = feed_new(&all);
    assert_non_null(feed);
}

#define BEGIN(options, script) begin(options, script, sizeof(script) / sizeof *(script))

static enum feed_kind next(void) {
    feed_next(feed, &event);
    return event.kind;
}

static int end(void **state) {
    (void)state;
    feed_free(feed);
    feed = NULL;
    return 0;
}

#define PAGE(ts, rest) "{\"ok\":true,\"ts\":" ts ",\"updates\":[" rest "]}"
#define ERROR(status) "{\"ok\":false,\"error_code\":" #status ",\"error_description\":\"no\"}"

static const struct feed_options behind = {.start = FEED_BEHIND, .place = {.ts = 5, .epoch = "e1"}};

/* Only what longline itself says, and asking again cannot help against, is the end. */
static void test_what_is_final(void **state) {
    (void)state;
    static const struct {
        struct reply reply;
        bool is_final;
    } cases[] = {
        {{.status = 400, .body = ERROR(400)}, true},
        {{.status = 404, .body = ERROR(404)}, true},
        {{.status = 302, .body = ERROR(302)}, false},
        {{.status = 408, .body = ERROR(408)}, false},
        {{.status = 425, .body = ERROR(425)}, false},
        {{.status = 429, .body = ERROR(429)}, false},
        {{.status = 500, .body = ERROR(500)}, false},
        {{.status = 404, .body = "what?"}, false},
        {{.status = 404, .body = ERROR(403)}, false},
        {{.status = 408, .body = "late"}, false},
        {{.status = 200, .body = "<html>"}, false},
        {{.end = EXCHANGE_NOT_CONNECTED}, false},
        {{.end = EXCHANGE_SILENT}, false},
        {{.end = EXCHANGE_SLEPT}, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        begin(&behind, &cases[i].reply, 1);
        assert_int_equal(next(), cases[i].is_final ? FEED_REFUSED : FEED_TROUBLE);
        assert_int_equal(event.status, cases[i].reply.status);
        assert_true(*event.error);
        assert_int_equal(event.to.ts, 5);
        assert_int_equal(next(), FEED_STOPPED);
        end(NULL);
    }
}

/* A poll that is cut after it has waited is asked again at once, and nobody hears of it. */
static void test_a_cut_is_no_trouble(void **state) {
    (void)state;
    static const struct reply script[] = {
        {.status = 200, .body = PAGE("5", "")},
        {.end = EXCHANGE_CUT, .waited_ms = 20000},
        {.status = 200, .body = PAGE("6", "{}")},
        {.end = EXCHANGE_STOPPED},
    };
    BEGIN(&behind, script);
    assert_int_equal(next(), FEED_READY);
    assert_false(event.is_again);
    assert_string_equal(asked, "?ts=5&sleep=25&limit=100&epoch=e1");
    assert_int_equal(next(), FEED_UPDATE);
    assert_int_equal(event.ts, 6);
    assert_int_equal(paused_ms, 0);
    assert_string_equal(asked, "?ts=5&sleep=15&limit=100&epoch=e1");
}

static void test_pauses(void **state) {
    (void)state;
    static const struct reply script[] = {
        {.end = EXCHANGE_NOT_CONNECTED},
        {.status = 503, .retry_after_s = 4},
        {.status = 200, .body = PAGE("5", "")},
        {.status = 200, .body = PAGE("5", "")},
    };
    BEGIN(&behind, script);
    assert_int_equal(next(), FEED_TROUBLE);
    assert_in_range(event.pause_ms, 250, 500);
    assert_int_equal(next(), FEED_TROUBLE);
    assert_in_range(paused_ms, 250, 500);
    assert_in_range(event.pause_ms, 4000, 6000);
    assert_int_equal(next(), FEED_READY);
    assert_true(event.is_again);
    assert_in_range(paused_ms, 4000, 6000);
    assert_int_equal(next(), FEED_STOPPED); /* nothing is new */
    assert_int_equal(polls, 4);
    assert_in_range(paused_ms, 250, 500); /* it did not wait, and must not be asked at once */
}

/* Whoever asks first knows that it can, before it waits; and then it waits at once. */
static void test_asks_first(void **state) {
    (void)state;
    static const struct reply script[] = {
        {.status = 200, .body = PAGE("5", "")},
        {.status = 200, .body = PAGE("5", ""), .waited_ms = 1500},
        {.end = EXCHANGE_NOT_CONNECTED},
        {.status = 200, .body = PAGE("5", "")},
    };
    struct feed_options options = behind;
    options.asks_first = true;
    options.sleep_ms = 1500;
    BEGIN(&options, script);
    assert_int_equal(next(), FEED_READY);
    assert_string_equal(asked, "?ts=5&limit=100&epoch=e1");
    assert_int_equal(next(), FEED_TROUBLE);
    assert_string_equal(asked, "?ts=5&sleep=1.5&limit=100&epoch=e1");
    assert_int_equal(next(), FEED_READY);
    assert_string_equal(asked, "?ts=5&limit=100&epoch=e1");
}

/* Where "now" is, is known from the first reply on; also when that has no updates. */
static void test_the_place(void **state) {
    (void)state;
    static const struct reply script[] = {
        {.status = 200, .body = PAGE("9", "")},
        {.status = 200, .body = PAGE("11", "{\"n\":10},{\"n\":11}")},
        {.status = 200,
         .body = "{\"ok\":true,\"ts\":2,\"reset\":true,\"missed\":3,\"updates\":[7],"
                 "\"epoch\":\"0123456789012345678901234567890123456789\"}"},
        {.status = 200, .body = "{\"ok\":true,\"ts\":4,\"updates\":[],\"epoch\":\"e2\"}"},
        {.status = 200, .body = PAGE("4", "")},
    };
    BEGIN(&(struct feed_options){.start = FEED_NOW}, script);
    assert_int_equal(next(), FEED_READY);
    assert_string_equal(asked, "?ts=now&limit=100&epoch=");
    assert_int_equal(next(), FEED_MOVED);
    assert_int_equal(event.to.ts, 9);
    for (uint64_t ts = 10; ts <= 11; ts++) {
        assert_int_equal(next(), FEED_UPDATE);
        assert_int_equal(event.ts, ts);
        assert_int_equal(event.to.ts, ts);
    }
    assert_int_equal(next(), FEED_RESET);
    assert_int_equal(event.to.ts, 2);
    assert_string_equal(event.to.epoch, ""); /* one that is too long is not known */
    assert_int_equal(next(), FEED_MISSED);
    assert_int_equal(event.count, 3);
    assert_int_equal(next(), FEED_UPDATE);
    assert_text(event.update, "7");
    assert_int_equal(next(), FEED_MOVED);
    assert_int_equal(event.to.ts, 4);
    assert_string_equal(event.to.epoch, "e2");
    assert_int_equal(next(), FEED_STOPPED);
    assert_string_equal(asked, "?ts=4&sleep=25&limit=100&epoch=e2");
}

static void check_since(const char *since, const char *wanted) {
    static const struct reply script[] = {{.end = EXCHANGE_NOT_CONNECTED}};
    BEGIN(&((struct feed_options){.start = FEED_SINCE, .since = since}), script);
    boot_ms += 5000;
    assert_int_equal(next(), FEED_TROUBLE);
    asked[strcspn(asked, "&")] = '\0';
    assert_string_equal(asked, wanted);
    end(NULL);
}

static void test_since(void **state) {
    (void)state;
    check_since("90s", "?since=95s"); /* five seconds after it was said */
    check_since("2m", "?since=125s");
    check_since("1h", "?since=3605s");
    check_since("1d", "?since=86405s");
    check_since("h", "?since=h");
    check_since("1.5h", "?since=1.5h");
    check_since("2026-11-30T10:00Z", "?since=2026-11-30T10%3A00Z");
}

/* There is nobody who could go on: the command ends, and says why. */
static void test_without_memory(void **state) {
    (void)state;
    static const struct reply script[] = {{.status = 404, .body = ERROR(404)}};
    volatile int number = 0;
    do {
        failing_allocation = ++number;
        allocations = 0;
        exit_code = 0;
        struct feed_options options = behind;
        options.url = "http://h/x";
        options.sleep_ms = 1500;
        replies = script;
        replies_left = 1;
        feed = IN_NEED(feed_new(&options));
        assert_int_equal(!feed, allocations >= failing_allocation);
        if (feed && !setjmp(has_exited)) {
            is_counting = true;
            feed_next(feed, &event);
            is_counting = false;
            assert_int_equal(event.kind, FEED_REFUSED);
            assert_string_equal(event.error, "no");
        }
        assert_int_equal(exit_code, !feed || allocations < failing_allocation ? EX_OK : EX_OSERR);
        end(NULL);
    } while (allocations >= failing_allocation);
    assert_true(number > 4);
}

static CURL *no_handle(void) {
    return NULL;
}

static CURLM *no_handles(void) {
    return NULL;
}

static struct curl_slist *no_list(struct curl_slist *list, const char *text) {
    (void)list;
    (void)text;
    return NULL;
}

static void test_without_memory_for_curl(void **state) {
    (void)state;
    struct curl_library whole = curl_library;
    for (int i = 0; i < 3; i++) {
        if (i == 0)
            curl_library.curl_easy_init = no_handle;
        else if (i == 1)
            curl_library.curl_multi_init = no_handles;
        else
            curl_library.curl_slist_append = no_list;
        assert_null(feed_new(&behind));
        curl_library = whole;
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_final),
        cmocka_unit_test_teardown(test_a_cut_is_no_trouble, end),
        cmocka_unit_test_teardown(test_pauses, end),
        cmocka_unit_test_teardown(test_asks_first, end),
        cmocka_unit_test_teardown(test_the_place, end),
        cmocka_unit_test(test_since),
        cmocka_unit_test(test_without_memory),
        cmocka_unit_test(test_without_memory_for_curl),
    };
    const char *error;
    return curl_load(&error) ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
