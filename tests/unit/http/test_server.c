/* Starting, stopping and being held, by signals; a process has one server, so the order counts. */
#include "support.h"

#include "base/log.h"
#include "failing.h"
#include "http/server.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

MAY_FAIL(int, getrlimit64, (int what, struct rlimit *limit), (what, limit), "getrlimit",
         -1) /* as it is called where files may be large */

enum { HURRY = 50 }; /* so many times as fast are timers */
int __real_uv_timer_start(uv_timer_t *timer, uv_timer_cb then, uint64_t after, uint64_t repeat);
int __wrap_uv_timer_start(uv_timer_t *timer, uv_timer_cb then, uint64_t after, uint64_t repeat);
int __wrap_uv_timer_start(uv_timer_t *timer, uv_timer_cb then, uint64_t after, uint64_t repeat) {
    return __real_uv_timer_start(timer, then, after / HURRY, repeat);
}

static uv_loop_t loop;
static struct conn_shared connections;
static bool is_busy; /* nothing is quiet */
static char error[256];
static int listens, upgrades, drains, drained, quiets, requests, cancelled;
static bool was_quiet;

static bool is_quiet(void) {
    return !is_busy;
}

/* Nothing comes of it. */
static void on_request(struct exchange *exchange, const struct request *request) {
    (void)exchange, (void)request;
    requests++;
}

static void on_cancel(struct exchange *exchange) {
    (void)exchange;
    cancelled++;
}

static const struct handler handler = {
    .request = on_request, .cancel = on_cancel, .is_quiet = is_quiet};

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
    upgrades = drains = drained = quiets = requests = cancelled = 0;
    uv_loop_init(&loop);
    turn_init(&loop);
    connections = (struct conn_shared){.handler = &handler, .idle_timeout_ms = 3600000};
    return !conn_shared_init(&connections, &loop);
}

static int tear_down(void **state) {
    (void)state;
    turn_cancel(&connections.resume);
    turn_cancel(&connections.release);
    uv_walk(&loop, close_handle, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    free(connections.spare_request);
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

/* --- Connections ------------------------------------------------------------------------------ */

/* A socket that listens; whoever connects to `*address` comes to it. */
static int make_listener(struct sockaddr_un *address) {
    socklen_t len = sizeof *address;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    bind(fd, (struct sockaddr *)address, sizeof address->sun_family); /* the kernel finds a name */
    getsockname(fd, (struct sockaddr *)address, &len);
    assert_int_equal(listen(fd, 8), 0);
    return fd;
}

static int client_new(const struct sockaddr_un *address) {
    socklen_t len =
        offsetof(struct sockaddr_un, sun_path) + 6; /* of a name that the kernel found */
    int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(client, (const struct sockaddr *)address, len), 0);
    return client;
}

#define PATIENCE_NS 120000000000
#define UNTIL(condition)                                                                           \
    for (uint64_t end_ns = uv_hrtime() + PATIENCE_NS; !(condition); uv_run(&loop, UV_RUN_NOWAIT))  \
    assert_true(uv_hrtime() < end_ns)

/* Others have those that are spare: 48, and 10 of the store. */
static void test_as_many_as_descriptors_allow(void **state) {
    (void)state;
    struct sockaddr_un address;
    int fd = make_listener(&address), last, waiting;
    fail_call("getrlimit", 1, EPERM); /* then 1,024 are taken for granted */
    assert_true(start(&(struct server_options){
        .listen = "", .sockets = &fd, .socket_count = 1, .spare_descriptors = 10}));
    connections.open = 1024 - 48 - 10 - 1;
    last = client_new(&address);
    UNTIL(connections.open == 1024 - 48 - 10);
    waiting = client_new(&address);
    for (int i = 0; i < 10; i++)
        uv_run(&loop, UV_RUN_NOWAIT);
    assert_int_equal(connections.open, 1024 - 48 - 10);
    connections.open = 1;
    hear(SIGTERM);
    close(last);
    close(waiting);
    UNTIL(drained);
}

/* What its store never answers does not keep it. */
static void test_stopped_while_the_store_is_stuck(void **state) {
    (void)state;
    struct slice text = SLICE("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    struct sockaddr_un address;
    int fd = make_listener(&address), client;
    assert_true(start(&(struct server_options){.listen = "", .sockets = &fd, .socket_count = 1}));
    client = client_new(&address);
    assert_int_equal(write(client, text.data, text.len), text.len);
    UNTIL(requests);
    hear(SIGTERM);
    UNTIL(drained);
    assert_int_equal(cancelled, 1);
    close(client);
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
        SERVER_TEST(test_as_many_as_descriptors_allow),
        SERVER_TEST(test_stopped_while_the_store_is_stuck),
        SERVER_TEST(test_taken_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
