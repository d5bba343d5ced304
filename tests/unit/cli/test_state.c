/* The place of a command: on the disk, whole and private, before anybody counts on it. */
#include "need.h"

#include "cli/state.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[32], path[64], error[256];
static struct state *state;

/* What was synced, in its order; and what cannot be, and why. This stands in front of libc's. */
static char synced[1024], unsyncable[64];
static int sync_error;

int fsync(int fd) {
    char link[64], name[256] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, name, sizeof name - 2);
    strcpy(name + (len > 0 ? len : 0), "\n");
    snprintf(synced + strlen(synced), sizeof synced - strlen(synced), "%s", name);
    if (!*unsyncable || !strstr(name, unsyncable))
        return (int)syscall(SYS_fsync, fd);
    errno = sync_error;
    return -1;
}

/* The errno of every open() and flock() that ends with that; "": none fails. */
static char closed[64];
static int open_error, lock_error;

int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, mode_t mode);
int __wrap_open64(const char *name, int flags, mode_t mode) {
    size_t len = strlen(name), end = strlen(closed);
    if (!end || len < end || strcmp(name + len - end, closed) != 0)
        return __real_open64(name, flags, mode);
    errno = open_error;
    return -1;
}

int __real_flock(int fd, int operation);
static int child_goes_on = -1; /* closed when the lock is found taken: who reads there ends */
int __wrap_flock(int fd, int operation);
int __wrap_flock(int fd, int operation) {
    errno = lock_error;
    int status = lock_error ? -1 : __real_flock(fd, operation);
    int error = errno;
    if (status != 0 && child_goes_on >= 0)
        close(child_goes_on);
    child_goes_on = status != 0 ? -1 : child_goes_on;
    errno = error;
    return status;
}

static enum state_opened open_at(const char *name) {
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return state_open(&state, path, "forward", SLICE("x"), error, sizeof error);
}

static int set_up(void **unused) {
    (void)unused;
    strcpy(dir, "/tmp/longline-test-XXXXXX");
    *unsyncable = *synced = *closed = '\0';
    sync_error = EIO;
    lock_error = 0;
    state = NULL;
    return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **unused) {
    (void)unused;
    state_close(state);
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}

static void check_place(uint64_t ts) {
    struct feed_place place;
    bool is_bad;
    assert_true(state_load(state, &place, &is_bad));
    assert_int_equal(place.ts, ts);
}

static void write_file(const char *text, size_t len) {
    FILE *file = fopen(path, "w");
    fwrite(text, 1, len, file);
    fclose(file);
}

static void test_synced_in_order(void **unused) {
    (void)unused;
    char wanted[256];
    assert_int_equal(open_at("place"), STATE_OPEN);
    assert_true(state_save(state, &(struct feed_place){.ts = 7, .epoch = "ab"}));
    snprintf(wanted, sizeof wanted, "%s.new\n%s\n", path, dir);
    assert_string_equal(synced, wanted);
    check_place(7);
}

static void test_new_folders_are_synced(void **unused) {
    (void)unused;
    char wanted[256];
    assert_int_equal(open_at("a/b/place"), STATE_OPEN);
    snprintf(wanted, sizeof wanted, "%s\n%s/a\n", dir, dir);
    assert_string_equal(synced, wanted);
}

static void test_a_sync_that_fails(void **unused) {
    (void)unused;
    assert_int_equal(open_at("place"), STATE_OPEN);
    assert_true(state_save(state, &(struct feed_place){.ts = 7}));
    strcpy(unsyncable, ".new");
    assert_false(state_save(state, &(struct feed_place){.ts = 8}));
    check_place(7);
    strcpy(unsyncable, dir);
    assert_false(state_save(state, &(struct feed_place){.ts = 9}));
}

/* As on a full disk: what was written is only a part, or nothing. */
static void test_a_part_replaces_nothing(void **unused) {
    (void)unused;
    struct rlimit limit, before;
    assert_int_equal(open_at("place"), STATE_OPEN);
    assert_true(state_save(state, &(struct feed_place){.ts = 7}));
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    for (rlim_t bytes = 0; bytes <= 3; bytes += 3) {
        limit = (struct rlimit){.rlim_cur = bytes, .rlim_max = before.rlim_max};
        setrlimit(RLIMIT_FSIZE, &limit);
        bool is_saved = state_save(state, &(struct feed_place){.ts = 123456});
        int why = errno;
        setrlimit(RLIMIT_FSIZE, &before);
        assert_false(is_saved);
        assert_int_equal(why, bytes ? ENOSPC : EFBIG);
        check_place(7);
    }
}

/* Some file systems cannot sync a folder, and one above it may not be readable. */
static void test_folders_that_cannot_be_synced(void **unused) {
    (void)unused;
    char wanted[64];
    strcpy(unsyncable, dir);
    sync_error = EINVAL;
    assert_int_equal(open_at("a/place"), STATE_OPEN);
    state_close(state);
    strcpy(closed, dir);
    open_error = EACCES;
    assert_int_equal(open_at("b/place"), STATE_OPEN);
    assert_false(state_load(state, &(struct feed_place){0}, &(bool){false}));
    state_close(state);
    open_error = EMFILE;
    assert_int_equal(open_at("c/place"), STATE_FAILED);
    assert_null(state);
    assert_non_null(strstr(error, strerror(EMFILE)));
    *closed = '\0';
    sync_error = EIO;
    assert_int_equal(open_at("d/place"), STATE_FAILED);
    assert_non_null(strstr(error, strerror(EIO)));
    *unsyncable = *synced = '\0';
    assert_int_equal(open_at("d/place"), STATE_OPEN);
    snprintf(wanted, sizeof wanted, "%s\n", dir);
    assert_string_equal(synced, wanted); /* not only when it was made first */
    state_close(state);
    assert_int_equal(open_at("a/place"), STATE_OPEN);
    snprintf(closed, sizeof closed, "%s/a", dir);
    assert_false(state_save(state, &(struct feed_place){.ts = 7}));
    assert_int_equal(errno, EMFILE);
}

/* Only one that is not there is none: any other could be one that counts. */
static void test_a_file_that_cannot_be_read(void **unused) {
    (void)unused;
    struct feed_place place;
    bool is_bad;
    assert_int_equal(open_at("place"), STATE_OPEN);
    strcpy(closed, path);
    open_error = EACCES;
    assert_false(state_load(state, &place, &is_bad));
    assert_true(is_bad);
}

static void test_a_lock_that_fails(void **unused) {
    (void)unused;
    char wanted[128];
    lock_error = ENOLCK;
    assert_int_equal(open_at("place"), STATE_FAILED);
    snprintf(wanted, sizeof wanted, "%s.lock: %s", path, strerror(ENOLCK));
    assert_string_equal(error, wanted);
    assert_null(state);
}

static void check_no_place(const char *given, const char *wanted) {
    assert_int_equal(state_open(&state, given, "forward", SLICE("x"), error, sizeof error),
                     STATE_FAILED);
    assert_string_equal(error, wanted);
    assert_null(state);
}

static void test_places_that_are_none(void **unused) {
    (void)unused;
    static const char nowhere[] =
        "no place for the state: set XDG_STATE_HOME or HOME, or --state FILE";
    char text[PATH_MAX + 1];
    memset(text, 'a', PATH_MAX);
    text[PATH_MAX] = '\0';
    check_no_place("", "--state: no file");
    check_no_place(text, "--state: File name too long");
    *text = '/';
    text[PATH_MAX - 8] = '\0';
    setenv("XDG_STATE_HOME", text, 1); /* what stands behind it makes it too long */
    check_no_place(NULL, nowhere);
    setenv("XDG_STATE_HOME", "relative", 1);
    setenv("HOME", "relative", 1);
    check_no_place(NULL, nowhere);
    unsetenv("HOME");
    unsetenv("XDG_STATE_HOME");
    check_no_place(NULL, nowhere);
    setenv("HOME", dir, 1);
    assert_int_equal(state_open(&state, NULL, "forward", SLICE("x"), error, sizeof error),
                     STATE_OPEN);
    snprintf(text, sizeof text, "%s/.local/state/longline/forward-", dir);
    assert_memory_equal(state_path(state), text, strlen(text));
}

static void test_without_memory(void **unused) {
    (void)unused;
    failing_allocation = 1;
    allocations = 0;
    assert_int_equal(IN_NEED(open_at("place")), STATE_FAILED);
    assert_string_equal(error, "out of memory");
    assert_null(state);
    state_close(state);
}

static void test_private(void **unused) {
    (void)unused;
    struct stat status;
    umask(0);
    assert_int_equal(open_at("place"), STATE_OPEN);
    assert_true(state_save(state, &(struct feed_place){.ts = 7}));
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
}

static void test_no_link_is_followed(void **unused) {
    (void)unused;
    char new_path[80], target[80];
    assert_int_equal(open_at("place"), STATE_OPEN);
    snprintf(new_path, sizeof new_path, "%s.new", path);
    snprintf(target, sizeof target, "%s/target", dir);
    assert_int_equal(symlink(target, new_path), 0);
    assert_false(state_save(state, &(struct feed_place){.ts = 7}));
    assert_int_not_equal(access(target, F_OK), 0);
}

static void test_one_at_a_time(void **unused) {
    (void)unused;
    struct state *other;
    assert_int_equal(open_at("place"), STATE_OPEN);
    assert_int_equal(state_open(&other, path, "forward", SLICE("x"), error, sizeof error),
                     STATE_LOCKED);
}

/* One that was killed is gone, and its child is for a moment what it was. */
static void test_a_lock_that_outlives_its_owner(void **unused) {
    (void)unused;
    assert_int_equal(open_at("place"), STATE_OPEN);
    int ends[2];
    char end;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        close(ends[1]);
        _exit((int)read(ends[0], &end, 1));
    }
    child_goes_on = ends[1];
    state_close(state);
    assert_int_equal(open_at("place"), STATE_OPEN);
    assert_int_equal(child_goes_on, -1);
    assert_int_equal(waitpid(child, NULL, 0), child);
    close(ends[0]);
}

static void test_what_is_no_place(void **unused) {
    (void)unused;
    static const char *const texts[] = {
        "",
        "7",
        "\n",
        "7\n",
        "7 ab",
        "7 ab c\n",
        "x ab\n",
        " ab\n",
        "7 a\tb\n",
        "-7 ab\n",
        "7 0123456789012345678901234567890123456789012345678901234567890123456789\n",
    };
    struct feed_place place;
    bool is_bad;
    assert_int_equal(open_at("place"), STATE_OPEN);
    assert_false(state_load(state, &place, &is_bad));
    assert_false(is_bad);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        write_file(texts[i], strlen(texts[i]));
        assert_false(state_load(state, &place, &is_bad));
        assert_true(is_bad);
    }
}

#define STATE_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        STATE_TEST(test_synced_in_order),
        STATE_TEST(test_new_folders_are_synced),
        STATE_TEST(test_a_sync_that_fails),
        STATE_TEST(test_a_part_replaces_nothing),
        STATE_TEST(test_private),
        STATE_TEST(test_no_link_is_followed),
        STATE_TEST(test_one_at_a_time),
        STATE_TEST(test_a_lock_that_outlives_its_owner),
        STATE_TEST(test_what_is_no_place),
        STATE_TEST(test_folders_that_cannot_be_synced),
        STATE_TEST(test_a_file_that_cannot_be_read),
        STATE_TEST(test_a_lock_that_fails),
        STATE_TEST(test_places_that_are_none),
        STATE_TEST(test_without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
