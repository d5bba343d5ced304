/* Where a request begins and ends; and what is not kept of it has a bound all the same. */
#include "base/buf.h"
#include "http/request.h"
#include "support.h"

#define CHUNKED "POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"

#define START "POST /c HTTP/1.1\r\nHost: h\r\n"

enum { BODY_MAX = 100000 };

/* What becomes of `text`: HTTP_NO_ERROR if it is not refused. */
static enum http_error judge(struct slice text) {
    struct request request;
    size_t used;
    request_init(&request, BODY_MAX);
    bool is_refused =
        request_feed(&request, (char *)text.data, 0, text.len, &used) == REQUEST_FAILED;
    return is_refused ? request.error : HTTP_NO_ERROR;
}

#define check(text, error)                                                                         \
    do {                                                                                           \
        char copy[] = text;                                                                        \
        assert_int_equal(judge((struct slice){copy, sizeof copy - 1}), error);                     \
    } while (0)

/* Before it there are a few empty lines at most, and nothing else. */
static void test_blank_lines(void **state) {
    (void)state;
    check("\r\n" CHUNKED, HTTP_NO_ERROR);
    check("\n" CHUNKED, ERROR_MALFORMED_REQUEST);
    check("\n\n" CHUNKED, ERROR_MALFORMED_REQUEST);
    check("\r\r\n" CHUNKED, ERROR_MALFORMED_REQUEST);
    check("\r\n\n" CHUNKED, ERROR_MALFORMED_REQUEST);
    char many[REQUEST_BLANK_MAX_BYTES + 64];
    for (int i = 0; i <= REQUEST_BLANK_MAX_BYTES; i++)
        many[i] = "\r\n"[i % 2];
    assert_int_equal(judge((struct slice){many, REQUEST_BLANK_MAX_BYTES}), HTTP_NO_ERROR);
    assert_int_equal(judge((struct slice){many, REQUEST_BLANK_MAX_BYTES + 1}),
                     ERROR_MALFORMED_REQUEST);
}

/* A length beside a coding is refused by its name, and one coding that is known is all there is. */
static void test_codings(void **state) {
    (void)state;
    check(START "Content-Length: 1\r\nTransfer-Encoding:", ERROR_MALFORMED_REQUEST);
    check(START "Transfer-Encoding: chunked\r\nContent-Length:", ERROR_MALFORMED_REQUEST);
    check(START "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
          ERROR_TRANSFER_ENCODING);
    check(START "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
          ERROR_TRANSFER_ENCODING);
    check(START "Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n\r\n",
          ERROR_TRANSFER_ENCODING);
}

/* Spaces before a value belong to nothing. */
static void test_blanks_in_a_head(void **state) {
    (void)state;
    static char text[REQUEST_HEAD_MAX_BYTES + 1] = START "X:";
    memset(text + strlen(text), ' ', sizeof text - strlen(text));
    assert_int_equal(judge((struct slice){text, sizeof text - 1}), HTTP_NO_ERROR);
    assert_int_equal(judge((struct slice){text, sizeof text}), ERROR_HEAD_SIZE);
}

static void test_trailers(void **state) {
    (void)state;
    for (int count = REQUEST_HEADERS_MAX; count <= REQUEST_HEADERS_MAX + 1; count++) {
        bool fits = count <= REQUEST_HEADERS_MAX;
        struct buf out = {0};
        struct request request;
        size_t used;
        buf_puts(&out, CHUNKED "0\r\n");
        for (int i = 0; i < count; i++)
            buf_puts(&out, "a:\r\n");
        buf_puts(&out, "\r\n");
        request_init(&request, BODY_MAX);
        assert_int_equal(request_feed(&request, out.data, 0, out.len, &used),
                         fits ? REQUEST_COMPLETE : REQUEST_FAILED);
        if (!fits)
            assert_int_equal(request.error, ERROR_HEAD_SIZE);
        buf_deinit(&out);
    }
}

static void test_extensions(void **state) {
    (void)state;
    enum { PIECE = 1000, MAX = 2 * REQUEST_HEAD_MAX_BYTES };
    struct request request;
    request_init(&request, BODY_MAX);
    char buffer[2 * PIECE] = CHUNKED "1;x=";
    size_t kept = 0, fed = 0;
    enum request_progress progress = request_feed(&request, buffer, 0, strlen(buffer), &kept);
    for (; progress == REQUEST_PARTIAL && fed < 2 * MAX; fed += PIECE) {
        memset(buffer + kept, 'x', PIECE);
        progress = request_feed(&request, buffer, kept, kept + PIECE, &kept);
    }
    assert_int_equal(progress, REQUEST_FAILED);
    assert_int_equal(request.error, ERROR_HEAD_SIZE);
    assert_in_range(fed, MAX - PIECE, MAX + PIECE);
}

/* A newer llhttp is played, which has found one that this one may not know. */
static void test_a_method_of_a_newer_parser(void **state) {
    (void)state;
    struct request request;
    request_init(&request, BODY_MAX);
    const llhttp_settings_t *settings = request.parser.settings;
    request.parser.method = HTTP_FLUSH;
    assert_int_equal(settings->on_method_complete(&request.parser), HPE_OK);
    request.parser.method = HTTP_FLUSH + 1;
    assert_int_not_equal(settings->on_method_complete(&request.parser), HPE_OK);
    assert_int_equal(request.error, ERROR_MALFORMED_REQUEST);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blank_lines),      cmocka_unit_test(test_codings),
        cmocka_unit_test(test_blanks_in_a_head), cmocka_unit_test(test_trailers),
        cmocka_unit_test(test_extensions),       cmocka_unit_test(test_a_method_of_a_newer_parser),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
