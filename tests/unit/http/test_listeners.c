/* Listening: what keeps it from an address leaves nothing behind; what is handed over is believed
 * as far as it makes sense; and when it accepts nobody. */
#include "support.h"

#include "failing.h"
#include "http/listeners.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

MAY_FAIL(int, socket, (int domain, int type, int protocol), (domain, type, protocol), "socket", -1)
MAY_FAIL(int, setsockopt, (int fd, int level, int name, const void *value, socklen_t len),
         (fd, level, name, value, len), "setsockopt", -1)
MAY_FAIL(int, bind, (int fd, const struct sockaddr *address, socklen_t len), (fd, address, len),
         "bind", -1)
MAY_FAIL(int, connect, (int fd, const struct sockaddr *address, socklen_t len), (fd, address, len),
         "connect", -1)
MAY_FAIL(int, chmod, (const char *path, mode_t mode), (path, mode), "chmod", -1)
MAY_FAIL(int, listen, (int fd, int backlog), (fd, backlog), "listen", -1)
MAY_FAIL(int, getsockname, (int fd, struct sockaddr *address, socklen_t *len), (fd, address, len),
         "getsockname", -1)
MAY_FAIL(int, accept4, (int fd, struct sockaddr *peer, socklen_t *len, int flags),
         (fd, peer, len, flags), "accept", -1)
MAY_FAIL(int, conn_accept, (struct conn_shared * shared, int listener), (shared, listener), "many",
         failing.calls < 1000 ? 0 : UV_EAGAIN)
MAY_FAIL(char *, strdup, (const char *text), (text), "strdup", NULL)
MAY_FAIL(char *, strndup, (const char *text, size_t len), (text, len), "strndup", NULL)
MAY_FAIL(int, uv_poll_init, (uv_loop_t * loop, uv_poll_t *poll, int fd), (loop, poll, fd),
         "uv_poll_init", UV_EPERM)

static uv_loop_t loop;
static struct conn_shared connections;
static struct listeners listeners;
static char folder[32], unix_address[64], why[256];
static int descriptors; /* before the test */

static bool file_is_there(void) {
    return access(unix_address + strlen("unix:"), F_OK) == 0;
}

static bool add(const char *address) {
    *why = '\0';
    return listeners_add(&listeners, slice_of(address), why, sizeof why);
}

/* Ends them, as the server does. */
static void down(void) {
    listeners_close(&listeners);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(count_descriptors(), descriptors);
    assert_false(file_is_there());
}

static void up(void) {
    descriptors = count_descriptors();
    listeners_init(&listeners, &loop, &connections, 10);
}

static int set_up(void **state) {
    (void)state;
    strcpy(folder, "/tmp/longline-test-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(unix_address, sizeof unix_address, "unix:%s/socket", folder);
    connections = (struct conn_shared){0};
    uv_loop_init(&loop);
    up();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    fail_nothing();
    down();
    assert_int_equal(rmdir(folder), 0);
    return uv_loop_close(&loop);
}

/* --- Opening ---------------------------------------------------------------------------------- */

static void test_what_fails_leaves_nothing(void **state) {
    (void)state;
    static const struct {
        const char *call;
        int error;
        bool is_unix;
        const char *why;
    } cases[] = {
        {"socket", EMFILE, false, "too many open files"},
        {"socket", EMFILE, true, "too many open files"},
        {"setsockopt", ENOBUFS, false, "no buffer space available"},
        {"bind", EADDRINUSE, false, "address already in use"},
        {"bind", ENOENT, false, "no such file or directory"},
        {"bind", ENOENT, true, "there is no folder /tmp/"},
        {"bind", EACCES, true, "permission denied"},
        {"strdup", ENOMEM, true, "out of memory"},
        {"chmod", EPERM, true, "operation not permitted"},
        {"listen", EADDRINUSE, false, "address already in use"},
        {"listen", EADDRINUSE, true, "address already in use"},
        {"uv_poll_init", 0, false, "operation not permitted"},
        {"uv_poll_init", 0, true, "operation not permitted"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *address = cases[i].is_unix ? unix_address : "127.0.0.1:0";
        int before = count_descriptors();
        fail_call(cases[i].call, 1, cases[i].error);
        assert_false(add(address));
        fail_nothing();
        if (!strstr(why, cases[i].why) || listeners.count || count_descriptors() != before ||
            file_is_there())
            fail_msg("%s: %s", cases[i].call, why);
        assert_true(add(address));
        down();
        up();
    }
}

static void test_too_many(void **state) {
    (void)state;
    for (int i = 0; i < LISTENERS_MAX; i++)
        assert_true(add("127.0.0.1:0"));
    assert_false(add("127.0.0.1:0"));
    assert_string_equal(why, "too many addresses");
}

/* A file that a crash has left is removed, unless it cannot be told from one that is used. */
static void test_a_stale_socket(void **state) {
    (void)state;
    static const struct {
        const char *call;
        int error;
    } doubts[] = {{"socket", ENFILE}, {"connect", EAGAIN}};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, unix_address + strlen("unix:"));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
    for (size_t i = 0; i < sizeof doubts / sizeof *doubts; i++) {
        fail_call(doubts[i].call, 1, doubts[i].error);
        assert_false(add(unix_address));
        assert_string_equal(why, "address already in use");
    }
    assert_true(add(unix_address));
}

/* --- Where it listens ------------------------------------------------------------------------- */

static bool is_at(const char *host, unsigned port) {
    char text[64];
    snprintf(text, sizeof text, "%s:%u", host, port);
    return listeners_are_at(&listeners, slice_of(text));
}

/* Listens at any port of `host`; returns it. */
static unsigned add_at(const char *host) {
    struct sockaddr_storage bound;
    socklen_t len = sizeof bound;
    char text[64];
    snprintf(text, sizeof text, "%s:0", host);
    assert_true(add(text));
    getsockname(listeners.list[listeners.count - 1].fd, (struct sockaddr *)&bound, &len);
    return ntohs(((struct sockaddr_in *)&bound)->sin_port);
}

static void test_where(void **state) {
    (void)state;
    char other[80];
    snprintf(other, sizeof other, "%s2", unix_address);
    unsigned port = add_at("127.0.0.1"), any = add_at("0.0.0.0");
    assert_true(is_at("127.0.0.1", port));
    assert_false(is_at("127.0.0.2", port));
    assert_false(is_at("0.0.0.0", port));
    assert_false(is_at("[::1]", port));
    assert_true(is_at("127.0.0.2", any) && is_at("0.0.0.0", any));
    assert_false(is_at("[::1]", any)); /* it takes no IPv6 */
    assert_false(listeners_are_at(&listeners, slice_of(unix_address)));
    assert_true(add(unix_address));
    assert_true(listeners_are_at(&listeners, slice_of(unix_address)));
    assert_false(listeners_are_at(&listeners, slice_of(other)));
    assert_false(listeners_are_at(&listeners, SLICE("127.0.0.1")));
    fail_call("getsockname", 0, ENOTSOCK);
    assert_false(is_at("127.0.0.1", port));
}

static void test_where_of_ipv6(void **state) {
    (void)state;
    if (!add("[::]:0")) /* there is none here */
        return;
    unsigned port = add_at("[::]");
    assert_true(is_at("127.0.0.1", port) && is_at("[::1]", port) && is_at("0.0.0.0", port));
}

/* --- Taking over ------------------------------------------------------------------------------ */

/* A socket with a name that is no file. */
static int abstract_socket(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bind(fd, (struct sockaddr *)&address, sizeof address.sun_family);
    listen(fd, 1);
    return fd;
}

static void test_adopting(void **state) {
    (void)state;
    int fd = abstract_socket();
    fail_call("strndup", 1, ENOMEM);
    assert_int_equal(listeners_adopt(&listeners, fd), UV_ENOMEM);
    fail_call("uv_poll_init", 1, 0);
    assert_int_equal(listeners_adopt(&listeners, fd), UV_EPERM);
    assert_int_equal(listeners.count, 0);
    assert_int_equal(listeners_adopt(&listeners, fd), 0);
    assert_int_equal(*listeners.list[0].unix_path, '@');
    fd = abstract_socket();
    fail_call("getsockname", 1, ENOTSOCK); /* then it is like any other */
    assert_int_equal(listeners_adopt(&listeners, fd), 0);
    assert_null(listeners.list[1].unix_path);
}

/* What listeners_save() writes: of sockets that listen on TCP and on the unix socket. */
static struct slice saved(void) {
    static struct pack out;
    assert_true(add("127.0.0.1:0") && add(unix_address));
    out = (struct pack){.fd = -1};
    listeners_save(&listeners, &out);
    return (struct slice){out.buffer, out.len};
}

/* The listeners are gone, and their sockets are not, as behind exec(2). */
static void leave(void) {
    for (int i = 0; i < listeners.count; i++) {
        uv_close((uv_handle_t *)&listeners.list[i].poll, NULL);
        free(listeners.list[i].unix_path);
    }
    uv_close((uv_handle_t *)&listeners.resume, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    listeners_init(&listeners, &loop, &connections, 10);
}

static bool restore(struct slice text) {
    struct unpack in = unpack_of(text);
    return listeners_restore(&listeners, &in, why, sizeof why);
}

static void test_restoring(void **state) {
    (void)state;
    struct slice text = saved();
    leave();
    for (size_t len = 0; len < text.len; len++) {
        assert_false(restore((struct slice){text.data, len}));
        assert_string_equal(why, "they make no sense");
        leave();
    }
    static const struct {
        const char *call, *why;
    } cases[] = {{"strndup", "not enough memory"}, {"uv_poll_init", "operation not permitted"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fail_call(cases[i].call, 1, 0);
        assert_false(restore(text));
        assert_string_equal(why, cases[i].why);
        leave();
    }
    assert_false(restore(SLICE("\0")));
    assert_false(restore(SLICE("\x11")));
    assert_true(restore(text));
    assert_int_equal(listeners.count, 2);
    assert_true(listeners_are_at(&listeners, slice_of(unix_address)));
}

/* --- Accepting nobody ------------------------------------------------------------------------- */

static bool looks(void) {
    return uv_is_active((uv_handle_t *)&listeners.list[0].poll);
}

/* The loop says that something waits there. */
static void tell(int status, int events) {
    listeners.list[0].poll.poll_cb(&listeners.list[0].poll, status, events);
}

static void test_no_room(void **state) {
    (void)state;
    assert_true(add("127.0.0.1:0"));
    connections.open = 10;
    tell(0, UV_READABLE);
    assert_false(looks());
    listeners_check_room(&listeners);
    listeners_hold(&listeners);
    listeners_release(&listeners);
    assert_false(looks());      /* still */
    listeners.full_told_ms = 1; /* long ago */
    tell(0, UV_READABLE);
    assert_true(listeners.full_told_ms > 1);
    connections.open = 9;
    listeners_check_room(&listeners);
    assert_true(looks());
}

static void test_a_pause(void **state) {
    (void)state;
    assert_true(add("127.0.0.1:0"));
    tell(0, 0); /* nothing is there after all */
    assert_true(looks());
    for (int i = 0; i < 4; i++)
        tell(UV_EBADF, 0);
    assert_int_equal(listeners.pause_ms, LISTENERS_PAUSE_MAX_MS);
    assert_false(looks());
    listeners.is_full = true;
    listeners_check_room(&listeners); /* there is room, but the pause goes on */
    listeners_hold(&listeners);
    listeners_release(&listeners);
    assert_false(looks());
    listeners_hold(&listeners);
    while (uv_is_active((uv_handle_t *)&listeners.resume)) /* the pause goes on */
        uv_run(&loop, UV_RUN_ONCE);
    assert_false(looks());
    listeners_release(&listeners);
    assert_true(looks());
    fail_call("accept", 0, EMFILE);
    tell(0, UV_READABLE);
    assert_false(looks());
}

/* One line in the log says it, for a while. */
static void test_complaints(void **state) {
    (void)state;
    assert_true(add("127.0.0.1:0"));
    tell(UV_EBADF, 0);
    assert_true(listeners.failure_told_ms > 0);
    uint64_t told_ms = --listeners.failure_told_ms;
    tell(UV_EBADF, 0);
    assert_int_equal(listeners.failure_told_ms, told_ms);
    listeners.failure_told_ms = told_ms -= LISTENERS_COMPLAIN_MS;
    tell(UV_EBADF, 0);
    assert_true(listeners.failure_told_ms > told_ms);
}

/* However many wait there, others have their turn. */
static void test_many_at_once(void **state) {
    (void)state;
    assert_true(add("127.0.0.1:0"));
    fail_call("many", 0, 0);
    tell(0, UV_READABLE);
    assert_int_equal(failing.calls, 64);
    assert_true(looks());
}

#define LISTENERS_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        LISTENERS_TEST(test_what_fails_leaves_nothing),
        LISTENERS_TEST(test_too_many),
        LISTENERS_TEST(test_a_stale_socket),
        LISTENERS_TEST(test_where),
        LISTENERS_TEST(test_where_of_ipv6),
        LISTENERS_TEST(test_adopting),
        LISTENERS_TEST(test_restoring),
        LISTENERS_TEST(test_no_room),
        LISTENERS_TEST(test_a_pause),
        LISTENERS_TEST(test_complaints),
        LISTENERS_TEST(test_many_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
