/* The stamp of a clean close fits the file that it was made for, once. */
#include "support.h"

#include "sqlite/data_lock.h"
#include "sqlite/data_stamp.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[32], path[64];
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

static int set_up(void **state) {
    (void)state;
    char error[512];
    strcpy(dir, "/tmp/longline-test-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/data.db", dir);
    lock_fd = data_lock(path, error, sizeof error);
    run("echo data > data.db");
    return lock_fd < 0;
}

static int tear_down(void **state) {
    (void)state;
    close(lock_fd);
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
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
        "echo more >> data.db",
        "cp data.db backup && echo atad > data.db",
        "touch data.db",
        "cp -p data.db backup && cp -p backup data.db",
        "cp -p data.db backup && mv backup data.db",
        "rm data.db && touch data.db",
        "rm data.db",
        "echo log > data.db-wal",
    };
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        run("echo data > data.db");
        data_stamp_put(lock_fd, path);
        wait_for_tick();
        run(commands[i]);
        assert_false(data_stamp_take(lock_fd, path));
    }
    run("echo data > data.db");
    data_stamp_put(lock_fd, path); /* with the write-ahead log there */
    assert_false(data_stamp_take(lock_fd, path));
}

/* A copy of the whole directory, its lock file among it. */
static void test_fits_no_copy(void **state) {
    (void)state;
    data_stamp_put(lock_fd, path);
    run("mkdir copy && cp -a data.db data.db-lock copy");
    char copy[80], copy_lock[96];
    snprintf(copy, sizeof copy, "%s/copy/data.db", dir);
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
        "touch data.db",  "touch data.db-wal", "echo more >> data.db-wal",
        "rm data.db-wal", "rm data.db",
    };
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        struct buf stamp = {0};
        run("echo data > data.db; echo log > data.db-wal");
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

#define STAMP_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        STAMP_TEST(test_fits_once),
        STAMP_TEST(test_fits_no_other_file),
        STAMP_TEST(test_fits_no_copy),
        STAMP_TEST(test_of_an_upgrade),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
