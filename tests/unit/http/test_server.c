/* Starting, stopping and being held, by signals; a process has one server, so the order counts. */
#include "support.h"

#include "base/log.h"
#include "failing.h"
#include "http/server.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

MAY_FAIL(int, getrlimit64, (int what, struct rlimit *limit), (what, limit), "getrlimit",
         -1) /* as it is called where files may be large */

static uv_loop_t loop;
static struct conn_shared connections;
static bool is_busy; /* nothing is quiet */
static char error[256];
static int listens, upgrades, drains, drained, quiets;
static bool was_quiet;

static bool is_quiet(void) {
    return !is_busy;
}

static const struct handler handler = {.is_quiet = is_quiet};

static void on_listening(void) {
    listens++;
}

static void on_upgrade(void) {
    upgrades++;
}

static void on_drain(void) {
    drains++;
}

static void on_drained(void) {
    drained++;
}

static void on_quiet(bool quiet) {
    quiets++;
    was_quiet = quiet;
}

static bool start(const struct server_options *more) {
    struct server_options options = *more;
    options.connections = &connections;
    options.on_listening = on_listening;
    options.on_upgrade = on_upgrade;
    options.on_drain = on_drain;
    options.on_drained = on_drained;
    listens = 0;
    return server_start(&loop, &options, error, sizeof error);
}

static void close_handle(uv_handle_t *handle, void *context) {
    (void)context;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static int set_up(void **state) {
    (void)state;
    log_init(LOG_LEVEL_ERROR + 1, false);
    is_busy = false;
    upgrades = drains = drained = quiets = 0;
    uv_loop_init(&loop);
    turn_init(&loop);
    connections = (struct conn_shared){.handler = &handler};
    return !conn_shared_init(&connections, &loop);
}

static int tear_down(void **state) {
    (void)state;
    turn_cancel(&connections.resume);
    turn_cancel(&connections.release);
    uv_walk(&loop, close_handle, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    free(connections.read_buffer);
    return uv_loop_close(&loop);
}

static void test_limits(void **state) {
    (void)state;
    struct rlimit before, now;
    getrlimit(RLIMIT_NOFILE, &before);
    struct rlimit low = {256, before.rlim_max};
    setrlimit(RLIMIT_NOFILE, &low);
    fail_call("getrlimit", 1, EPERM);
    server_raise_limits();
    getrlimit(RLIMIT_NOFILE, &now);
    assert_int_equal(now.rlim_cur, 256);
    server_raise_limits();
    getrlimit(RLIMIT_NOFILE, &now);
    assert_int_equal(now.rlim_cur, before.rlim_max);
    server_raise_limits();
    setrlimit(RLIMIT_NOFILE, &before);
}

static void test_nonsense_that_is_handed_over(void **state) {
    (void)state;
    struct unpack nonsense = unpack_of(SLICE(""));
    assert_false(start(&(struct server_options){.listen = "", .saved = &nonsense}));
    assert_string_equal(error, "cannot take over the listening sockets: they make no sense");
    assert_int_equal(listens, 0);
}

static void test_a_descriptor_that_is_no_socket(void **state) {
    (void)state;
    char wanted[128];
    int fds[] = {open("/dev/null", O_RDONLY), -1};
    snprintf(wanted, sizeof wanted, "cannot listen on descriptor %d: operation not permitted",
             fds[0]);
    assert_false(start(&(struct server_options){.listen = "", .sockets = fds, .socket_count = 2}));
    assert_string_equal(error, wanted);
    close(fds[0]);
}

static void test_an_address_in_no_folder(void **state) {
    (void)state;
    assert_false(start(&(struct server_options){.listen = "127.0.0.1:0,unix:/no/folder/x"}));
    assert_string_equal(error,
                        "cannot listen on unix:/no/folder/x: there is no folder /no/folder/");
}

/* The signal comes, and the loop has heard it. */
static void hear(int number) {
    raise(number);
    for (int i = 0; i < 3; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
}

static void run_until_told(void) {
    for (int before = quiets; quiets == before;)
        uv_run(&loop, UV_RUN_NOWAIT); /* nothing more may come of it */
}

/* It is held; what is under way ends, or a signal says that all of it shall end. */
static void test_held_and_stopped(void **state) {
    (void)state;
    assert_true(start(&(struct server_options){.listen = "127.0.0.1:0", .max_connections = 5}));
    assert_int_equal(listens, 1);
    hear(SIGUSR2);
    assert_int_equal(upgrades, 1);
    server_hold(on_quiet);
    run_until_told();
    assert_true(was_quiet && connections.is_holding);
    server_release();
    assert_false(connections.is_holding);
    is_busy = true;
    server_hold(on_quiet);
    hear(SIGTERM);
    assert_int_equal(drains, 1);
    assert_int_equal(drained, 1);
    assert_int_equal(quiets, 1);
    assert_false(connections.is_holding);
}

/* The last of them: from here on, the server has been taken out. */
static void test_taken_out(void **state) {
    (void)state;
    static struct pack out = {.fd = -1};
    assert_true(
        start(&(struct server_options){.listen = "127.0.0.1:0", .max_connections = UINT64_MAX}));
    server_hold(on_quiet);
    run_until_told();
    server_take_out(&out);
    assert_int_equal(server_late_signal(), 0);
    hear(SIGUSR2);
    assert_int_equal(upgrades, 0);
    hear(SIGINT);
    assert_int_equal(drains, 0);
    assert_int_equal(server_late_signal(), SIGINT);
    server_save(&out);
    assert_true(out.len > 0);
}

#define SERVER_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        SERVER_TEST(test_limits),
        SERVER_TEST(test_nonsense_that_is_handed_over),
        SERVER_TEST(test_a_descriptor_that_is_no_socket),
        SERVER_TEST(test_an_address_in_no_folder),
        SERVER_TEST(test_held_and_stopped),
        SERVER_TEST(test_taken_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
