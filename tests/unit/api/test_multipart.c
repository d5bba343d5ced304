/* From a body of multipart/form-data to an object. */
#include "api/multipart.h"
#include "base/hash.h"
#include "base/json.h"
#include "support.h"

#define TYPE "multipart/form-data; boundary=x"

/* Writes the object of `body`; "" when the body is not sound. */
static void check_at(struct slice type, struct slice body, const char *query, struct slice wanted,
                     int line) {
    char *copy = malloc(body.len + !body.len); /* of the exact size: reading beyond it is seen */
    memcpy(copy, body.data, body.len);
    struct fields fields;
    fields_init(&fields, slice_of(query), SLICE(""));
    struct buf out = {0};
    bool is_sound = multipart_write(&out, (struct slice){copy, body.len}, type, &fields);
    assert_slices_at((struct slice){out.data, out.len}, wanted, __FILE__, line);
    if (is_sound != (wanted.len > 0) ||
        (is_sound && json_check((struct slice){out.data, out.len}) != JSON_OBJECT))
        _fail(__FILE__, line);
    buf_deinit(&out);
    fields_deinit(&fields);
    free(copy);
}

#define check_as(type, body, query, wanted)                                                        \
    check_at(SLICE(type), SLICE(body), query, SLICE(wanted), __LINE__)
#define check(body, wanted) check_as(TYPE, body, "", wanted)
#define check_broken(body) check_as(TYPE, body, "", "")

#define FIELD(name, value)                                                                         \
    "--x\r\nContent-Disposition: form-data; name=" name "\r\n\r\n" value "\r\n"
#define END "--x--\r\n"

static void test_fields_and_files(void **state) {
    (void)state;
    check(END, "{}");
    check("--x--", "{}");
    check(FIELD("\"a\"", "1") END, "{\"a\":\"1\"}");
    check(FIELD("a", "") END, "{\"a\":\"\"}");
    check(FIELD("\"\"", "1") END, "{\"\":\"1\"}");
    check(FIELD("\"a\"", "two\r\nlines") FIELD("\"b\"", "\xC3\xA9\"") END,
          "{\"a\":\"two\\u000d\\nlines\",\"b\":\"\xC3\xA9\\\"\"}");
    check("--x\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.png\"\r\n"
          "Content-Type: image/png\r\n\r\n\x89PNG\r\n" END,
          "{\"f\":{\"filename\":\"a.png\",\"content_type\":\"image/png\",\"size\":4,"
          "\"body_base64\":\"iVBORw==\"}}");
    check("--x\r\ncontent-disposition:form-data;name=f;filename=a.txt\r\n\r\nhi\r\n" END,
          "{\"f\":{\"filename\":\"a.txt\",\"content_type\":\"text/plain\",\"size\":2,"
          "\"body\":\"hi\"}}");
    /* A field that is no text loses nothing. */
    check(FIELD("\"a\"", "\xFF\0") END,
          "{\"a\":{\"content_type\":\"text/plain\",\"size\":2,\"body_base64\":\"/wA=\"}}");
}

#define TYPED(name, type, value)                                                                   \
    "--x\r\nContent-Disposition: form-data; name=" name "\r\nContent-Type: " type "\r\n\r\n" value \
    "\r\n"

static void test_charsets(void **state) {
    (void)state;
    check(FIELD("a", "Ren\xE9") END, "{\"a\":\"Ren\xC3\xA9\"}");
    check(TYPED("a", "text/plain; charset=windows-1251", "\xCF") END, "{\"a\":\"\xD0\x9F\"}");
    check(TYPED("a", "image/png", "\xCF") END,
          "{\"a\":{\"content_type\":\"image/png\",\"size\":1,\"body_base64\":\"zw==\"}}");
    /* The form's charset is for fields that name none. */
    check(FIELD("a", "\xCF") TYPED("b", "text/plain; charset=latin1", "\xCF")
              FIELD("_charset_", "windows-1251") TYPED("c", "image/png", "\xCF")
                  FIELD("d", "\xC3\xA9") END,
          "{\"a\":\"\xD0\x9F\",\"b\":\"\xC3\x8F\",\"_charset_\":\"windows-1251\","
          "\"c\":{\"content_type\":\"image/"
          "png\",\"size\":1,\"body_base64\":\"zw==\"},\"d\":\"\xC3\xA9\"}");
    /* A file is bytes. */
    check("--x\r\nContent-Disposition: form-data; name=f; "
          "filename=\"Ren\xE9.txt\"\r\n\r\n\xE9\r\n" END,
          "{\"f\":{\"filename\":\"Ren\xC3\xA9.txt\",\"content_type\":\"text/plain\",\"size\":1,"
          "\"body_base64\":\"6Q==\"}}");
}

/* Control characters would grow sixfold as text. */
static void test_growth_has_a_bound(void **state) {
    (void)state;
    struct buf body = {0}, out = {0};
    struct fields none = {0};
    buf_puts(&body, "--x\r\nContent-Disposition: form-data; name=a\r\n\r\n");
    for (int i = 0; i < 1000000; i++)
        buf_putc(&body, '\1');
    buf_puts(&body, "\r\n" END);
    assert_true(multipart_write(&out, (struct slice){body.data, body.len}, SLICE(TYPE), &none));
    assert_true(out.len < 3 * body.len);
    buf_deinit(&body);
    buf_deinit(&out);
}

static void test_repeated_names_are_an_array(void **state) {
    (void)state;
    check(FIELD("a", "1") FIELD("b", "2") FIELD("a", "3") FIELD("\"a\"", "4") END,
          "{\"a\":[\"1\",\"3\",\"4\"],\"b\":\"2\"}");
}

static void test_the_query_wins(void **state) {
    (void)state;
    check_as(TYPE, FIELD("a", "1") FIELD("b", "2") FIELD("a", "3") END, "a=q&c=%26",
             "{\"b\":\"2\",\"a\":\"q\",\"c\":\"&\"}");
    check_as(TYPE, FIELD("a", "1") END, "a=q", "{\"a\":\"q\"}");
    check_as(TYPE, END, "a=q", "{\"a\":\"q\"}");
}

static void test_delimiters(void **state) {
    (void)state;
    check("preamble\r\n" FIELD("a", "1") END "epilogue", "{\"a\":\"1\"}");
    check("--x \t\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--x--", "{\"a\":\"1\"}");
    check("--x\r\nContent-Disposition: form-data; name=a\r\n\r\n--x--", "{\"a\":\"\"}");
    /* What only begins like a delimiter is text. */
    check(FIELD("a", "\r\n--xy\r\n--\r\n--x y\r\n") END,
          "{\"a\":\"\\u000d\\n--xy\\u000d\\n--\\u000d\\n--x y\\u000d\\n\"}");
    check(FIELD("a", "1--x--") END, "{\"a\":\"1--x--\"}");
    check_as("Multipart/Form-Data;charset=utf-8; BOUNDARY=\"a b\"",
             "--a b\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--a b--", "",
             "{\"a\":\"1\"}");
}

static void test_names(void **state) {
    (void)state;
    check(FIELD("\"a\\\"b\\\\c\\d;e\"", "1") END, "{\"a\\\"b\\\\c\\\\d;e\":\"1\"}");
    check(FIELD("\"%22+\"", "1") END, "{\"%22+\":\"1\"}");
    check(FIELD("\"\xFF\"", "1") END, "{\"\xC3\xBF\":\"1\"}");
    check(FIELD("a; name*=utf-8''na%C3%AFve", "1") END, "{\"na\xC3\xAFve\":\"1\"}");
    check("--x\r\nContent-Disposition: form-data; name=f; filename*=UTF-8'en'%e2%82%AC.txt; "
          "filename=\"EUR.txt\"\r\n\r\n\r\n" END,
          "{\"f\":{\"filename\":\"\xE2\x82\xAC.txt\",\"content_type\":\"text/plain\",\"size\":0,"
          "\"body\":\"\"}}");
    check(
        "--x\r\nContent-Disposition: form-data; name=f; filename*=iso-8859-1''%E9\r\n\r\n\r\n" END,
        "{\"f\":{\"filename\":\"\xC3\xA9\",\"content_type\":\"text/plain\",\"size\":0,"
        "\"body\":\"\"}}");
    /* One that cannot be read does not replace the one that can. */
    check("--x\r\nContent-Disposition: form-data; name=f; filename=b; filename*=koi8-r''%E9\r\n"
          "\r\n\r\n" END,
          "{\"f\":{\"filename\":\"b\",\"content_type\":\"text/plain\",\"size\":0,\"body\":\"\"}}");
    check("--x\r\nContent-Disposition: form-data; name=f; filename=\"\"\r\n\r\n\r\n" END,
          "{\"f\":{\"filename\":\"\",\"content_type\":\"text/plain\",\"size\":0,\"body\":\"\"}}");
}

static void test_what_is_broken_is_left_alone(void **state) {
    (void)state;
    check_broken("");
    check_broken("text");
    check_broken("--x\r\n");
    check_broken("--x\r\n\r\n\r\n" END);
    check_broken("--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1");
    check_broken("--x\r\nContent-Disposition: form-data; name=a\r\n" END);
    check_broken("--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n" END);
    check_broken("--x\r\nContent-Disposition: attachment; name=a\r\n\r\n1\r\n" END);
    check_broken("--x\r\nContent-Disposition: form-data; name=\"a\r\n\r\n1\r\n" END);
    check_broken("--x\r\nContent-Disposition: form-data; name=a; junk\r\n\r\n1\r\n" END);
    check_broken("--x\r\nContent-Disposition: form-data; name=a\r\n"
                 "Content-Disposition: form-data; name=b\r\n\r\n1\r\n" END);
    check_broken("--x\r\nContent-Type: a/b\r\n\r\n1\r\n" END);
    check_broken("--x\r\nno colon\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n" END);
    check_broken("--x\r\nContent-Disposition: form-data; name=\"a\1\"\r\n\r\n1\r\n" END);
    check_broken("--x\nContent-Disposition: form-data; name=a\n\n1\n--x--\n");
    check_as("multipart/form-data", FIELD("a", "1") END, "", "");
    check_as("multipart/form-data; boundary=", FIELD("a", "1") END, "", "");
    check_as("multipart/form-data; boundary=\"x", FIELD("a", "1") END, "", "");
}

static void test_limits(void **state) {
    (void)state;
    struct slice type = SLICE(TYPE);
    for (int count = MULTIPART_PARTS_MAX; count <= MULTIPART_PARTS_MAX + 1; count++) {
        struct buf body = {0}, out = {0};
        struct fields none = {0};
        for (int i = 0; i < count; i++)
            buf_puts(&body, FIELD("a", "1"));
        buf_puts(&body, END);
        assert_int_equal(multipart_write(&out, (struct slice){body.data, body.len}, type, &none),
                         count == MULTIPART_PARTS_MAX);
        buf_deinit(&body);
        buf_deinit(&out);
    }
    for (size_t size = MULTIPART_HEADERS_MAX_BYTES - 100; size <= MULTIPART_HEADERS_MAX_BYTES;
         size += 100) {
        struct buf body = {0}, out = {0};
        struct fields none = {0};
        buf_puts(&body, "--x\r\nContent-Disposition: form-data; name=a\r\nX: ");
        for (size_t i = 40; i < size; i++)
            buf_putc(&body, 'y');
        buf_puts(&body, "\r\n\r\n1\r\n" END);
        assert_int_equal(multipart_write(&out, (struct slice){body.data, body.len}, type, &none),
                         size < MULTIPART_HEADERS_MAX_BYTES);
        buf_deinit(&body);
        buf_deinit(&out);
    }
}

static void test_boundary_limit(void **state) {
    (void)state;
    for (int len = MULTIPART_BOUNDARY_MAX_BYTES; len <= MULTIPART_BOUNDARY_MAX_BYTES + 1; len++) {
        char type[200], body[400];
        snprintf(type, sizeof type, "multipart/form-data; boundary=%0*d", len, 0);
        snprintf(body, sizeof body,
                 "--%0*d\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n--%0*d--", len, 0,
                 len, 0);
        check_at(slice_of(type), slice_of(body), "",
                 slice_of(len == MULTIPART_BOUNDARY_MAX_BYTES ? "{\"a\":\"1\"}" : ""), __LINE__);
    }
}

static void test_the_type(void **state) {
    (void)state;
    assert_true(multipart_is_form(SLICE("multipart/form-data; boundary=x")));
    assert_true(multipart_is_form(SLICE("Multipart/Form-Data")));
    assert_false(multipart_is_form(SLICE("multipart/mixed; boundary=x")));
    assert_false(multipart_is_form(SLICE("")));
}

static int setup(void **state) {
    (void)state;
    hash_init();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields_and_files),
        cmocka_unit_test(test_charsets),
        cmocka_unit_test(test_growth_has_a_bound),
        cmocka_unit_test(test_repeated_names_are_an_array),
        cmocka_unit_test(test_the_query_wins),
        cmocka_unit_test(test_delimiters),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_what_is_broken_is_left_alone),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_boundary_limit),
        cmocka_unit_test(test_the_type),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
