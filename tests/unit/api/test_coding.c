#include "api/coding.h"
#include "support.h"

#include <zlib.h>

enum { MAX = 1 << 20 };

/* Appends `text`, compressed; `window_bits` as for deflateInit2(). */
static void compress_to(struct buf *out, struct slice text, int window_bits) {
    z_stream stream = {.next_in = (Bytef *)text.data, .avail_in = (uInt)text.len};
    assert_int_equal(deflateInit2(&stream, 6, Z_DEFLATED, window_bits, 8, Z_DEFAULT_STRATEGY),
                     Z_OK);
    size_t bound = deflateBound(&stream, text.len);
    assert_true(buf_reserve(out, bound));
    stream.next_out = (Bytef *)out->data + out->len;
    stream.avail_out = (uInt)bound;
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    out->len += bound - stream.avail_out;
    deflateEnd(&stream);
}

static struct slice slice_of_buf(const struct buf *buf) {
    return (struct slice){buf->data, buf->len};
}

static void check_at(struct slice body, struct slice codings, enum coding_result wanted,
                     struct slice plain, int line) {
    struct buf out = {0};
    enum coding_result result = coding_undo(&out, body, codings, MAX);
    if (result != wanted) {
        print_error("result %d, wanted %d\n", result, wanted);
        _fail(__FILE__, line);
    }
    if (wanted == CODING_UNDONE)
        assert_slices_at(slice_of_buf(&out), plain, __FILE__, line);
    buf_deinit(&out);
}

#define check(body, codings, wanted, plain)                                                        \
    check_at(body, SLICE(codings), wanted, SLICE(plain), __LINE__)

static void test_names(void **state) {
    (void)state;
    struct slice body = SLICE("{}");
    check(body, "", CODING_NONE, "");
    check(body, "identity", CODING_NONE, "");
    check(body, "UTF-8, none,,", CODING_NONE, "");
    check(body, "br", CODING_OPAQUE, "");
    check(body, "gzip, ZSTD", CODING_OPAQUE, "");
    check(body, "gzip, gzip, gzip", CODING_OPAQUE, "");
    check(body, "gzip", CODING_OPAQUE, "");
    check(body, "deflate", CODING_OPAQUE, "");
}

static void test_good(void **state) {
    (void)state;
    struct buf gzip = {0}, zlib = {0}, bare = {0}, twice = {0};
    compress_to(&gzip, SLICE("{\"a\":1}"), 31);
    compress_to(&zlib, SLICE("{\"a\":1}"), 15);
    compress_to(&bare, SLICE("{\"a\":1}"), -15);
    check(slice_of_buf(&gzip), "gzip", CODING_UNDONE, "{\"a\":1}");
    check(slice_of_buf(&gzip), " X-GZip , utf-8", CODING_UNDONE, "{\"a\":1}");
    check(slice_of_buf(&zlib), "deflate", CODING_UNDONE, "{\"a\":1}");
    check(slice_of_buf(&bare), "deflate", CODING_UNDONE, "{\"a\":1}");
    compress_to(&twice, slice_of_buf(&zlib), 31);
    check(slice_of_buf(&twice), "deflate, gzip", CODING_UNDONE, "{\"a\":1}");
    check(slice_of_buf(&twice), "gzip, deflate", CODING_OPAQUE, "");
    /* Several members, and padding. */
    compress_to(&gzip, SLICE("xyz"), 31);
    compress_to(&gzip, SLICE(""), 31);
    check(slice_of_buf(&gzip), "gzip", CODING_UNDONE, "{\"a\":1}xyz");
    buf_append(&gzip, "\0\0\0", 3);
    check(slice_of_buf(&gzip), "gzip", CODING_UNDONE, "{\"a\":1}xyz");
    buf_puts(&gzip, "junk");
    check(slice_of_buf(&gzip), "gzip", CODING_OPAQUE, "");
    buf_deinit(&gzip);
    buf_deinit(&zlib);
    buf_deinit(&bare);
    buf_deinit(&twice);
}

static void test_broken(void **state) {
    (void)state;
    struct buf gzip = {0};
    compress_to(&gzip, SLICE("some text that is long enough"), 31);
    for (size_t len = 0; len < gzip.len; len++)
        check_at((struct slice){gzip.data, len}, SLICE("gzip"), CODING_OPAQUE, SLICE(""), __LINE__);
    gzip.data[gzip.len - 6] ^= 1; /* of the checksum */
    check(slice_of_buf(&gzip), "gzip", CODING_OPAQUE, "");
    buf_deinit(&gzip);
}

/* Whatever it would inflate to, a body takes no more memory than the bound. */
static void test_bound(void **state) {
    (void)state;
    char *zeros = calloc(1, MAX + 1);
    for (int more = 0; more <= 1; more++) {
        struct buf gzip = {0}, out = {0};
        compress_to(&gzip, (struct slice){zeros, (size_t)MAX + (size_t)more}, 31);
        enum coding_result result = coding_undo(&out, slice_of_buf(&gzip), SLICE("gzip"), MAX);
        assert_int_equal(result, more ? CODING_TOO_LARGE : CODING_UNDONE);
        assert_true(out.cap <= 4 * MAX);
        buf_deinit(&out);
        buf_deinit(&gzip);
    }
    free(zeros);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_broken),
        cmocka_unit_test(test_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
