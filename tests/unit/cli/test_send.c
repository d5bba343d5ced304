/*
 * What `longline send` sends, out of its arguments and files, and what it makes of the reply: what
 * is not whole is not sent.
 */
#define CURL_LOADS
#include "cli/curl.h"

#include "base/json.h"
#include "cli/exchange.h"
#include "cli/send.h"
#include "need.h"

#include <errno.h>
#include <sys/mman.h>
#include <sysexits.h>
#include <unistd.h>

/* --- The server, and files -------------------------------------------------------------------- */

static struct exchange_reply reply;
static const char *reply_body;
static int pushes;
static char sent[2048], headers[1024];

void __wrap_exchange_run(struct exchange *exchange, const struct exchange_request *request,
                         struct exchange_reply *out);
void __wrap_exchange_run(struct exchange *exchange, const struct exchange_request *request,
                         struct exchange_reply *out) {
    bool was_counting = is_counting;
    is_counting = false;
    assert_non_null(exchange);
    assert_string_equal(request->url, "http://h/x");
    snprintf(sent, sizeof sent, "%.*s", (int)request->body.len, request->body.data);
    *headers = '\0';
    for (struct curl_slist *line = request->headers; line; line = line->next)
        snprintf(headers + strlen(headers), sizeof headers - strlen(headers), "%s|", line->data);
    *out = reply;
    if (reply_body)
        buf_puts(&out->body, reply_body);
    pushes++;
    is_counting = was_counting;
}

/* The errno of the next read()s, EINTR for one only; 0: none fails. What is endless never ends. */
static int read_error, endless;

ssize_t __real_read(int fd, void *bytes, size_t len);
ssize_t __wrap_read(int fd, void *bytes, size_t len);
ssize_t __wrap_read(int fd, void *bytes, size_t len) {
    if (endless)
        return (ssize_t)len;
    errno = read_error;
    read_error = read_error == EINTR ? 0 : read_error;
    return errno ? -1 : __real_read(fd, bytes, len);
}

static const struct exchange_reply fine = {.status = 200, .has_total = true, .total = 7};

#define SEND(...)                                                                                  \
    send_run(sizeof((char *[]){"http://h/x", __VA_ARGS__}) / sizeof(char *),                       \
             (char *[]){(char[]){"http://h/x"}, __VA_ARGS__})

static int set_up(void **state) {
    (void)state;
    reply = fine;
    reply_body = NULL;
    pushes = read_error = endless = failing_allocation = 0;
    *sent = '\0';
    return 0;
}

/* JSON that nests too deeply. */
enum { DEEP = 2 * (JSON_DEPTH_MAX + 1) };
static char deep_text[DEEP + 1];

static int make_deep(void **state) {
    (void)state;
    memset(deep_text, '[', DEEP / 2);
    memset(deep_text + DEEP / 2, ']', DEEP / 2);
    return 0;
}

/* --- What is sent ----------------------------------------------------------------------------- */

#define OWN "Expect:|Accept:|User-Agent: longline/"

static void check_sent(const char *body, const char *type) {
    assert_int_equal(pushes, 1);
    assert_string_equal(sent, body);
    assert_non_null(strstr(headers, OWN));
    assert_non_null(strstr(headers, type));
    pushes = 0;
}

static void test_bodies(void **state) {
    (void)state;
    char deep_field[DEEP + 8];
    snprintf(deep_field, sizeof deep_field, "x:=%s", deep_text);
    assert_int_equal(SEND("-d", "{\"a\":1}"), EX_OK);
    check_sent("{\"a\":1}", "|Content-Type: application/json|");
    assert_int_equal(SEND("-d", "[1]", "-H", "X-A: b"), EX_OK);
    check_sent("[1]", "|Content-Type: application/json|X-A: b|");
    assert_int_equal(SEND("-d", "5", "-H", "content-type: text/plain"), EX_OK);
    check_sent("5", "|content-type: text/plain|");
    assert_int_equal(SEND("a=b", "n:=[1]", "q=\""), EX_OK);
    check_sent("{\"a\":\"b\",\"n\":[1],\"q\":\"\\\"\"}", "|Content-Type: application/json|");
    char *const bad[] = {"x", "=x", "x:={", deep_field, "\xff=1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(SEND(bad[i]), EX_USAGE);
    assert_int_equal(SEND("-d", "{"), EX_USAGE);
    assert_int_equal(SEND("-d", deep_text), EX_USAGE);
    assert_int_equal(SEND("-d", "1", "a=b"), EX_USAGE);
    assert_int_equal(SEND("-d", "@"), EX_USAGE);
    assert_int_equal(SEND("-d", "1", "-H", "X"), EX_USAGE);
    assert_int_equal(SEND("-d", "1", "-H", ":x"), EX_USAGE);
    assert_int_equal(SEND("--what"), EX_USAGE);
    assert_int_equal(pushes, 0);
}

/* A file of that text. */
static char *file_of(const char *text) {
    static char path[64];
    int fd = memfd_create("test", 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    snprintf(path, sizeof path, "@/proc/self/fd/%d", fd);
    return path;
}

static void test_files(void **state) {
    (void)state;
    read_error = EINTR;
    assert_int_equal(SEND("-d", file_of("no JSON")), EX_OK);
    check_sent("no JSON", "|Content-Type:|");
    assert_int_equal(SEND("-d", file_of(deep_text)), EX_OK);
    check_sent(deep_text, "|Content-Type:|");
    assert_int_equal(SEND("-d", file_of("")), EX_OK);
    check_sent("", "|Content-Type:|");
    assert_int_equal(SEND("-d", "@/nowhere"), EX_NOINPUT);
    read_error = EIO;
    assert_int_equal(SEND("-d", "@/dev/null"), EX_NOINPUT);
    assert_int_equal(SEND("-d", "@-"), EX_NOINPUT);
    endless = 1;
    assert_int_equal(SEND("-d", "@/dev/zero"), EX_NOINPUT);
    assert_int_equal(pushes, 0);
}

/* --- What comes ------------------------------------------------------------------------------- */

#define REFUSED(status, text)                                                                      \
    "{\"ok\":false,\"error_code\":" #status ",\"error_description\":\"" text "\"}"

static void test_replies(void **state) {
    (void)state;
    static const struct {
        struct exchange_reply reply;
        const char *body;
        int code;
    } cases[] = {
        {{.status = 200, .has_total = true}, NULL, EX_OK},
        {{.status = 204, .has_total = true, .has_updates = true, .has_duplicate = true},
         NULL,
         EX_OK},
        {{.status = 200}, "hello", EX_PROTOCOL},
        {{.end = EXCHANGE_NOT_CONNECTED}, NULL, EX_UNAVAILABLE},
        {{.end = EXCHANGE_CUT}, NULL, EX_TEMPFAIL},
        {{.status = 403}, REFUSED(403, "no"), EX_NOPERM},
        {{.status = 403}, "<html>", EX_PROTOCOL},
        {{.status = 301}, NULL, EX_UNAVAILABLE},
        {{.status = 429}, REFUSED(429, "slow"), EX_UNAVAILABLE},
        {{.status = 503}, REFUSED(503, "full: nothing was stored"), EX_UNAVAILABLE},
        {{.status = 503}, REFUSED(503, "busy"), EX_TEMPFAIL},
        {{.status = 502}, "<html>", EX_PROTOCOL},
        {{.status = 413}, REFUSED(413, "large"), EX_DATAERR},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        reply = cases[i].reply;
        reply_body = cases[i].body;
        assert_int_equal(SEND("-d", "1", "--json"), cases[i].code);
        assert_int_equal(pushes, i + 1);
    }
}

/* --- Without memory --------------------------------------------------------------------------- */

static struct curl_library whole;

static struct curl_slist *append(struct curl_slist *list, const char *text) {
    return allocation_fails() ? NULL : whole.curl_slist_append(list, text);
}

/* It is sent as it was meant, or not at all. */
static void test_without_memory(void **state) {
    (void)state;
    whole = curl_library;
    curl_library.curl_slist_append = append;
    do {
        failing_allocation++;
        allocations = pushes = 0;
        int code = IN_NEED(SEND("a=b", "-H", "X-A: b"));
        assert_int_equal(pushes, allocations < failing_allocation);
        assert_int_equal(code, pushes ? EX_OK : EX_OSERR);
    } while (allocations >= failing_allocation);
    curl_library = whole;
    assert_true(failing_allocation > 6);
    check_sent("{\"a\":\"b\"}", "|Content-Type: application/json|X-A: b|");
    failing_allocation = 1;
    allocations = 0;
    assert_int_equal(IN_NEED(SEND("-d", "@/dev/null")), EX_NOINPUT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_bodies, set_up),
        cmocka_unit_test_setup(test_files, set_up),
        cmocka_unit_test_setup(test_replies, set_up),
        cmocka_unit_test_setup(test_without_memory, set_up),
    };
    const char *error;
    return curl_load(&error) ? cmocka_run_group_tests(tests, make_deep, NULL) : 1;
}
