/*
 * Connections of all kinds on their way into another program: there they go on as if nothing had
 * been, and what is handed over is believed only as far as it makes sense.
 */
#include "fixture.h"

#include "failing.h"
#include "http/handover.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

MAY_FAIL(void *, malloc, (size_t size), (size), "memory", NULL)
MAY_FAIL(void *, calloc, (size_t count, size_t size), (count, size), "memory", NULL)
MAY_FAIL(void *, realloc, (void *old, size_t size), (old, size), "memory", NULL)
MAY_FAIL(long, syscall, (long number, long a, long b, long c), (number, a, b, c), "syscall", -1)

enum { CLIENTS_MAX = 32, SAVED_MAX_BYTES = 4 << 20, BIG_BYTES = 260000 };

static int clients[CLIENTS_MAX], client_count;
static char file[SAVED_MAX_BYTES], big[BIG_BYTES + 1];
static size_t sockets_at, rest_at, file_len;
static int fds[CLIENTS_MAX], fd_count; /* of the server */
static char got_room[1 << 20];
static struct buf got = {.data = got_room, .cap = sizeof got_room, .is_borrowed = true};

static int connect_and_send(const char *text) {
    int client = clients[client_count++] = client_new();
    UNTIL(connections.open == (uint64_t)client_count);
    client_send(client, slice_of(text));
    for (int i = 0; i < 3; i++)
        turn();
    return client;
}

#define GET(target) "GET " target " HTTP/1.1\r\nHost: x\r\n"
#define POST(target) "POST " target " HTTP/1.1\r\nHost: x\r\nContent-Length: "

static const char many[] =
    POST("/-/poll?sleep=60&where=method:P*") "27\r\n\r\n"
                                             "{\"a\":1,\"b\":\"now\",\"c\":\"now\"}";

/* One of each kind, most of them waiting for an update of `a` or `big`. */
static void connect_all(void) {
    static const char *const requests[] = {
        GET("/-/health") "\r\n",
        GET("/-/health") "Connection: close\r\n\r\n",
        POST("/part") "10\r\n\r\n\"1234",
        POST("/part") "10\r\n",
        GET("/a?ts=1&sleep=60") "\r\n",
        GET("/a?ts=1&sleep=60&view=full&epoch=&as=bot&where=method:P*") "\r\n" GET("/part") "\r\n",
        GET("/a?ts=1&feed=sse") "\r\n",
        GET("/a?feed=lines&as=tail&confirm=now&where=method:P*") "\r\n",
        GET("/big?sleep=60") "\r\n" GET("/part") "\r\n",
        GET("/big?sleep=60") "\r\n",
        GET("/big?sleep=60") "Connection: close\r\n\r\n",
        GET("/big?feed=sse") "\r\n",
        GET("/big?feed=sse") "\r\n",
        "HEAD /a?ts=1&sleep=60 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /a?ts=1&sleep=60 HTTP/1.0\r\n\r\n",
        many,
    };
    push("a", "first", 1);
    client_count = 0;
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++)
        connect_and_send(requests[i]);
    UNTIL(counters.streams == 4);
    push("big", big, 1);
    UNTIL(connections.open == (uint64_t)client_count);
}

static void save_all(void) {
    static struct pack out;
    int fd = memfd_create("handover", MFD_CLOEXEC);
    memset(&out, 0, sizeof out);
    out.fd = fd;
    conn_hold_all(&connections);
    UNTIL(conn_all_quiet(&connections));
    conn_take_out_all(&connections, &out);
    sockets_at = pack_at(&out);
    conn_save_sockets(&connections, &out);
    rest_at = pack_at(&out);
    conn_save_all(&connections, &out);
    assert_true(pack_finish(&out));
    file_len = pack_at(&out);
    assert_true(file_len < sizeof file);
    assert_int_equal(pread(fd, file, sizeof file, 0), file_len);
    close(fd);
}

static struct unpack sockets(void) {
    return unpack_of((struct slice){file + sockets_at, rest_at - sockets_at});
}

/* The old program is gone; its sockets are not. */
static void leave(void) {
    int kept[CLIENTS_MAX];
    struct unpack in = sockets();
    fd_count = (int)unpack_number(&in);
    assert_int_equal(fd_count, connections.open);
    for (int i = 0; i < fd_count; i++) {
        fds[i] = (int)unpack_number(&in);
        kept[i] = dup(fds[i]);
    }
    connections_down();
    for (int i = 0; i < fd_count; i++) {
        dup2(kept[i], fds[i]);
        close(kept[i]);
    }
    connections_up();
}

static int done_count = -1, lost_count;

static void on_done(uint32_t number, uint32_t lost) {
    done_count = (int)number;
    lost_count = (int)lost;
}

static void restore_from(struct unpack from, size_t len) {
    done_count = -1;
    struct slice all = {file, file_len};
    struct unpack in = unpack_of((struct slice){file + rest_at, len - rest_at});
    conn_restore_all(&connections, all, from, in, on_done);
    UNTIL(done_count >= 0);
}

static void restore(size_t len) {
    restore_from(sockets(), len);
    assert_int_equal(done_count, fd_count);
    assert_in_range(lost_count, 0, fd_count);
}

static void change_program(void) {
    save_all();
    leave();
    restore(file_len);
    assert_int_equal(lost_count, 0);
}

/* What a client has by then. */
static void expect(int i, const char *text) {
    got.len = 0;
    uint64_t end_ns = uv_hrtime() + PATIENCE_NS;
    while (client_read(clients[i], &got) && !has_text(&got, text) && uv_hrtime() < end_ns)
        turn();
    if (!has_text(&got, text))
        fail_msg("%d: %.*s", i, (int)(got.len < 2000 ? got.len : 2000), got.data);
}

static void hang_up(void) {
    for (int i = 0; i < client_count; i++)
        close(clients[i]);
    client_count = 0;
    until_idle();
}

static void test_they_go_on(void **state) {
    (void)state;
    connect_all();
    for (int i = 0; i < 3; i++) {
        fail_call(i == 1 ? "syscall" : "none", 0, ENOSYS); /* a kernel without close_range(2) */
        change_program();
    }
    fail_nothing();
    push("a", "second", 1);
    expect(0, "\"ok\":true");
    expect(1, "\"ok\":true");
    client_send(clients[2], SLICE("5678\""));
    expect(2, "200 OK");
    client_send(clients[3], SLICE("\r\n\"12345678\""));
    expect(3, "200 OK");
    expect(4, "{\"ok\":true,\"ts\":2,\"updates\":[{\"body\":\"second\"}]}");
    expect(5, "\"second\"");
    expect(6, "data: {\"body\":\"second\"}");
    expect(7, "\"second\"");
    for (int i = 8; i < 13; i++)
        expect(i, "x\"");
    expect(13, "Content-Length: ");
    expect(14, "[{\"body\":\"second\"}]");
    expect(15, "\"a\":{\"ts\":2");
    hang_up();
}

/* --- Nonsense --------------------------------------------------------------------------------- */

static int theirs[CLIENTS_MAX]; /* clients who are new, and say no more */

static void connect_others(void) {
    for (int i = 0; i < fd_count; i++) {
        int pair[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        dup2(pair[0], fds[i]);
        if (pair[0] != fds[i])
            close(pair[0]);
        theirs[i] = pair[1];
    }
}

/* They end. */
static void end_others(void) {
    fail_nothing();
    connections_down();
    connections_up();
    for (int i = 0; i < fd_count; i++)
        close(theirs[i]);
}

/* Restores `len` bytes of the file for them. */
static void try_to_restore(size_t len) {
    connect_others();
    restore(len);
    uv_run(&loop, UV_RUN_NOWAIT);
    uv_run(&loop, UV_RUN_NOWAIT);
    end_others();
}

/* Two programs later, as streams of which something is unsent are saved in another way then. */
static int set_up(void **state) {
    server_up(state);
    memset(big, 'x', BIG_BYTES);
    connect_all();
    change_program();
    save_all();
    leave();
    for (int i = 0; i < fd_count; i++)
        close(fds[i]);
    return 0;
}

static int tear_down(void **state) {
    hang_up();
    return server_down(state);
}

/* A byte in the middle of what is only text. */
static bool is_text(size_t at) {
    return at > 0 && file[at] == file[at - 1] && file[at] == file[at + 1];
}

static void test_cut_off(void **state) {
    (void)state;
    int before = count_descriptors();
    for (size_t len = rest_at; len < file_len; len++) {
        if (is_text(len))
            continue;
        try_to_restore(len);
        assert_true(lost_count > 0);
    }
    try_to_restore(file_len);
    assert_int_equal(lost_count, 0);
    assert_int_equal(count_descriptors(), before);
}

/* Those whose descriptors cannot be read are lost. */
static void test_descriptors_cut_off(void **state) {
    (void)state;
    for (size_t len = 0; len < rest_at - sockets_at; len++) {
        struct unpack in = unpack_of((struct slice){file + sockets_at, len});
        connect_others();
        restore_from(in, file_len);
        assert_int_equal(done_count, len ? fd_count : 0);
        assert_true(lost_count > 0 || !len);
        assert_int_equal(connections.to_come, 0);
        for (int i = fd_count - lost_count; i < fd_count; i++)
            close(fds[i]);
        end_others();
        connect_others();
        in = unpack_of((struct slice){file + sockets_at, len});
        assert_int_equal(conn_drop_all(&in), len ? fd_count : 0);
        for (int i = 0; i < fd_count; i++)
            close(fds[i]);
        end_others();
    }
}

/* The new program is to stop at once: streams end, though something of them is unsent. */
static void test_a_stop(void **state) {
    (void)state;
    connect_others();
    conn_restore_all(&connections, (struct slice){file, file_len}, sockets(),
                     unpack_of((struct slice){file + rest_at, file_len - rest_at}), on_done);
    conn_restore_rest(); /* if there are any */
    assert_true(counters.streams > 0);
    api.is_draining = true;
    conn_drain_all(&connections);
    UNTIL(!counters.streams && !counters.polls_parked);
    api.is_draining = false;
    end_others();
}

static void test_every_byte(void **state) {
    (void)state;
    int before = count_descriptors();
    for (size_t at = 0; at < file_len; at++) {
        char flip = (char)(1 << at % 8);
        if ((at >= sockets_at && at < rest_at) || is_text(at))
            continue;
        file[at] ^= flip;
        try_to_restore(file_len);
        file[at] ^= flip;
    }
    assert_int_equal(count_descriptors(), before);
}

static void test_no_memory(void **state) {
    (void)state;
    int before = count_descriptors();
    for (unsigned nth = 1; nth; nth++) {
        fail_call("memory", nth, ENOMEM);
        try_to_restore(file_len);
        if (!failing.failed)
            break;
    }
    assert_int_equal(count_descriptors(), before);
}

static int set_up_big(void **state) {
    memset(big, 'x', BIG_BYTES);
    return server_up(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_they_go_on, set_up_big, server_down),
        cmocka_unit_test_setup_teardown(test_cut_off, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_descriptors_cut_off, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_stop, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_every_byte, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_memory, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
