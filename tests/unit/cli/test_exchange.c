/*
 * Requests whose server, memory or libcurl fails: each ends with what is true of it, and the next
 * one works. The server is the test itself.
 */
#define CURL_LOADS
#include "cli/curl.h"

#include "cli/exchange.h"
#include "need.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

static struct curl_library whole;
static struct exchange *exchange;
static struct exchange_reply reply;
static int listener = -1, line = -1;
static char url[64];

/* --- The server ------------------------------------------------------------------------------- */

static void listen_on_any_port(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, len), 0);
    assert_int_equal(listen(listener, 8), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
    snprintf(url, sizeof url, "http://127.0.0.1:%d/", ntohs(address.sin_port));
}

/* Answers the first bytes that come with `text`, and closes; NULL: says nothing. */
static void serve(const char *text) {
    char bytes[4096];
    if (line < 0)
        line = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (line < 0 || !text || read(line, bytes, sizeof bytes) <= 0)
        return;
    assert_int_equal(write(line, text, strlen(text)), strlen(text));
    close(line);
    line = -1;
}

/* --- Asking ----------------------------------------------------------------------------------- */

static int set_up(void **state) {
    (void)state;
    whole = curl_library;
    listen_on_any_port();
    exchange = exchange_new();
    return exchange ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    curl_library = whole;
    exchange_free(exchange);
    close(listener);
    if (line >= 0)
        close(line);
    line = -1;
    buf_deinit(&reply.body);
    return 0;
}

static const struct exchange_request plain = {
    .method = "GET", .url = url, .is_direct = true, .limit_ms = 30000, .reply_max_bytes = 65536};

/* Asks a server that answers with `text`. */
static void ask(const struct exchange_request *request, const char *text) {
    buf_deinit(&reply.body);
    struct exchange_transfer *transfer = exchange_start(exchange, request, &reply);
    assert_non_null(transfer);
    while (!exchange_is_over(transfer)) {
        exchange_go_on(exchange, 1);
        serve(text);
    }
    exchange_drop(transfer);
}

#define OK_REPLY "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"

static void check_next_works(void) {
    ask(&plain, OK_REPLY);
    assert_int_equal(reply.end, EXCHANGE_REPLIED);
    assert_int_equal(reply.status, 200);
    assert_text(((struct slice){reply.body.data, reply.body.len}), "hi");
}

/* --- Replies ---------------------------------------------------------------------------------- */

static void test_numbers(void **state) {
    (void)state;
    static const struct {
        const char *head;
        int64_t retry_after_s;
    } heads[] = {{"Retry-After: 7", 7},
                 {"Retry-After: 99999999999", INT32_MAX},
                 {"Retry-After: Mon, 30 Nov 2026 10:00:00 GMT", -1},
                 {"Retry-After: -7", -1},
                 {"X-Total-Updates: 3", -1}};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        char text[256];
        snprintf(text, sizeof text,
                 "HTTP/1.1 503 No\r\n%s\r\nX-Updates: x\r\nContent-Length: 0\r\n\r\n",
                 heads[i].head);
        ask(&plain, text);
        assert_int_equal(reply.status, 503);
        assert_int_equal(reply.retry_after_s, heads[i].retry_after_s);
        assert_false(reply.has_updates);
        assert_int_equal(reply.has_total, i == 4);
    }
    assert_int_equal(reply.total, 3);
}

static void test_a_body_without_memory(void **state) {
    (void)state;
    failing_allocation = 1;
    allocations = 0;
    struct exchange_transfer *transfer = exchange_start(exchange, &plain, &reply);
    is_counting = true;
    while (!exchange_is_over(transfer)) {
        exchange_go_on(exchange, 1);
        serve(OK_REPLY);
    }
    is_counting = false;
    exchange_drop(transfer);
    assert_int_equal(allocations, 1);
    assert_int_equal(reply.end, EXCHANGE_CUT);
    assert_true(*reply.error);
    check_next_works();
}

static void test_what_is_no_tls(void **state) {
    (void)state;
    struct exchange_request request = plain;
    char tls_url[80];
    snprintf(tls_url, sizeof tls_url, "https%s", url + 4);
    request.url = tls_url;
    request.wants_certificate = true;
    ask(&request, "HTTP/1.1 400 Bad Request\r\n\r\n");
    assert_int_equal(reply.end, EXCHANGE_NOT_CONNECTED);
    assert_true(reply.is_tls_error);
    assert_int_equal(reply.certificate_days, -1);
    request.limit_ms = 100; /* and one that says nothing was never connected */
    ask(&request, NULL);
    assert_int_equal(reply.end, EXCHANGE_NOT_CONNECTED);
    assert_string_equal(reply.error, curl_library.curl_easy_strerror(CURLE_OUT_OF_MEMORY));
    assert_int_equal(reply.waited_ms, 0);
}

static void test_authorities(void **state) {
    (void)state;
    static const char *const values[] = {"", "/nowhere"};
    for (int i = 0; i < 8; i++) { /* without TLS they do not matter, empty or not */
        setenv("CURL_CA_BUNDLE", values[i & 1], 1);
        setenv("SSL_CERT_FILE", values[i >> 1 & 1], 1);
        setenv("SSL_CERT_DIR", values[i >> 2 & 1], 1);
        check_next_works();
    }
    unsetenv("CURL_CA_BUNDLE");
    unsetenv("SSL_CERT_FILE");
    unsetenv("SSL_CERT_DIR");
}

/* --- What curl knows -------------------------------------------------------------------------- */

static struct curl_certinfo *certificates;
static CURLcode certificates_code;

static CURLcode get_info(CURL *easy, CURLINFO info, ...) {
    va_list list;
    va_start(list, info);
    void *out = va_arg(list, void *);
    va_end(list);
    if (info == CURLINFO_CERTINFO)
        *(struct curl_certinfo **)out = certificates;
    else if (info == CURLINFO_PRIMARY_IP)
        *(char **)out = NULL;
    else if (info == CURLINFO_PRETRANSFER_TIME_T)
        *(curl_off_t *)out = (curl_off_t)1 << 40; /* a clock that goes back */
    else
        return whole.curl_easy_getinfo(easy, info, out);
    return info == CURLINFO_CERTINFO ? certificates_code : CURLE_OK;
}

/* The first certificate counts, if it says when it ends. */
static void test_certificates(void **state) {
    (void)state;
    static char *const lines[] = {"Expire date:Nov 30 00:00:00 2099 GMT", "Subject:x",
                                  "Expire date:never"};
    struct exchange_request request = plain;
    request.wants_certificate = true;
    curl_library.curl_easy_getinfo = get_info;
    for (int i = 0; i < 6; i++) {
        struct curl_slist last = {.data = i < 3 ? lines[i] : lines[1]};
        struct curl_slist first = {.data = lines[1], .next = &last}, *all[] = {&first};
        struct curl_certinfo info = {.num_of_certs = i < 4, .certinfo = all};
        certificates = i == 3 ? NULL : &info;
        certificates_code = i == 5 ? CURLE_BAD_FUNCTION_ARGUMENT : CURLE_OK;
        ask(&request, OK_REPLY);
        assert_int_equal(reply.end, EXCHANGE_REPLIED);
        assert_int_equal(reply.certificate_days > 20000, i == 0);
        assert_true(reply.certificate_days >= -1);
        assert_int_equal(reply.waited_ms, 1);
        assert_string_equal(reply.peer, "");
    }
}

/* --- Calls of curl that fail ------------------------------------------------------------------ */

static CURLMcode perform_nothing(CURLM *multi, int *running) {
    (void)multi;
    *running = 0;
    return CURLM_OUT_OF_MEMORY;
}

static CURLMcode add_nothing(CURLM *multi, CURL *easy) {
    (void)multi;
    (void)easy;
    return CURLM_OUT_OF_MEMORY;
}

static CURL *no_handle(void) {
    return NULL;
}

/* All that are under way end; one that is over stays as it was. */
static void test_all_fail_together(void **state) {
    (void)state;
    struct exchange_reply replies[3];
    struct exchange_transfer *transfers[3];
    transfers[0] = exchange_start(exchange, &plain, &replies[0]);
    while (!exchange_is_over(transfers[0])) {
        exchange_go_on(exchange, 1);
        serve(OK_REPLY);
    }
    for (int i = 1; i < 3; i++)
        transfers[i] = exchange_start(exchange, &plain, &replies[i]);
    curl_library.curl_multi_perform = perform_nothing;
    exchange_go_on(exchange, 1);
    for (int i = 0; i < 3; i++) {
        assert_true(exchange_is_over(transfers[i]));
        assert_int_equal(replies[i].end, i ? EXCHANGE_NOT_CONNECTED : EXCHANGE_REPLIED);
        exchange_drop(transfers[i]);
        buf_deinit(&replies[i].body);
    }
    curl_library = whole;
    check_next_works();
}

static void check_no_memory(void) {
    buf_deinit(&reply.body);
    exchange_run(exchange, &plain, &reply);
    assert_int_equal(reply.end, EXCHANGE_NOT_CONNECTED);
    assert_string_equal(reply.error, curl_library.curl_easy_strerror(CURLE_OUT_OF_MEMORY));
    curl_library = whole;
    failing_allocation = 0;
    check_next_works();
}

static void test_what_cannot_begin(void **state) {
    (void)state;
    curl_library.curl_multi_add_handle = add_nothing;
    check_no_memory();
    failing_allocation = 1;
    allocations = 0;
    is_counting = true;
    check_no_memory();
    is_counting = false;
    struct exchange_reply other;
    struct exchange_transfer *transfer = exchange_start(exchange, &plain, &other);
    curl_library.curl_easy_init = no_handle; /* for a second one beside it */
    buf_deinit(&reply.body);
    exchange_run(exchange, &plain, &reply);
    assert_int_equal(reply.end, EXCHANGE_NOT_CONNECTED);
    exchange_drop(transfer);
    assert_int_equal(other.end, EXCHANGE_STOPPED);
    check_next_works();
}

static void test_making(void **state) {
    (void)state;
    failing_allocation = 1;
    allocations = 0;
    assert_null(IN_NEED(exchange_new()));
    exchange_free(NULL);
    curl_library.curl_easy_init = no_handle;
    assert_null(exchange_new());
}

#define EXCHANGE_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

/* --- Loading it ------------------------------------------------------------------------------- */

static bool has_no_library, is_old;

void *__real_dlopen(const char *name, int flags);
void *__wrap_dlopen(const char *name, int flags);
void *__wrap_dlopen(const char *name, int flags) {
    return has_no_library ? NULL : __real_dlopen(name, flags);
}

void *__real_dlsym(void *library, const char *name);
void *__wrap_dlsym(void *library, const char *name);
void *__wrap_dlsym(void *library, const char *name) {
    return is_old && strcmp(name, "curl_easy_header") == 0 ? NULL : __real_dlsym(library, name);
}

/* Before all others: it is loaded once. */
static void test_loading(void **state) {
    (void)state;
    const char *error = NULL;
    has_no_library = true;
    assert_false(curl_load(&error));
    assert_non_null(strstr(error, "install libcurl"));
    has_no_library = false;
    is_old = true;
    assert_false(curl_load(&error));
    assert_non_null(strstr(error, "7.87 or later"));
    is_old = false;
    assert_true(curl_load(&error));
    has_no_library = true;
    assert_true(curl_load(&error));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loading),
        EXCHANGE_TEST(test_numbers),
        EXCHANGE_TEST(test_a_body_without_memory),
        EXCHANGE_TEST(test_what_is_no_tls),
        EXCHANGE_TEST(test_authorities),
        EXCHANGE_TEST(test_certificates),
        EXCHANGE_TEST(test_all_fail_together),
        EXCHANGE_TEST(test_what_cannot_begin),
        EXCHANGE_TEST(test_making),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
