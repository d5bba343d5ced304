/* What stands at a path in JSON. */
#include "base/json_find.h"
#include "support.h"

#include <stdlib.h>

static void check_found(const char *json, const char *path, const char *wanted) {
    struct buf out = {0};
    size_t len = strlen(json);
    char *copy = malloc(len + !len); /* of the exact size: reading beyond it is seen */
    memcpy(copy, json, len);
    bool found = json_find((struct slice){copy, len}, slice_of(path), &out);
    if (found != (wanted != NULL) ||
        (found && !slice_equal((struct slice){out.data, out.len}, slice_of(wanted))))
        fail_msg("%s at %s: %.*s", path, json, (int)out.len, out.data);
    buf_deinit(&out);
    free(copy);
}

static void test_paths(void **state) {
    (void)state;
    check_found("{\"a\":\"x\"}", "a", "x");
    check_found(" {\"a\" : {\"b\":[1, 2.50 ,true]} } ", "a.b.1", "2.50");
    check_found(" {\"a\" : {\"b\":[1, 2.50 ,true]} } ", "a.b.2", "true");
    check_found("{\"a\":{\"b\":[1]}}", "a.b.1", NULL);
    check_found("{\"a\":{\"b\":[1]}}", "a.b.x", NULL);
    check_found("{\"a\":{\"b\":[1]}}", "a.b", NULL);
    check_found("{\"a\":{\"b\":[1]}}", "a.b.0.c", NULL);
    check_found("{\"a\":null}", "a", NULL);
    check_found("{\"a\":1,\"a\":2}", "a", "2");
    check_found("{\"\\u0061\":\"\\u00e4\\n\"}", "a", "\xC3\xA4\n");
    check_found("{\"\":{\"\":\"x\"}}", ".", "x");
    check_found("[[1,\"]\"],[{\"k\":\"[\"}]]", "1.0.k", "[");
    check_found("[]", "0", NULL);
    check_found("{}", "", NULL);
    check_found("[1]", "-0", NULL);
    check_found("[1]", "99999999999999999999", NULL);
}

/* Each name of a path reads the rest of the text once more. */
static void test_a_long_path(void **state) {
    (void)state;
    check_found("[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]", "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0", "1");
    check_found("[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]", "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0", NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_a_long_path),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
