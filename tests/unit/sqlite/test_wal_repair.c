/* A write-ahead log with flipped bits: what is put right is on the disk before anybody reads it. */
#include "fixture.h"

#include "sqlite/wal_repair.h"

#include <errno.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { HEADER_BYTES = 32, FRAME_HEADER_BYTES = 24, PAGE_BYTES = 8192, BYTES_MAX = 1 << 20 };

static char copy_path[64], wal_path[80], error[512];
static unsigned char bytes[BYTES_MAX]; /* of the write-ahead log as it should be */
static size_t len;

static off64_t unreadable = -1; /* an offset in a file */

/* Stands in front of libc's. */
ssize_t pread64(int fd, void *data, size_t count, off64_t offset) {
    if (offset != unreadable)
        return syscall(SYS_pread64, fd, data, count, offset);
    errno = EIO;
    return -1;
}

static void read_wal(unsigned char *to, size_t *to_len) {
    FILE *file = fopen(wal_path, "rb");
    *to_len = fread(to, 1, BYTES_MAX, file);
    fclose(file);
}

static void write_wal(const unsigned char *from) {
    FILE *file = fopen(wal_path, "wb");
    assert_int_equal(fwrite(from, 1, len, file), len);
    fclose(file);
}

/* Whether it has those bytes now. */
static bool has_bytes(const unsigned char *wanted) {
    static unsigned char now[BYTES_MAX];
    size_t now_len;
    read_wal(now, &now_len);
    return now_len == len && memcmp(now, wanted, len) == 0;
}

static int set_up_wal(void **state) {
    if (set_up(state))
        return -1;
    snprintf(copy_path, sizeof copy_path, "%s/backup.db", dir);
    snprintf(wal_path, sizeof wal_path, "%s-wal", copy_path);
    options.sync = SYNC_ALWAYS;
    open_log();
    for (int i = 0; i < 4; i++)
        push("a");
    keep_backup();
    read_wal(bytes, &len);
    return len == BYTES_MAX;
}

/* Writes the log with some bits flipped in one byte. */
static void flip(size_t at, unsigned char bits) {
    bytes[at] ^= bits;
    write_wal(bytes);
    bytes[at] ^= bits;
}

static enum wal_state repair(bool may_write, bool is_synced) {
    struct wal_end end;
    return wal_repair(copy_path, may_write, is_synced, &end, error, sizeof error);
}

static size_t page_of(size_t frame) {
    return HEADER_BYTES + frame * (FRAME_HEADER_BYTES + PAGE_BYTES) + FRAME_HEADER_BYTES;
}

/* Of its header, of a frame's header and of a page. */
static const size_t places[] = {9, HEADER_BYTES + 2, HEADER_BYTES + FRAME_HEADER_BYTES + 200};
enum { PLACES = sizeof places / sizeof *places };

static void test_put_right_and_synced(void **state) {
    (void)state;
    for (size_t i = 0; i < PLACES; i++) {
        flip(places[i], 1);
        int before = syncs;
        assert_int_equal(repair(true, true), WAL_REPAIRED);
        assert_true(was_synced("-wal", before));
        assert_true(has_bytes(bytes));
        assert_int_equal(repair(true, true), WAL_WHOLE);
    }
}

static void test_a_sync_that_fails(void **state) {
    (void)state;
    for (size_t i = 0; i < PLACES; i++) {
        flip(places[i], 1);
        failing_sync = "-wal";
        assert_int_equal(repair(true, true), WAL_FAILED);
        failing_sync = NULL;
    }
}

/* A start must not go on with what could not be put right. */
static void test_a_start_whose_mending_fails(void **state) {
    (void)state;
    close_log();
    memcpy(path, copy_path, sizeof copy_path);
    options.path = path;
    flip(places[2], 1);
    failing_sync = "-wal";
    assert_null(update_log_open(&options, false, error, sizeof error));
    failing_sync = NULL;
    open_log();
    check_read("a", 0, 10, 4, 1, 4);
}

static void test_only_looking_changes_nothing(void **state) {
    (void)state;
    static unsigned char flipped[BYTES_MAX];
    for (size_t i = 0; i < PLACES; i++) {
        flip(places[i], 1);
        memcpy(flipped, bytes, len);
        flipped[places[i]] ^= 1;
        int before = syncs;
        assert_int_equal(repair(false, true), WAL_REPAIRED);
        assert_int_equal(syncs, before);
        assert_true(has_bytes(flipped));
    }
}

/* A bit that several checksums fit: the log is written anew, with other sums. */
static void test_written_anew_and_synced(void **state) {
    (void)state;
    struct stat before, after;
    for (size_t at = page_of(0);; at++) {
        assert_true(at < page_of(0) + PAGE_BYTES);
        flip(at, 0x80);
        assert_int_equal(stat(wal_path, &before), 0);
        int syncs_before = syncs;
        assert_int_equal(repair(true, true), WAL_REPAIRED);
        assert_int_equal(stat(wal_path, &after), 0);
        if (before.st_ino == after.st_ino)
            continue;
        assert_true(was_synced("-wal-new", syncs_before));
        assert_true(was_synced(dir, syncs_before));
        assert_int_equal(repair(true, true), WAL_WHOLE);
        flip(at, 0x80);
        failing_sync = "-wal-new";
        assert_int_equal(repair(true, true), WAL_FAILED);
        failing_sync = dir;
        flip(at, 0x80);
        assert_int_equal(repair(true, true), WAL_FAILED);
        return;
    }
}

static void test_what_cannot_be_mended(void **state) {
    (void)state;
    flip(page_of(0) + 200, 0x55);
    assert_int_equal(repair(true, true), WAL_DAMAGED);
    struct store_options of_copy = options;
    of_copy.path = copy_path;
    assert_null(update_log_open(&of_copy, false, error, sizeof error));
    assert_int_equal(repair(true, false), WAL_WHOLE);
}

/* Behind what is damaged: nobody knows whether that was acknowledged. */
static void test_what_cannot_be_read(void **state) {
    (void)state;
    flip(page_of(0) + 200, 0x55);
    unreadable = (off64_t)(page_of(2) - FRAME_HEADER_BYTES);
    assert_int_equal(repair(true, true), WAL_FAILED);
    unreadable = -1;
    assert_int_equal(repair(true, true), WAL_DAMAGED);
}

/* The end of the last commit never came to the disk: that was never acknowledged. */
static void test_a_write_that_was_cut_short(void **state) {
    (void)state;
    flip(len - 100, 0x55);
    assert_int_equal(repair(true, true), WAL_WHOLE);
    write_wal(bytes);
    assert_int_equal(truncate(wal_path, (off_t)len - 100), 0);
    assert_int_equal(repair(true, true), WAL_WHOLE);
}

#define WAL_TEST(test) cmocka_unit_test_setup_teardown(test, set_up_wal, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        WAL_TEST(test_put_right_and_synced),        WAL_TEST(test_a_sync_that_fails),
        WAL_TEST(test_a_start_whose_mending_fails), WAL_TEST(test_only_looking_changes_nothing),
        WAL_TEST(test_written_anew_and_synced),     WAL_TEST(test_what_cannot_be_mended),
        WAL_TEST(test_what_cannot_be_read),         WAL_TEST(test_a_write_that_was_cut_short),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
