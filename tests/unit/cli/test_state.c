/* The place of a command: on the disk, whole and private, before anybody counts on it. */
#include "support.h"

#include "cli/state.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static char dir[32], path[64], error[256];
static struct state *state;

/* What was synced, in its order; and what cannot be. This stands in front of libc's. */
static char synced[1024], failing[64];

int fsync(int fd) {
    char link[64], name[256] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, name, sizeof name - 2);
    strcpy(name + (len > 0 ? len : 0), "\n");
    snprintf(synced + strlen(synced), sizeof synced - strlen(synced), "%s", name);
    if (!*failing || !strstr(name, failing))
        return (int)syscall(SYS_fsync, fd);
    errno = EIO;
    return -1;
}

static enum state_opened open_at(const char *name) {
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return state_open(&state, path, "forward", SLICE("x"), error, sizeof error);
}

static int set_up(void **unused) {
    (void)unused;
    strcpy(dir, "/tmp/longline-test-XXXXXX");
    *failing = *synced = '\0';
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
    strcpy(failing, ".new");
    assert_false(state_save(state, &(struct feed_place){.ts = 8}));
    check_place(7);
    strcpy(failing, dir);
    assert_false(state_save(state, &(struct feed_place){.ts = 9}));
}

/* As on a full disk: what was written is only a part. */
static void test_a_part_replaces_nothing(void **unused) {
    (void)unused;
    struct rlimit limit, before;
    assert_int_equal(open_at("place"), STATE_OPEN);
    assert_true(state_save(state, &(struct feed_place){.ts = 7}));
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    limit = (struct rlimit){.rlim_cur = 3, .rlim_max = before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
    bool is_saved = state_save(state, &(struct feed_place){.ts = 123456});
    setrlimit(RLIMIT_FSIZE, &before);
    assert_false(is_saved);
    check_place(7);
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

static void test_what_is_no_place(void **unused) {
    (void)unused;
    static const char *const texts[] = {
        "",
        "7",
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
        STATE_TEST(test_synced_in_order),   STATE_TEST(test_new_folders_are_synced),
        STATE_TEST(test_a_sync_that_fails), STATE_TEST(test_a_part_replaces_nothing),
        STATE_TEST(test_private),           STATE_TEST(test_no_link_is_followed),
        STATE_TEST(test_one_at_a_time),     STATE_TEST(test_what_is_no_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
