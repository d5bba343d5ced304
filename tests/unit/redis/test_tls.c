/* TLS to a Redis: whom it trusts, in what pieces bytes come, and what it says when it breaks. */
#include "need.h"
#include "redis/tls.h"
#include "tls_server.h"

static struct tls_context *context;
static struct tls *tls;
static char error[256];

/* OpenSSL's memory, which runs out together with ours. */
static void *ssl_malloc(size_t size, const char *file, int at) {
    (void)file;
    (void)at;
    return malloc(size);
}

static void *ssl_realloc(void *old, size_t size, const char *file, int at) {
    (void)file;
    (void)at;
    return realloc(old, size);
}

static void ssl_free(void *old, const char *file, int at) {
    (void)file;
    (void)at;
    free(old);
}

static void begin(const char *host) {
    tls = tls_new(context, host);
    assert_non_null(tls);
    tls_server_begin();
}

static int set_up(void **state) {
    (void)state;
    context = tls_context_new(ca_file, error, sizeof error);
    return context ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    tls_free(tls);
    tls = NULL;
    tls_server_end();
    tls_context_free(context);
    return 0;
}

/* Carries bytes both ways, `step` at once, until nothing comes; false when the client's end is
 * broken. */
static bool carry(size_t step, struct buf *server_got) {
    bool is_fine = true;
    for (bool goes_on = true; goes_on && is_fine;) {
        struct buf to_server = {0}, to_client = {0};
        tls_take(tls, &to_server);
        tls_server_take(to_server.data ? to_server.data : "", to_server.len, server_got);
        tls_server_give(&to_client);
        goes_on = to_server.len || to_client.len;
        for (size_t at = 0; is_fine && at < to_client.len; at += step) {
            size_t left = to_client.len - at;
            is_fine = tls_feed(tls, (struct slice){to_client.data + at, left < step ? left : step});
        }
        buf_deinit(&to_server);
        buf_deinit(&to_client);
    }
    return is_fine;
}

static void check_talk(size_t step) {
    struct buf got = {0};
    char text[64];
    size_t len;
    assert_false(tls_is_ready(tls));
    assert_true(tls_read(tls, text, sizeof text, &len));
    assert_int_equal(len, 0);
    assert_true(carry(step, &got));
    assert_true(tls_is_ready(tls));
    assert_true(tls_write(tls, SLICE("PING")));
    assert_true(carry(step, &got));
    assert_text(((struct slice){got.data, got.len}), "PING");
    tls_server_say("PONG");
    assert_true(carry(step, &got));
    assert_true(tls_read(tls, text, sizeof text, &len));
    assert_text(((struct slice){text, len}), "PONG");
    assert_true(tls_read(tls, text, sizeof text, &len));
    assert_int_equal(len, 0);
    buf_deinit(&got);
}

static void test_names_and_pieces(void **state) {
    (void)state;
    static const char *const hosts[] = {"localhost", "127.0.0.1", "::1"};
    for (size_t i = 0; i < 3; i++) {
        begin(hosts[i]);
        check_talk(i ? 100000 : 1);
        tls_free(tls);
        tls = NULL;
        tls_server_end();
    }
}

static void check_refused(const char *host, const char *wanted) {
    struct buf got = {0};
    begin(host);
    assert_false(carry(100000, &got));
    assert_false(tls_is_ready(tls));
    assert_string_equal(tls_error(tls), wanted);
    buf_deinit(&got);
    tls_free(tls);
    tls = NULL;
    tls_server_end();
}

static void test_whom_it_does_not_trust(void **state) {
    (void)state;
    check_refused("example.com", "TLS: hostname mismatch");
    check_refused("127.0.0.2", "TLS: IP address mismatch");
    check_refused("::2", "TLS: IP address mismatch");
    tls_context_free(context);
    context = tls_context_new("", error, sizeof error);
    assert_non_null(context);
    check_refused("localhost", "TLS: self-signed certificate");
}

static void test_names_that_none_has(void **state) {
    (void)state;
    char name[301];
    memset(name, 'a', sizeof name);
    name[300] = '\0';
    assert_null(tls_new(context, name));
    assert_null(tls_context_new("/nowhere", error, sizeof error));
    assert_string_equal(error, "cannot read the certificates of REDIS_TLS_CA: /nowhere");
}

static void test_it_is_closed(void **state) {
    (void)state;
    char text[64];
    size_t len;
    begin("localhost");
    check_talk(100000);
    SSL_shutdown(tls_server);
    assert_true(carry(100000, &(struct buf){0}));
    assert_false(tls_read(tls, text, sizeof text, &len));
    assert_int_equal(len, 0);
    assert_string_equal(tls_error(tls), "TLS: closed by Redis");
}

static void test_what_is_no_tls(void **state) {
    (void)state;
    char text[64];
    size_t len;
    begin("localhost");
    assert_false(tls_feed(tls, SLICE("-ERR this is no TLS\r\n")));
    assert_memory_equal(tls_error(tls), "TLS: ", 5);
    tls_free(tls);
    tls_server_end();
    begin("localhost");
    check_talk(100000);
    assert_true(tls_feed(tls, SLICE("-ERR this is no TLS\r\n")));
    assert_false(tls_read(tls, text, sizeof text, &len));
    assert_memory_equal(tls_error(tls), "TLS: ", 5);
    assert_false(tls_write(tls, SLICE("PING")));
}

/* Either it is made, or it is not, and nothing is left. */
static void test_without_memory(void **state) {
    (void)state;
    struct tls_context *other;
    failing_allocation = 0;
    do {
        tls_free(tls);
        failing_allocation++;
        allocations = 0;
        tls = IN_NEED(tls_new(context, "localhost"));
        ERR_clear_error();
        assert_true(tls || allocations >= failing_allocation);
    } while (allocations >= failing_allocation);
    assert_true(failing_allocation > 6);
    tls_server_begin();
    check_talk(100000);
    failing_allocation = 1;
    allocations = 0;
    static const char much[100000];
    assert_false(IN_NEED(tls_feed(tls, (struct slice){much, sizeof much})));
    assert_string_equal(tls_error(tls), "TLS: broken");
    for (failing_allocation = 1; failing_allocation <= 2; failing_allocation++) {
        allocations = 0;
        other = IN_NEED(tls_context_new("", error, sizeof error));
        ERR_clear_error();
        assert_null(other);
        assert_string_equal(error, "out of memory");
    }
    tls_context_free(NULL);
}

#define TLS_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TLS_TEST(test_names_and_pieces),    TLS_TEST(test_whom_it_does_not_trust),
        TLS_TEST(test_names_that_none_has), TLS_TEST(test_it_is_closed),
        TLS_TEST(test_what_is_no_tls),      TLS_TEST(test_without_memory),
    };
    if (!CRYPTO_set_mem_functions(ssl_malloc, ssl_realloc, ssl_free))
        return 1;
    tls_server_init();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    tls_server_deinit();
    return failed;
}
