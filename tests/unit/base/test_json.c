/* JSON: what is taken and what is not, where the members are, and how strings are written. */
#include "base/json.h"
#include "support.h"

/* Checks a copy of the exact size, so that reading beyond the text is seen. */
static enum json_kind check(struct slice text) {
    char *copy = malloc(text.len + !text.len);
    memcpy(copy, text.data, text.len);
    enum json_kind kind = json_check((struct slice){copy, text.len});
    free(copy);
    return kind;
}

static void check_kind_at(struct slice text, enum json_kind wanted, int line) {
    enum json_kind kind = check(text);
    if (kind != wanted) {
        print_error("%.*s: got %d, wanted %d\n", (int)text.len, text.data, kind, wanted);
        _fail(__FILE__, line);
    }
}

#define check_kind(text, wanted) check_kind_at(SLICE(text), wanted, __LINE__)
#define check_bad(text) check_kind(text, JSON_INVALID)

static void test_kinds(void **state) {
    (void)state;
    check_kind("{}", JSON_OBJECT);
    check_kind(" \t\r\n{ \t\r\n} \t\r\n", JSON_OBJECT);
    check_kind("[]", JSON_ARRAY);
    check_kind("[1,2,[3,{\"a\":null}]]", JSON_ARRAY);
    check_kind("0", JSON_SCALAR);
    check_kind("-0", JSON_SCALAR);
    check_kind("-1.5e-7", JSON_SCALAR);
    check_kind("1E+400", JSON_SCALAR);
    check_kind("true", JSON_SCALAR);
    check_kind(" false ", JSON_SCALAR);
    check_kind("null", JSON_SCALAR);
    check_kind("\"\"", JSON_SCALAR);
    check_kind("{\"a\":123456789012345678901234567890}", JSON_OBJECT);
    check_kind("{\"a\":-123456789012345678901234567890.5e999}", JSON_OBJECT);
    check_kind("{\"\\u0061\\ud83d\\ude00\\\"\\\\\\/\\b\\f\\n\\r\\t\":\"\\u0000\"}", JSON_OBJECT);
    check_kind("{\"\xC3\xA9\":\"\xF0\x9F\x98\x80 \x7f\"}", JSON_OBJECT);
    check_kind("{\"a\":1,\"a\":2}", JSON_OBJECT);
    check_kind("{\"a\":\"\\ud800\"}", JSON_OBJECT); /* RFC 8259 lets half a pair be escaped */
}

static void test_malformed_structure(void **state) {
    (void)state;
    check_bad("");
    check_bad(" \n");
    check_bad("{");
    check_bad("}");
    check_bad("[");
    check_bad("]");
    check_bad("{]");
    check_bad("[}");
    check_bad("{}{}");
    check_bad("{} {}");
    check_bad("{},");
    check_bad("[]1");
    check_bad("{}x");
    check_bad("{\"a\":1}\"abc"); /* a string that does not end behind it */
    check_bad("[1] \"");
    check_bad("{}\"\\");
    check_bad("[1,]");
    check_bad("[,1]");
    check_bad("[1 2]");
    check_bad("{\"a\"}");
    check_bad("{\"a\":}");
    check_bad("{\"a\":1,}");
    check_bad("{,\"a\":1}");
    check_bad("{\"a\" 1}");
    check_bad("{\"a\"::1}");
    check_bad("{\"a\":1 \"b\":2}");
    check_bad("{a:1}");
    check_bad("{'a':1}");
    check_bad("{1:1}");
    check_bad("{null:1}");
}

static void test_malformed_values(void **state) {
    (void)state;
    check_bad("01");
    check_bad("[01]");
    check_bad("[-]");
    check_bad("[+1]");
    check_bad("[.5]");
    check_bad("[5.]");
    check_bad("[1e]");
    check_bad("[1e+]");
    check_bad("[0x10]");
    check_bad("[NaN]");
    check_bad("[Infinity]");
    check_bad("[True]");
    check_bad("[nul]");
    check_bad("[nullx]");
    check_bad("tru");
    check_bad("\"");
    check_bad("\"abc");
    check_bad("\"\\\"");
    check_bad("[\"\\x\"]");
    check_bad("[\"\\u12\"]");
    check_bad("[\"\\u12g4\"]");
    check_bad("[\"\\a\"]");
    check_bad("[\"a\nb\"]");
    check_bad("[\"a\tb\"]");
    check_bad("[\"a\0b\"]");
    check_bad("[\"a\x1f\"]");
    check_bad("[1]\0");
    check_bad("\0[1]");
    check_bad("[1\0]");
    check_bad("\xEF\xBB\xBF{}");
    check_bad("[1] // one");
    check_bad("/* one */ [1]");
    check_bad("[1 /* one */]");
}

static void test_white_space(void **state) {
    (void)state;
    check_bad("\f{}");
    check_bad("{\f}");
    check_bad("{}\f");
    check_bad("[1,\f2]");
    check_bad("{\"a\"\f:1}");
    check_bad("\v{}");
    check_bad("[1,\v2]");
    check_bad("{}\v");
    check_bad("[\"a\fb\"]");
    check_bad("\xC2\xA0{}");         /* U+00A0 */
    check_bad("[1,\xE2\x80\xA8 2]"); /* U+2028 */
}

static void test_malformed_utf8(void **state) {
    (void)state;
    check_bad("[\"\x80\"]");
    check_bad("[\"\xC0\x80\"]");                 /* overlong */
    check_bad("[\"\xE0\x80\xAF\"]");             /* overlong */
    check_bad("[\"\xF0\x80\x80\xAF\"]");         /* overlong */
    check_bad("[\"\xED\xA0\x80\"]");             /* a surrogate */
    check_bad("[\"\xED\xA0\xBD\xED\xB8\x80\"]"); /* a pair of them (CESU-8) */
    check_bad("[\"\xF4\x90\x80\x80\"]");         /* above U+10FFFF */
    check_bad("[\"\xF8\x88\x80\x80\x80\"]");
    check_bad("[\"\xFF\"]");
    check_bad("[\"\xC3\"]");
    check_bad("[\"\xE2\x82\"]");
    check_bad("[\"\xF0\x9F\x98\"]");
    check_bad("[\"\xC3");
    check_bad("{\"\xC3\":1}");
    check_bad("{\"\\u00e9\xC3\":1}");
}

/* Nested `depth` levels, by arrays, objects or both; `closed` or cut off in the middle. */
static struct slice nested(char *out, int depth, int kind) {
    char *at = out;
    for (int i = 0; i < depth; i++)
        at += sprintf(at, "%s", kind == 0 || (kind == 2 && i % 2) ? "[" : "{\"k\":");
    *at++ = '1';
    for (int i = depth; i-- > 0;)
        *at++ = kind == 0 || (kind == 2 && i % 2) ? ']' : '}';
    return (struct slice){out, (size_t)(at - out)};
}

static void test_depth(void **state) {
    (void)state;
    char *out = malloc(1 << 20);
    for (int kind = 0; kind < 3; kind++) {
        enum json_kind wanted = kind == 0 ? JSON_ARRAY : JSON_OBJECT;
        check_kind_at(nested(out, JSON_DEPTH_MAX, kind), wanted, __LINE__);
        check_kind_at(nested(out, JSON_DEPTH_MAX + 1, kind), JSON_TOO_DEEP, __LINE__);
        check_kind_at(nested(out, 100000, kind), JSON_TOO_DEEP, __LINE__);
    }
    /* Not deep, only many. */
    char *at = out + sprintf(out, "[");
    for (int i = 0; i < 10000; i++)
        at += sprintf(at, "[{}],");
    at += sprintf(at, "[]]");
    check_kind_at((struct slice){out, (size_t)(at - out)}, JSON_ARRAY, __LINE__);
    free(out);
}

/* Every beginning of a text is malformed, unless it is one already. */
static void test_cut_off(void **state) {
    (void)state;
    static const struct slice texts[] = {
        SLICE("{\"a\":[true,false,null],\"b\\u00e9\\n\":-10.25e+3}"),
        SLICE("[{},[],[[\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\"]],0.5,\"a long string\"]"),
        SLICE("\"\\ud83d\\ude00 and more of it\""),
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        for (size_t len = 0; len < texts[i].len; len++)
            check_kind_at((struct slice){texts[i].data, len}, JSON_INVALID, __LINE__);
        assert_int_not_equal(check(texts[i]), JSON_INVALID);
    }
}

/* Each byte at each place of strings of many lengths: they are read eight bytes at a time. */
static void test_strings_at_every_offset(void **state) {
    (void)state;
    for (size_t len = 1; len <= 20; len++)
        for (size_t at = 0; at < len; at++)
            for (int byte = 0; byte < 256; byte++) {
                char text[24] = "\"";
                memset(text + 1, byte % 2 ? ' ' : '\x7f', len);
                text[1 + at] = (char)byte;
                text[1 + len] = '"';
                bool is_good = byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
                check_kind_at((struct slice){text, len + 2}, is_good ? JSON_SCALAR : JSON_INVALID,
                              __LINE__);
            }
}

static void test_every_escape(void **state) {
    (void)state;
    for (int byte = 0; byte < 256; byte++) {
        char text[] = "[\"\\xaaaa\"]", digit[] = "[\"\\u00x0\"]";
        text[3] = digit[6] = (char)byte;
        bool is_escape = byte && strchr("\"\\/bfnrtu", byte);
        check_kind_at((struct slice){text, sizeof text - 1}, is_escape ? JSON_ARRAY : JSON_INVALID,
                      __LINE__);
        bool is_digit = byte && strchr("0123456789abcdefABCDEF", byte);
        check_kind_at((struct slice){digit, sizeof digit - 1}, is_digit ? JSON_ARRAY : JSON_INVALID,
                      __LINE__);
    }
}

/* --- Members ---------------------------------------------------------------------------------- */

/* The members of a copy of `text`, as `key=value;` each, the keys unescaped. */
static struct buf members_of(struct slice text) {
    struct buf found = {0}, scratch = {0};
    char *copy = malloc(text.len);
    memcpy(copy, text.data, text.len);
    struct slice rest = {copy, text.len};
    for (struct json_member member; json_next_member(&rest, &member);) {
        assert_true(member.key.data > copy && rest.data + rest.len == copy + text.len);
        assert_ptr_equal(rest.data, member.value.data + member.value.len);
        struct slice key = json_unescape(member.key, &scratch);
        buf_append(&found, key.data, key.len);
        buf_putc(&found, '=');
        buf_append(&found, member.value.data, member.value.len);
        buf_putc(&found, ';');
    }
    free(copy);
    buf_deinit(&scratch);
    return found;
}

static void check_members_at(struct slice text, struct slice wanted, int line) {
    check_kind_at(text, JSON_OBJECT, line);
    struct buf found = members_of(text);
    assert_slices_at((struct slice){found.data, found.len}, wanted, __FILE__, line);
    buf_deinit(&found);
}

#define check_members(text, wanted) check_members_at(SLICE(text), SLICE(wanted), __LINE__)

static void test_members(void **state) {
    (void)state;
    check_members("{}", "");
    check_members(" { } ", "");
    check_members("{\"a\":1}", "a=1;");
    check_members("{\"a\":1,\"b\":2}", "a=1;b=2;");
    check_members("{\"a\":1,\"a\":2}", "a=1;a=2;");
    check_members("{\"\":1}", "=1;");
    check_members(" { \"a\" : 1 , \"b\" : 2 } ", "a=1;b=2;");
    check_members("\n{\r\n\t\"a\"\t:\r\n\"x\"\r\n}\n", "a=\"x\";");
    check_members("{\"a\":-12.5e3}", "a=-12.5e3;");
    check_members("{\"a\":123456789012345678901234567890,\"b\":1.10}",
                  "a=123456789012345678901234567890;b=1.10;");
    check_members("{\"a\":true,\"b\":false,\"c\":null}", "a=true;b=false;c=null;");
    check_members("{\"a\":\"\",\"b\":\"q\\\"\\\\\"}", "a=\"\";b=\"q\\\"\\\\\";");
    check_members("{\"a\":{},\"b\":[],\"c\":{\"d\":{\"a\":1}},\"e\":[{\"a\":1},[2]]}",
                  "a={};b=[];c={\"d\":{\"a\":1}};e=[{\"a\":1},[2]];");
    check_members("{\"a\": { \"b\" : [ 1 , 2 ] } ,\"c\": [ { } ] }",
                  "a={ \"b\" : [ 1 , 2 ] };c=[ { } ];");
    check_members("{\":\":\":\",\",\":\",\"}", ":=\":\";,=\",\";");
    check_members("{\"a\":\"}\",\"b\":\"{\"}", "a=\"}\";b=\"{\";");
}

static void test_escaped_keys(void **state) {
    (void)state;
    check_members("{\"\\u0061\":1,\"\\\"\":2,\"\\\\\":3,\"\\/\":4,\"\\n\":5}",
                  "a=1;\"=2;\\=3;/=4;\n=5;");
    check_members("{\"x\\by\\fz\\r\\t\":1}", "x\by\fz\r\t=1;");
    check_members("{\"\\u0000\":1,\"a\\u0000b\":2}", "\0=1;a\0b=2;");
    check_members("{\"\\u007f\\u0080\\u07FF\\u0800\\uffff\":1}",
                  "\x7f\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF=1;");
    check_members("{\"\\u00e9\":1,\"\xC3\xA9\":2,\"\\u20ac\":3}",
                  "\xC3\xA9=1;\xC3\xA9=2;\xE2\x82\xAC=3;");
}

/* A pair is one character; a half without the other is U+FFFD. */
static void test_surrogates_in_keys(void **state) {
    (void)state;
    check_members("{\"\\ud83d\\ude00\":1}", "\xF0\x9F\x98\x80=1;");
    check_members("{\"\\uD800\\uDC00\\uDBFF\\uDFFF\":1}", "\xF0\x90\x80\x80\xF4\x8F\xBF\xBF=1;");
    check_members("{\"\\ud83d\":1}", "\xEF\xBF\xBD=1;");
    check_members("{\"\\ude00\":1}", "\xEF\xBF\xBD=1;");
    check_members("{\"\\ud83dx\":1}", "\xEF\xBF\xBDx=1;");
    check_members("{\"\\ud83d\\n\":1}", "\xEF\xBF\xBD\n=1;");
    check_members("{\"\\ud83d\\u0061\":1}", "\xEF\xBF\xBD\x61=1;");
    check_members("{\"\\ud83d\\ud83d\\ude00\":1}", "\xEF\xBF\xBD\xF0\x9F\x98\x80=1;");
    check_members("{\"\\ud83d\\ue000\":1}", "\xEF\xBF\xBD\xEE\x80\x80=1;");
    check_members("{\"\\ude00\\ude00\":1}", "\xEF\xBF\xBD\xEF\xBF\xBD=1;");
    check_members("{\"\\ude00\\ud83d\":1}", "\xEF\xBF\xBD\xEF\xBF\xBD=1;");
    check_members("{\"\\ud83d\xF0\x9F\x98\x80\":1}", "\xEF\xBF\xBD\xF0\x9F\x98\x80=1;");
}

static void test_long_key_and_value(void **state) {
    (void)state;
    enum { LEN = 300000 };
    char *text = malloc(2 * LEN + 16), *at = text;
    at += sprintf(at, "{\"\\u006b");
    memset(at, 'k', LEN);
    at += LEN;
    at += sprintf(at, "\":\"");
    memset(at, 'v', LEN);
    at += LEN;
    at += sprintf(at, "\"}");
    struct buf found = members_of((struct slice){text, (size_t)(at - text)});
    assert_int_equal(found.len, 1 + LEN + 1 + 1 + LEN + 1 + 1);
    assert_memory_equal(found.data, "kkk", 3);
    buf_deinit(&found);
    free(text);
}

/* --- Writing ---------------------------------------------------------------------------------- */

static void check_written_at(struct slice text, const char *wanted, int line) {
    char *copy = malloc(text.len + !text.len);
    memcpy(copy, text.data, text.len);
    struct buf out = {0};
    json_write_string(&out, (struct slice){copy, text.len});
    assert_slices_at((struct slice){out.data, out.len}, slice_of(wanted), __FILE__, line);
    buf_deinit(&out);
    free(copy);
}

#define check_written(text, wanted) check_written_at(SLICE(text), wanted, __LINE__)

static void test_strings(void **state) {
    (void)state;
    check_written("", "\"\"");
    check_written("abc", "\"abc\"");
    check_written("\"", "\"\\\"\"");
    check_written("a\\b/", "\"a\\\\b/\"");
    check_written("\n", "\"\\n\"");
    check_written("\0", "\"\\u0000\"");
    check_written("\x1f", "\"\\u001f\"");
    check_written("\xC3\xA9\xF0\x9F\x98\x80", "\"\xC3\xA9\xF0\x9F\x98\x80\"");
    check_written("\xFF", "\"\xEF\xBF\xBD\"");
    check_written("a\xC3", "\"a\xEF\xBF\xBD\"");
    check_written("a\xC3\x62", "\"a\xEF\xBF\xBD\x62\"");
    check_written("\xED\xA0\x80", "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"");
    check_written("\xC3\xA9\xC3", "\"\xC3\xA9\xEF\xBF\xBD\"");
}

/* Whatever is written is valid JSON, and reads back as the same text when it is UTF-8. */
static void test_strings_read_back(void **state) {
    (void)state;
    for (int i = 0; i < 256 * 4; i++) {
        int byte = i % 256;
        char text[9] = "\xC3\xA9xx\xC3\xA9yy", in_the_middle = (char)byte;
        text[2 + i / 256] = in_the_middle;
        struct buf out = {0};
        buf_putc(&out, '{');
        json_write_string(&out, (struct slice){text, 8});
        buf_puts(&out, ":1}");
        assert_int_equal(check((struct slice){out.data, out.len}), JSON_OBJECT);
        struct buf found = members_of((struct slice){out.data, out.len});
        if (i < 512 && byte < 0x80)
            assert_slices(((struct slice){found.data, found.len - 3}), ((struct slice){text, 8}));
        buf_deinit(&found);
        buf_deinit(&out);
    }
}

static void test_base64(void **state) {
    (void)state;
    static const struct {
        struct slice bytes;
        const char *wanted;
    } cases[] = {
        {SLICE(""), "\"\""},
        {SLICE("f"), "\"Zg==\""},
        {SLICE("fo"), "\"Zm8=\""},
        {SLICE("foo"), "\"Zm9v\""},
        {SLICE("foob"), "\"Zm9vYg==\""},
        {SLICE("\xFF\xFE\xFD"), "\"//79\""},
        {SLICE("\xFB\xEF\xBE"), "\"++++\""},
        {SLICE("\0"), "\"AA==\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf out = {0};
        json_write_base64(&out, cases[i].bytes);
        assert_text(((struct slice){out.data, out.len}), cases[i].wanted);
        buf_deinit(&out);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_malformed_structure),
        cmocka_unit_test(test_malformed_values),
        cmocka_unit_test(test_white_space),
        cmocka_unit_test(test_malformed_utf8),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_cut_off),
        cmocka_unit_test(test_strings_at_every_offset),
        cmocka_unit_test(test_every_escape),
        cmocka_unit_test(test_members),
        cmocka_unit_test(test_escaped_keys),
        cmocka_unit_test(test_surrogates_in_keys),
        cmocka_unit_test(test_long_key_and_value),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_strings_read_back),
        cmocka_unit_test(test_base64),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
