/* What is between and behind the data of chunks is not kept, and all the same has an end. */
#include "base/buf.h"
#include "http/request.h"
#include "support.h"

#define CHUNKED "POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"

enum { BODY_MAX = 100000 };

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trailers),
        cmocka_unit_test(test_extensions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
