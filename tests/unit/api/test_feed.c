/* What a stream is asked for, and the text in which it has its answers. */
#include "api/feed.h"
#include "api/page.h"
#include "base/hash.h"
#include "inbox/update.h"
#include "support.h"

static void test_accept(void **state) {
    (void)state;
    assert_true(feed_is_accepted(SLICE("text/event-stream")));
    assert_true(feed_is_accepted(SLICE("application/json, TEXT/event-stream;q=0.5")));
    assert_true(feed_is_accepted(SLICE("*/* ,\ttext/event-stream ; x=y")));
    assert_false(feed_is_accepted(SLICE("")));
    assert_false(feed_is_accepted(SLICE("*/*")));
    assert_false(feed_is_accepted(SLICE("text/event-streams, text/*")));
    assert_false(feed_is_accepted(SLICE("a/b;text/event-stream")));
}

static void check_id(const char *text, bool is_id, int64_t ts, uint64_t epoch) {
    int64_t found_ts = -1;
    uint64_t found_epoch = 1;
    assert_int_equal(feed_parse_id(slice_of(text), &found_ts, &found_epoch), is_id);
    if (!is_id)
        return;
    assert_int_equal(found_ts, ts);
    assert_int_equal(found_epoch, epoch);
}

static void test_id(void **state) {
    (void)state;
    check_id("0", true, 0, 0);
    check_id("41", true, 41, 0);
    check_id("41-5c0f9d3e21b8a764", true, 41, 0x5c0f9d3e21b8a764);
    check_id("0-0", true, 0, 0);
    check_id("999999999999999999", true, 999999999999999999, 0);
    check_id("1000000000000000000", false, 0, 0);
    static const char *const none[] = {"", "-", "-1", "1-", "x", "1.0", "now", " 1"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        check_id(none[i], false, 0, 0);
}

static struct update *make(uint64_t ts, const char *body) {
    struct update *update = calloc(1, sizeof *update + strlen(body));
    assert_non_null(update);
    update->ts = ts;
    update->body_len = (uint32_t)strlen(body);
    memcpy(update->data, body, strlen(body));
    return update;
}

/* Writes an answer of one update, or of none where `body` is NULL. */
static void check_text(struct answer answer, const char *body, struct page_form form,
                       const char *wanted) {
    struct update *update = body ? make(answer.ts, body) : NULL;
    answer.count = body ? 1 : 0;
    answer.updates = &update;
    struct buf out = {0};
    feed_write(&out, &answer, &form);
    buf_putc(&out, '\0');
    assert_false(out.failed);
    assert_string_equal(out.data, wanted);
    buf_deinit(&out);
    free(update);
}

static const struct page_form events = {.feed = FEED_EVENTS}, lines = {.feed = FEED_LINES};
static const struct page_form epochs = {.feed = FEED_EVENTS, .has_epoch = true};

static void test_updates(void **state) {
    (void)state;
    struct answer answer = {.ts = 7, .total = 9, .epoch = 0xab};
    check_text(answer, "{}", events, "id: 7\ndata: {}\n\n");
    check_text(answer, "{\n\"a\":\r\n1}\n", events,
               "id: 7\ndata: {\ndata: \"a\": \ndata: 1}\ndata: \n\n");
    check_text(answer, "[1,\r2]", events, "id: 7\ndata: [1, 2]\n\n");
    check_text(answer, "{\n1\r\n}", lines, "{\"ts\":7,\"update\":{ 1  }}\n");
    check_text(answer, "{}", epochs, "id: 7-00000000000000ab\ndata: {}\n\n");
}

/* A text that is little but line breaks does not become several times as long. */
static void test_too_many_lines(void **state) {
    (void)state;
    enum { BREAKS = 342 }; /* 343 lines in 344 bytes: one too many */
    char body[BREAKS + 4] = "{", wanted[2 * sizeof body + 32], text[8 * sizeof body];
    struct answer answer = {.ts = 7, .total = 9};
    memset(body + 1, '\n', BREAKS);
    body[BREAKS + 1] = '}';
    snprintf(wanted, sizeof wanted, "id: 7\ndata: {%*s}\n\n", BREAKS, "");
    check_text(answer, body, events, wanted);
    body[BREAKS] = '\r';
    size_t len = (size_t)snprintf(text, sizeof text, "id: 7\ndata: {\n");
    for (int i = 1; i < BREAKS - 1; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "data: \n");
    snprintf(text + len, sizeof text - len, "data:  }\n\n");
    check_text(answer, body, events, text);
}

static void test_gaps(void **state) {
    (void)state;
    struct answer missed = {.ts = 7, .total = 9, .missed = 3};
    check_text(missed, "{}", events,
               "event: missed\nid: 6\ndata: {\"ts\":6,\"missed\":3}\n\nid: 7\ndata: {}\n\n");
    check_text(missed, NULL, lines, "{\"ts\":7,\"missed\":3}\n");
    struct answer reset = {.ts = 7, .total = 9, .epoch = 1, .reset = true};
    check_text(reset, NULL, epochs,
               "event: reset\nid: 7-0000000000000001\n"
               "data: {\"ts\":7,\"epoch\":\"0000000000000001\",\"reset\":true}\n\n");
}

static void test_heartbeats(void **state) {
    (void)state;
    struct answer nothing = {.ts = 7, .total = 9}, passed = {.ts = 7, .total = 9, .skipped = 2};
    check_text(nothing, NULL, events, ":\n\n");
    check_text(nothing, NULL, lines, "\n");
    check_text(passed, NULL, events, ":\n\nid: 7\n\n");
    check_text(passed, NULL, lines, "\n{\"ts\":7}\n");
}

static int set_up(void **state) {
    (void)state;
    hash_init();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accept),  cmocka_unit_test(test_id),
        cmocka_unit_test(test_updates), cmocka_unit_test(test_too_many_lines),
        cmocka_unit_test(test_gaps),    cmocka_unit_test(test_heartbeats),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
