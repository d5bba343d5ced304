/* Percent-encoding, queries and forms. */
#include "base/text.h"
#include "support.h"

/* `wanted` NULL: refused. */
static void check_path_at(struct slice text, const char *wanted, size_t wanted_len, int line) {
    char *copy = malloc(text.len + !text.len), *out = malloc(text.len + !text.len);
    memcpy(copy, text.data, text.len);
    long len = text_decode_percent((struct slice){copy, text.len}, out);
    if (len != (wanted ? (long)wanted_len : -1))
        _fail(__FILE__, line);
    if (wanted)
        assert_slices_at((struct slice){out, (size_t)len}, (struct slice){wanted, wanted_len},
                         __FILE__, line);
    free(copy);
    free(out);
}

#define check_path(text, wanted) check_path_at(SLICE(text), wanted, sizeof(wanted) - 1, __LINE__)
#define check_bad_path(text) check_path_at(SLICE(text), NULL, 0, __LINE__)

static void test_path(void **state) {
    (void)state;
    check_path("", "");
    check_path("abc", "abc");
    check_path("a+b", "a+b");
    check_path("%41", "A");
    check_path("%2f%2F", "//");
    check_path("%00", "\0");
    check_path("a%25b", "a%b");
    check_path("%2541", "%41");
    check_path("%C3%a9", "\xC3\xA9");
    check_bad_path("%");
    check_bad_path("%4");
    check_bad_path("abc%");
    check_bad_path("abc%f");
    check_bad_path("%g0");
    check_bad_path("%0g");
    check_bad_path("%%41");
    check_bad_path("%-1");
    check_bad_path("%+1");
    check_bad_path("% 1");
    check_bad_path("%0x");
}

static void test_every_byte_of_a_path(void **state) {
    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        char lower[4], upper[4], out[3];
        snprintf(lower, sizeof lower, "%%%02x", byte);
        snprintf(upper, sizeof upper, "%%%02X", byte);
        assert_int_equal(text_decode_percent((struct slice){lower, 3}, out), 1);
        assert_int_equal((unsigned char)*out, byte);
        assert_int_equal(text_decode_percent((struct slice){upper, 3}, out), 1);
        assert_int_equal((unsigned char)*out, byte);
    }
}

static void check_form_at(struct slice text, struct slice wanted, int line) {
    char *copy = malloc(text.len + !text.len);
    memcpy(copy, text.data, text.len);
    struct buf out = {0};
    buf_putc(&out, '>');
    text_decode_form(&out, (struct slice){copy, text.len});
    assert_slices_at((struct slice){out.data + 1, out.len - 1}, wanted, __FILE__, line);
    assert_int_equal(out.data[0], '>');
    buf_deinit(&out);
    free(copy);
}

#define check_form(text, wanted) check_form_at(SLICE(text), SLICE(wanted), __LINE__)

static void test_form(void **state) {
    (void)state;
    check_form("", "");
    check_form("a+b", "a b");
    check_form("a%2Bb", "a+b");
    check_form("a%20b", "a b");
    check_form("%", "%");
    check_form("%4", "%4");
    check_form("%%41", "%A");
    check_form("%zz", "%zz");
    check_form("%4z%41", "%4zA");
    check_form("100%", "100%");
    check_form("100%+", "100% ");
    check_form("%00", "\0");
    check_form("%C3%A9", "\xC3\xA9");
    check_form("%26%3D%25", "&=%");
}

/* `wanted`: the pairs as name|value; */
static void check_pairs_at(struct slice text, const char *wanted, int line) {
    char *copy = malloc(text.len + !text.len);
    memcpy(copy, text.data, text.len);
    struct slice rest = {copy, text.len};
    struct buf got = {0};
    for (struct text_pair pair; text_next_pair(&rest, &pair);) {
        buf_append(&got, pair.name.data, pair.name.len);
        buf_putc(&got, '|');
        buf_append(&got, pair.value.data, pair.value.len);
        buf_putc(&got, ';');
    }
    assert_slices_at((struct slice){got.data, got.len}, slice_of(wanted), __FILE__, line);
    buf_deinit(&got);
    free(copy);
}

#define check_pairs(text, wanted) check_pairs_at(SLICE(text), wanted, __LINE__)

static void test_pairs(void **state) {
    (void)state;
    check_pairs("", "");
    check_pairs("&", "");
    check_pairs("&&&", "");
    check_pairs("a", "a|;");
    check_pairs("a=", "a|;");
    check_pairs("=b", "|b;");
    check_pairs("=", "|;");
    check_pairs("a=b", "a|b;");
    check_pairs("a=b=c", "a|b=c;");
    check_pairs("a==", "a|=;");
    check_pairs("&a=1&&b=2&", "a|1;b|2;");
    check_pairs("a=1&a=2", "a|1;a|2;");
    check_pairs("a%3Db=c%26d", "a%3Db|c%26d;");
    check_pairs("a=1;b=2", "a|1;b=2;");
    check_pairs("?a=1", "?a|1;");
}

/* A text with a hole would look whole. */
static void test_what_failed_takes_no_more(void **state) {
    (void)state;
    struct buf buf = {.failed = true};
    buf_puts(&buf, "the rest");
    assert_int_equal(buf.len, 0);
    buf_deinit(&buf);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_path),
        cmocka_unit_test(test_every_byte_of_a_path),
        cmocka_unit_test(test_form),
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_what_failed_takes_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
