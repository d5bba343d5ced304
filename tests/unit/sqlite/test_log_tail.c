/* What becomes of the write-ahead log when a sync has failed, or may have. */
#include "fixture.h"

#include "sqlite/update_log_parts.h"
#include "sqlite/wal_format.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static char wal_path[160];
static int64_t first_write; /* the lowest offset in the write-ahead log, since it was set */
static int data_writes;     /* to the database */

/* Stands in front of libc's, for SQLite. */
ssize_t pwrite64(int fd, const void *data, size_t len, off64_t offset) {
    char link[64], name[160] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, name, sizeof name - 1) > 0 && strcmp(name, wal_path) == 0 &&
        offset < first_write)
        first_write = offset;
    data_writes += strcmp(name, path) == 0;
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

/* As run_sql(), but what it changes stays in the write-ahead log. */
static void run_sql_in_log(const char *sql) {
    sqlite3 *db;
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
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

/* Which log it is was not known when it began anew: nothing of it counts as synced. */
static void test_a_header_that_cannot_be_read_of_a_new_log(void **state) {
    (void)state;
    options.sync = SYNC_INTERVAL;
    open_log();
    snprintf(wal_path, sizeof wal_path, "%s-wal", path);
    for (int i = 0; i < 20; i++)
        push("a");
    failing_sync = "-wal";
    now_ms += 1000;
    update_log_maintain(the_log, true);
    failing_sync = NULL;
    now_ms += 1000;
    update_log_maintain(the_log, true); /* copies all of it */
    assert_null(stats().trouble);
    first_write = INT64_MAX;
    fails_header = true;
    assert_int_equal(push("a"), 21);
    assert_int_equal(first_write, 0); /* it has begun anew */
    fails_header = false;
    failing_sync = "-wal";
    now_ms += 1000;
    update_log_maintain(the_log, true);
    assert_non_null(stats().trouble);
    failing_sync = NULL;
    first_write = INT64_MAX;
    now_ms += 1000;
    update_log_maintain(the_log, true);
    assert_int_equal(first_write, 0);
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

/* A sync that works after one that failed proves nothing of what was written before: it is written
 * again within the interval. */
static void test_an_interval_behind_a_start_that_could_not_sync(void **state) {
    (void)state;
    options.sync = SYNC_INTERVAL;
    open_log();
    assert_int_equal(push("a"), 1);
    settle();
    leave_to_crash();
    failing_sync = "-wal";
    open_log();
    failing_sync = NULL;
    assert_int_equal(push("a"), 2);
    first_write = INT64_MAX;
    now_ms += 1000;
    update_log_maintain(the_log, true);
    assert_int_equal(first_write, 0);
}

static int wal_syncs;

static void fail_the_first(const char *synced) {
    if (strcmp(synced, wal_path) != 0)
        return;
    failing_sync = wal_syncs ? NULL : "-wal";
    first_write = wal_syncs++ ? first_write : INT64_MAX;
}

/* A commit of what the start itself changes proves as little. */
static void test_what_a_start_changes_ends_no_doubt(void **state) {
    (void)state;
    open_synced();
    assert_int_equal(push("a"), 1);
    leave_to_crash();
    run_sql_in_log("CREATE TABLE purge (channel INTEGER PRIMARY KEY, upto, seq, seal);"
                   "CREATE TABLE purge_job (id INTEGER PRIMARY KEY, channel, upto, seq, seal)");
    wal_syncs = 0;
    on_sync = fail_the_first;
    open_log();
    assert_true(wal_syncs > 1);
    assert_int_equal(first_write, 0);
    assert_int_equal(push("a"), 2);
}

static int count_data_writes(void) {
    data_writes = 0;
    wal_copy(&the_log->wal, now_ms);
    return data_writes;
}

/* SQLite syncs nothing of what it copies in part, and does not copy it again. */
static void test_a_copy_in_parts_whose_sync_fails(void **state) {
    (void)state;
    static char body[300000];
    memset(body, '1', sizeof body);
    open_synced();
    assert_int_equal(push_body("a", (struct slice){body, sizeof body}), 1);
    sqlite3 *reader;
    assert_int_equal(sqlite3_open(path, &reader), SQLITE_OK);
    assert_int_equal(sqlite3_exec(reader, "BEGIN; SELECT * FROM meta", NULL, NULL, NULL),
                     SQLITE_OK);
    assert_int_equal(push("a"), 2);
    int first_part = count_data_writes();
    assert_true(first_part > 30);
    sqlite3_exec(reader, "COMMIT", NULL, NULL, NULL);
    failing_sync = "log.db";
    assert_in_range(count_data_writes(), 1, 29);
    failing_sync = NULL;
    assert_true(count_data_writes() >= first_part);
    assert_int_equal(push("a"), 3);
    sqlite3_close(reader);
    crash();
    check_read("a", 0, 1, 3, 1, 1);
    check_read("a", 1, 10, 3, 2, 3);
}

/* A version without marks has left it: a power cut would look like damage. */
static void test_what_is_left_without_marks_is_synced_at_once(void **state) {
    (void)state;
    open_synced();
    assert_int_equal(push("a"), 1);
    leave_log();
    int before = syncs;
    open_log();
    assert_int_equal(syncs, before);
    leave_log();
    run_sql_in_log("DROP TABLE lax");
    before = syncs;
    open_log();
    assert_true(was_synced("-wal", before));
    check_read("a", 0, 10, 1, 1, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_what_was_refused_does_not_come_back),
        LOG_TEST(test_a_log_that_begins_with_what_was_refused),
        LOG_TEST(test_what_no_sync_has_covered_is_written_again),
        LOG_TEST(test_what_cannot_be_read_again_is_not_trusted),
        LOG_TEST(test_what_a_crash_has_left_is_written_again),
        LOG_TEST(test_a_header_that_cannot_be_read),
        LOG_TEST(test_a_header_that_cannot_be_read_of_a_new_log),
        LOG_TEST(test_a_start_on_a_disk_that_cannot_sync),
        LOG_TEST(test_an_interval_behind_a_start_that_could_not_sync),
        LOG_TEST(test_what_a_start_changes_ends_no_doubt),
        LOG_TEST(test_a_copy_in_parts_whose_sync_fails),
        LOG_TEST(test_what_is_left_without_marks_is_synced_at_once),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
