/*
 * A command that is run for an update: whatever call fails on the way, the attempt has failed with
 * the reason, nothing stays open or running, and the next one works.
 */
#include "base/clock.h"
#include "cli/courier.h"
#include "cli/exec.h"
#include "failing.h"
#include "need.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

/* --- Calls that fail -------------------------------------------------------------------------- */

MAY_FAIL(int, pipe2, (int fds[2], int flags), (fds, flags), "pipe2", -1)
MAY_FAIL(pid_t, fork, (void), (), "fork", -1)
MAY_FAIL(int, memfd_create, (const char *name, unsigned flags), (name, flags), "memfd_create", -1)
MAY_FAIL(ssize_t, write, (int fd, const void *bytes, size_t len), (fd, bytes, len), "write", -1)
MAY_FAIL(pid_t, waitpid, (pid_t pid, int *status, int flags), (pid, status, flags), "waitpid", -1)
MAY_FAIL(DIR *, opendir, (const char *path), (path), "opendir", NULL)
MAY_FAIL(int, poll, (struct pollfd * fds, nfds_t count, int ms), (fds, count, ms), "poll", -1)
/* What poll() is with _FORTIFY_SOURCE. */
MAY_FAIL(int, __poll_chk, (struct pollfd * fds, nfds_t count, int ms, size_t size),
         (fds, count, ms, size), "poll", -1)

/* Only pidfd_open() is called so. */
long __wrap_syscall(long number, long pid, long flags);
long __real_syscall(long number, long pid, long flags);
long __wrap_syscall(long number, long pid, long flags) {
    return fails("pidfd_open") ? -1 : __real_syscall(number, pid, flags);
}

static int64_t passing_ms; /* from one look at the clock to the next */

int64_t __real_clock_steady_ms(void);
int64_t __wrap_clock_steady_ms(void);
int64_t __wrap_clock_steady_ms(void) {
    static int64_t passed_ms;
    passed_ms += passing_ms;
    return __real_clock_steady_ms() + passed_ms;
}

/* --- Attempts --------------------------------------------------------------------------------- */

static struct webhook webhook;
static struct courier_result result;
static void (*many_attempts)(const struct courier *courier);

static void attempt(const struct courier *courier) {
    result = (struct courier_result){.verdict = COURIER_FAILED, .code = -1, .retry_after_s = -1};
    courier->attempt(courier->context, &webhook, &result);
}

/* Stands in for what asks a server: the test has the updates. */
int __wrap_courier_run(const struct courier *courier, const struct options *options);
int __wrap_courier_run(const struct courier *courier, const struct options *options) {
    assert_string_equal(options->words[0], "http://h/x");
    many_attempts(courier);
    return EX_OK;
}

static int run_command(void (*attempts)(const struct courier *courier), const char *option,
                       const char *command, const char *script) {
    char *words[] = {"http://h/x", (char *)option, "--", (char *)command, "-c", (char *)script};
    many_attempts = attempts;
    return exec_run(script ? 6 : 4, words);
}

static void check_confirmed(const struct courier *courier) {
    attempt(courier);
    assert_string_equal(result.text, "");
    assert_int_equal(result.verdict, COURIER_CONFIRMED);
    assert_int_equal(result.code, 0);
}

static void fail_every_call(const struct courier *courier) {
    static const struct {
        const char *name;
        int error;
    } calls[] = {{"pipe2", EMFILE}, {"fork", EAGAIN}, {"memfd_create", ENFILE}, {"write", ENOSPC}};
    int files = count_descriptors();
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        char text[256];
        snprintf(text, sizeof text, "sh: %s", strerror(calls[i].error));
        fail_call(calls[i].name, 1, calls[i].error);
        attempt(courier);
        assert_int_equal(failing.failed, 1);
        assert_string_equal(result.text, text);
        assert_int_equal(result.verdict, COURIER_FAILED);
        assert_int_equal(result.code, -1);
        assert_int_equal(waitpid(-1, NULL, 0), -1); /* there is no child */
        check_confirmed(courier);
        assert_int_equal(count_descriptors(), files);
    }
}

static void test_calls_that_fail(void **state) {
    (void)state;
    run_command(fail_every_call, "--json", "sh", "test \"$(cat)\" = '{\"a\":1}'");
}

/* Signals come in between, and not every kernel has all calls. */
static void interrupt_calls(const struct courier *courier) {
    static const struct {
        const char *name;
        int error;
    } calls[] = {{"write", EINTR},
                 {"waitpid", EINTR},
                 {"poll", EINTR},
                 {"opendir", EMFILE},
                 {"pidfd_open", ENOSYS}};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        fail_call(calls[i].name, 1, calls[i].error);
        check_confirmed(courier);
        assert_int_equal(failing.failed, 1);
    }
}

static void test_calls_that_are_not_needed(void **state) {
    (void)state;
    run_command(interrupt_calls, "--json", "sh", "test \"$(cat)\" = '{\"a\":1}'");
}

static void fail_each_allocation(const struct courier *courier) {
    failing_allocation = 0;
    do {
        failing_allocation++;
        allocations = 0;
        is_counting = true;
        attempt(courier);
        is_counting = false;
        if (allocations >= failing_allocation)
            assert_string_equal(result.text, "sh: Cannot allocate memory");
        assert_int_equal(result.verdict,
                         allocations < failing_allocation ? COURIER_CONFIRMED : COURIER_FAILED);
    } while (allocations >= failing_allocation);
    assert_true(failing_allocation > 3);
}

static void test_without_memory(void **state) {
    (void)state;
    setenv("LC_CTYPE", "C.UTF-8", 1);
    run_command(fail_each_allocation, "--json", "sh",
                "test \"$LONGLINE_TS $LONGLINE_QUERY $LC_CTYPE\" = '7 q=1 C.UTF-8'");
    failing_allocation = 1;
    allocations = 0;
    assert_int_equal(IN_NEED(run_command(check_confirmed, "--json", "sh", "true")), EX_OSERR);
}

/* A name that could stand for another one is left out. */
static void test_headers(void **state) {
    (void)state;
    run_command(check_confirmed, "--json", "sh",
                "test \"$LONGLINE_HEADER_X_A1 $LONGLINE_HEADER_B_C $LONGLINE_HEADER_AZ09 "
                "$(env | grep -c '^LONGLINE_HEADER_')\" = 'one two three 3'");
}

static void check_ending(const struct courier *courier) {
    attempt(courier);
    assert_int_equal(result.verdict, COURIER_FAILED);
}

/* A wait that ends early is not the end. */
static void check_late(const struct courier *courier) {
    fail_call("poll", 1, EINTR);
    attempt(courier);
    assert_string_equal(result.text, "not done in time");
    assert_int_equal(result.verdict, COURIER_FAILED);
    assert_int_equal(waitpid(-1, NULL, 0), -1);
}

/* What ignores that it must end is killed: it inherits that from us. */
static void check_killed(const struct courier *courier) {
    signal(SIGTERM, SIG_IGN);
    passing_ms = 60000;
    attempt(courier);
    passing_ms = 0;
    signal(SIGTERM, SIG_DFL);
    assert_string_equal(result.text, "not done in time");
    assert_int_equal(waitpid(-1, NULL, 0), -1);
}

static void test_endings(void **state) {
    (void)state;
    run_command(check_ending, "--json", "sh", "kill -9 $$");
    assert_string_equal(result.text, "ended by signal 9");
    run_command(check_late, "--timeout=0.05", "sh", "exec sleep 600");
    run_command(check_killed, "--timeout=0.05", "sh", "exec sleep 600");
}

/* Its end is not known, and so not whether it has succeeded. */
static void check_untold(const struct courier *courier) {
    fail_call("waitpid", 1, ECHILD);
    attempt(courier);
    assert_int_equal(result.verdict, COURIER_FAILED);
    assert_string_equal(result.text, "nobody told how it ended");
    assert_int_equal(waitpid(-1, NULL, 0) > 0, true);
}

static void check_exit_code(const struct courier *courier) {
    attempt(courier);
    assert_int_equal(result.verdict, COURIER_FAILED);
    assert_int_equal(result.code, 75);
}

/* Whoever started us ignored SIGCHLD, which we inherit. */
static void test_a_command_is_not_believed_without_its_end(void **state) {
    (void)state;
    run_command(check_untold, "--json", "sh", "true");
    signal(SIGCHLD, SIG_IGN);
    run_command(check_exit_code, "--json", "sh", "exit 75");
}

static void check_impossible(const struct courier *courier) {
    attempt(courier);
    assert_int_equal(result.verdict, COURIER_IMPOSSIBLE);
    assert_int_equal(result.code, EX_UNAVAILABLE);
    assert_int_equal(waitpid(-1, NULL, 0), -1);
}

/* No update can ever be delivered to what is no program. */
static void test_what_is_no_program(void **state) {
    (void)state;
    static const struct {
        const char *command;
        int error;
    } commands[] = {{"/nowhere", ENOENT}, {"/etc/passwd", EACCES}, {"/etc/passwd/x", ENOTDIR}};
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        char text[256];
        run_command(check_impossible, "--json", commands[i].command, NULL);
        snprintf(text, sizeof text, "%s: %s", commands[i].command, strerror(commands[i].error));
        assert_string_equal(result.text, text);
    }
}

static void test_options(void **state) {
    (void)state;
    static const char *const timeouts[] = {"--timeout=",     "--timeout=x",   "--timeout=1x",
                                           "--timeout=inf",  "--timeout=nan", "--timeout=0",
                                           "--timeout=86401"};
    for (size_t i = 0; i < sizeof timeouts / sizeof *timeouts; i++)
        assert_int_equal(run_command(NULL, timeouts[i], "sh", "true"), EX_USAGE);
}

int main(void) {
    static const char item[] =
        "{\"ts\":7,\"at\":9,\"method\":\"POST\",\"path\":\"/p\",\"query\":\"q=1\",\"from\":\"::1\","
        "\"headers\":{\"x-a1\":\"one\",\"B-C\":\"two\",\"aZ09\":\"three\",\"d.e\":\"four\","
        "\"f_g\":\"five\",\"h~\":\"six\"},\"raw\":\"{\\\"a\\\":1}\",\"body\":{\"a\":1}}";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls_that_fail),
        cmocka_unit_test(test_calls_that_are_not_needed),
        cmocka_unit_test(test_without_memory),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_endings),
        cmocka_unit_test(test_a_command_is_not_believed_without_its_end),
        cmocka_unit_test(test_what_is_no_program),
        cmocka_unit_test(test_options),
    };
    if (!webhook_read(&webhook, slice_of(item)))
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    webhook_deinit(&webhook);
    return failed;
}
