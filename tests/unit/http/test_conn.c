/*
 * Connections beneath a handler that does what the test wants: what each may have in one turn, and
 * how each comes to its end.
 */
#include "../api/fixture.h"

#include "failing.h"
#include "http/conn_parts.h"
#include "http/handover.h"

#include <sys/socket.h>
#include <unistd.h>

MAY_FAIL(bool, loop_memory_reserve, (const uv_loop_t *on, int fd), (on, fd), "place", false)

enum { WAITING_MAX = 16, FOR_EVER_MS = 3600000 };

static uint64_t skipped_ns; /* of the clock */

uint64_t __real_uv_hrtime(void);
uint64_t __wrap_uv_hrtime(void);
uint64_t __wrap_uv_hrtime(void) {
    return __real_uv_hrtime() + skipped_ns;
}

/* --- What is written, each time for longer than half of what a turn has time for -------------- */

static int writes, writes_in_turn, most_writes;
static uint32_t write_turn;

static void note_write(void) {
    skipped_ns += (uint64_t)TURN_SLICE_US * 600;
    writes_in_turn = write_turn == turn_number() ? writes_in_turn + 1 : 1;
    write_turn = turn_number();
    most_writes = writes_in_turn > most_writes ? writes_in_turn : most_writes;
    writes++;
}

int __real_uv_try_write(uv_stream_t *stream, const uv_buf_t bufs[], unsigned count);
int __wrap_uv_try_write(uv_stream_t *stream, const uv_buf_t bufs[], unsigned count);
int __wrap_uv_try_write(uv_stream_t *stream, const uv_buf_t bufs[], unsigned count) {
    note_write();
    return __real_uv_try_write(stream, bufs, count);
}

int __real_uv_write(uv_write_t *write, uv_stream_t *stream, const uv_buf_t bufs[], unsigned count,
                    uv_write_cb done);
int __wrap_uv_write(uv_write_t *write, uv_stream_t *stream, const uv_buf_t bufs[], unsigned count,
                    uv_write_cb done);
int __wrap_uv_write(uv_write_t *write, uv_stream_t *stream, const uv_buf_t bufs[], unsigned count,
                    uv_write_cb done) {
    note_write();
    return __real_uv_write(write, stream, bufs, count, done);
}

/* --- The handler ------------------------------------------------------------------------------ */

static struct exchange *waiting[WAITING_MAX];
static int waiting_count, cancelled;
static int costly, costly_in_turn, most_in_turn; /* requests that were served */
static uint32_t costly_turn;

static void reply(struct exchange *exchange, struct slice body) {
    exchange_reply(exchange,
                   reply_new(HTTP_OK, exchange_flags(exchange), "text/plain", SLICE(""), body));
}

/* It takes twice as long as a turn has time. */
static void serve_costly(struct exchange *exchange) {
    skipped_ns += (uint64_t)2 * TURN_SLICE_US * 1000;
    costly_in_turn = costly_turn == turn_number() ? costly_in_turn + 1 : 1;
    costly_turn = turn_number();
    most_in_turn = costly_in_turn > most_in_turn ? costly_in_turn : most_in_turn;
    costly++;
    reply(exchange, SLICE("served"));
}

static void on_request(struct exchange *exchange, const struct request *request) {
    struct slice target = request_slice(request, request->target);
    bool is_poll = slice_equal(target, SLICE("/poll"));
    if (slice_equal(target, SLICE("/costly"))) {
        serve_costly(exchange);
    } else if (is_poll || slice_equal(target, SLICE("/store"))) {
        waiting[waiting_count++] = exchange;
        if (is_poll)
            exchange_wait(exchange, FOR_EVER_MS);
    } else {
        reply(exchange, SLICE("served"));
    }
}

static void on_expire(struct exchange *exchange) {
    reply(exchange, SLICE("expired"));
}

static void on_cancel(struct exchange *exchange) {
    (void)exchange;
    cancelled++;
}

static void on_refused(const struct exchange *exchange, const struct request *request,
                       enum http_error error) {
    (void)exchange, (void)request, (void)error;
}

static bool is_quiet(void) {
    return true;
}

static bool can_save(const struct exchange *exchange) {
    return exchange->is_waiting;
}

static void on_sent(struct exchange *exchange) {
    (void)exchange;
}

static const struct handler handler = {.request = on_request,
                                       .expire = on_expire,
                                       .cancel = on_cancel,
                                       .refused = on_refused,
                                       .sent = on_sent,
                                       .is_quiet = is_quiet,
                                       .can_save = can_save};

/* --- Clients ---------------------------------------------------------------------------------- */

#define GET(target) "GET " target " HTTP/1.1\r\nHost: x\r\n\r\n"

static char got_room[1 << 20];
static struct buf got = {.data = got_room, .cap = sizeof got_room, .is_borrowed = true};
static size_t taken; /* of the budget, by the test */

static int set_up(void **state) {
    int status = server_up(state);
    connections.handler = &handler;
    connections.request_timeout_ms = connections.idle_timeout_ms = FOR_EVER_MS;
    waiting_count = cancelled = costly = most_in_turn = writes = most_writes = 0;
    skipped_ns = 0;
    return status;
}

static int tear_down(void **state) {
    fail_nothing();
    budget_give(taken);
    taken = 0;
    return server_down(state);
}

/* A client that has sent a request, which the handler has not answered, and `more` behind it. */
static int client_that_waits(const char *request, const char *more) {
    int client = client_new(), before = waiting_count;
    char text[4096];
    snprintf(text, sizeof text, "%s%s", request, more);
    client_send(client, slice_of(text));
    UNTIL(waiting_count > before);
    return client;
}

static void expect(int client, const char *text) {
    got.len = 0;
    UNTIL((client_read(client, &got), has_text(&got, text)));
}

/* --- Turns ------------------------------------------------------------------------------------ */

/* As each takes longer than a turn has time, it is one connection's turn. */
static void test_pipelines_take_turns(void **state) {
    (void)state;
    enum { COUNT = 5 };
    int clients[COUNT];
    for (int i = 0; i < COUNT; i++)
        clients[i] = client_that_waits(GET("/poll"), GET("/costly"));
    for (int i = 0; i < COUNT; i++)
        reply(waiting[i], SLICE("served"));
    UNTIL(costly == COUNT);
    assert_int_equal(most_in_turn, 1);
    for (int i = 0; i < COUNT; i++)
        close(clients[i]);
}

/* Requests, as many bytes as are taken without a turn; returns how many. */
static size_t send_much(int client) {
    static char text[4 * CONN_READ_BYTES];
    static const struct slice get = SLICE(GET("/"));
    for (size_t at = 0; at + get.len <= sizeof text; at += get.len)
        memcpy(text + at, get.data, get.len);
    int bytes = sizeof text;
    setsockopt(client, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
    ssize_t sent = send(client, text, sizeof text, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent < 0 ? 0 : (size_t)sent;
}

static void test_one_read_a_turn(void **state) {
    (void)state;
    int client = client_new();
    UNTIL(connections.open);
    assert_true(send_much(client) > 2 * CONN_READ_BYTES);
    turn();
    assert_in_range(budget_used(), 1, CONN_READ_BYTES);
    close(client);
}

static void test_what_is_read_ahead(void **state) {
    (void)state;
    enum { MUCH = 64 * CONN_AHEAD_MAX_BYTES };
    int client = client_that_waits(GET("/poll"), "");
    size_t sent = 0;
    for (int full = 0; full < 10 && sent < MUCH; turn()) {
        size_t more = send_much(client);
        sent += more;
        full = more ? 0 : full + 1;
    }
    assert_true(sent < MUCH);
    assert_in_range(budget_used(), CONN_AHEAD_MAX_BYTES, 2 * CONN_AHEAD_MAX_BYTES);
    close(client);
}

/* Also where the buffer that pipelined requests came in has room for the rest of one. */
static void test_no_room_for_a_request_in_part(void **state) {
    (void)state;
    char more[2048];
    int len =
        snprintf(more, sizeof more, "GET /%0*d HTTP/1.1\r\nHost: x\r\n\r\nGET /part HTTP/1.1\r\n",
                 2 * REQUEST_READ_MIN_BYTES - 512, 0);
    int client = client_that_waits(GET("/poll"), "");
    client_send(client, (struct slice){more, (size_t)len});
    UNTIL(budget_used() >= (size_t)len);
    budget_take(taken = budget_left());
    reply(waiting[0], SLICE("first"));
    expect(client, "503 ");
    close(client);
}

/* --- Large replies ---------------------------------------------------------------------------- */

enum { READERS = 10, LARGE_BYTES = 100000 };

static int readers[READERS];

/* The first get the same large reply. */
static void reply_to(int count) {
    struct reply *large = reply_new(HTTP_OK, exchange_flags(waiting[0]), "text/plain", SLICE(""),
                                    (struct slice){got_room, LARGE_BYTES});
    for (int i = 0; i < count; i++)
        exchange_reply(waiting[i], reply_ref(large));
    reply_unref(large);
}

static int set_up_readers(void **state) {
    int status = set_up(state);
    memset(got_room, 'x', LARGE_BYTES);
    for (int i = 0; i < READERS; i++)
        readers[i] = client_that_waits(GET("/store"), "");
    return status;
}

static int tear_down_readers(void **state) {
    for (int i = 0; i < READERS; i++)
        close(readers[i]);
    return tear_down(state);
}

/* A turn copies no more than it has time for, and nobody's deadline passes meanwhile. */
static void test_large_replies_take_turns(void **state) {
    (void)state;
    connections.request_timeout_ms = 1;
    reply_to(READERS);
    assert_in_range(writes, 1, 2);
    connections.request_timeout_ms = FOR_EVER_MS;
    uv_sleep(300);
    for (int i = 0; i < READERS; i++) {
        got.len = 0;
        UNTIL((client_read(readers[i], &got), got.len > LARGE_BYTES));
    }
    assert_in_range(most_writes, 1, 2);
    assert_int_equal(connections.open, READERS);
}

/* Where they would take too much of the budget, they do not wait. */
static void test_large_replies_with_little_room(void **state) {
    (void)state;
    budget_take(taken = budget_left() / 2 + 1);
    reply_to(READERS);
    assert_in_range(writes, READERS, 2 * READERS);
}

static void test_closed_before_their_turn(void **state) {
    (void)state;
    reply_to(READERS);
    conn_close(conn_of(waiting[READERS - 1]));
    UNTIL(connections.open == READERS - 1);
    conn_close_all(&connections);
    UNTIL(!connections.open);
}

/* From when it begins, it must get on. */
static void test_the_last_is_watched(void **state) {
    (void)state;
    static char much[16 << 20];
    reply_to(READERS - 1);
    const struct conn *last = conn_of(waiting[READERS - 1]);
    reply(waiting[READERS - 1], (struct slice){much, sizeof much});
    assert_true(last->deferred);
    UNTIL(!last->deferred);
    assert_true(last->unsent);
}

/* Another process cannot know of them. */
static void test_large_replies_are_sent_before_a_handover(void **state) {
    (void)state;
    reply_to(READERS - 1);
    conn_hold_all(&connections);
    reply(waiting[READERS - 1], (struct slice){got_room, LARGE_BYTES});
    for (int i = 0; i < READERS; i++)
        assert_false(conn_of(waiting[i])->deferred);
    assert_true(writes >= READERS);
    conn_release_all(&connections);
}

/* As it is not the client's fault that they wait. */
static void test_deferred_parts_cut_nobody(void **state) {
    (void)state;
    struct exchange *stream = waiting[READERS - 1];
    unsigned flags = exchange_flags(stream);
    struct slice large = {got_room, LARGE_BYTES};
    assert_true(
        exchange_begin(stream, reply_new_stream(flags, "text/plain", SLICE(""), SLICE("head "))));
    reply_to(READERS - 1);
    for (int bytes = 0; bytes < 2 * CONN_STREAM_MAX_BYTES; bytes += LARGE_BYTES)
        assert_true(exchange_part(stream, reply_new_part(large, flags), true));
    exchange_end(stream);
    size_t came = 0;
    while (came < 2 * CONN_STREAM_MAX_BYTES) {
        got.len = 0;
        UNTIL((client_read(readers[READERS - 1], &got), got.len));
        came += got.len;
    }
}

/* The client that takes nothing is not thought to move because more is there for it. */
static void test_deferred_parts_are_no_progress(void **state) {
    (void)state;
    static char much[16 << 20];
    struct exchange *stream = waiting[READERS - 1];
    const struct conn *conn = conn_of(stream);
    unsigned flags = exchange_flags(stream);
    assert_true(exchange_begin(stream, reply_new_stream(flags, "text/plain", SLICE(""),
                                                        (struct slice){much, sizeof much})));
    UNTIL(!conn->deferred); /* it is, where this turn had no more time */
    assert_true(conn_stream_moves(conn_of(stream)));
    reply_to(READERS - 1);
    conn_send_rest(conn_of(stream), reply_new_part((struct slice){got_room, LARGE_BYTES}, flags),
                   0);
    assert_true(conn->deferred);
    UNTIL(!conn->deferred);
    assert_true(conn->unsent != UNSENT_UNKNOWN);
    conn_cut(conn_of(stream));
}

/* What comes later stands behind it. */
static void test_parts_keep_their_order(void **state) {
    (void)state;
    unsigned flags = exchange_flags(waiting[READERS - 1]);
    for (int i = 0; i < READERS - 1; i++)
        reply(waiting[i], (struct slice){got_room, LARGE_BYTES});
    struct exchange *stream = waiting[READERS - 1];
    assert_true(
        exchange_begin(stream, reply_new_stream(flags, "text/plain", SLICE(""), SLICE("head "))));
    struct slice large = {got_room, LARGE_BYTES};
    assert_true(exchange_part(stream, reply_new_part(large, flags), true));
    assert_true(exchange_part(stream, reply_new_part(SLICE(" tail"), flags), false));
    exchange_end(stream);
    assert_in_range(writes, 1, 4);
    got.len = 0;
    UNTIL((client_read(readers[READERS - 1], &got), has_text(&got, "tail")));
    const char *at = strstr(strstr(got.data, "head"), "xxx");
    assert_int_equal(strspn(at, "x"), LARGE_BYTES);
    assert_non_null(strstr(at, "tail"));
}

/* --- Deadlines -------------------------------------------------------------------------------- */

static void test_idle_behind_a_poll(void **state) {
    (void)state;
    int client = client_that_waits(GET("/poll"), "");
    connections.idle_timeout_ms = 1;
    reply(waiting[0], SLICE("served"));
    UNTIL(!connections.open);
    close(client);
}

static void test_a_reply_that_nobody_reads(void **state) {
    (void)state;
    int client = client_that_waits(GET("/poll"), "");
    connections.request_timeout_ms = 1;
    reply(waiting[0], (struct slice){got_room, sizeof got_room});
    UNTIL(!connections.open);
    close(client);
}

/* --- The end ---------------------------------------------------------------------------------- */

/* Though their clients leave theirs open. */
static void test_a_drain_ends_idle_connections(void **state) {
    (void)state;
    int silent = client_new(), idle = client_new();
    client_send(idle, SLICE(GET("/")));
    expect(idle, "served");
    conn_drain_all(&connections);
    UNTIL(!connections.open);
    close(silent);
    close(idle);
}

static void test_those_at_the_store_are_kept(void **state) {
    (void)state;
    int client = client_that_waits(GET("/store"), ""), idle = client_new();
    UNTIL(connections.open == 2);
    conn_close_readers(&connections);
    UNTIL(connections.open == 1);
    assert_int_equal(cancelled, 0);
    reply(waiting[0], SLICE("stored"));
    expect(client, "stored");
    close(client);
    close(idle);
}

static void test_closed_once(void **state) {
    (void)state;
    int client = client_that_waits(GET("/poll"), "");
    conn_close_all(&connections);
    conn_close_all(&connections);
    UNTIL(!connections.open);
    assert_int_equal(cancelled, 1);
    close(client);
}

/* libuv would abort. */
static void test_no_place_for_a_descriptor(void **state) {
    (void)state;
    int client = client_new(), before = count_descriptors();
    fail_call("place", 1, 0);
    turn();
    assert_int_equal(failing.failed, 1);
    assert_int_equal(connections.open, 0);
    assert_int_equal(count_descriptors(), before);
    got.len = 0;
    assert_false(client_read(client, &got));
    close(client);
}

/* --- Held ------------------------------------------------------------------------------------- */

static void test_quiet_when_all_can_be_saved(void **state) {
    (void)state;
    int polls = client_that_waits(GET("/poll"), ""), client;
    assert_true(conn_all_quiet(&connections));
    client = client_that_waits(GET("/store"), "");
    assert_false(conn_all_quiet(&connections));
    reply(waiting[1], SLICE("stored"));
    assert_true(conn_all_quiet(&connections));
    close(polls);
    close(client);
}

#define CONN_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define READERS_TEST(test) cmocka_unit_test_setup_teardown(test, set_up_readers, tear_down_readers)

int main(void) {
    const struct CMUnitTest tests[] = {
        CONN_TEST(test_pipelines_take_turns),
        CONN_TEST(test_one_read_a_turn),
        CONN_TEST(test_what_is_read_ahead),
        CONN_TEST(test_no_room_for_a_request_in_part),
        READERS_TEST(test_large_replies_take_turns),
        READERS_TEST(test_large_replies_with_little_room),
        READERS_TEST(test_closed_before_their_turn),
        READERS_TEST(test_the_last_is_watched),
        READERS_TEST(test_large_replies_are_sent_before_a_handover),
        READERS_TEST(test_deferred_parts_cut_nobody),
        READERS_TEST(test_deferred_parts_are_no_progress),
        READERS_TEST(test_parts_keep_their_order),
        CONN_TEST(test_idle_behind_a_poll),
        CONN_TEST(test_a_reply_that_nobody_reads),
        CONN_TEST(test_a_drain_ends_idle_connections),
        CONN_TEST(test_those_at_the_store_are_kept),
        CONN_TEST(test_closed_once),
        CONN_TEST(test_no_place_for_a_descriptor),
        CONN_TEST(test_quiet_when_all_can_be_saved),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
