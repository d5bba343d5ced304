/*
 * Whatever a client asks for: each allocation fails once, BUFFER_SIZE is once used up, each call on
 * a socket fails once. It hears a 503, or nothing more; nothing is left of its request, and
 * the next one is served.
 */
#include "fixture.h"

#include "failing.h"

#include <sys/socket.h>
#include <zlib.h>

MAY_FAIL(void *, malloc, (size_t size), (size), "memory", NULL)
MAY_FAIL(void *, calloc, (size_t count, size_t size), (count, size), "memory", NULL)
MAY_FAIL(void *, realloc, (void *old, size_t size), (old, size), "memory", NULL)
MAY_FAIL(bool, budget_has, (size_t bytes), (bytes), "room", false)
MAY_FAIL(bool, budget_has_for_one, (size_t bytes), (bytes), "room", false)
MAY_FAIL(bool, budget_has_more_for_one, (size_t bytes, size_t own), (bytes, own), "room", false)
MAY_FAIL(int, accept4, (int fd, struct sockaddr *peer, socklen_t *len, int flags),
         (fd, peer, len, flags), "interrupted", -1)
MAY_FAIL(int, shutdown, (int fd, int how), (fd, how), "socket", -1)
MAY_FAIL(int, uv_tcp_open, (uv_tcp_t * tcp, uv_os_sock_t fd), (tcp, fd), "socket", UV_EINVAL)
MAY_FAIL(int, uv_fileno, (const uv_handle_t *handle, uv_os_fd_t *fd), (handle, fd), "socket",
         UV_EBADF)
MAY_FAIL(int, uv_read_start, (uv_stream_t * stream, uv_alloc_cb alloc, uv_read_cb read),
         (stream, alloc, read), "read", UV_EINVAL)
MAY_FAIL(int, uv_try_write, (uv_stream_t * stream, const uv_buf_t bytes[], unsigned count),
         (stream, bytes, count), "full", UV_EAGAIN)
MAY_FAIL(int, uv_write,
         (uv_write_t * write, uv_stream_t *stream, const uv_buf_t bytes[], unsigned count,
          uv_write_cb done),
         (write, stream, bytes, count, done), "socket", UV_EPIPE)

#define HEAD " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
#define TEXT "Content-Type: text/plain\r\n"
#define SPACES                                                                                     \
    "                                                                                            "
#define TWITCH "Twitch-Eventsub-Message-Type: webhook_callback_verification\r\n"
#define LINES "Content-Type: application/x-ndjson\r\n"

/* A request, and what it hears where nothing fails. %u in its head is another number each time. */
static const struct visit {
    const char *head, *body;
    unsigned times; /* the body is so many copies of it */
    int status;
    const char *heard;
    const char *until; /* the reply has no end of its own; NULL: it has */
    enum { PLAIN, GZIP } coding;
} visits[] = {
    {"POST /a%u" HEAD "X-Forwarded-For: 2001:db8:%u::1\r\n", "{\"a\":1}", 1, 200, "OK", NULL,
     PLAIN},
    {"POST /a?a=1&b=%%41&a=2" HEAD "X-Y: z\r\nIdempotency-Key: %u\r\n", "[1]", 1, 200, "OK", NULL,
     PLAIN},
    {"POST /a?.key=body.id" HEAD, "{\"id\":7}", 1, 200, "OK", NULL, PLAIN},
    {"POST /a" HEAD TEXT, "text ", 300, 200, "OK", NULL, GZIP},
    {"POST /a" HEAD TEXT, "text ", 40000, 200, "OK", NULL, PLAIN},
    {"POST /a" HEAD TEXT, "text ", 40000, 200, "OK", NULL, GZIP},
    {"POST /a" HEAD LINES, "{\"n\":1}\n", 3, 200, "OK", NULL, PLAIN},
    {"POST /a?x=1" HEAD LINES "Webhook-Id: %u\r\n", "\n", 40, 400, "", NULL, PLAIN},
    {"POST /a?.key=body.n" HEAD LINES, "{\"n\":1, \"text\":\"" SPACES SPACES SPACES "\"}\n", 1000,
     200, "OK", NULL, PLAIN},
    {"POST /a" HEAD LINES, "{\"n\":1}\n", 1000, 200, "OK", NULL, GZIP},
    {"POST /a" HEAD "Content-Type: application/x-www-form-urlencoded\r\n", "a=1&b=%41&a=2", 1, 200,
     "OK", NULL, PLAIN},
    {"POST /a" HEAD "Content-Type: multipart/form-data; boundary=x\r\n",
     "--x\r\nContent-Disposition: form-data; name=\"_charset_\"\r\n\r\nlatin1\r\n"
     "--x\r\nContent-Disposition: form-data; name=a; filename*=utf-8''%41\r\n\r\n\xe9\r\n"
     "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n2\r\n--x--\r\n",
     1, 200, "OK", NULL, PLAIN},
    {"POST /a" HEAD "Content-Type: text/plain; charset=windows-1252\r\n", "\x80", 200, 200, "OK",
     NULL, PLAIN},
    {"POST /a" HEAD "Content-Type: application/json\r\n",
     "{\"type\":\"url_verification\",\"challenge\":\"abc\"}", 1, 200, "abc", NULL, PLAIN},
    {"GET /a?hub.mode=subscribe&hub.challenge=abc" HEAD, "", 1, 200, "abc", NULL, PLAIN},
    {"OPTIONS /a" HEAD "WebHook-Request-Origin: x.example\r\n", "", 1, 200,
     "WebHook-Allowed-Origin: x.example", NULL, PLAIN},
    {"POST /a?.reply=ok&.status=202" HEAD, "{}", 1, 202, "ok", NULL, PLAIN},
    {"POST /a" HEAD "Content-Encoding: br\r\n", "{}", 1, 200, "OK", NULL, PLAIN},
    {"POST /%%00" HEAD, "{}", 1, 400, "", NULL, PLAIN},
    {"GET /a/refused" HEAD, "", 1, 200, "\"refused\":[{", NULL, PLAIN},
    {"GET /long?view=full" HEAD, "", 1, 200, "\"ts\":20", NULL, PLAIN},
    {"GET /unknown%u?epoch=" HEAD, "", 1, 200, "\"ts\":0", NULL, PLAIN},
    {"GET /large?view=full" HEAD, "", 1, 200, "xyz", NULL, PLAIN},
    {"GET /long?ts=20&sleep=0.01&where=method:P*" HEAD, "", 1, 200, "\"updates\":[]", NULL, PLAIN},
    {"GET /long?as=bot%u&limit=3" HEAD, "", 1, 200, "\"lag\":20", NULL, PLAIN},
    {"GET /long?as=bot&ts=5&confirm=now&limit=2" HEAD, "", 1, 200, "\"ts\":7", NULL, PLAIN},
    {"GET /long/consumers" HEAD, "", 1, 200, "\"consumers\":[{", NULL, PLAIN},
    {"DELETE /long?as=bot" HEAD, "", 1, 200, "\"ok\":true", NULL, PLAIN},
    {"DELETE /a?upto=1" HEAD, "", 1, 200, "\"gone\":", NULL, PLAIN},
    {"GET /long?ts=18&feed=sse" HEAD, "", 1, 200, "data: ", "id: 20", PLAIN},
    {"GET /long?feed=lines&view=full&as=tail&where=method:P*" HEAD, "", 1, 200,
     "\"method\":", "\"ts\":20", PLAIN},
    {"GET /large?feed=lines&view=full&ts=0" HEAD, "", 1, 200, "xyz", "xyz\"}", PLAIN},
    {"HEAD /long?feed=sse" HEAD, "", 1, 200, "text/event-stream", NULL, PLAIN},
    {"POST /-/poll?view=full&where=method:P*&epoch=" HEAD,
     "{\"long\":-2,\"large\":0,\"unknown\":\"now\"}", 1, 200, "xyz", NULL, PLAIN},
    {"POST /-/poll?sleep=0.01" HEAD, "{\"long\":20,\"%%41\":0}", 1, 200, "{}", NULL, PLAIN},
    {"POST /-/poll" HEAD, "{\"large\":-1,\"larger\":0,\"largest\":-1,\"long\":-20}", 1, 200,
     "largest", NULL, GZIP},
    {"GET /-/health" HEAD, "", 1, 200, "\"ok\":true", NULL, PLAIN},
    {"GET /-/metrics" HEAD, "", 1, 200, "longline_pushes_total", NULL, PLAIN},
    {"GET /" HEAD "Accept-Encoding: gzip\r\n", "", 1, 200, "text/html", NULL, PLAIN},
    {"GET /a#b" HEAD, "", 1, 400, "", NULL, PLAIN},
    {"POST /a" HEAD "X-Hook-Secret: \xe9\r\n", "{}", 1, 200, "OK", NULL, PLAIN},
    {"POST /a" HEAD TWITCH, "[]", 1, 200, "OK", NULL, PLAIN},
    {"GET /long" HEAD TWITCH, "", 1, 200, "\"ts\":20", NULL, PLAIN},
    {"GET /a HTTP/9.9\r\n", "", 1, 505, "", NULL, PLAIN},
};

enum { EACH = 50 }; /* allocations that fail one by one */

static char sent_room[1 << 20], got_room[8 << 20], body_room[1 << 20];
static struct buf sent = {.data = sent_room, .cap = sizeof sent_room, .is_borrowed = true},
                  got = {.data = got_room, .cap = sizeof got_room, .is_borrowed = true};

/* The body as gzip; returns its length. */
static size_t compress_body(const struct visit *visit, unsigned char *out, size_t room) {
    z_stream stream = {0};
    size_t len = strlen(visit->body) * visit->times;
    for (unsigned i = 0; i < visit->times; i++)
        memcpy(body_room + i * strlen(visit->body), visit->body, strlen(visit->body));
    deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
    stream.next_in = (unsigned char *)body_room;
    stream.avail_in = (unsigned)len;
    stream.next_out = out;
    stream.avail_out = (unsigned)room;
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    deflateEnd(&stream);
    return stream.total_out;
}

static void write_request(const struct visit *visit, unsigned number) {
    static unsigned char coded[1 << 16];
    char head[512];
    int len = snprintf(head, sizeof head, visit->head, number, number);
    sent.len = 0;
    if (visit->coding == PLAIN) {
        put_request(&sent, head, visit->body, visit->times);
        return;
    }
    size_t coded_len = compress_body(visit, coded, sizeof coded);
    buf_append(&sent, head, (size_t)len);
    buf_printf(&sent, "Content-Encoding: gzip\r\nContent-Length: %zu\r\n\r\n", coded_len);
    buf_append(&sent, coded, coded_len);
}

/* As a server that has just begun: what is kept for the next request was never made. */
static void forget_spares(void) {
    free(connections.spare_request);
    connections.spare_request = NULL;
}

static void check_reply(const struct visit *visit, int status, bool may_fail) {
    if (status == visit->status) {
        if (!may_fail && !has_text(&got, visit->heard))
            fail_msg("%s: %.*s", visit->head, (int)(got.len < 2000 ? got.len : 2000), got.data);
    } else if (!may_fail || (status && status != 503 && !has_text(&got, "\n\r\nOK"))) {
        fail_msg("%s, %u: %.*s", visit->head, failing.nth, (int)(got.len < 2000 ? got.len : 2000),
                 got.data);
    }
}

/* The visit with a call of `what` failing, the first, the second, ..., then with growing gaps; at
 * last none does. */
static void fail_each(const struct visit *visit, const char *what, int error) {
    static unsigned number;
    for (unsigned nth = 1; nth; nth += nth < EACH ? 1 : nth / 2) {
        write_request(visit, ++number);
        forget_spares();
        fail_call(what, nth, error);
        int status = request(&sent, visit->until, &got);
        UNTIL(!connections.open);
        bool has_failed = failing.failed;
        fail_nothing();
        check_reply(visit, status, has_failed);
        until_idle();
        if (!has_failed)
            return;
    }
}

static void test_each(const char *what, int error) {
    for (size_t i = 0; i < sizeof visits / sizeof *visits; i++)
        fail_each(&visits[i], what, error);
}

static int set_up(void **state) {
    int status = server_up(state);
    for (int i = 0; i < 20; i++)
        push("long", "xyz", 1);
    push("large", "xyz", 120000);
    push("larger", "xyz", 180000);
    push("largest", "xyz", 300000);
    return status;
}

/* What a server is made of is whole, or not there. */
static void test_parts(void **state) {
    (void)state;
    bool has_failed = true;
    for (unsigned nth = 1; has_failed; nth++) {
        char error[256] = "";
        fail_call("memory", nth, ENOMEM);
        struct limiter *limiter = limiter_new(10, 1000);
        has_failed = failing.failed;
        fail_call("memory", nth, ENOMEM);
        struct proxy_trust *trust = proxy_trust_new("private,10.1.0.0/16", error, sizeof error);
        has_failed |= failing.failed;
        assert_int_equal(!trust, failing.failed);
        assert_int_equal(!trust, *error != 0);
        fail_nothing();
        assert_true(limiter || has_failed);
        limiter_free(limiter);
        proxy_trust_free(trust);
    }
}

static void test_memory(void **state) {
    (void)state;
    api.limiter = limiter_new(1 << 30, 60000);
    test_each("memory", ENOMEM);
}

static void test_buffer_size(void **state) {
    (void)state;
    test_each("room", 0);
}

static void test_sockets(void **state) {
    (void)state;
    write_request(&visits[0], 0);
    fail_call("read", 1, 0);
    assert_int_equal(request(&sent, NULL, &got), 0);
    test_each("interrupted", EINTR);
    test_each("socket", EPIPE);
    test_each("full", 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts),
        cmocka_unit_test_setup_teardown(test_memory, set_up, server_down),
        cmocka_unit_test_setup_teardown(test_buffer_size, set_up, server_down),
        cmocka_unit_test_setup_teardown(test_sockets, set_up, server_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
