/* Which compressed bodies are kept as they came, and what is made of them. */
#include "api/coded.h"
#include "support.h"

#include <string.h>
#include <zlib.h>

#define GZIP SLICE("{\"content-encoding\":\"gzip\"}")

static void test_what_is_kept(void **state) {
    (void)state;
    assert_true(coded_is_kept(GZIP, 0, 1024));
    assert_false(coded_is_kept(GZIP, 0, 1025));
    assert_true(coded_is_kept(GZIP, 100, 1224));
    assert_false(coded_is_kept(GZIP, 100, 1225));
    assert_false(coded_is_kept(SLICE(""), 100, 1));
    assert_false(coded_is_kept(SLICE("{\"content-type\":\"x\"}"), 100, 1));
}

/* An update whose body came as `len` blanks, packed. */
static struct update *make(size_t len, struct slice headers) {
    static char plain[8192];
    static unsigned char packed[8192];
    z_stream stream = {.next_in = (Bytef *)plain,
                       .avail_in = (uInt)len,
                       .next_out = packed,
                       .avail_out = sizeof packed};
    memset(plain, ' ', sizeof plain);
    assert_int_equal(deflateInit2(&stream, 9, Z_DEFLATED, 15 | 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    struct update_parts parts = {.body = SLICE("{}"),
                                 .raw = {(char *)packed, stream.total_out},
                                 .has_raw = true,
                                 .headers = headers,
                                 .method = SLICE("POST")};
    deflateEnd(&stream);
    return update_new(&parts);
}

static void check(size_t len, struct slice headers, bool is_undone) {
    struct update *update = make(len, headers);
    struct buf plain = {0};
    assert_int_equal(coded_undo(update, &plain), is_undone);
    if (is_undone)
        assert_int_equal(plain.len, len);
    buf_deinit(&plain);
    update_unref(update);
}

/* Whoever stored it: no more is inflated than would have been kept. */
static void test_what_is_undone(void **state) {
    (void)state;
    check(1028, GZIP, true);
    check(1029, GZIP, false);
    check(100, SLICE(""), false);
    check(100, SLICE("{\"content-encoding\":\"br\"}"), false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_kept),
        cmocka_unit_test(test_what_is_undone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
