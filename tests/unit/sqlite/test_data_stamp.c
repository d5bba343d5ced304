/* The stamp of a clean close fits the file that it was made for, once. */
#include "fixture.h"

#include "sqlite/data_lock.h"
#include "sqlite/data_stamp.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static int lock_fd;

static void run(const char *command) {
    char text[256];
    snprintf(text, sizeof text, "cd %s && %s", dir, command);
    assert_int_equal(system(text), 0);
}

/* The times of files go by ticks: what is changed from now on has a later one. */
static void wait_for_tick(void) {
    char probe[160];
    struct stat before, now;
    snprintf(probe, sizeof probe, "%s/probe", dir);
    int fd = open(probe, O_RDWR | O_CREAT, 0600);
    futimens(fd, NULL);
    fstat(fd, &before);
    do {
        futimens(fd, NULL);
        assert_int_equal(fstat(fd, &now), 0);
    } while (now.st_ctim.tv_sec == before.st_ctim.tv_sec &&
             now.st_ctim.tv_nsec == before.st_ctim.tv_nsec);
    close(fd);
}

static int set_up_locked(void **state) {
    char error[512];
    if (set_up(state))
        return -1;
    lock_fd = data_lock(path, error, sizeof error);
    run("echo data > log.db");
    return lock_fd < 0;
}

static int tear_down_locked(void **state) {
    close(lock_fd);
    return tear_down(state);
}

static void test_fits_once(void **state) {
    (void)state;
    assert_false(data_stamp_take(lock_fd, path));
    data_stamp_put(lock_fd, path);
    assert_true(data_stamp_take(lock_fd, path));
    assert_false(data_stamp_take(lock_fd, path));
    data_stamp_put(lock_fd, path);
    assert_true(data_stamp_take(lock_fd, path));
}

/* What somebody may do between a stop and a start; all but the first two leave the content. */
static void test_fits_no_other_file(void **state) {
    (void)state;
    static const char *const commands[] = {
        "echo more >> log.db",
        "cp log.db backup && echo atad > log.db",
        "touch log.db",
        "cp -p log.db backup && cp -p backup log.db",
        "cp -p log.db backup && mv backup log.db",
        "rm log.db && touch log.db",
        "rm log.db",
        "echo log > log.db-wal",
    };
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        run("echo data > log.db");
        data_stamp_put(lock_fd, path);
        wait_for_tick();
        run(commands[i]);
        assert_false(data_stamp_take(lock_fd, path));
    }
    run("echo data > log.db");
    data_stamp_put(lock_fd, path); /* with the write-ahead log there */
    assert_false(data_stamp_take(lock_fd, path));
}

/* A copy of the whole directory, its lock file among it. */
static void test_fits_no_copy(void **state) {
    (void)state;
    data_stamp_put(lock_fd, path);
    run("mkdir copy && cp -a log.db log.db-lock copy");
    char copy[80], copy_lock[96];
    snprintf(copy, sizeof copy, "%s/copy/log.db", dir);
    snprintf(copy_lock, sizeof copy_lock, "%s-lock", copy);
    int fd = open(copy_lock, O_RDWR);
    assert_true(fd >= 0);
    assert_false(data_stamp_take(fd, copy));
    close(fd);
    assert_true(data_stamp_take(lock_fd, path));
}

/* That of an upgrade: of both files, and with no trace on the disk. */
static void test_of_an_upgrade(void **state) {
    (void)state;
    static const char *const commands[] = {
        "touch log.db", "touch log.db-wal", "echo more >> log.db-wal", "rm log.db-wal", "rm log.db",
    };
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        struct buf stamp = {0};
        run("echo data > log.db; echo log > log.db-wal");
        data_stamp_tell(&stamp, path);
        struct slice text = {stamp.data, stamp.len};
        assert_true(stamp.len && data_stamp_fits(text, path));
        assert_true(data_stamp_fits(text, path));
        assert_false(data_stamp_fits((struct slice){text.data, text.len - 1}, path));
        assert_false(data_stamp_take(lock_fd, path));
        wait_for_tick();
        run(commands[i]);
        assert_false(data_stamp_fits(text, path));
        buf_deinit(&stamp);
    }
    assert_false(data_stamp_fits(SLICE(""), path)); /* there is no file, so there is no stamp */
}

#define STAMP_TEST(test) cmocka_unit_test_setup_teardown(test, set_up_locked, tear_down_locked)

/* The file first, and then the stamp; and that it is taken, before anything else happens. */
static void test_synced(void **state) {
    (void)state;
    int before = syncs;
    data_stamp_put(lock_fd, path);
    assert_int_equal(syncs - before, 2);
    assert_true(was_synced("log.db", before) && !was_synced("log.db", before + 1));
    assert_true(was_synced("-lock", before + 1));
    before = syncs;
    assert_true(data_stamp_take(lock_fd, path));
    assert_int_equal(syncs - before, 1);
    assert_true(was_synced("-lock", before));
}

static void test_a_sync_that_fails(void **state) {
    (void)state;
    failing_sync = "log.db";
    data_stamp_put(lock_fd, path);
    assert_false(data_stamp_take(lock_fd, path));
    failing_sync = NULL;
    data_stamp_put(lock_fd, path);
    failing_sync = "-lock";
    assert_false(data_stamp_take(lock_fd, path));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        STAMP_TEST(test_fits_once),    STAMP_TEST(test_fits_no_other_file),
        STAMP_TEST(test_fits_no_copy), STAMP_TEST(test_of_an_upgrade),
        STAMP_TEST(test_synced),       STAMP_TEST(test_a_sync_that_fails),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
