/* What becomes of the write-ahead log when a sync has failed, or may have. */
#include "fixture.h"

#include "sqlite/wal_format.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static char wal_path[160];
static int64_t first_write; /* the lowest offset in the write-ahead log, since it was set */

/* Stands in front of libc's, for SQLite. */
ssize_t pwrite64(int fd, const void *data, size_t len, off64_t offset) {
    char link[64], name[160] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, name, sizeof name - 1) > 0 && strcmp(name, wal_path) == 0 &&
        offset < first_write)
        first_write = offset;
    return syscall(SYS_pwrite64, fd, data, len, offset);
}

static bool fails_header; /* it cannot be read */

ssize_t pread64(int fd, void *data, size_t len, off64_t offset) {
    if (!fails_header || len != WAL_HEADER_BYTES || offset)
        return syscall(SYS_pread64, fd, data, len, offset);
    errno = EIO;
    return -1;
}

static off_t wal_bytes(void) {
    struct stat status;
    return stat(wal_path, &status) == 0 ? status.st_size : 0;
}

static void open_synced(void) {
    options.sync = SYNC_ALWAYS;
    open_log();
    snprintf(wal_path, sizeof wal_path, "%s-wal", path);
    first_write = INT64_MAX;
}

/* The next start finds the files as they are now. */
static void leave_to_crash(void) {
    keep_backup();
    close_log();
    snprintf(path, sizeof path, "%s/backup.db", dir);
    snprintf(wal_path, sizeof wal_path, "%s-wal", path);
    is_clean = false;
}

static void test_what_was_refused_does_not_come_back(void **state) {
    (void)state;
    open_synced();
    assert_int_equal(push("a"), 1);
    off_t bytes = wal_bytes();
    failing_sync = "-wal";
    assert_int_equal(push("a"), 0);
    assert_int_equal(push("b"), 0);
    assert_int_equal(wal_bytes(), bytes);
    failing_sync = NULL;
    crash();
    check_read("a", 0, 10, 1, 1, 1);
    assert_int_equal(total_of("b"), 0);
    assert_int_equal(push("a"), 2);
}

/* The first commit of a log that begins anew. */
static void test_a_log_that_begins_with_what_was_refused(void **state) {
    (void)state;
    open_synced();
    assert_int_equal(push("a"), 1);
    settle();
    while (update_log_settle(the_log)) /* copies it, and cuts it */
        ;
    reopen();
    first_write = INT64_MAX;
    failing_sync = "-wal";
    assert_int_equal(push("a"), 0);
    failing_sync = NULL;
    crash();
    check_read("a", 0, 10, 1, 1, 1);
    assert_int_equal(push("a"), 2);
}

/* Nobody knows what the disk has of frames that the failed sync was to write. */
static void test_what_no_sync_has_covered_is_written_again(void **state) {
    (void)state;
    options.sync = SYNC_INTERVAL;
    open_log();
    snprintf(wal_path, sizeof wal_path, "%s-wal", path);
    now_ms += 1000;
    update_log_maintain(the_log, true);
    off_t synced = wal_bytes();
    assert_int_equal(push("a"), 1);
    assert_int_equal(push("a"), 2);
    failing_sync = "-wal";
    now_ms += 1000;
    update_log_maintain(the_log, true);
    assert_non_null(stats().trouble);
    first_write = INT64_MAX;
    failing_sync = NULL;
    now_ms += 1000;
    update_log_maintain(the_log, true);
    assert_int_equal(first_write, synced);
    assert_null(stats().trouble);
}

/* The system has forgotten what it could not write, and reads what the disk has. */
static void test_what_cannot_be_read_again_is_not_trusted(void **state) {
    (void)state;
    static char zeros[4096];
    options.sync = SYNC_INTERVAL;
    open_log();
    snprintf(wal_path, sizeof wal_path, "%s-wal", path);
    now_ms += 1000;
    update_log_maintain(the_log, true);
    off_t synced = wal_bytes();
    assert_int_equal(push("a"), 1);
    failing_sync = "-wal";
    now_ms += 1000;
    update_log_maintain(the_log, true);
    failing_sync = NULL;
    FILE *wal = fopen(wal_path, "r+b");
    fseek(wal, synced + 4096, SEEK_SET);
    assert_int_equal(fwrite(zeros, sizeof zeros, 1, wal), 1);
    fclose(wal);
    for (int i = 0; i < 3; i++) {
        now_ms += 1000;
        update_log_maintain(the_log, true);
        assert_non_null(stats().trouble);
    }
}

/* The sync before the crash may have failed. */
static void test_what_a_crash_has_left_is_written_again(void **state) {
    (void)state;
    open_synced();
    assert_int_equal(push("a"), 1);
    assert_int_equal(push("a"), 2);
    off_t bytes = wal_bytes();
    FILE *wal = fopen(wal_path, "ab");
    for (int i = 0; i < 5000; i++) /* what was cut short */
        fputc(i, wal);
    fclose(wal);
    leave_to_crash();
    first_write = INT64_MAX;
    int before = syncs;
    open_log();
    assert_int_equal(first_write, 0);
    assert_true(was_synced("-wal", before));
    assert_true(wal_bytes() >= bytes); /* with an epoch */
    assert_int_equal((wal_bytes() - WAL_HEADER_BYTES) % (WAL_FRAME_HEADER_BYTES + 8192), 0);
    check_read("a", 0, 10, 2, 1, 2);
}

/* Whose header cannot be read: nobody may take it for another log, and cut it. */
static void test_a_header_that_cannot_be_read(void **state) {
    (void)state;
    open_synced();
    assert_int_equal(push("a"), 1);
    off_t bytes = wal_bytes();
    fails_header = true;
    assert_int_equal(push("a"), 2);
    assert_int_equal(push("a"), 0);
    failing_sync = "-wal";
    assert_int_equal(push("a"), 0);
    failing_sync = NULL;
    assert_true(wal_bytes() > bytes);
    fails_header = false;
    assert_int_equal(push("a"), 3);
    fails_header = true;
    failing_sync = "-wal";
    assert_int_equal(push("a"), 0);
    failing_sync = NULL;
    fails_header = false;
    assert_int_equal(push("a"), 4);
    crash();
    check_read("a", 0, 10, 4, 1, 4);
}

/* Where it cannot be synced, it is read, and nothing is stored. */
static void test_a_start_on_a_disk_that_cannot_sync(void **state) {
    (void)state;
    open_synced();
    assert_int_equal(push("a"), 1);
    leave_to_crash();
    failing_sync = "-wal";
    open_log();
    check_read("a", 0, 10, 1, 1, 1);
    assert_int_equal(push("a"), 0);
    assert_string_equal(stats().trouble, "disk I/O error");
    failing_sync = NULL;
    assert_int_equal(push("a"), 2);
    assert_null(stats().trouble);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_what_was_refused_does_not_come_back),
        LOG_TEST(test_a_log_that_begins_with_what_was_refused),
        LOG_TEST(test_what_no_sync_has_covered_is_written_again),
        LOG_TEST(test_what_cannot_be_read_again_is_not_trusted),
        LOG_TEST(test_what_a_crash_has_left_is_written_again),
        LOG_TEST(test_a_header_that_cannot_be_read),
        LOG_TEST(test_a_start_on_a_disk_that_cannot_sync),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
