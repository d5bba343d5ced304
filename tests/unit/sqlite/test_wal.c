/* When the write-ahead log is copied and synced, and what becomes of a sync that fails. */
#include "fixture.h"

#include "sqlite/update_log_parts.h"
#include "sqlite/wal.h"

#include <sqlite3.h>
#include <sys/stat.h>

static void test_bound(void **state) {
    (void)state;
    assert_false(wal_is_over(999, 1000, 0));
    assert_true(wal_is_over(1000, 1000, 0));
    assert_false(wal_is_over(0, 1000, 0));
}

/* A small bound on the data takes the write-ahead log into account; a large one changes nothing. */
static void test_quarter_of_data(void **state) {
    (void)state;
    assert_false(wal_is_over(99, 1000, 400));
    assert_true(wal_is_over(100, 1000, 400));
    assert_true(wal_is_over(1000, 1000, 4001));
    assert_false(wal_is_over(999, 1000, 8000));
    assert_false(wal_is_over(999, 1000, 3)); /* too small to quarter */
}

static off_t wal_bytes(void) {
    char wal[160];
    struct stat status;
    snprintf(wal, sizeof wal, "%s-wal", path);
    return stat(wal, &status) == 0 ? status.st_size : 0;
}

static sqlite3 *open_reader(void) {
    sqlite3 *reader;
    assert_int_equal(sqlite3_open(path, &reader), SQLITE_OK);
    assert_int_equal(sqlite3_exec(reader, "BEGIN; SELECT * FROM update_log", NULL, NULL, NULL),
                     SQLITE_OK);
    return reader;
}

/* Opens it with SYNC=interval; it has just synced. */
static void open_with_interval(void) {
    options.sync = SYNC_INTERVAL;
    open_log();
    settle();
    int before = syncs;
    push("a");
    now_ms += 1000;
    maintain();
    assert_true(was_synced("-wal", before));
}

/* The syncs that maintenance takes, `after_ms` later. */
static int syncs_after(int64_t after_ms) {
    int before = syncs;
    now_ms += after_ms;
    maintain();
    return syncs - before;
}

static void test_an_interval(void **state) {
    (void)state;
    open_with_interval();
    for (int i = 0; i < 3; i++) {
        int before = syncs;
        push("a");
        push("b");
        assert_int_equal(syncs_after(0) + syncs_after(999), 0);
        assert_int_equal(syncs_after(1), 1);
        assert_true(was_synced("-wal", before));
    }
}

/* What a failed sync leaves is not known: another one says nothing, a copy does. */
static void test_an_interval_that_fails(void **state) {
    (void)state;
    open_with_interval();
    push("a");
    failing_sync = "-wal";
    syncs_after(1000);
    assert_non_null(stats().trouble);
    syncs_after(1000);
    assert_non_null(stats().trouble);
    failing_sync = NULL;
    int before = syncs;
    assert_true(syncs_after(1000) > 0);
    assert_true(was_synced("log.db", before));
    assert_null(stats().trouble);
}

static void test_a_failed_sync_is_no_clean_close(void **state) {
    (void)state;
    open_with_interval();
    push("a");
    failing_sync = "-wal";
    syncs_after(1000);
    failing_sync = NULL;
    close_log();
    assert_false(is_clean);
}

/* A copy that a reader holds up has not synced everything. */
static void test_an_interval_while_somebody_reads(void **state) {
    (void)state;
    open_with_interval();
    sqlite3 *reader = open_reader();
    push("a");
    failing_sync = "-wal"; /* from here on it copies */
    syncs_after(1000);
    failing_sync = NULL;
    syncs_after(1000);
    assert_non_null(stats().trouble);
    sqlite3_close(reader);
    syncs_after(1000);
    assert_null(stats().trouble);
}

static void push_large(int count) {
    static char body[64 << 10];
    memset(body, '1', sizeof body);
    while (count--) {
        assert_true(push_body("a", (struct slice){body, sizeof body}));
        update_log_bound_wal(the_log);
    }
}

static void test_bounded_while_pushes_come(void **state) {
    (void)state;
    options.max_bytes = 8 << 20; /* so the bound is 2 MiB */
    open_log();
    push_large(200);
    assert_in_range(wal_bytes(), 1 << 20, 3 << 20);
}

static void test_copied_when_it_is_quiet(void **state) {
    (void)state;
    open_log();
    push_large(80);
    assert_in_range(wal_bytes(), 5 << 20, 8 << 20);
    maintain();
    push_large(1); /* begins anew at its front */
    push_large(60);
    assert_in_range(wal_bytes(), 5 << 20, 8 << 20);
}

static void test_a_reader_is_not_asked_at_each_push(void **state) {
    (void)state;
    options.max_bytes = 8 << 20;
    open_log();
    push("a");
    sqlite3 *reader = open_reader();
    push_large(50);
    int64_t copied_at = the_log->wal.copied_at;
    now_ms += 100;
    push_large(2);
    assert_int_equal(the_log->wal.copied_at, copied_at);
    now_ms += 500;
    push_large(1);
    assert_int_equal(the_log->wal.copied_at, copied_at + 600);
    sqlite3_close(reader);
}

/* What needs no sync of its own takes none from what does. */
static void test_always_after_what_needs_none(void **state) {
    (void)state;
    options.sync = SYNC_ALWAYS;
    open_log();
    push("a");
    push("b");
    settle();
    for (int i = 0; i < 3; i++) {
        while (update_log_settle(the_log)) /* writes without a sync */
            now_ms++;
        int before = syncs;
        assert_true(push("a"));
        assert_true(was_synced("-wal", before));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_quarter_of_data),
        LOG_TEST(test_an_interval),
        LOG_TEST(test_an_interval_that_fails),
        LOG_TEST(test_a_failed_sync_is_no_clean_close),
        LOG_TEST(test_an_interval_while_somebody_reads),
        LOG_TEST(test_bounded_while_pushes_come),
        LOG_TEST(test_copied_when_it_is_quiet),
        LOG_TEST(test_a_reader_is_not_asked_at_each_push),
        LOG_TEST(test_always_after_what_needs_none),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
