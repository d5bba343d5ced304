/* What systemd hears. */
#include "support.h"

#include "process/notify.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char dir[32], path[64];
static int fd;

static int set_up(void **state) {
    (void)state;
    strcpy(dir, "/tmp/longline-test-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/notify", dir);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    setenv("NOTIFY_SOCKET", path, 1);
    return bind(fd, (struct sockaddr *)&address, sizeof address);
}

static int tear_down(void **state) {
    (void)state;
    close(fd);
    unlink(path);
    return rmdir(dir);
}

static void check_heard(const char *wanted) {
    char text[1024];
    ssize_t len = recv(fd, text, sizeof text, 0);
    assert_text(((struct slice){text, len > 0 ? (size_t)len : 0}), wanted);
}

static void test_lines(void **state) {
    (void)state;
    notify("READY=1");
    check_heard("READY=1");
    notify_status("READY=1", "no %s\nSTOPPING=1", "room");
    check_heard("READY=1\nSTATUS=no room STOPPING=1");
    notify_status("", "busy");
    check_heard("STATUS=busy");
}

static void on_alive(uv_timer_t *timer) {
    (void)timer;
}

/* The newest of it is said again. */
static void test_what_there_is_no_room_for(void **state) {
    (void)state;
    uv_loop_t loop;
    uv_timer_t alive; /* the loop turns */
    char text[64];
    uv_loop_init(&loop);
    uv_timer_init(&loop, &alive);
    uv_timer_start(&alive, on_alive, 1, 1);
    unsetenv("WATCHDOG_USEC");
    notify_watchdog_start(&loop);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    int sender = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    while (sendto(sender, "full", 4, 0, (struct sockaddr *)&address, sizeof address) == 4)
        continue;
    notify("RELOADING=1");
    notify("READY=1"); /* which is newer */
    while (recv(fd, text, sizeof text, 0) > 0)
        continue;
    ssize_t len;
    alarm(600);
    while ((len = recv(fd, text, sizeof text, 0)) < 0)
        uv_run(&loop, UV_RUN_ONCE);
    alarm(0);
    assert_text(((struct slice){text, (size_t)len}), "READY=1");
    close(sender);
    uv_close((uv_handle_t *)&alive, NULL);
    notify_watchdog_stop();
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

/* The watchdog is told of this process only, and only if it wants to be. */
static void test_whose_watchdog_it_is(void **state) {
    (void)state;
    char own[16];
    snprintf(own, sizeof own, "%d", getpid());
    const struct {
        const char *us, *pid, *heard;
    } cases[] = {
        {"20000", NULL, "WATCHDOG=1"},
        {"20000", "", "WATCHDOG=1"},
        {"1", own, "WATCHDOG=1"},
        {"20000", "1", ""},
        {"20000", "x", ""},
        {"x", own, ""},
        {"0", own, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uv_loop_t loop;
        uv_timer_t alive;
        setenv("WATCHDOG_USEC", cases[i].us, 1);
        unsetenv("WATCHDOG_PID");
        if (cases[i].pid)
            setenv("WATCHDOG_PID", cases[i].pid, 1);
        uv_loop_init(&loop);
        uv_timer_init(&loop, &alive);
        uv_timer_start(&alive, on_alive, 1, 1);
        notify_watchdog_start(&loop);
        uv_run(&loop, UV_RUN_NOWAIT);
        check_heard(cases[i].heard);
        uv_close((uv_handle_t *)&alive, NULL);
        notify_watchdog_stop();
        uv_run(&loop, UV_RUN_DEFAULT);
        assert_int_equal(uv_loop_close(&loop), 0);
    }
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

/* Nobody is told, and nothing is written where it does not belong. */
static void test_paths_that_are_none(void **state) {
    (void)state;
    char text[512];
    memset(text, 'x', sizeof text - 1);
    text[0] = '/';
    text[sizeof text - 1] = '\0';
    const char *const paths[] = {"", "/", "relative", text};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        setenv("NOTIFY_SOCKET", paths[i], 1);
        notify("READY=1");
        check_heard("");
    }
    unsetenv("NOTIFY_SOCKET");
    notify("READY=1");
    check_heard("");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_lines, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_there_is_no_room_for, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_whose_watchdog_it_is, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_paths_that_are_none, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
