/* Texts of other charsets, as UTF-8. */
#include "base/charset.h"
#include "support.h"

static void check_at(const char *name, struct slice text, const char *wanted, int line) {
    char *copy = malloc(text.len + !text.len); /* of the exact size: reading beyond it is seen */
    memcpy(copy, text.data, text.len);
    struct charset charset = {.name = slice_of(name)};
    struct buf out = {0};
    buf_puts(&out, "before ");
    for (int i = 0; i < 2; i++) { /* the second time with what the first left open */
        bool is_text = charset_decode(&out, (struct slice){copy, text.len}, &charset);
        struct slice got = {out.data + 7, out.len - 7};
        if (is_text != (wanted != NULL))
            _fail(__FILE__, line);
        assert_slices_at(got, slice_of(wanted ? wanted : ""), __FILE__, line);
        out.len = 7;
    }
    charset_deinit(&charset);
    buf_deinit(&out);
    free(copy);
}

#define check(name, text, wanted) check_at(name, SLICE(text), wanted, __LINE__)

static void test_known_charsets(void **state) {
    (void)state;
    check("windows-1252", "\xE9\x80\x81", "\xC3\xA9\xE2\x82\xAC\xC2\x81");
    check("ISO-8859-1", "\x93", "\xE2\x80\x9C"); /* as browsers do */
    check("windows-1251", "\xCF", "\xD0\x9F");
    check("Shift_JIS", "\x93\xFA", "\xE6\x97\xA5");
    check("iso-2022-jp", "\x1B$BF|\x1B(B", "\xE6\x97\xA5");
    check("utf-16", "\0\1", "\xC4\x80");
    check("utf-16be", "\0a", "a");
    check("gb18030", "", "");
}

static void test_marks(void **state) {
    (void)state;
    check("utf-16", "\xFE\xFF\0a", "a");
    check("utf-16be",
          "\xFF\xFE"
          "a\0",
          "a");
    check("utf-32", "\xFF\xFE\0\0a\0\0\0", "a");
    check("utf-16", "\xFF\xFE", "");
}

static void test_what_is_no_text(void **state) {
    (void)state;
    check("", "a", NULL);
    check("no-such/../charset", "a", NULL);
    check("utf-8", "a", NULL);
    check("utf-16", "a", NULL);        /* cut */
    check("utf-16", "\0\xD8", NULL);   /* half a pair */
    check("shift_jis", "\x93", NULL);  /* cut */
    check("iso-8859-6", "\xFF", NULL); /* means nothing */
}

static void test_growth_has_a_bound(void **state) {
    (void)state;
    char bytes[1000];
    memset(bytes, '\x80', sizeof bytes); /* a euro sign, of three bytes */
    struct slice text = {bytes, sizeof bytes};
    struct charset charset = {.name = SLICE("windows-1252")};
    struct buf out = {0};
    assert_false(charset_decode(&out, text, &charset));
    assert_int_equal(out.len, 0);
    charset_decode_text(&out, text, &charset);
    assert_int_equal(out.len, 3000);
    charset.name = SLICE("koi8-r"); /* where it is a line */
    out.len = 0;
    assert_false(charset_decode(&out, text, &charset));
    assert_int_equal(out.len, 0);
    charset_deinit(&charset);
    buf_deinit(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_charsets),
        cmocka_unit_test(test_marks),
        cmocka_unit_test(test_what_is_no_text),
        cmocka_unit_test(test_growth_has_a_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
