/* What `longline tail` shows of what comes. */
#include "cli/curl.h"
#include "cli/tail.h"
#include "events.h"

#include <sysexits.h>

#define TAIL(...)                                                                                  \
    tail_run(sizeof((char *[]){"http://h/x", __VA_ARGS__}) / sizeof(char *),                       \
             (char *[]){(char[]){"http://h/x"}, __VA_ARGS__})

static void tell(const struct feed_event *all, size_t count) {
    events = all;
    events_left = count;
    buf_reset(&out, SIZE_MAX);
}

#define TELL(all) tell(all, sizeof(all) / sizeof *(all))

static int set_up(void **state) {
    (void)state;
    is_terminal = has_no_feed = false;
    write_error = 0;
    tell(NULL, 0);
    return 0;
}

#define ITEM(text) .item = {text, sizeof text - 1}
#define UPDATE(text) .update = {text, sizeof text - 1}

/* Of a request only what is there is shown. */
static void test_headings(void **state) {
    (void)state;
    static const struct feed_event all[] = {
        {.ts = 7,
         ITEM("{\"method\":\"POST\",\"path\":\"/v1\",\"query\":\"a=b\",\"from\":\"::1\"}")},
        {.ts = 8, ITEM("{\"at\":0,\"method\":5,\"path\":\"\",\"from\":\"a\\u001bb\"}")},
        {.ts = 9, ITEM("{\"at\":1}"), UPDATE("5")},
    };
    is_terminal = true;
    TELL(all);
    assert_int_equal(TAIL("--sleep=1"), EX_OK);
    assert_true(says("#7  POST /v1 ?a=b from ::1\x1b[0m\n"));
    assert_true(says("#8  from a\\u001bb\x1b[0m\n"));
    assert_true(says("#9 ") && says("1970-01-01") && says("5\x1b[0m\n"));
    assert_true(asked.is_full);
}

static void test_json(void **state) {
    (void)state;
    static const struct feed_event all[] = {
        {.kind = FEED_READY},
        {.kind = FEED_MISSED, .count = 1},
        {.kind = FEED_MISSED, .count = 2},
        {.kind = FEED_RESET, .to = {.ts = 3}},
        {.kind = FEED_TROUBLE, .error = "away", .pause_ms = 500},
        {.kind = FEED_UPDATE, .ts = 4, UPDATE("{\"a\":\n1}")},
    };
    TELL(all);
    assert_int_equal(TAIL("--json"), EX_OK);
    assert_text(((struct slice){out.data, out.len}),
                "{\"missed\":1}\n{\"missed\":2}\n{\"reset\":3}\n{\"ts\":4,\"update\":{\"a\":1}}\n"
                "{\"stopped\":true,\"ts\":0}\n");
    TELL(all);
    assert_int_equal(TAIL("--full"), EX_OK); /* the others are told on standard error */
    assert_text(((struct slice){out.data, out.len}), "\n");
}

static void test_refused(void **state) {
    (void)state;
    static const struct feed_event all[] = {
        {.kind = FEED_REFUSED, .status = 403, .error = "no"},
        {.kind = FEED_REFUSED, .status = 400, .error = "no"},
    };
    TELL(all);
    assert_int_equal(TAIL("--json"), EX_NOPERM);
    assert_text(((struct slice){out.data, out.len}), "{\"error\":\"no\",\"status\":403}\n");
    assert_int_equal(TAIL("--sleep=1"), EX_USAGE);
}

/* A reader that has gone wanted no more; what cannot be written is an error. */
static void test_what_cannot_be_written(void **state) {
    (void)state;
    static const struct feed_event all[] = {{.ts = 1, UPDATE("{\"a\":[]}")}};
    write_error = EPIPE;
    TELL(all);
    assert_int_equal(TAIL("--json"), EX_OK);
    write_error = ENOSPC;
    TELL(all);
    assert_int_equal(TAIL("--json"), EX_IOERR);
    write_error = 0;
    is_terminal = true;
    failing_allocation = 0;
    int code;
    do {
        failing_allocation++;
        allocations = 0;
        TELL(all);
        code = IN_NEED(TAIL("--sleep=1"));
        assert_int_equal(code, allocations < failing_allocation ? EX_OK : EX_IOERR);
    } while (code != EX_OK);
    has_no_feed = true;
    assert_int_equal(TAIL("--sleep=1"), EX_OSERR);
}

static void test_options(void **state) {
    (void)state;
    static char *const bad[] = {
        "--sleep=61", "--sleep=x", "--backoff=61", "--backoff=0", "--ts=x", "-n10001",
        "word",       "--what",    "--since=1h=",  "--json=1",    "-n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(TAIL(bad[i]), strcmp(bad[i], "--since=1h=") ? EX_USAGE : EX_OK);
    char *many[2 * 65 + 1] = {(char[]){"http://h/x"}};
    for (int i = 1; i < 131; i += 2) {
        many[i] = "--where";
        many[i + 1] = "body.a";
    }
    assert_int_equal(tail_run(129, many), EX_OK);
    assert_int_equal(asked.where_count, 64);
    many[0] = (char[]){"http://h/x"};
    for (int i = 1; i < 131; i += 2) {
        many[i] = "--where";
        many[i + 1] = "body.a";
    }
    assert_int_equal(tail_run(131, many), EX_USAGE); /* one too many */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_headings, set_up),
        cmocka_unit_test_setup(test_json, set_up),
        cmocka_unit_test_setup(test_refused, set_up),
        cmocka_unit_test_setup(test_what_cannot_be_written, set_up),
        cmocka_unit_test_setup(test_options, set_up),
    };
    const char *error;
    int failed = curl_load(&error) ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
    buf_deinit(&out);
    return failed;
}
