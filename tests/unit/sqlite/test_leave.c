/* A log that is left to the next program: nothing waits for the disk, and nothing is missing. */
#include "fixture.h"

#include "base/slice.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* Each look takes a second. */
static int64_t slow_clock(void) {
    return now_ms += 1000;
}

static off_t wal_bytes(void) {
    char wal[160];
    struct stat status;
    snprintf(wal, sizeof wal, "%s-wal", path);
    return stat(wal, &status) == 0 ? status.st_size : 0;
}

static void push_to_each(int channels) {
    char name[32];
    for (int i = 0; i < channels; i++) {
        snprintf(name, sizeof name, "channel %d", i);
        assert_true(push(name));
    }
}

static uint64_t epoch_of(const char *channel) {
    struct store_read *read = read_channel(channel, 0);
    uint64_t epoch = read->epoch;
    read_free(read);
    return epoch;
}

/* Until it needs no more; fails if that never comes. */
static void settle_log(void) {
    int slices = 0;
    while (update_log_settle(the_log)) {
        now_ms++; /* the time that it notes is another one */
        assert_true(++slices < 1000);
    }
}

static void check_each(int channels, uint64_t total) {
    char name[32];
    for (int i = 0; i < channels; i++) {
        snprintf(name, sizeof name, "channel %d", i);
        check_read(name, 0, 10, total, 1, total);
    }
}

static void test_costs_no_sync(void **state) {
    (void)state;
    options.sync = SYNC_ALWAYS;
    options.steady_ms = slow_clock; /* no two times that are noted are the same */
    open_log();
    push_to_each(300);
    uint64_t epoch = epoch_of("channel 1");
    settle_log();
    push_to_each(300);
    int before = syncs;
    leave_log();
    assert_int_equal(syncs, before);
    assert_true(is_clean && wal_bytes() > 0);
    open_log();
    assert_int_equal(syncs, before);
    check_each(300, 2);
    assert_int_equal(epoch_of("channel 1"), epoch);
    push_to_each(1);
    assert_true(syncs > before);
    check_each(1, 3);
}

/* What was not settled costs time, and is there all the same. */
static void test_leaves_what_did_not_settle(void **state) {
    (void)state;
    options.sync = SYNC_ALWAYS;
    open_log();
    push_to_each(1500);
    int before = syncs;
    leave_log();
    assert_int_equal(syncs, before);
    open_log();
    check_each(1500, 1);
}

/* The disk has what was synced, and nothing of what leaving wrote. */
static void test_a_power_cut_takes_nothing(void **state) {
    (void)state;
    char wal[160];
    options.sync = SYNC_ALWAYS;
    open_log();
    push_to_each(300);
    settle_log();
    push_to_each(300);
    uint64_t epoch = epoch_of("channel 1");
    off_t synced = wal_bytes();
    leave_log();
    assert_true(wal_bytes() > synced);
    snprintf(wal, sizeof wal, "%s-wal", path);
    assert_int_equal(truncate(wal, synced), 0);
    is_clean = false;
    open_log();
    check_each(300, 2);
    assert_int_not_equal(epoch_of("channel 1"), epoch);
}

static void test_a_kill_behind_it_takes_nothing(void **state) {
    (void)state;
    open_log();
    push_to_each(300);
    settle_log();
    push_to_each(300);
    leave_log();
    open_log();
    crash();
    check_each(300, 2);
}

/* The next program reads what is in the write-ahead log, frame by frame. */
static void test_settling_empties_the_wal(void **state) {
    (void)state;
    open_log();
    assert_true(push_many("a", 1, 9000));
    assert_true(wal_bytes() > 500000);
    settle_log();
    assert_in_range(wal_bytes(), 1, 100000);
    leave_log();
    open_log();
    assert_int_equal(total_of("a"), 9000);
}

/* More channels change meanwhile than a slice writes. */
static void test_settling_ends_under_load(void **state) {
    (void)state;
    open_log();
    int slices = 0;
    do
        push_to_each(1200);
    while (update_log_settle(the_log) && ++slices < 100);
    assert_true(slices < 100);
    leave_log();
    open_log();
    check_each(1200, (uint64_t)slices + 1);
}

/* With SYNC=interval, the last second may not be on disk yet. */
static void test_the_next_program_syncs_what_is_left(void **state) {
    (void)state;
    options.sync = SYNC_INTERVAL;
    open_log();
    push_to_each(3);
    settle_log();
    push_to_each(3);
    leave_log();
    open_log();
    int before = syncs;
    now_ms += 2000;
    update_log_maintain(the_log, true);
    assert_true(syncs > before);
    before = syncs;
    now_ms += 2000;
    update_log_maintain(the_log, true);
    assert_int_equal(syncs, before);
    check_each(3, 2);
}

static int reports;

static void report(void) {
    reports++;
}

static void test_a_long_replay_reports(void **state) {
    (void)state;
    open_log();
    assert_true(push_many("a", 1, 9000));
    reports = 0;
    options.at_work = report;
    options.steady_ms = slow_clock;
    crash(); /* which opens it */
    assert_true(reports > 1);
    reports = 0;
    check_read("a", 0, 9000, 9000, 1, 9000);
    assert_int_equal(reports, 0); /* it is open */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_costs_no_sync),
        LOG_TEST(test_leaves_what_did_not_settle),
        LOG_TEST(test_a_power_cut_takes_nothing),
        LOG_TEST(test_a_kill_behind_it_takes_nothing),
        LOG_TEST(test_settling_empties_the_wal),
        LOG_TEST(test_settling_ends_under_load),
        LOG_TEST(test_the_next_program_syncs_what_is_left),
        LOG_TEST(test_a_long_replay_reports),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
