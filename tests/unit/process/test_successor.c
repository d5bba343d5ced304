/* The program that comes next: where it is, whether it would start, and what becomes of those that
 * do not. */
#include "support.h"

#include "base/log.h"
#include "failing.h"
#include "process/successor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

MAY_FAIL(void *, calloc, (size_t count, size_t size), (count, size), "calloc", NULL)
MAY_FAIL(int, pipe2, (int ends[2], int flags), (ends, flags), "pipe2", -1)
MAY_FAIL(int, setenv, (const char *name, const char *value, int overwrites),
         (name, value, overwrites), "setenv", -1)

static const char *started_as, *folder;
static char file[64] = "/tmp/longline-test-XXXXXX";

unsigned long __wrap_getauxval(unsigned long what);
unsigned long __wrap_getauxval(unsigned long what) {
    (void)what;
    return (unsigned long)started_as;
}

char *__wrap_getcwd(char *out, size_t size);
char *__wrap_getcwd(char *out, size_t size) {
    return folder && strlen(folder) < size ? strcpy(out, folder) : NULL;
}

/* Programs that were to be run instead of this one; none can. */
static char run[PATH_MAX];
static int run_from;

int __wrap_execve(const char *path, char *const arguments[], char *const environment[]);
int __wrap_execve(const char *path, char *const arguments[], char *const environment[]) {
    assert_true(arguments && environment);
    strcpy(run, path);
    errno = ENOEXEC;
    return -1;
}

long __wrap_syscall(long number, int fd, const char *path, ...);
long __wrap_syscall(long number, int fd, const char *path, ...) {
    assert_int_equal(number, SYS_execveat);
    assert_string_equal(path, "");
    run_from = fd;
    errno = ETXTBSY;
    return -1;
}

static uv_loop_t loop;
static char *arguments[300] = {"longline", "serve"};

/* As main() does; returns `*state`. */
static int start(const char *handover, int argc) {
    int state = 77;
    if (handover)
        setenv(SUCCESSOR_HANDOVER, handover, 1);
    successor_init(argc, arguments, &state);
    assert_null(getenv(SUCCESSOR_HANDOVER));
    return state;
}

static void test_the_path(void **state) {
    (void)state;
    static char deep[PATH_MAX];
    memset(deep, 'x', PATH_MAX - 4);
    *deep = '/';
    static const struct {
        const char *started_as, *folder, *path;
    } cases[] = {
        {NULL, "/tmp", ""},
        {"longline", NULL, ""},
        {"longline", "/srv", "/srv/longline"},
        {"/usr/bin/longline", "/srv", "/usr/bin/longline"},
        {"longline", deep, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        started_as = cases[i].started_as;
        folder = cases[i].folder;
        assert_int_equal(start(NULL, 2), -1);
        assert_string_equal(successor_path(), cases[i].path);
    }
    static const char *const descriptors[] = {"/dev/fd/7", "/proc/self/fd/7"};
    for (int i = 0; i < 2; i++) {
        started_as = descriptors[i];
        start(NULL, 2);
        assert_non_null(strstr(successor_path(), "test_process_successor"));
    }
}

static void test_what_is_handed_over(void **state) {
    (void)state;
    char text[64];
    int fd = dup(STDERR_FILENO), old = dup(STDERR_FILENO);
    started_as = "/usr/bin/longline";
    snprintf(text, sizeof text, "%d -1 /opt/longline", fd);
    assert_int_equal(start(text, 2), fd);
    assert_string_equal(successor_path(), "/opt/longline");
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_null(successor_failure());
    snprintf(text, sizeof text, "%d %d /opt/longline", fd, old);
    setenv("LONGLINE_UPGRADE_FAILURE", "it broke", 1);
    assert_int_equal(start(text, 2), fd);
    assert_string_equal(successor_failure(), "it broke");
    successor_settle();
    assert_int_equal(fcntl(old, F_GETFD), -1);
    successor_settle();
    static const char *const nonsense[] = {"", "x", "7", "7 x"};
    for (size_t i = 0; i < sizeof nonsense / sizeof *nonsense; i++) {
        assert_int_equal(start(nonsense[i], 2), -1);
        assert_string_equal(successor_path(), "/usr/bin/longline");
    }
    close(fd);
}

/* --- The check -------------------------------------------------------------------------------- */

static char outcome[1024];
static int outcomes;

static void on_checked(const char *error) {
    snprintf(outcome, sizeof outcome, "%s", error ? error : "fine");
    outcomes++;
}

/* What comes of the check of a shell script. */
static void check(const char *script, int argc, const char *wanted) {
    FILE *out = fopen(file, "w");
    fprintf(out, "#!/bin/sh\n%s\n", script);
    fclose(out);
    chmod(file, 0700);
    started_as = file;
    start(NULL, argc);
    *outcome = '\0';
    int before = outcomes;
    successor_check(&loop, "1", on_checked);
    uv_run(&loop, UV_RUN_DEFAULT);
    fail_nothing();
    assert_int_equal(outcomes, before + 1);
    if (!strstr(outcome, wanted))
        fail_msg("%s: %s", script, outcome);
}

static void test_checks(void **state) {
    (void)state;
    check("echo longline 1 would start", 2, "fine");
    check("echo other", 2, "it is not longline: other");
    check("echo broken; exit 3", 2, "it exits with 3: broken");
    check("exit 3", 2, "it exits with 3");
    check("kill -9 $$", 2, "signal 9");
    for (int i = 2; i < 300; i++)
        arguments[i] = "x";
    check("echo $# arguments", 4, "it is not longline: 5 arguments");
    check("echo $# arguments", 300, "it is not longline: 254 arguments");
}

/* What is meant for this process alone does not reach its child. */
static void test_its_environment(void **state) {
    (void)state;
    setenv("NOTIFY_SOCKET", "x", 1);
    setenv("WATCHDOG_USEC", "x", 1);
    setenv("OTHER", "y", 1);
    check("echo $NOTIFY_SOCKET$WATCHDOG_USEC$OTHER", 2, "it is not longline: y");
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
}

static void test_checks_that_cannot_be(void **state) {
    (void)state;
    fail_call("calloc", 1, ENOMEM);
    check("", 2, "out of memory");
    fail_call("calloc", 2, ENOMEM);
    check("", 2, "not enough memory");
    fail_call("pipe2", 1, EMFILE);
    check("", 2, "too many open files");
    started_as = NULL;
    folder = NULL;
    start("7 -1 ", 2);
    successor_check(&loop, "1", on_checked);
    assert_string_equal(outcome, "the path of the program is not known");
}

static void test_cancelled(void **state) {
    (void)state;
    successor_cancel();
    check("", 2, "it is not longline");
    int before = outcomes;
    chmod(file, 0700);
    FILE *out = fopen(file, "w");
    fprintf(out, "#!/bin/sh\nexec sleep 1000\n");
    fclose(out);
    successor_check(&loop, "1", on_checked);
    successor_cancel();
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(outcomes, before);
}

/* --- Becoming it ------------------------------------------------------------------------------ */

static void test_no_way_forward(void **state) {
    (void)state;
    started_as = "/opt/longline";
    start(NULL, 2);
    int fd = dup(STDERR_FILENO);
    run_from = -1;
    successor_become(fd); /* and none back */
    assert_string_equal(run, "/opt/longline");
    assert_int_equal(run_from, -1);
    assert_true(successor_open_present());
    successor_become(fd);
    assert_true(run_from >= 0);
    assert_string_equal(getenv("LONGLINE_UPGRADE_FAILURE"), "Exec format error");
    assert_false(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    *run = '\0';
    fail_call("setenv", 1, ENOMEM);
    successor_become(fd);
    fail_nothing();
    assert_string_equal(run, "");
    assert_string_equal(getenv("LONGLINE_UPGRADE_FAILURE"), "Cannot allocate memory");
    successor_close_present();
    successor_close_present();
    close(fd);
    unsetenv("LONGLINE_UPGRADE_FAILURE");
    unsetenv(SUCCESSOR_HANDOVER);
}

static void test_no_way_back(void **state) {
    (void)state;
    char text[64];
    int fd = dup(STDERR_FILENO), old = dup(STDERR_FILENO);
    run_from = -1;
    start("7 -1 /opt/longline", 2);
    successor_go_back(fd, "no reason"); /* there was none before */
    assert_int_equal(run_from, -1);
    snprintf(text, sizeof text, "%d %d /opt/longline", fd, old);
    for (unsigned nth = 1; nth <= 3; nth++) {
        start(text, 2);
        run_from = -1;
        fail_call("setenv", nth, ENOMEM);
        successor_go_back(fd, "no reason");
        fail_nothing();
        assert_int_equal(run_from, nth <= 2 ? -1 : old);
    }
    assert_string_equal(getenv("LONGLINE_UPGRADE_FAILURE"), "the new one did not start: no reason");
    successor_settle();
    close(fd);
}

static int set_up(void **state) {
    (void)state;
    log_init(LOG_LEVEL_ERROR + 1, false);
    int fd = mkstemp(file);
    close(fd);
    return uv_loop_init(&loop);
}

static int tear_down(void **state) {
    (void)state;
    unlink(file);
    return uv_loop_close(&loop);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_path),
        cmocka_unit_test(test_what_is_handed_over),
        cmocka_unit_test(test_checks),
        cmocka_unit_test(test_its_environment),
        cmocka_unit_test(test_checks_that_cannot_be),
        cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_no_way_forward),
        cmocka_unit_test(test_no_way_back),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
