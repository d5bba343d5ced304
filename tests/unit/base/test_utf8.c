/* UTF-8: tables of good and bad sequences, and every code point. */
#include "base/utf8.h"
#include "support.h"

static const struct slice good[] = {
    SLICE("a"),
    SLICE("\x7f"),
    SLICE("\0"),
    SLICE("\xC2\x80"),         /* U+0080 */
    SLICE("\xDF\xBF"),         /* U+07FF */
    SLICE("\xE0\xA0\x80"),     /* U+0800 */
    SLICE("\xED\x9F\xBF"),     /* U+D7FF, the last before the surrogates */
    SLICE("\xEE\x80\x80"),     /* U+E000, the first behind them */
    SLICE("\xEF\xBF\xBF"),     /* U+FFFF */
    SLICE("\xF0\x90\x80\x80"), /* U+10000 */
    SLICE("\xF4\x8F\xBF\xBF"), /* U+10FFFF */
};

static const struct slice bad[] = {
    SLICE("\x80"),                     /* a continuation alone */
    SLICE("\xBF"),                     /* the same */
    SLICE("\xC0\x80"),                 /* NUL, overlong */
    SLICE("\xC1\xBF"),                 /* overlong */
    SLICE("\xE0\x80\x80"),             /* overlong */
    SLICE("\xE0\x9F\xBF"),             /* overlong */
    SLICE("\xF0\x80\x80\x80"),         /* overlong */
    SLICE("\xF0\x8F\xBF\xBF"),         /* overlong */
    SLICE("\xED\xA0\x80"),             /* U+D800 */
    SLICE("\xED\xBF\xBF"),             /* U+DFFF */
    SLICE("\xF4\x90\x80\x80"),         /* U+110000 */
    SLICE("\xF5\x80\x80\x80"),         /* above */
    SLICE("\xF8\x88\x80\x80\x80"),     /* five bytes */
    SLICE("\xFC\x84\x80\x80\x80\x80"), /* six bytes */
    SLICE("\xFE"),
    SLICE("\xFF"),
    SLICE("\xC2"),             /* cut off */
    SLICE("\xE2\x82"),         /* cut off */
    SLICE("\xF0\x9F\x98"),     /* cut off */
    SLICE("\xC2\x41"),         /* no continuation */
    SLICE("\xE2\x41\x80"),     /* no continuation */
    SLICE("\xE2\x82\x41"),     /* no continuation */
    SLICE("\xF0\x9F\x98\xC0"), /* no continuation */
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void test_sequences(void **state) {
    (void)state;
    assert_int_equal(utf8_sequence((struct slice){"", 0}), 0);
    assert_true(utf8_is_valid((struct slice){"", 0}));
    for (size_t i = 0; i < COUNT(good); i++) {
        assert_int_equal(utf8_sequence(good[i]), good[i].len);
        assert_true(utf8_is_valid(good[i]));
    }
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_int_equal(utf8_sequence(bad[i]), 0);
        assert_false(utf8_is_valid(bad[i]));
    }
    assert_int_equal(utf8_sequence(SLICE("\xC3\xA9\x80")), 2);
}

/* Each sequence at each offset of a longer text, which is read in words where it is ASCII. */
static void test_at_every_offset(void **state) {
    (void)state;
    for (size_t i = 0; i < COUNT(good) + COUNT(bad); i++) {
        struct slice sequence = i < COUNT(good) ? good[i] : bad[i - COUNT(good)];
        for (size_t len = sequence.len; len <= 40; len++)
            for (size_t at = 0; at + sequence.len <= len; at++) {
                char *text = malloc(len); /* of the exact size, so that reading beyond it is seen */
                memset(text, 'a', len);
                memcpy(text + at, sequence.data, sequence.len);
                assert_int_equal(utf8_is_valid((struct slice){text, len}), i < COUNT(good));
                free(text);
            }
    }
}

static size_t encode(uint32_t point, char *out) {
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    size_t len = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    for (size_t i = len - 1; i > 0; i--, point >>= 6)
        out[i] = (char)(0x80 | (point & 0x3F));
    out[0] = (char)((0xF00 >> len) | point);
    return len;
}

/* Every code point; of them only the surrogates are refused. */
static void test_every_code_point(void **state) {
    (void)state;
    for (uint32_t point = 0; point <= 0x110400; point++) {
        char text[4];
        size_t len = encode(point, text);
        bool is_good = point <= 0x10FFFF && !(point >= 0xD800 && point <= 0xDFFF);
        if (utf8_sequence((struct slice){text, len}) != (is_good ? len : 0))
            fail_msg("U+%04X", point);
        for (size_t cut = 1; cut < len; cut++)
            if (utf8_sequence((struct slice){text, cut}) != 0)
                fail_msg("U+%04X cut to %zu bytes", point, cut);
    }
}

/* What utf8_put() writes is valid and has the code point's bits. */
static void test_put(void **state) {
    (void)state;
    struct buf out = {0};
    for (uint32_t point = 0; point <= 0x10FFFF; point++) {
        if (point == 0xD800)
            point = 0xE000;
        buf_reset(&out, SIZE_MAX);
        utf8_put(&out, point);
        const unsigned char *s = (const unsigned char *)out.data;
        uint32_t read = s[0] < 0x80 ? s[0] : s[0] & (0x7Fu >> out.len);
        for (size_t i = 1; i < out.len; i++)
            read = read * 64 + s[i] % 64;
        if (read != point || utf8_sequence((struct slice){out.data, out.len}) != out.len)
            fail_msg("U+%04X", point);
    }
    buf_deinit(&out);
}

static void check_appended(struct slice text, const char *wanted) {
    struct buf out = {0};
    utf8_append(&out, text);
    assert_text(((struct slice){out.data, out.len}), wanted);
    buf_deinit(&out);
}

#define REPLACED "\xEF\xBF\xBD"

static void test_append(void **state) {
    (void)state;
    check_appended(SLICE(""), "");
    check_appended(SLICE("a\xC3\xA9\xF0\x9F\x98\x80"), "a\xC3\xA9\xF0\x9F\x98\x80");
    check_appended(SLICE("a\xE9o"), "a" REPLACED "o");
    check_appended(SLICE("\xE2\x82"), REPLACED REPLACED);
    check_appended(SLICE("\xED\xA0\x80"), REPLACED REPLACED REPLACED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sequences),        cmocka_unit_test(test_at_every_offset),
        cmocka_unit_test(test_every_code_point), cmocka_unit_test(test_put),
        cmocka_unit_test(test_append),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
