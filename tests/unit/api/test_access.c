/* The table of rights, each of its cells. */
#include "api/access.h"
#include "support.h"

static void test_rights(void **state) {
    static const enum http_error wanted[RIGHTS][KEY_KINDS] = {
        [RIGHT_NONE] = {HTTP_NO_ERROR, HTTP_NO_ERROR, HTTP_NO_ERROR, HTTP_NO_ERROR},
        [RIGHT_SEND] = {HTTP_NO_ERROR, HTTP_NO_ERROR, ERROR_KEY_READS, HTTP_NO_ERROR},
        [RIGHT_READ] = {HTTP_NO_ERROR, HTTP_NO_ERROR, HTTP_NO_ERROR, ERROR_KEY_SENDS},
        [RIGHT_DELETE] = {HTTP_NO_ERROR, HTTP_NO_ERROR, ERROR_KEY_DELETE, ERROR_KEY_DELETE},
    };
    (void)state;
    for (enum right right = RIGHT_NONE; right < RIGHTS; right++)
        for (enum key_kind kind = KEY_PLAIN; kind < KEY_KINDS; kind++)
            assert_int_equal(access_check(kind, right), wanted[right][kind]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rights)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
