/* Sockets that were opened for us. The descriptors from 3 on are this test's own. */
#include "support.h"

#include "process/activation.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FIRST_FD = 3 };

static int fds[ACTIVATION_MAX], count;
static char error[256];

static void set(const char *name, int number) {
    char text[16];
    snprintf(text, sizeof text, "%d", number);
    setenv(name, text, 1);
}

/* Puts a socket that listens, or one that does not, at the descriptor. */
static void put_socket(int at, bool listens) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (listens)
        assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(dup2(fd, at), at);
    if (fd != at)
        close(fd);
}

static void test_taken(void **state) {
    (void)state;
    put_socket(FIRST_FD, true);
    put_socket(FIRST_FD + 1, true);
    set("LISTEN_FDS", 2);
    set("LISTEN_PID", getpid());
    assert_true(activation_take(fds, &count, error, sizeof error));
    assert_int_equal(count, 2);
    for (int i = 0; i < count; i++) {
        assert_int_equal(fds[i], FIRST_FD + i);
        assert_true(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
        assert_true(fcntl(fds[i], F_GETFL) & O_NONBLOCK);
    }
    assert_null(getenv("LISTEN_FDS"));
    assert_null(getenv("LISTEN_PID"));
}

static void test_refused(void **state) {
    (void)state;
    put_socket(FIRST_FD, true);
    put_socket(FIRST_FD + 1, false);
    set("LISTEN_FDS", 2);
    set("LISTEN_PID", getpid());
    assert_false(activation_take(fds, &count, error, sizeof error));
    for (int i = 0; i <= ACTIVATION_MAX; i++)
        put_socket(FIRST_FD + i, true);
    set("LISTEN_FDS", ACTIVATION_MAX + 1);
    set("LISTEN_PID", getpid());
    assert_false(activation_take(fds, &count, error, sizeof error));
    assert_int_equal(count, 0);
}

static void test_of_another_process(void **state) {
    (void)state;
    set("LISTEN_FDS", 2);
    set("LISTEN_PID", getpid() + 1);
    assert_true(activation_take(fds, &count, error, sizeof error));
    assert_int_equal(count, 0);
    assert_null(getenv("LISTEN_FDS"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_taken),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_of_another_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
