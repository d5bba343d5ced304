/* The tables of statuses and errors. */
#include "http/status.h"
#include "support.h"

static void test_statuses(void **state) {
    (void)state;
    assert_int_equal(http_status_code(HTTP_OK), 200);
    assert_int_equal(http_status_code(HTTP_VERSION_NOT_SUPPORTED), 505);
    assert_string_equal(http_status_reason(HTTP_URI_TOO_LONG), "URI Too Long");
    for (int status = 0; status < HTTP_STATUS_COUNT; status++) {
        assert_in_range(http_status_code(status), 200, 599);
        assert_true(*http_status_reason(status));
    }
    assert_int_equal(http_error_status(ERROR_JSON), HTTP_BAD_REQUEST);
    assert_int_equal(http_error_status(ERROR_BODY_SIZE), HTTP_CONTENT_TOO_LARGE);
    for (int error = HTTP_NO_ERROR + 1; error <= ERROR_VERSION; error++) {
        assert_in_range(http_status_code(http_error_status(error)), 400, 599);
        const char *text = http_error_description(error);
        assert_true(*text);
        assert_null(strpbrk(text, "\"\\\r\n")); /* it stands in JSON as it is */
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
