/* The lock on a data file: one process at a time, whatever the file is called. */
#include "support.h"

#include "sqlite/data_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[32], path[64], link_path[64], error[512];

static int set_up(void **state) {
    (void)state;
    strcpy(dir, "/tmp/longline-test-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/data.db", dir);
    snprintf(link_path, sizeof link_path, "%s/link.db", dir);
    *error = 0;
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}

/* An flock() belongs to the open file, so that one process can play two. */
static void test_one_at_a_time(void **state) {
    (void)state;
    int fd = data_lock(path, error, sizeof error);
    assert_true(fd >= 0);
    assert_int_equal(data_lock(path, error, sizeof error), -1);
    assert_non_null(strstr(error, path));
    assert_non_null(strstr(error, "is in use by another longline process"));
    close(fd);
    fd = data_lock(path, error, sizeof error);
    assert_true(fd >= 0);
    close(fd);
}

static void test_one_lock_for_all_names(void **state) {
    (void)state;
    int fd = data_lock(path, error, sizeof error);
    assert_true(fd >= 0);
    assert_int_equal(symlink(path, link_path), 0);
    assert_int_equal(data_lock(link_path, error, sizeof error), -1);
    assert_non_null(strstr(error, "is in use"));
    close(fd);
}

static void test_no_such_directory(void **state) {
    (void)state;
    snprintf(path, sizeof path, "%s/no/data.db", dir);
    assert_int_equal(data_lock(path, error, sizeof error), -1);
    assert_non_null(strstr(error, "cannot open "));
    assert_non_null(strstr(error, path));
}

static int looking = -1; /* somebody who looks whether it is locked, until we wait */

/* This stands in front of libc's. */
int usleep(useconds_t us) {
    (void)us;
    if (looking >= 0)
        close(looking);
    looking = -1;
    return 0;
}

static void test_somebody_looks(void **state) {
    (void)state;
    char lock_path[80];
    close(data_lock(path, error, sizeof error));
    snprintf(lock_path, sizeof lock_path, "%s-lock", path);
    looking = open(lock_path, O_RDONLY);
    assert_int_equal(flock(looking, LOCK_SH), 0);
    int fd = data_lock(path, error, sizeof error);
    assert_true(fd >= 0);
    close(fd);
}

static void test_private(void **state) {
    (void)state;
    struct stat status;
    umask(0);
    int fd = data_lock(path, error, sizeof error);
    assert_int_equal(fstat(fd, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    close(fd);
}

#define LOCK_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        LOCK_TEST(test_one_at_a_time),     LOCK_TEST(test_one_lock_for_all_names),
        LOCK_TEST(test_no_such_directory), LOCK_TEST(test_somebody_looks),
        LOCK_TEST(test_private),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
