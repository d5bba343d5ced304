/* Retention: what readers no longer see, and what is deleted. */
#include "fixture.h"

#include "sqlite/sweeper.h"
#include "sqlite/update_log_parts.h"

#include <sys/stat.h>

static void test_count_bound(void **state) {
    (void)state;
    options.channel_max_updates = 10;
    open_log();
    for (uint64_t total = 1; total <= 400; total++) {
        assert_int_equal(push("a"), total);
        uint64_t first = total > 10 ? total - 9 : 1;
        check_read("a", 0, 100, total, first, total);
        check_read("a", -3, 100, total, total > 3 ? total - 2 : 1, total);
        check_read("a", -100, 100, total, first, total);
        struct store_read *read = read_channel("a", 0);
        assert_int_equal(read->gone, first - 1);
        read_free(read);
    }
    /* A smaller bound after a new start holds at once, a larger one brings nothing back that is
     * gone. */
    options.channel_max_updates = 5;
    reopen();
    check_read("a", 0, 100, 400, 396, 400);
}

static void test_count_is_swept(void **state) {
    (void)state;
    options.channel_max_updates = 10;
    open_log();
    uint64_t total = 0;
    for (int i = 0; i < 60; i++, total += 100) {
        assert_true(push_many("a", total + 1, 100));
        assert_int_equal(push("rare"), i + 1);
        now_ms += 500;
        update_log_maintain(the_log, true);
    }
    settle();
    assert_true(stats().updates >= 20);
    assert_true(stats().updates < 4000);
    assert_true(stats().swept > 2000);
    assert_int_equal(stats().updates + stats().swept, 6060);
    check_read("a", 0, 100, total, total - 9, total);
    check_read("rare", 0, 100, 60, 51, 60);
    reopen();
    check_read("a", 0, 100, total, total - 9, total);
    check_read("rare", 0, 100, 60, 51, 60);
    assert_int_equal(push("a"), total + 1);
}

/* It is deleted, and not damaged, under a higher one too. */
static void test_what_a_lower_bound_has_deleted(void **state) {
    (void)state;
    options.channel_max_updates = 10;
    open_log();
    assert_int_equal(push("rare"), 1); /* the oldest row of all */
    assert_true(push_many("a", 1, 100));
    settle();
    assert_true(stats().swept > 80);
    options.channel_max_updates = 1000;
    reopen();
    read_free(read_channel("a", 0));
    assert_int_equal(stats().damaged, 0);
}

static void test_age_bound(void **state) {
    (void)state;
    options.ttl_ms = 1000;
    open_log();
    for (int i = 1; i <= 300; i++, now_ms += 10)
        assert_int_equal(push("a"), i);
    /* Update i was stored at 10 i; now it is 3,000, so those from 2,000 on are young enough. */
    check_read("a", 0, READ_MAX_UPDATES, 300, 201, 300);
    check_read("a", 250, READ_MAX_UPDATES, 300, 251, 300);
    check_read("a", -200, READ_MAX_UPDATES, 300, 201, 300);
    check_read("a", 0, 5, 300, 201, 205);
    struct store_read *read = read_channel("a", 0);
    assert_int_equal(read->gone, 200);
    read_free(read);
    now_ms += 985;
    check_read("a", 0, READ_MAX_UPDATES, 300, 300, 300);
    now_ms += 1000;
    check_read("a", 0, READ_MAX_UPDATES, 300, 301, 300);
    read = read_channel("a", 0);
    assert_int_equal(read->gone, 300);
    read_free(read);
    assert_int_equal(push("a"), 301);
    check_read("a", 0, READ_MAX_UPDATES, 301, 301, 301);
}

/* Everything is swept; ids go on where they were, also after a new start and after a crash. */
static void test_ids_are_never_reused(void **state) {
    (void)state;
    open_log();
    uint64_t total = 0;
    for (int round = 0; round < 6; round++) {
        for (int i = 0; i < 200; i++) {
            assert_int_equal(push("a"), ++total);
            if (i % 50 == 0)
                assert_true(push("b") > 0);
        }
        settle();
        now_ms += (int64_t)8 * DAY_MS;
        maintain();
        if (round % 3 == 1)
            reopen();
        if (round % 3 == 2)
            crash();
        assert_int_equal(total_of("a"), total);
        check_read("a", 0, READ_MAX_UPDATES, total, 1, 0);
    }
    assert_int_equal(stats().updates, 0);
    assert_int_equal(push("a"), total + 1);
    assert_int_equal(push("b"), 25);
    reopen();
    check_read("a", 0, READ_MAX_UPDATES, total + 1, total + 1, total + 1);
}

/* A channel whose updates are all swept does not find those of others in their place, after a
 * new start or a crash. */
static void test_seqs_are_never_reused(void **state) {
    (void)state;
    for (int round = 0; round < 2; round++) {
        set_up(NULL);
        open_log();
        assert_true(push_many("a", 1, 200));
        settle();
        now_ms += (int64_t)8 * DAY_MS;
        settle();
        assert_int_equal(stats().updates, 0);
        if (round == 0)
            reopen();
        else
            crash();
        assert_true(push_many("b", 1, 300));
        check_read("a", 0, READ_MAX_UPDATES, 200, 1, 0);
        check_read("a", -5, READ_MAX_UPDATES, 200, 1, 0);
        assert_true(push_many("a", 201, 200));
        check_read("a", 0, READ_MAX_UPDATES, 400, 201, 400);
        check_read("b", 0, READ_MAX_UPDATES, 300, 1, 300);
        if (round == 0)
            tear_down(NULL);
    }
}

/* Invariant 3: a checkpoint of so many channels takes two transactions; until the second is
 * committed, only the log knows some of them, so it must not be swept. */
static void test_nothing_goes_before_its_checkpoint(void **state) {
    (void)state;
    enum { CHANNELS = 1500 };
    char name[32];
    open_log();
    for (int i = 0; i < CHANNELS; i++) {
        snprintf(name, sizeof name, "%d", i);
        assert_int_equal(push(name), 1);
    }
    now_ms += (int64_t)8 * DAY_MS;
    assert_true(update_log_maintain(the_log, true));
    assert_int_equal(stats().updates, CHANNELS);
    crash();
    for (int i = 0; i < CHANNELS; i++) {
        snprintf(name, sizeof name, "%d", i);
        assert_int_equal(total_of(name), 1);
    }
    maintain();
    assert_int_equal(stats().updates, 0);
}

/* Nothing past its age stays on the disk of a server that has nothing else to do. */
static void test_expired_updates_are_deleted_when_idle(void **state) {
    (void)state;
    open_log();
    assert_int_equal(push("a"), 1);
    now_ms += 6000; /* a checkpoint is due when the next update comes, and takes it along */
    assert_int_equal(push("a"), 2);
    settle();
    now_ms += (int64_t)8 * DAY_MS;
    settle();
    assert_int_equal(stats().updates, 0);
}

static int64_t file_bytes(void) {
    struct stat file, wal = {0};
    char name[160];
    snprintf(name, sizeof name, "%s-wal", path);
    stat(name, &wal);
    assert_int_equal(stat(path, &file), 0);
    return file.st_size + wal.st_size;
}

static void test_bytes_bound(void **state) {
    (void)state;
    options.max_bytes = 2 << 20;
    open_log();
    char *body = malloc(10000);
    memset(body, ' ', 10000);
    memcpy(body, "[]", 2);
    int64_t bytes_half_way = 0;
    uint64_t total = 0;
    for (int i = 0; i < 4000; i++) { /* 40 MB */
        assert_int_equal(push_body("a", (struct slice){body, 10000}), ++total);
        if (i % 4 == 0)
            update_log_maintain(the_log, true);
        now_ms += 20;
        if (i == 2000)
            bytes_half_way = file_bytes();
    }
    assert_true(file_bytes() < 16 << 20);
    assert_true(file_bytes() < bytes_half_way + (4 << 20));
    settle();
    assert_true(stats().bytes <= options.max_bytes);
    assert_true(stats().bytes > options.max_bytes / 2); /* not more than needed goes */
    struct store_read *read = read_new(SLICE("a"), -50, 100);
    assert_int_equal(read->count, 50);
    assert_int_equal(read->updates[49]->ts, total);
    read_free(read);
    /* The oldest went first. */
    read = read_channel("a", 0);
    assert_true(read->count > 0);
    assert_true(read->updates[0]->ts > total - 300);
    assert_int_equal(read->gone, read->updates[0]->ts - 1);
    read_free(read);
    free(body);
}

/* Where the wall clock goes, `at` goes; age and order do not. */
static void test_wall_clock_jumps(void **state) {
    (void)state;
    open_log();
    assert_int_equal(push("a"), 1);
    wall_jump_ms = -(int64_t)3 * DAY_MS;
    assert_int_equal(push("a"), 2);
    wall_jump_ms = (int64_t)900 * DAY_MS;
    assert_int_equal(push("a"), 3);
    settle();
    wall_jump_ms = 0;
    assert_int_equal(push("a"), 4);
    settle();
    struct store_read *read = read_channel("a", 0);
    assert_int_equal(read->count, 4);
    assert_int_equal(read->updates[1]->at_ms, read->updates[0]->at_ms - (int64_t)3 * DAY_MS);
    assert_int_equal(read->updates[2]->at_ms, read->updates[0]->at_ms + (int64_t)900 * DAY_MS);
    assert_int_equal(read->updates[3]->at_ms, now_ms - 20000);
    read_free(read);
    now_ms += (int64_t)7 * DAY_MS - 45000;
    settle();
    check_read("a", 0, 10, 4, 4, 4);
    assert_int_equal(stats().updates, 1);
}

/* --- Decisions -------------------------------------------------------------------------------- */

/* A pass over the log is for a quarter of its rows, and 1,024 at least; an idle log that is
 * small is swept for a single one. */
static void test_threshold(void **state) {
    (void)state;
    assert_int_equal(sweep_threshold(0, false), 1024);
    assert_int_equal(sweep_threshold(4096, false), 1024);
    assert_int_equal(sweep_threshold(4104, false), 1026);
    assert_int_equal(sweep_threshold(1000000, false), 250000);
    assert_int_equal(sweep_threshold(0, true), 1);
    assert_int_equal(sweep_threshold(65536, true), 1);
    assert_int_equal(sweep_threshold(65537, true), 16384);
}

/* As many rows of average size as hold the bytes that are too many, and one more. */
static void test_rows_over(void **state) {
    (void)state;
    assert_int_equal(sweep_rows_over(10000, 9000, 100, 2048), 10); /* 101 bytes a row */
    assert_int_equal(sweep_rows_over(10000, 9999, 100, 2048), 1);
    assert_int_equal(sweep_rows_over(10000, 0, 100, 2048), 100);
    assert_int_equal(sweep_rows_over(10000, 0, 100, 50), 50);
    assert_int_equal(sweep_rows_over(10000, 20000, 100, 50), 1); /* never none: it must end */
    assert_int_equal(sweep_rows_over(10000, 5000, 0, 50), 1); /* the number of rows is not known */
}

static int refuse_commit(void *context) {
    (void)context;
    return 1;
}

/* What it had deleted is there again, and is deleted by the next one. */
static void test_a_sweep_that_is_not_committed(void **state) {
    (void)state;
    options.ttl_ms = HOUR_MS;
    open_log();
    assert_true(push_many("a", 1, 5));
    settle();
    now_ms += HOUR_MS / 2;
    assert_true(push_many("a", 6, 5));
    settle();
    now_ms += HOUR_MS / 2;
    sqlite3_commit_hook(the_log->file.db, refuse_commit, NULL);
    update_log_maintain(the_log, true);
    assert_int_equal(stats().updates, 10);
    sqlite3_commit_hook(the_log->file.db, NULL, NULL);
    maintain();
    assert_int_equal(stats().updates, 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_count_bound),
        LOG_TEST(test_count_is_swept),
        LOG_TEST(test_what_a_lower_bound_has_deleted),
        LOG_TEST(test_age_bound),
        LOG_TEST(test_ids_are_never_reused),
        cmocka_unit_test_teardown(test_seqs_are_never_reused, tear_down),
        LOG_TEST(test_expired_updates_are_deleted_when_idle),
        LOG_TEST(test_nothing_goes_before_its_checkpoint),
        LOG_TEST(test_bytes_bound),
        LOG_TEST(test_wall_clock_jumps),
        LOG_TEST(test_a_sweep_that_is_not_committed),
        cmocka_unit_test(test_threshold),
        cmocka_unit_test(test_rows_over),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
