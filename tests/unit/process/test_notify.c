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
        cmocka_unit_test_setup_teardown(test_paths_that_are_none, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
