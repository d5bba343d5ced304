/* What ends a command, also where there is no pipe to tell of it. */
#include "cli/stop.h"
#include "support.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

static bool has_no_pipe;

int __real_pipe2(int fds[2], int flags);
int __wrap_pipe2(int fds[2], int flags);
int __wrap_pipe2(int fds[2], int flags) {
    errno = EMFILE;
    return has_no_pipe ? -1 : __real_pipe2(fds, flags);
}

/* As nohup wants it. Before the others: what has been asked for stays so. */
static void test_a_signal_that_is_ignored(void **state) {
    (void)state;
    struct pollfd fds[STOP_FDS];
    signal(SIGHUP, SIG_IGN);
    stop_init(false);
    assert_int_equal(stop_fds(fds), 1);
    raise(SIGHUP);
    assert_false(stop_is_asked());
    assert_int_equal(poll(fds, 1, 0), 0);
    close(fds[0].fd);
}

/* Then a wait ends a second later at most. */
static void test_no_pipe(void **state) {
    (void)state;
    struct pollfd fds[STOP_FDS];
    has_no_pipe = true;
    stop_init(false);
    assert_int_equal(stop_fds(fds), 0);
    assert_false(stop_is_asked());
    raise(SIGTERM);
    assert_true(stop_is_asked());
    stop_sleep(INT64_MAX / 2);
    assert_true(stop_is_asked());
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_signal_that_is_ignored),
        cmocka_unit_test(test_no_pipe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
