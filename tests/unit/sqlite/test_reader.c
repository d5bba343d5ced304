/* Reading: every cursor and limit, all parts of an update, the bounds. */
#include "fixture.h"

#include "sqlite/reader.h"

static void test_unknown_channel(void **state) {
    (void)state;
    open_log();
    check_read("a", 0, 10, 0, 1, 0);
    check_read("a", 5, 10, 0, 1, 0);
    check_read("a", -5, 10, 0, 1, 0);
    assert_int_equal(push("b"), 1);
    check_read("a", 0, 10, 0, 1, 0);
    reopen();
    check_read("a", 0, 10, 0, 1, 0);
}

/* Whether a cursor this far is worth looking at: near the ends, near the multiples of LOG_SKIP,
 * some others. */
static bool is_of_interest(uint64_t cursor, uint64_t total) {
    uint64_t in_round = cursor % LOG_SKIP;
    return cursor < 4 || cursor + 4 > total || in_round < 2 || in_round == LOG_SKIP - 1 ||
           cursor % 41 == 0;
}

static void check_every_cursor(const char *channel, uint64_t total) {
    static const uint32_t limits[] = {1, 2, 127, 128, 129, READ_MAX_UPDATES};
    for (size_t l = 0; l < sizeof limits / sizeof *limits; l++) {
        uint32_t limit = limits[l];
        for (uint64_t after = 0; after <= total + 2; after++) {
            uint64_t last = after + limit < total ? after + limit : total;
            if (is_of_interest(after, total))
                check_read(channel, (int64_t)after, limit, total, after + 1, last);
            if (is_of_interest(after, total) && after < total)
                check_read(channel, (int64_t)after - (int64_t)total, limit, total, after + 1, last);
        }
        uint64_t last = limit < total ? limit : total;
        check_read(channel, -(int64_t)total - 1, limit, total, 1, last);
        check_read(channel, POSITION_LAST_MIN, limit, total, 1, last);
        check_read(channel, POSITION_NOW, limit, total, 1, 0);
        check_read(channel, INT64_MAX, limit, total, 1, 0);
    }
}

/* Every cursor and limit, at totals around the multiples of LOG_SKIP; another channel lies in
 * between. */
static void test_every_cursor(void **state) {
    (void)state;
    static const uint64_t stops[] = {1, 2, 3, 127, 128, 129, 255, 256, 257, 500, 1281};
    open_log();
    uint64_t total = 0;
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        while (total < stops[i]) {
            assert_int_equal(push("a"), ++total);
            if (total % 3 == 0)
                assert_int_equal(push("b"), total / 3);
        }
        check_every_cursor("a", total);
        if (i % 4 == 3) {
            reopen();
            check_every_cursor("a", total);
        }
    }
    check_every_cursor("b", total / 3);
}

static void test_all_parts_come_back(void **state) {
    (void)state;
    open_log();
    static const struct update_parts parts[] = {
        {SLICE("{\"a\":\"\\u0000 \xC3\xA9\"}"), SLICE("\xFF\0\xFE"), SLICE("a=%FF&b=\xFF"),
         SLICE("{\"h\":\"v\"}"), SLICE("PUT"), true},
        {SLICE("{}"), SLICE(""), SLICE(""), SLICE(""), SLICE("POST"), true},
        {SLICE("[]"), SLICE(""), SLICE("q"), SLICE("{}"), SLICE("POST"), false},
    };
    /* Names of any bytes; one that begins as another. */
    static const struct slice names[] = {SLICE("a"), SLICE("ab"),  SLICE("\xFF\xFE"),
                                         SLICE("A"), SLICE("a\0"), SLICE("a'b\"c%")};
    for (int round = 0; round < 2; round++) {
        for (size_t n = 0; n < 6; n++)
            for (size_t i = 0; i < 3 && round == 0; i++) {
                struct store_append *append = append_new(names[n], SLICE(""));
                update_unref(append->only);
                append->only = update_new(&parts[i]);
                struct list batch;
                list_init(&batch);
                list_append(&batch, &append->op.link);
                now_ms++;
                update_log_append(the_log, &batch);
                assert_false(append->error);
                assert_int_equal(append->only->ts, i + 1);
                assert_int_equal(append->only->at_ms, now_ms);
                append_free(append);
            }
        for (size_t n = 0; n < 6; n++) {
            struct store_read *read = read_new(names[n], 0, 10);
            assert_false(read->error);
            assert_int_equal(read->count, 3);
            for (size_t i = 0; i < 3; i++) {
                struct update *update = read->updates[i];
                assert_slices(update_body(update), parts[i].body);
                assert_slices(update_raw(update), parts[i].has_raw ? parts[i].raw : parts[i].body);
                assert_slices(update_query(update), parts[i].query);
                assert_slices(update_headers(update), parts[i].headers);
                assert_slices(update_method(update), parts[i].method);
                assert_int_equal(update->has_raw, parts[i].has_raw);
                assert_int_equal(update->at_ms, 1700000000000 + (int64_t)(n * 3 + i) + 1);
            }
            read_free(read);
        }
        reopen();
    }
}

static void test_byte_bound(void **state) {
    (void)state;
    open_log();
    enum { LEN = 300000 };
    char *body = malloc(3 << 20);
    memset(body, ' ', 3 << 20);
    memcpy(body, "[]", 2);
    for (int i = 0; i < 8; i++)
        assert_int_equal(push_body("a", (struct slice){body, LEN}), i + 1);
    check_read("a", 0, 100, 8, 1, READ_MAX_BYTES / LEN);
    check_read("a", 3, 100, 8, 4, 3 + READ_MAX_BYTES / LEN);
    check_read("a", 6, 100, 8, 7, 8);
    check_read("a", 0, 2, 8, 1, 2);
    /* One larger than the bound is read, alone. */
    assert_int_equal(push_body("b", SLICE("{}")), 1);
    assert_int_equal(push_body("b", (struct slice){body, 3 << 20}), 2);
    assert_int_equal(push_body("b", SLICE("{}")), 3);
    check_read("b", 0, 100, 3, 1, 1);
    check_read("b", 1, 100, 3, 2, 2);
    check_read("b", 2, 100, 3, 3, 3);
    /* To the byte. */
    assert_int_equal(push_body("c", (struct slice){body, READ_MAX_BYTES / 2}), 1);
    assert_int_equal(push_body("c", (struct slice){body, READ_MAX_BYTES / 2}), 2);
    assert_int_equal(push_body("c", SLICE("{}")), 3);
    check_read("c", 0, 100, 3, 1, 2);
    free(body);
}

/* --- Positions -------------------------------------------------------------------------------- */

static uint64_t after(int64_t position) {
    struct store_read *read = read_new(SLICE("a"), position, 1);
    assert_false(read->error);
    assert_false(read->is_reset);
    uint64_t after = read->after;
    if (read->count)
        assert_int_equal(read->updates[0]->ts, after >= read->gone ? after + 1 : read->gone + 1);
    else
        assert_true(after >= read->total);
    read_free(read);
    return after;
}

static void test_positions(void **state) {
    (void)state;
    open_log();
    assert_int_equal(after(0), 0);
    assert_int_equal(after(7), 7);
    assert_int_equal(after(-7), 0);
    assert_int_equal(after(POSITION_NOW), 0);
    assert_int_equal(after(position_since(0)), 0);
    for (uint64_t total = 1; total <= 300; total++) {
        assert_int_equal(push("a"), total);
        assert_int_equal(push("b"), total);
        assert_int_equal(after((int64_t)total), total);
        assert_int_equal(after(INT64_MAX), INT64_MAX);
        assert_int_equal(after(-1), total - 1);
        assert_int_equal(after(-(int64_t)total - 1), 0);
        assert_int_equal(after(POSITION_LAST_MIN), 0);
        assert_int_equal(after(POSITION_NOW), total);
        assert_int_equal(after(position_since(0)), 0);
        assert_int_equal(after(position_since(POSITION_SINCE_MAX_MS)), total);
    }
}

enum { SINCE_UPDATES = 1500 };
static int64_t stored_at[SINCE_UPDATES + 1];

static void push_over_time(uint64_t first_ts, uint64_t last_ts) {
    for (uint64_t ts = first_ts; ts <= last_ts; ts++) {
        now_ms += rand() % 4 ? rand() % 5000 : 0;
        assert_int_equal(push("a"), ts);
        stored_at[ts] = now_ms + wall_jump_ms;
        if (rand() % 3 == 0)
            push("b");
    }
}

/* The newest update before `ms`, at least `gone`. */
static uint64_t newest_before(int64_t ms, uint64_t total, uint64_t gone) {
    while (total > gone && stored_at[total] >= ms)
        total--;
    return total;
}

static void check_since(uint64_t total, uint64_t gone) {
    for (int i = 0; i < 500; i++) {
        int64_t ms = stored_at[1 + (unsigned)rand() % total] + rand() % 3 - 1;
        assert_int_equal(after(position_since(ms)), newest_before(ms, total, gone));
    }
    assert_int_equal(after(position_since(0)), gone);
}

static void test_since(void **state) {
    (void)state;
    srand(1);
    open_log();
    push_over_time(1, 400);
    check_since(400, 0);
    push_over_time(401, SINCE_UPDATES);
    check_since(SINCE_UPDATES, 0);
    close_log();
    options.channel_max_updates = 300;
    open_log();
    check_since(SINCE_UPDATES, SINCE_UPDATES - 300);
    settle();
    check_since(SINCE_UPDATES, SINCE_UPDATES - 300);
    now_ms = stored_at[SINCE_UPDATES - 100] + options.ttl_ms; /* it is the oldest that is kept */
    uint64_t oldest = SINCE_UPDATES - 100;
    while (stored_at[oldest - 1] == stored_at[oldest])
        oldest--;
    check_since(SINCE_UPDATES, oldest - 1);
}

/* An update of which nobody knows when it came is not older than anything. */
static void test_since_passes_the_unknown(void **state) {
    (void)state;
    open_log();
    int64_t first_at = now_ms;
    push("a");
    wall_jump_ms = -now_ms;
    push("a");
    wall_jump_ms = 1000;
    push("a");
    assert_int_equal(after(position_since(first_at)), 0);
    assert_int_equal(after(position_since(first_at + 1)), 1);
    assert_int_equal(after(position_since(first_at + 1000)), 1);
    assert_int_equal(after(position_since(first_at + 1001)), 3);
}

/* A wall clock that goes to and fro: nothing that was stored since is left out. */
static void test_since_while_the_clock_jumps(void **state) {
    (void)state;
    srand(2);
    open_log();
    for (uint64_t ts = 1; ts <= SINCE_UPDATES; ts += 50) {
        wall_jump_ms = rand() % 2 ? rand() % HOUR_MS : -(rand() % HOUR_MS);
        push_over_time(ts, ts + 49);
    }
    for (int i = 0; i < 500; i++) {
        int64_t ms = stored_at[1 + rand() % SINCE_UPDATES] + rand() % 3 - 1;
        uint64_t found = after(position_since(ms));
        assert_true(found <= newest_before(ms, SINCE_UPDATES, 0));
        assert_true(!found || stored_at[found] < ms);
    }
}

/* Where a read begins, alone. */
static void test_first_ts(void **state) {
    (void)state;
    static const struct {
        int64_t after, total, gone, first;
    } cases[] = {
        {0, 100, 0, 1},           /* all */
        {40, 100, 0, 41},         /* after a cursor */
        {99, 100, 0, 100},        /* the newest only */
        {100, 100, 0, 101},       /* nothing new */
        {500, 100, 0, 101},       /* a cursor ahead of the channel */
        {INT64_MAX, 100, 0, 101}, /* far ahead */
        {0, 100, 70, 71},         /* older ones are gone */
        {70, 100, 70, 71},
        {71, 100, 70, 72},
        {0, 0, 0, 1}, /* an empty channel: more than its total */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(read_first_ts(cases[i].after, cases[i].total, cases[i].gone),
                         cases[i].first);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_unknown_channel),
        LOG_TEST(test_every_cursor),
        LOG_TEST(test_all_parts_come_back),
        LOG_TEST(test_byte_bound),
        LOG_TEST(test_positions),
        LOG_TEST(test_since),
        LOG_TEST(test_since_passes_the_unknown),
        LOG_TEST(test_since_while_the_clock_jumps),
        cmocka_unit_test(test_first_ts),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
