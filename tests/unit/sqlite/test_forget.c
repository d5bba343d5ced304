/* Channels that are forgotten, with their counters, and channels that are not. */
#include "fixture.h"

#include <sqlite3.h>

static void test_forgotten_after_a_year(void **state) {
    (void)state;
    open_log();
    for (int i = 1; i <= 5; i++)
        assert_int_equal(push("a"), i);
    settle();
    for (int day = 1; day < 365; day += 13) {
        now_ms += (int64_t)13 * DAY_MS;
        if (day + 13 < 365) {
            maintain();
            assert_int_equal(total_of("a"), 5);
        }
    }
    now_ms += (int64_t)3 * DAY_MS; /* more than 365 days */
    settle();
    assert_int_equal(total_of("a"), 0);
    assert_int_equal(push("a"), 1);
    reopen();
    check_read("a", 0, 10, 1, 1, 1);
}

static void test_not_forgotten_before(void **state) {
    (void)state;
    open_log();
    assert_int_equal(push("a"), 1);
    settle();
    now_ms += (int64_t)364 * DAY_MS + 23 * HOUR_MS;
    settle();
    assert_int_equal(total_of("a"), 1);
    assert_int_equal(push("a"), 2);
    settle();
    now_ms += (int64_t)364 * DAY_MS;
    reopen();
    settle();
    assert_int_equal(total_of("a"), 2);
    assert_int_equal(push("a"), 3);
}

/* A year without an update counts from the newest one, even while only the log knows of it. */
static void test_not_forgotten_while_its_row_lags(void **state) {
    (void)state;
    open_log();
    for (int i = 1; i <= 5; i++)
        assert_int_equal(push("a"), i);
    settle();
    now_ms += (int64_t)400 * DAY_MS;
    reopen();
    assert_int_equal(push("a"), 6);
    update_log_maintain(the_log, true);
    assert_int_equal(total_of("a"), 6);
    crash();
    settle();
    assert_int_equal(total_of("a"), 6);
    now_ms += 2 * HOUR_MS;
    settle();
    check_read("a", 0, 10, 6, 6, 6);
    assert_int_equal(push("a"), 7);
}

static void test_kept_updates_keep_their_channel(void **state) {
    (void)state;
    options.ttl_ms = (int64_t)800 * DAY_MS;
    open_log();
    assert_int_equal(push("a"), 1);
    settle();
    now_ms += (int64_t)500 * DAY_MS;
    settle();
    check_read("a", 0, 10, 1, 1, 1);
    assert_int_equal(push("a"), 2);
}

/* Invariant 1: an id given to a channel is not given to another one. */
static void test_channel_ids_are_never_reused(void **state) {
    (void)state;
    options.ttl_ms = (int64_t)365 * DAY_MS;
    open_log();
    assert_int_equal(push("a"), 1);
    settle();
    now_ms += (int64_t)366 * DAY_MS;
    settle();
    assert_int_equal(total_of("a"), 0);
    reopen();
    assert_int_equal(push("b"), 1);
    close_log();
    sqlite3 *db;
    sqlite3_stmt *statement;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT id FROM channel", -1, &statement, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    int64_t id = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    sqlite3_close(db);
    assert_true(id > 1);
}

/* A look over many channels holds nothing up: each call does a slice of it. What lags behind the
 * log stays, wherever it lies. */
static void test_many_are_forgotten_in_slices(void **state) {
    (void)state;
    enum { CHANNELS = 3000, A_CALL = 1024 };
    char name[32];
    open_log();
    for (int i = 0; i < CHANNELS; i++) {
        snprintf(name, sizeof name, "%d", i);
        assert_int_equal(push(name), 1);
    }
    settle();
    now_ms += (int64_t)400 * DAY_MS;
    reopen();
    assert_int_equal(push("2000"), 2);
    for (int left = CHANNELS; left > A_CALL; left -= A_CALL) {
        assert_true(update_log_maintain(the_log, false));
        snprintf(name, sizeof name, "%d", CHANNELS - left + A_CALL);
        assert_int_equal(total_of(name), 1); /* not yet */
        snprintf(name, sizeof name, "%d", CHANNELS - left);
        assert_int_equal(total_of(name), 0);
    }
    maintain();
    assert_int_equal(total_of("2999"), 0);
    assert_int_equal(total_of("2000"), 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_forgotten_after_a_year),
        LOG_TEST(test_not_forgotten_before),
        LOG_TEST(test_not_forgotten_while_its_row_lags),
        LOG_TEST(test_kept_updates_keep_their_channel),
        LOG_TEST(test_channel_ids_are_never_reused),
        LOG_TEST(test_many_are_forgotten_in_slices),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
