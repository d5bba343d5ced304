/*
 * One connection to a Redis that the test plays, and calls of libuv that fail: the connection goes
 * down, says why, answers every call with NULL, and the next try works.
 */
#include "failing.h"
#include "need.h"
#include "redis/conn.h"
#include "tls_server.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

static uv_loop_t loop;
static struct redis_conn conn;
static struct redis_options options;
static struct redis_address address;

/* --- Calls that fail -------------------------------------------------------------------------- */

MAY_FAIL(int, uv_read_start, (uv_stream_t * stream, uv_alloc_cb alloc, uv_read_cb done),
         (stream, alloc, done), "uv_read_start", failing.error)
MAY_FAIL(int, uv_try_write, (uv_stream_t * stream, const uv_buf_t *bufs, unsigned count),
         (stream, bufs, count), "uv_try_write", failing.error)
MAY_FAIL(int, uv_getaddrinfo,
         (uv_loop_t * on, uv_getaddrinfo_t *request, uv_getaddrinfo_cb done, const char *node,
          const char *service, const struct addrinfo *hints),
         (on, request, done, node, service, hints), "uv_getaddrinfo", failing.error)
MAY_FAIL(redisReader *, redisReaderCreate, (void), (), "redisReaderCreate", NULL)

static int family; /* that was connected to */

int __real_uv_tcp_connect(uv_connect_t *connect, uv_tcp_t *tcp, const struct sockaddr *to,
                          uv_connect_cb done);
int __wrap_uv_tcp_connect(uv_connect_t *connect, uv_tcp_t *tcp, const struct sockaddr *to,
                          uv_connect_cb done);
int __wrap_uv_tcp_connect(uv_connect_t *connect, uv_tcp_t *tcp, const struct sockaddr *to,
                          uv_connect_cb done) {
    family = to->sa_family;
    return fails("uv_tcp_connect") ? failing.error : __real_uv_tcp_connect(connect, tcp, to, done);
}

/* A write that fails at once, or, "later", in the next turn. */
static uv_write_t *late;
static uv_write_cb late_done;

int __real_uv_write(uv_write_t *write, uv_stream_t *stream, const uv_buf_t *bufs, unsigned count,
                    uv_write_cb done);
int __wrap_uv_write(uv_write_t *write, uv_stream_t *stream, const uv_buf_t *bufs, unsigned count,
                    uv_write_cb done);
int __wrap_uv_write(uv_write_t *write, uv_stream_t *stream, const uv_buf_t *bufs, unsigned count,
                    uv_write_cb done) {
    if (fails("uv_write"))
        return failing.error;
    if (!fails("later"))
        return __real_uv_write(write, stream, bufs, count, done);
    late = write;
    late->handle = stream;
    late_done = done;
    return 0;
}

/* --- Names ------------------------------------------------------------------------------------ */

static _Atomic bool is_name_server_slow; /* it answers when it is not any more */

/* localhost has two addresses, and at the second one nobody listens. */
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                struct addrinfo **found) {
    static const char *const addresses[] = {"127.0.0.1", "127.0.0.2"};
    (void)hints;
    while (is_name_server_slow)
        usleep(1000);
    if (strcmp(node, "localhost") != 0)
        return EAI_NONAME;
    *found = NULL;
    for (int i = 1; i >= 0; i--) {
        struct addrinfo *one = calloc(1, sizeof *one + sizeof(struct sockaddr_in));
        struct sockaddr_in *at = (struct sockaddr_in *)(one + 1);
        at->sin_family = AF_INET;
        at->sin_port = htons((uint16_t)atoi(service));
        inet_pton(AF_INET, addresses[i], &at->sin_addr);
        one->ai_family = AF_INET;
        one->ai_socktype = SOCK_STREAM;
        one->ai_addr = (struct sockaddr *)at;
        one->ai_addrlen = sizeof *at;
        one->ai_next = *found;
        *found = one;
    }
    return 0;
}

void freeaddrinfo(struct addrinfo *found) {
    for (struct addrinfo *next; found; found = next) {
        next = found->ai_next;
        free(found);
    }
}

/* --- The Redis -------------------------------------------------------------------------------- */

static int listener, line = -1;
static bool is_tls;
static struct buf got; /* what it was told on this line */

static void listen_on_any_port(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&at, len), 0);
    assert_int_equal(listen(listener, 8), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &len), 0);
    address.port = ntohs(at.sin_port);
}

static void hang_up(void) {
    if (line >= 0)
        close(line);
    line = -1;
    buf_deinit(&got);
    tls_server_end();
}

static void send_all(const char *bytes, size_t len) {
    assert_int_equal(send(line, bytes, len, MSG_NOSIGNAL), len);
}

/* Sends what TLS has to say, byte by byte while it is young. */
static void send_tls(bool is_slow) {
    struct buf out = {0};
    tls_server_give(&out);
    for (size_t at = 0; at < out.len; at += is_slow ? 100 : out.len) {
        size_t left = out.len - at;
        send_all(out.data + at, is_slow && left > 100 ? 100 : left);
        if (is_slow)
            uv_run(&loop, UV_RUN_NOWAIT);
    }
    buf_deinit(&out);
}

/* Takes what has come. */
static void listen_to(void) {
    char bytes[65536];
    if (line < 0 && (line = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0 &&
        is_tls)
        tls_server_begin();
    ssize_t len = line < 0 ? -1 : recv(line, bytes, sizeof bytes, 0);
    if (len == 0)
        hang_up();
    if (len <= 0)
        return;
    if (!is_tls)
        buf_append(&got, bytes, (size_t)len);
    else
        tls_server_take(bytes, (size_t)len, &got);
    if (is_tls)
        send_tls(true);
}

static void say(const char *text) {
    if (is_tls) {
        tls_server_say(text);
        send_tls(false);
    } else {
        send_all(text, strlen(text));
    }
}

/* --- The connection --------------------------------------------------------------------------- */

static int readies, downs, messages, silences;
static char reason[160];
static bool is_silence_held, is_given_up;

static void on_ready(struct redis_conn *it) {
    assert_ptr_equal(it, &conn);
    readies++;
}

static void on_down(struct redis_conn *it, const char *why) {
    assert_int_equal(it->state, REDIS_CONN_DOWN);
    assert_true(list_empty(&it->calls));
    snprintf(reason, sizeof reason, "%s", why);
    downs++;
}

static void on_message(struct redis_conn *it, const redisReply *reply) {
    (void)it;
    assert_int_equal(reply->type, REDIS_REPLY_STATUS);
    messages++;
}

/* Holds what comes once, when the test has been silent. */
static bool on_silent(struct redis_conn *it) {
    bool was_held = is_silence_held;
    silences += was_held;
    is_silence_held = false;
    if (was_held && is_given_up)
        redis_conn_fail(it, "given up");
    return was_held;
}

static const struct redis_conn_events events = {
    .ready = on_ready, .down = on_down, .silent = on_silent};
static const struct redis_conn_events pubsub_events = {
    .ready = on_ready, .down = on_down, .message = on_message};

static struct redis_call call;
static int replies, lost_replies;
static char answer[64];

static void on_reply(struct redis_call *it, const redisReply *reply) {
    assert_ptr_equal(it, &call);
    replies += reply != NULL;
    lost_replies += !reply;
    snprintf(answer, sizeof answer, "%s", reply && reply->str ? reply->str : "");
}

static bool has_got(const char *text) {
    return got.len && memmem(got.data, got.len, text, strlen(text));
}

/* Turns the loop and listens until `condition` holds. One that is ready is not asked for a sign of
 * life, however slow the machine is. */
#define UNTIL(condition)                                                                           \
    do {                                                                                           \
        listen_to();                                                                               \
        uv_run(&loop, UV_RUN_NOWAIT);                                                              \
        usleep(200);                                                                               \
        if (!redis_conn_is_ready(&conn))                                                           \
            redis_conn_tick(&conn, uv_now(&loop));                                                 \
    } while (!(condition))

static void run_out(void) {
    uv_run(&loop, UV_RUN_NOWAIT);
    uv_run(&loop, UV_RUN_NOWAIT);
}

/* Until the Redis is greeted, as often as it takes. */
static void get_ready(void) {
    int before = readies;
    while (readies == before) {
        UNTIL(has_got("PING\r\n"));
        say("+PONG\r\n");
        UNTIL(readies > before || line < 0);
    }
    buf_reset(&got, SIZE_MAX);
}

static void open_conn(const char *host, const struct redis_conn_events *listens) {
    struct tls_context *context = is_tls ? conn.tls : NULL;
    redis_conn_init(&conn, &loop, &options, context, listens);
    snprintf(address.host, sizeof address.host, "%s", host);
    redis_conn_open(&conn, &address);
}

static int set_up(void **state) {
    (void)state;
    readies = downs = messages = silences = replies = lost_replies = 0;
    is_silence_held = is_tls = false;
    fail_nothing();
    options = (struct redis_options){.timeout_ms = 10000};
    call = (struct redis_call){.done = on_reply};
    uv_loop_init(&loop);
    turn_init(&loop);
    listen_on_any_port();
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    redis_conn_close(&conn);
    hang_up();
    close(listener);
    turn_deinit();
    uv_run(&loop, UV_RUN_DEFAULT);
    return uv_loop_close(&loop);
}

static void ask(const char *word) {
    redis_conn_words(&conn, &call, word, NULL);
}

static void check_works(void) {
    int before = replies;
    ask("HELLO");
    UNTIL(has_got("HELLO\r\n"));
    say("+WORLD\r\n");
    UNTIL(replies > before);
    assert_string_equal(answer, "WORLD");
    buf_reset(&got, SIZE_MAX);
}

/* --- Tests ------------------------------------------------------------------------------------ */

static void test_greeting(void **state) {
    (void)state;
    options.user = "me";
    options.pass = "secret";
    options.db = 3;
    open_conn("127.0.0.1", &events);
    UNTIL(has_got("*3\r\n$4\r\nAUTH\r\n$2\r\nme\r\n$6\r\nsecret\r\n"));
    say("+OK\r\n");
    UNTIL(has_got("*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n"));
    say("+OK\r\n");
    UNTIL(has_got("PING"));
    say("-NOPERM no ping for you\r\n");
    UNTIL(readies);
    buf_reset(&got, SIZE_MAX);
    redis_conn_command(&conn, 2);
    redis_conn_argument(&conn, SLICE("ADD"));
    redis_conn_number(&conn, INT64_MIN);
    redis_conn_sent(&conn, &call);
    UNTIL(has_got("*2\r\n$3\r\nADD\r\n$20\r\n-9223372036854775808\r\n"));
    say(":1\r\n");
    UNTIL(replies);
    check_works();
}

static void test_a_greeting_that_is_refused(void **state) {
    (void)state;
    options.pass = "secret";
    open_conn("127.0.0.1", &events);
    UNTIL(has_got("AUTH\r\n$6\r\nsecret\r\n"));
    say("-WRONGPASS no, with args beginning with: 'secret'\r\n");
    UNTIL(downs);
    assert_string_equal(reason, "WRONGPASS no");
    hang_up();
    UNTIL(has_got("AUTH"));
    say("+OK\r\n");
    UNTIL(has_got("PING"));
    say("-LOADING the data\r\n");
    UNTIL(downs == 2);
    assert_string_equal(reason, "LOADING the data");
}

/* Each fails once on the way to being ready. */
static void test_calls_that_fail_on_the_way(void **state) {
    (void)state;
    static const struct {
        const char *host, *call;
        int error;
        const char *reason;
    } cases[] = {
        {"127.0.0.1", "uv_tcp_connect", UV_ENETUNREACH, "network is unreachable"},
        {"127.0.0.1", "uv_read_start", UV_EALREADY, "connection already in progress"},
        {"127.0.0.1", "uv_try_write", UV_EPIPE, "broken pipe"},
        {"localhost", "uv_getaddrinfo", UV_ENOMEM, "not enough memory"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        downs = 0;
        fail_call(cases[i].call, 1, cases[i].error);
        open_conn(cases[i].host, &events);
        UNTIL(downs);
        assert_string_equal(reason, cases[i].reason);
        assert_int_equal(failing.failed, 1);
        hang_up();
        get_ready();
        check_works();
        redis_conn_close(&conn);
        run_out();
        hang_up();
    }
}

/* What cannot be written at once is written later, or is not. */
static void test_writes_that_must_wait(void **state) {
    (void)state;
    static const struct {
        const char *call;
        const char *reason;
    } cases[] = {{"uv_write", "broken pipe"}, {"later", "broken pipe"}, {NULL, "out of memory"}};
    open_conn("127.0.0.1", &events);
    get_ready();
    fail_call("uv_try_write", 1, UV_EAGAIN);
    check_works();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[100000];
        memset(text, 'x', sizeof text);
        downs = lost_replies = 0;
        int filled = 4096;
        setsockopt(line, SOL_SOCKET, SO_RCVBUF, &filled, sizeof filled);
        redis_conn_command(&conn, 1);
        for (int j = 0; j < 100; j++)
            redis_conn_argument(&conn, (struct slice){text, sizeof text});
        redis_conn_sent(&conn, &call);
        fail_call(cases[i].call, 1, UV_EPIPE);
        failing_allocation = cases[i].call ? 0 : 1;
        allocations = 0;
        is_counting = true;
        uv_run(&loop, UV_RUN_NOWAIT);
        is_counting = false;
        if (late)
            late_done(late, UV_EPIPE);
        late = NULL;
        assert_int_equal(downs, 1);
        assert_int_equal(lost_replies, 1);
        assert_string_equal(reason, cases[i].reason);
        hang_up();
        get_ready();
        check_works();
    }
}

static void test_much_that_is_unsent(void **state) {
    (void)state;
    open_conn("127.0.0.1", &events);
    get_ready();
    ask("HELLO");
    assert_false(redis_conn_is_behind(&conn, uv_now(&loop)));
    assert_true(redis_conn_is_behind(&conn, uv_now(&loop) + 5001));
    struct buf much = {0};
    assert_true(buf_reserve(&much, REDIS_UNSENT_MAX_BYTES));
    memset(much.data, 'x', REDIS_UNSENT_MAX_BYTES);
    redis_conn_argument(&conn, (struct slice){much.data, REDIS_UNSENT_MAX_BYTES});
    buf_deinit(&much);
    assert_true(redis_conn_is_behind(&conn, uv_now(&loop)));
}

/* The next try takes the next address. */
static void test_names(void **state) {
    (void)state;
    open_conn("localhost", &events);
    get_ready();
    assert_true(downs <= 1);
    check_works();
    redis_conn_close(&conn);
    hang_up();
    open_conn("nowhere", &events);
    UNTIL(downs > 1);
    assert_string_equal(reason, "unknown node or service");
    redis_conn_close(&conn);
    open_conn("localhost", &events); /* and is given up while the name is looked for */
    redis_conn_close(&conn);
    is_name_server_slow = true;
    open_conn("localhost", &events);
    for (int i = 0; i < 100; i++)
        run_out(); /* somebody looks for it by now */
    redis_conn_close(&conn);
    run_out();
    is_name_server_slow = false;
    fail_call("uv_tcp_connect", 1, UV_ENETUNREACH);
    open_conn("::1", &events);
    assert_int_equal(family, AF_INET6);
}

/* The pauses between tries grow, and not for ever. */
static void test_pauses(void **state) {
    (void)state;
    open_conn("127.0.0.1", &events);
    for (uint64_t pause_ms = REDIS_BACKOFF_MIN_MS; pause_ms < 64 * REDIS_BACKOFF_MAX_MS;
         pause_ms *= 2) {
        uint64_t most_ms = pause_ms < REDIS_BACKOFF_MAX_MS ? pause_ms : REDIS_BACKOFF_MAX_MS;
        unsigned tries = conn.tries;
        redis_conn_fail(&conn, "away");
        assert_in_range(conn.retry_ms - uv_now(&loop), most_ms / 2, most_ms + most_ms / 2);
        redis_conn_tick(&conn, conn.retry_ms - 1);
        assert_int_equal(conn.tries, tries);
        redis_conn_tick(&conn, conn.retry_ms);
        assert_int_equal(conn.tries, tries + 1);
    }
}

static void test_what_is_no_redis(void **state) {
    (void)state;
    open_conn("127.0.0.1", &events);
    get_ready();
    ask("HELLO");
    say("HTTP/1.1 400 Bad Request\r\n");
    UNTIL(downs);
    assert_string_equal(reason, "what came is not the protocol of Redis");
    assert_int_equal(lost_replies, 1);
    hang_up();
    get_ready();
    ask("HELLO");
    say("*1048577\r\n:1\r\n");
    UNTIL(downs == 2);
    assert_string_equal(reason, "what came is not the protocol of Redis");
    hang_up();
    get_ready();
    hang_up();
    UNTIL(downs == 3);
    assert_string_equal(reason, "closed by Redis");
    get_ready();
    setsockopt(line, SOL_SOCKET, SO_LINGER, &(struct linger){.l_onoff = 1},
               sizeof(struct linger)); /* a reset */
    hang_up();
    UNTIL(downs == 4);
    assert_string_equal(reason, "connection reset by peer");
    get_ready();
    conn.heard_ms = 0;
    say("+NOBODY asked\r\n"); /* and nobody minds */
    UNTIL(conn.heard_ms);
    check_works();
}

static void be_silent(void) {
    conn.heard_ms -= REDIS_SILENCE_MS + 1;
    is_silence_held = true;
}

/* After a silence, nothing is believed before the owner says so. */
static void test_silence(void **state) {
    (void)state;
    open_conn("127.0.0.1", &events);
    get_ready();
    ask("HELLO");
    UNTIL(has_got("HELLO"));
    be_silent();
    say("+WORLD\r\n");
    UNTIL(silences);
    run_out();
    assert_int_equal(replies, 0);
    redis_conn_release(&conn);
    assert_int_equal(replies, 1);
    redis_conn_release(&conn); /* nothing is held any more */
    check_works();
    be_silent();
    say("what?\r\n");
    UNTIL(silences == 2);
    redis_conn_release(&conn);
    assert_int_equal(downs, 1);
    hang_up();
    get_ready();
    be_silent();
    say("+late\r\n");
    UNTIL(silences == 3);
    fail_call("uv_read_start", 1, UV_EALREADY);
    redis_conn_release(&conn);
    assert_int_equal(downs, 2);
    hang_up();
    get_ready();
    failing_allocation = 1;
    allocations = 0;
    be_silent();
    say("+WORLD\r\n");
    is_counting = true;
    UNTIL(downs == 3);
    is_counting = false;
    assert_string_equal(reason, "out of memory");
    hang_up();
    get_ready();
    check_works();
}

/* The owner has another Redis by then. */
static void test_it_is_given_up_after_a_silence(void **state) {
    (void)state;
    open_conn("127.0.0.1", &events);
    get_ready();
    is_given_up = true;
    be_silent();
    say("+WORLD\r\n");
    UNTIL(downs);
    is_given_up = false;
    assert_string_equal(reason, "given up");
    hang_up();
    get_ready();
    check_works();
}

/* The path of a socket instead of a host. */
static void test_a_unix_socket(void **state) {
    (void)state;
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    snprintf(at.sun_path, sizeof at.sun_path, "/tmp/longline-test-%d", getpid());
    unlink(at.sun_path);
    close(listener);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(listener, 8), 0);
    open_conn(at.sun_path, &events);
    get_ready();
    check_works();
    unlink(at.sun_path);
}

static void test_messages(void **state) {
    (void)state;
    open_conn("127.0.0.1", &pubsub_events);
    get_ready();
    conn.heard_ms -= REDIS_SILENCE_MS + 1; /* nobody wants to know */
    say("+news\r\n+more\r\n");
    UNTIL(messages == 2);
    conn.heard_ms -= REDIS_PING_MS + 1;
    redis_conn_tick(&conn, uv_now(&loop));
    UNTIL(has_got("PING"));
    say("+PONG\r\n");
    UNTIL(messages == 3);
    assert_int_equal(downs, 0);
}

static void check_each_try(const char *host) {
    failing_allocation = 0;
    do {
        downs = 0;
        failing_allocation++;
        allocations = 0;
        is_counting = true;
        open_conn(host, &events);
        is_counting = false;
        assert_int_equal(downs, allocations >= failing_allocation);
        if (downs)
            assert_string_equal(reason, "out of memory");
        redis_conn_close(&conn);
        run_out();
        hang_up();
    } while (allocations >= failing_allocation);
}

static void test_tries_without_memory(void **state) {
    (void)state;
    check_each_try("127.0.0.1");
    downs = 0;
    fail_call("redisReaderCreate", 1, 0);
    open_conn("127.0.0.1", &events);
    assert_int_equal(downs, 1);
    assert_string_equal(reason, "out of memory");
    get_ready();
    check_works();
}

static void test_tls(void **state) {
    (void)state;
    char error[256];
    struct tls_context *context = tls_context_new(ca_file, error, sizeof error);
    assert_non_null(context);
    is_tls = true;
    conn.tls = context;
    check_each_try("127.0.0.1");
    downs = 0;
    open_conn("127.0.0.1", &events);
    get_ready();
    check_works();
    ask("HELLO");
    SSL_shutdown(tls_server);
    send_tls(false);
    UNTIL(downs);
    assert_string_equal(reason, "TLS: closed by Redis");
    assert_int_equal(lost_replies, 1);
    hang_up();
    get_ready();
    check_works();
    say("what?\r\n"); /* it ends the connection in the midst of what TLS has brought */
    UNTIL(downs == 2);
    assert_string_equal(reason, "what came is not the protocol of Redis");
    redis_conn_close(&conn);
    run_out();
    conn.tls = NULL;
    tls_context_free(context);
}

#define CONN_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        CONN_TEST(test_greeting),
        CONN_TEST(test_a_greeting_that_is_refused),
        CONN_TEST(test_calls_that_fail_on_the_way),
        CONN_TEST(test_writes_that_must_wait),
        CONN_TEST(test_much_that_is_unsent),
        CONN_TEST(test_names),
        CONN_TEST(test_pauses),
        CONN_TEST(test_what_is_no_redis),
        CONN_TEST(test_silence),
        CONN_TEST(test_it_is_given_up_after_a_silence),
        CONN_TEST(test_a_unix_socket),
        CONN_TEST(test_messages),
        CONN_TEST(test_tries_without_memory),
        CONN_TEST(test_tls),
    };
    signal(SIGPIPE, SIG_IGN); /* as longline has it */
    tls_server_init();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    tls_server_deinit();
    return failed;
}
