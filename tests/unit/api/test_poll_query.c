/* What a poll's query asks for. */
#include "api/poll_query.h"
#include "base/hash.h"
#include "support.h"

#define NOW ((int64_t)1795946400000) /* 2026-11-29T10:00:00Z */

static int64_t now_ms(void) {
    return NOW;
}

static void check_error_at(const char *query, enum http_error wanted, int line) {
    struct poll_query poll;
    enum http_error error = poll_query_parse(&poll, slice_of(query), now_ms);
    poll_query_deinit(&poll);
    if (error == wanted)
        return;
    print_error("%s: error %d instead of %d\n", query, error, wanted);
    _fail(__FILE__, line);
}

#define check_error(query, wanted) check_error_at(query, wanted, __LINE__)

static struct poll_query parse(const char *query) {
    struct poll_query poll;
    assert_int_equal(poll_query_parse(&poll, slice_of(query), now_ms), HTTP_NO_ERROR);
    return poll;
}

/* --- ts --------------------------------------------------------------------------------------- */

static void check_position_at(const char *query, bool is_there, int64_t position, int line) {
    struct poll_query poll = parse(query);
    poll_query_deinit(&poll);
    if (poll.has_position == is_there && poll.position == position)
        return;
    print_error("%s: %lld\n", query, (long long)poll.position);
    _fail(__FILE__, line);
}

#define check_position(query, position) check_position_at(query, true, position, __LINE__)
#define check_no_position(query) check_position_at(query, false, 0, __LINE__)

static void test_ts(void **state) {
    (void)state;
    check_no_position("");
    check_no_position("ts=");
    check_no_position("ts");
    check_no_position("TS=5");
    check_no_position("since=&ts=");
    check_position("ts=0", 0);
    check_position("ts=41", 41);
    check_position("ts=041.000", 41);
    check_position("ts=-7", -7);
    check_position("ts=%35", 5);
    check_position("ts=1&ts=2", 2);
    check_position("ts=2&ts=", 2);
    check_position("ts=now", POSITION_NOW);
    check_position("ts=5&ts=now", POSITION_NOW);
    check_position("ts=n%6fw", POSITION_NOW);
    check_position("ts=999999999999999999", 999999999999999999);
    check_position("ts=-999999999999999999", -999999999999999999);
    static const char *const wrong[] = {"ts=Now",
                                        "ts=-now",
                                        "ts=now+",
                                        "ts=1.5",
                                        "ts=1e3",
                                        "ts=-",
                                        "ts=--1",
                                        "ts=+1",
                                        "ts=%2b1",
                                        "ts=0x1",
                                        "ts=1%00",
                                        "ts=.0",
                                        "ts= 1",
                                        "ts=%201",
                                        "ts=NaN",
                                        "ts=1000000000000000000",
                                        "ts=-1000000000000000000"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        check_error(wrong[i], ERROR_TS);
}

/* --- since ------------------------------------------------------------------------------------ */

static void check_since_at(const char *text, int64_t ms, int line) {
    char query[128];
    snprintf(query, sizeof query, "since=%s", text);
    struct poll_query poll = parse(query);
    poll_query_deinit(&poll);
    if (poll.has_position && position_is_since(poll.position) &&
        position_since_ms(poll.position) == ms)
        return;
    print_error("%s: %lld\n", text, (long long)position_since_ms(poll.position));
    _fail(__FILE__, line);
}

#define check_since(text, ms) check_since_at(text, ms, __LINE__)

static void test_since_an_age(void **state) {
    (void)state;
    check_since("90s", NOW - 90000);
    check_since("10m", NOW - 600000);
    check_since("36h", NOW - 36 * 3600000LL);
    check_since("7d", NOW - 7 * 86400000LL);
    check_since("0s", NOW);
    check_since("007d", NOW - 7 * 86400000LL);
    check_since("%37d", NOW - 7 * 86400000LL);
    check_since("99999d", 0); /* before 1970 */
    check_since("100000000000d", 0);
}

static void test_since_seconds(void **state) {
    (void)state;
    check_since("1795506304", 1795506304000);
    check_since("1795506304.321", 1795506304321);
    check_since("1795506304.3", 1795506304300);
    check_since("1795506304.3211", 1795506304322); /* not what came before it */
    check_since("0", 0);
    check_since("0.001", 1);
    check_since(".5", 500);
    check_since("5.", 5000);
    check_since("100000000000000", POSITION_SINCE_MAX_MS);
    check_since("999999999999999999999999999999", POSITION_SINCE_MAX_MS);
}

static void test_since_a_date(void **state) {
    (void)state;
    check_since("2026-11-29", NOW - 36000000);
    check_since("2026-11-29Z", NOW - 36000000);
    check_since("2026-11-29T10:00", NOW);
    check_since("2026-11-29T10:00Z", NOW);
    check_since("2026-11-29t10:00z", NOW);
    check_since("2026-11-29T10:00:00", NOW);
    check_since("2026-11-29%2010:00:00", NOW);
    check_since("2026-11-29T10%3A00%3A00.5%2B02%3A00", NOW - 7200000 + 500);
    check_since("2026-11-29T10:00:00.5", NOW + 500);
    check_since("2026-11-29T10:00:00.573", NOW + 573);
    check_since("2026-11-29T10:00:00.57399999", NOW + 573);
    check_since("2026-11-29T10:00+02:00", NOW - 7200000);
    check_since("2026-11-29T10:00-0230", NOW + 9000000);
    check_since("2026-11-29T10:00:00.25-02:30", NOW + 9000250);
    check_since("2026-11-29T00:00+23:59", NOW - 36000000 - 86340000);
    check_since("2024-02-29", 1709164800000);
    check_since("2016-12-31T23:59:60Z", 1483228800000); /* a leap second */
    check_since("1969-12-31", 0);
    check_since("0001-01-01", 0);
    check_since("9999-12-31T23:59:59Z", 253402300799000);
}

static const char *const no_times[] = {
    "now",
    "yesterday",
    "10 m",
    "10M",
    "1.5h",
    "-10m",
    "+10m",
    "m",
    "s",
    "10w",
    "10ms",
    "1h30m",
    "PT10M",
    "d7",
    "99999999999999999999d",
    "-1",
    "1e9",
    "0x10",
    "nan",
    "inf",
    "1,5",
    ".",
    "1.2.3",
    "-0",

    "2026-11",

    "2026-11-29T",
    "2026-11-29T10",
    "2026-11-29T10:0",
    "2026-11-29T10:00:0",
    "2026-11-29T10:00:00.",
    "2026-11-29T10:00:00.5e3",
    "2026-11-29T10:00:00,5",
    "2026-11-29T25:00",
    "2026-11-29T24:00",
    "2026-11-29T10:60",
    "2026-11-29T10:00:61",
    "2026-13-01",
    "2026-00-01",
    "2026-01-00",
    "2026-02-29",
    "2026-02-30",
    "2026-04-31",
    "2026-1-5",
    "2026-%201-05",
    "%202026-11-29",
    "2026-11-29%20",
    "-026-11-29",
    "12026-11-29",
    "2026-11-29T10:00+2",
    "2026-11-29T10:00+02",
    "2026-11-29T10:00+2:00",
    "2026-11-29T10:00+02:60",
    "2026-11-29T10:00+24:00",
    "2026-11-29T10:00%2B-2:00",
    "2026-11-29T10:00++2:00",
    "2026-11-29T10:00+02:00Z",
    "2026-11-29T10:00UTC",
    "2026-11-29T10:00ZZ",
    "2026-11-29%00",
    "7d%00",
    "%ff",
    "Sun,%2029%20Nov%202026%2010:00:00%20GMT",
    "0000000000000000000000000000000000000000000000000000000000000000000001",
};

static void test_since_nonsense(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof no_times / sizeof *no_times; i++) {
        char query[128];
        snprintf(query, sizeof query, "since=%s", no_times[i]);
        check_error(query, ERROR_SINCE);
    }
}

static void test_since_and_ts(void **state) {
    (void)state;
    check_error("ts=0&since=10m", ERROR_SINCE_TS);
    check_error("since=10m&ts=0", ERROR_SINCE_TS);
    check_error("since=10m&ts=-1", ERROR_SINCE_TS);
    check_error("since=10m&ts=now", ERROR_SINCE_TS);
    check_error("ts=now&since=0", ERROR_SINCE_TS);
    check_since("10m&since=20m", NOW - 1200000);
    check_since("10m&ts=", NOW - 600000);
    check_position("ts=4&since=", 4);
}

/* --- The others ------------------------------------------------------------------------------- */

static void test_sleep(void **state) {
    (void)state;
    assert_int_equal(parse("").sleep_ms, 0);
    assert_int_equal(parse("sleep=25").sleep_ms, 25000);
    assert_int_equal(parse("sleep=0.0001").sleep_ms, 1);
    assert_int_equal(parse("sleep=99999999999999999999").sleep_ms, POLL_MAX_MAX_S * 1000);
    assert_int_equal(parse("sleep=3600.1").sleep_ms, POLL_MAX_MAX_S * 1000);
    assert_int_equal(parse("sleep=5&sleep=").sleep_ms, 5000);
    check_error("sleep=-1", ERROR_SLEEP);
    check_error("sleep=1m", ERROR_SLEEP);
    check_error("sleep=1e3", ERROR_SLEEP);
}

static void test_limit_and_view(void **state) {
    (void)state;
    assert_int_equal(parse("").limit, READ_MAX_UPDATES);
    assert_int_equal(parse("limit=99999999999999999999").limit, READ_MAX_UPDATES);
    assert_int_equal(parse("limit=7").limit, 7);
    check_error("limit=0", ERROR_LIMIT);
    assert_true(parse("view=full").is_full);
    assert_false(parse("view=").is_full);
    check_error("view=half", ERROR_VIEW);
}

static void check_where(const char *query, struct slice wanted) {
    struct poll_query poll = parse(query);
    assert_slices(((struct slice){poll.where.data, poll.where.len}), wanted);
    poll_query_deinit(&poll);
}

static void test_where(void **state) {
    (void)state;
    check_where("", SLICE(""));
    check_where("where=&where", SLICE(""));
    check_where("where=path:x", SLICE("path:x\0"));
    check_where("where=path:x&ts=1&where=!body.a:b+%2bc%7c", SLICE("path:x\0!body.a:b +c|\0"));
    check_where("where=body.a:x=y", SLICE("body.a:x=y\0"));
    check_error("where=%00", ERROR_WHERE);
    check_error("where=path:x%00path:y", ERROR_WHERE);
}

static void test_epoch(void **state) {
    (void)state;
    assert_false(parse("").has_epoch);
    assert_false(parse("epochs=1&xepoch").has_epoch);
    assert_true(parse("epoch").has_epoch);
    assert_true(parse("a=1&epoch=").has_epoch);
    assert_int_equal(parse("epoch=").epoch, 0);
    assert_int_equal(parse("epoch=0").epoch, 0);
    assert_true(parse("epoch=00000000000000ff").epoch == 0xff);
    assert_true(parse("epoch=f0e1d2c3b4a59687").epoch == 0xf0e1d2c3b4a59687);
    assert_true(parse("epoch=1&epoch=2").epoch == 2);
    /* None of ours: unlike any other, and never 0. */
    static const char *const foreign[] = {"epoch=x",
                                          "epoch=F0e1d2c3b4a59687",
                                          "epoch=%30",
                                          "epoch=f0e1d2c3b4a596870",
                                          "epoch=00000000000000000",
                                          "epoch=-1",
                                          "epoch=%00"};
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        struct poll_query poll = parse(foreign[i]);
        assert_true(poll.has_epoch && poll.epoch > UINT32_MAX);
    }
}

static void check_name(const char *query, struct slice wanted) {
    struct poll_query poll = parse(query);
    assert_slices(((struct slice){poll.name, poll.name_len}), wanted);
    poll_query_deinit(&poll);
}

static void test_as_and_confirm(void **state) {
    (void)state;
    char longest[128] = "as=";
    memset(longest + 3, 'x', 64);
    check_name("", SLICE(""));
    check_name("as=", SLICE(""));
    check_name("as=bot", SLICE("bot"));
    check_name("as=a+b%20%d0%9f", SLICE("a b \xd0\x9f"));
    check_name("as=one&as=two", SLICE("two"));
    assert_int_equal(parse(longest).name_len, 64);
    strcat(longest, "x");
    check_error(longest, ERROR_AS);
    check_error("as=%00", ERROR_AS);
    check_error("as=%0a", ERROR_AS);
    check_error("as=%7f", ERROR_AS);
    check_error("as=%ff", ERROR_AS);
    assert_true(parse("as=bot&confirm=now").confirms_now);
    assert_true(parse("confirm=now&as=bot").confirms_now);
    assert_false(parse("as=bot&confirm=").confirms_now);
    check_error("confirm=now", ERROR_CONFIRM);
    check_error("as=bot&confirm=1", ERROR_CONFIRM);
    check_error("as=bot&confirm=Now", ERROR_CONFIRM);
    check_error("as=&confirm=now", ERROR_CONFIRM);
}

static int set_up(void **state) {
    (void)state;
    hash_init();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ts),
        cmocka_unit_test(test_since_an_age),
        cmocka_unit_test(test_since_seconds),
        cmocka_unit_test(test_since_a_date),
        cmocka_unit_test(test_since_nonsense),
        cmocka_unit_test(test_since_and_ts),
        cmocka_unit_test(test_sleep),
        cmocka_unit_test(test_limit_and_view),
        cmocka_unit_test(test_where),
        cmocka_unit_test(test_epoch),
        cmocka_unit_test(test_as_and_confirm),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
