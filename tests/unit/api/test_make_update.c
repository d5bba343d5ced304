/* From a request to its update: kinds of body, the merged query, the headers that are kept. */
#include "api/body.h"
#include "api/headers.h"
#include "api/make_update.h"
#include "base/hash.h"
#include "base/json.h"
#include "requests.h"

#define JSON_TYPE "application/json"
#define FORM_TYPE "application/x-www-form-urlencoded"
#define TEXT_TYPE "text/plain"

static enum http_error make(const struct request *request, const struct sent *sent,
                            bool capture_headers, struct update **update) {
    struct payload payload = payload_of(request);
    struct delivery delivery;
    enum http_error error = payload_inflate(&payload, request->body_max_bytes);
    if (!error)
        error = make_update(request, &payload, sent, capture_headers, update, &delivery);
    payload_deinit(&payload);
    return error;
}

/* Builds the update of a POST with this Content-Type (NULL: none), body and query. */
static enum http_error build(const char *type, struct slice body, struct slice query,
                             struct update **update) {
    struct buf text = {0};
    buf_puts(&text, "POST /c HTTP/1.1\r\nHost: h\r\n");
    if (type)
        buf_printf(&text, "Content-Type: %s\r\n", type);
    buf_printf(&text, "Content-Length: %zu\r\n\r\n", body.len);
    buf_append(&text, body.data, body.len);
    struct parsed parsed;
    parse_request(&parsed, (struct slice){text.data, text.len});
    char *copy =
        malloc(query.len + !query.len); /* of the exact size, so that reading beyond it is seen */
    memcpy(copy, query.data, query.len);
    *update = NULL;
    enum http_error error =
        make(&parsed.request, &(struct sent){.query = {copy, query.len}}, false, update);
    free(copy);
    parsed_deinit(&parsed);
    buf_deinit(&text);
    return error;
}

static void check_at(const char *type, struct slice body, struct slice query, struct slice wanted,
                     int line) {
    struct update *update;
    enum http_error error = build(type, body, query, &update);
    if (error) {
        print_error("error %d: %.*s\n", error, (int)body.len, body.data);
        _fail(__FILE__, line);
    }
    assert_slices_at(update_body(update), wanted, __FILE__, line);
    assert_slices_at(update_raw(update), body, __FILE__, line);
    assert_slices_at(update_query(update), query, __FILE__, line);
    assert_slices_at(update_method(update), SLICE("POST"), __FILE__, line);
    if (update->has_raw != !slice_equal(body, wanted) || update->refs != 1 || update->headers_len)
        _fail(__FILE__, line);
    enum json_kind kind = json_check(update_body(update));
    if (kind != JSON_OBJECT && kind != JSON_ARRAY)
        _fail(__FILE__, line);
    update_unref(update);
}

#define check(type, body, query, wanted)                                                           \
    check_at(type, SLICE(body), SLICE(query), SLICE(wanted), __LINE__)
/* It is delivered as it came. */
#define check_same(type, body) check_at(type, SLICE(body), SLICE(""), SLICE(body), __LINE__)

/* It is refused, under STRICT_JSON. */
static void check_refused_at(const char *type, struct slice body, struct slice query,
                             enum http_error wanted, int line) {
    struct update *update;
    body_is_json_strict = true;
    enum http_error error = build(type, body, query, &update);
    body_is_json_strict = false;
    if (error != wanted || update) {
        print_error("error %d, wanted %d: %.*s\n", error, wanted, (int)body.len, body.data);
        _fail(__FILE__, line);
    }
}

#define check_refused(type, body, error)                                                           \
    check_refused_at(type, SLICE(body), SLICE(""), error, __LINE__)

/* --- JSON ------------------------------------------------------------------------------------- */

static void test_json_is_verbatim(void **state) {
    (void)state;
    check_same(JSON_TYPE, "{}");
    check_same(JSON_TYPE, "[]");
    check_same(NULL, "{\"a\":1}");
    check_same(TEXT_TYPE, "{\"a\":1}"); /* whatever the Content-Type says */
    check_same(FORM_TYPE, "[1,2]");
    check_same("multipart/form-data; boundary=x", "{\"a\":1}");
    check_same(JSON_TYPE, " \r\n\t{ \"b\" : [ 1.10 , 1e400 , -0 ] ,\n\"a\":{\"b\":null} } \n");
    check_same(JSON_TYPE,
               "{\"id\":123456789012345678901234567890,\"n\":0.1000000000000000000000000000001}");
    check_same(JSON_TYPE,
               "{\"a\":\"\\u0061\\/\\ud83d\\ude00\\u0000\",\"\\u0062\":\"\xF0\x9F\x98\x80\"}");
    check_same(JSON_TYPE, "{\"a\":1,\"a\":2}");
}

static void test_bom(void **state) {
    (void)state;
    check(JSON_TYPE, "\xEF\xBB\xBF{\"a\":1}", "", "{\"a\":1}");
    check(JSON_TYPE, "\xEF\xBB\xBF [1] ", "", " [1] ");
    check(JSON_TYPE, "\xEF\xBB\xBF{\"a\":1}", "a=2", "{\"a\":\"2\"}");
    check(JSON_TYPE, "\xEF\xBB\xBF[1]", "a=2", "{\"body\":[1],\"a\":\"2\"}");
    check_refused(JSON_TYPE, "\xEF\xBB\xBF\xEF\xBB\xBF{}", ERROR_JSON);
    check_refused(JSON_TYPE, "\xEF\xBB{}", ERROR_JSON);
}

static void test_malformed_json(void **state) {
    (void)state;
    static const struct slice bodies[] = {
        SLICE("{"),
        SLICE("{\"a\":1"),
        SLICE("{\"a\":1}}"),
        SLICE("{\"a\":1}\"abc"),
        SLICE("[] \""),
        SLICE("[1,]"),
        SLICE("nonsense"),
        SLICE("1"),
        SLICE("\"text\""),
        SLICE("null"),
        SLICE("true"),
        SLICE(" "),
        SLICE("{\"a\":01}"),
        SLICE("{\"a\":\"\n\"}"),
        SLICE("{\"a\":\0}"),
        SLICE("{\"a\":1}\0"),
        SLICE("{\f}"),
        SLICE("\f{}"),
        SLICE("{}\f"),
        SLICE("[1,\v2]"),
        SLICE("{\"a\"\v:1}"),
        SLICE("{\"a\":\"\x80\"}"),
        SLICE("{\"a\":\"\xC0\xAF\"}"),
        SLICE("{\"a\":\"\xED\xA0\x80\"}"),
        SLICE("{\"a\":\"\xF4\x90\x80\x80\"}"),
        SLICE("{\"a\":\"\xE2\x82\"}"),
        SLICE("{\"\xFF\":1}"),
    };
    static const char *const types[] = {
        NULL,
        "application/json",
        "APPLICATION/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=utf-8",
        " application/json ; x=y",
        "text/json",
        "application/vnd.api+json",
        "application/cloudevents+JSON; charset=UTF-8",
        "application/csp-report+json",
        "; charset=utf-8",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        for (size_t j = 0; j < sizeof types / sizeof *types; j++) {
            check_refused_at(types[j], bodies[i], SLICE(""), ERROR_JSON, __LINE__);
            check_refused_at(types[j], bodies[i], SLICE("a=1&%00=2"), ERROR_JSON, __LINE__);
        }
}

static struct slice nested(char *out, int depth, char open, char close) {
    memset(out, open, (size_t)depth);
    memset(out + depth, close, (size_t)depth);
    return (struct slice){out, 2 * (size_t)depth};
}

static void test_depth(void **state) {
    (void)state;
    static char out[200000];
    struct slice deepest = nested(out, 200, '[', ']');
    check_at(JSON_TYPE, deepest, SLICE(""), deepest, __LINE__);
    check_refused_at(JSON_TYPE, nested(out, 201, '[', ']'), SLICE(""), ERROR_JSON_DEPTH, __LINE__);
    check_refused_at(JSON_TYPE, nested(out, 90000, '[', ']'), SLICE("a=1"), ERROR_JSON_DEPTH,
                     __LINE__);
    /* 200 levels of objects, merged. */
    struct buf body = {0}, wanted = {0};
    for (int i = 0; i < 199; i++)
        buf_puts(&body, "{\"a\":");
    buf_puts(&body, "{}");
    for (int i = 0; i < 199; i++)
        buf_putc(&body, '}');
    buf_append(&wanted, body.data, body.len - 1);
    buf_puts(&wanted, ",\"b\":\"1\"}");
    check_at(JSON_TYPE, (struct slice){body.data, body.len}, SLICE("b=1"),
             (struct slice){wanted.data, wanted.len}, __LINE__);
    buf_deinit(&body);
    buf_deinit(&wanted);
}

/* --- The query -------------------------------------------------------------------------------- */

static void test_merge(void **state) {
    (void)state;
    check(JSON_TYPE, "{}", "a=1", "{\"a\":\"1\"}");
    check(JSON_TYPE, "{\"a\":1}", "b=2", "{\"a\":1,\"b\":\"2\"}");
    check(JSON_TYPE, "{\"a\":1}", "b=2&c=3", "{\"a\":1,\"b\":\"2\",\"c\":\"3\"}");
    check(JSON_TYPE, "{\"a\":1,\"b\":2}", "a=3", "{\"a\":\"3\",\"b\":2}");
    check(JSON_TYPE, "{\"a\":1,\"b\":2}", "b=3", "{\"a\":1,\"b\":\"3\"}");
    check(JSON_TYPE, "{\"a\":1,\"b\":2}", "b=3&a=4&c=5", "{\"a\":\"4\",\"b\":\"3\",\"c\":\"5\"}");
    check(JSON_TYPE, "{\"a\":{\"a\":1},\"b\":[{\"a\":2}]}", "a=x",
          "{\"a\":\"x\",\"b\":[{\"a\":2}]}");
    check(JSON_TYPE, "{\"b\":{\"a\":1}}", "a=x", "{\"b\":{\"a\":1},\"a\":\"x\"}");
    check(JSON_TYPE, "{\"a\":1.10,\"b\":12345678901234567890123}",
          "c=", "{\"a\":1.10,\"b\":12345678901234567890123,\"c\":\"\"}");
    /* Nothing but empty pairs is no query. */
    check(JSON_TYPE, "{\"a\": 1}", "&", "{\"a\": 1}");
    check(JSON_TYPE, "{}", "=", "{\"\":\"\"}");
    check(JSON_TYPE, "{}", "a", "{\"a\":\"\"}");
}

static void test_merge_keeps_other_bytes(void **state) {
    (void)state;
    check(JSON_TYPE, " { } ", "a=1", " { \"a\":\"1\"} ");
    check(JSON_TYPE, "\n{ \"a\" : 1 , \"b\" : 2 }\n", "a=3&c=4",
          "\n{ \"a\" : \"3\" , \"b\" : 2 ,\"c\":\"4\"}\n");
    check(JSON_TYPE, "{\"a\":\r\n\t[ 1 ,\t2 ]\r\n}", "a=x", "{\"a\":\r\n\t\"x\"\r\n}");
    check(JSON_TYPE, "{\"a\" \n: \n{\"}\":\"}\"} \n,\"b\":\"}\"}", "a=x",
          "{\"a\" \n: \n\"x\" \n,\"b\":\"}\"}");
    check(JSON_TYPE, "{\"a\":true,\"b\":false,\"c\":null}", "b=x",
          "{\"a\":true,\"b\":\"x\",\"c\":null}");
    check(JSON_TYPE, "{\"a\":-1.5E+10}", "a=x", "{\"a\":\"x\"}");
    check(JSON_TYPE, "{\"a\":\"\\\"\\\\\"}", "a=x", "{\"a\":\"x\"}");
}

static void test_merge_of_keys(void **state) {
    (void)state;
    /* An escaped key is the key it stands for. */
    check(JSON_TYPE, "{\"\\u0061\":1}", "a=2", "{\"\\u0061\":\"2\"}");
    check(JSON_TYPE, "{\"\\u00e9\":1,\"\xC3\xA9\":2}", "%C3%A9=x",
          "{\"\\u00e9\":\"x\",\"\xC3\xA9\":\"x\"}");
    check(JSON_TYPE, "{\"\\ud83d\\ude00\":1}", "%F0%9F%98%80=x", "{\"\\ud83d\\ude00\":\"x\"}");
    check(JSON_TYPE, "{\"a\\u0000b\":1,\"a\":2}", "a%00b=x", "{\"a\\u0000b\":\"x\",\"a\":2}");
    check(JSON_TYPE, "{\"a\":2}", "a%00=x", "{\"a\":2,\"a\\u0000\":\"x\"}");
    check(JSON_TYPE, "{\"\\\"\\\\\\/\":1}", "%22%5C%2F=x", "{\"\\\"\\\\\\/\":\"x\"}");
    check(JSON_TYPE, "{\"\":1}", "=x", "{\"\":\"x\"}");
    check(JSON_TYPE, "{\"A\":1}", "a=x", "{\"A\":1,\"a\":\"x\"}");
    check(JSON_TYPE, "{\"aa\":1}", "a=x", "{\"aa\":1,\"a\":\"x\"}");
    /* Equal keys in the body are all replaced; those of the query become an array. */
    check(JSON_TYPE, "{\"a\":1,\"b\":2,\"a\":3}", "a=x", "{\"a\":\"x\",\"b\":2,\"a\":\"x\"}");
    check(JSON_TYPE, "{}", "a=1&b=2&a=3", "{\"a\":[\"1\",\"3\"],\"b\":\"2\"}");
    check(JSON_TYPE, "{\"b\":0}", "a=1&%61=2&b=3&a=4", "{\"b\":\"3\",\"a\":[\"1\",\"2\",\"4\"]}");
}

#define AGAIN ",\"a\":1,\"a\":1,\"a\":1,\"a\":1,\"a\":1"

/* A short body must not become a long one. */
static void test_merge_of_a_repeated_key(void **state) {
    (void)state;
    struct update *update;
    char query[1003];
    snprintf(query, sizeof query, "a=%01000d", 0);
    struct slice body = SLICE("{\"a\":1" AGAIN AGAIN AGAIN "}");
    assert_int_equal(build(JSON_TYPE, body, slice_of(query), &update), ERROR_MERGE_SIZE);
}

static void test_query_decoding(void **state) {
    (void)state;
    check(JSON_TYPE, "{}", "a+b=c+d", "{\"a b\":\"c d\"}");
    check(JSON_TYPE, "{}", "a%2Bb=%20", "{\"a+b\":\" \"}");
    check(JSON_TYPE, "{}", "a=1=2", "{\"a\":\"1=2\"}");
    check(JSON_TYPE, "{}", "a=%3D%26%25", "{\"a\":\"=&%\"}");
    check(JSON_TYPE, "{}", "%", "{\"%\":\"\"}");
    check(JSON_TYPE, "{}", "a=%", "{\"a\":\"%\"}");
    check(JSON_TYPE, "{}", "a=%4", "{\"a\":\"%4\"}");
    check(JSON_TYPE, "{}", "%=%&b=%z1", "{\"%\":\"%\",\"b\":\"%z1\"}");
    check(JSON_TYPE, "{}", "a=%%41", "{\"a\":\"%A\"}");
    check(JSON_TYPE, "{}", "a=%4%31", "{\"a\":\"%41\"}");
    check(JSON_TYPE, "{}", "a=%22%5C%0A%00%1F", "{\"a\":\"\\\"\\\\\\n\\u0000\\u001f\"}");
    check(JSON_TYPE, "{}", "a=%C3%A9", "{\"a\":\"\xC3\xA9\"}");
    check(JSON_TYPE, "{}", "a=%FF", "{\"a\":\"\xC3\xBF\"}");
    check(JSON_TYPE, "{}", "%C3=%C3x", "{\"\xC3\x83\":\"\xC3\x83x\"}");
    check(JSON_TYPE, "{}", "%FF=1&%C3%BF=2", "{\"\xC3\xBF\":[\"1\",\"2\"]}"); /* the same name */
    check(JSON_TYPE, "{\"\\u00ff\":0}", "%FF=1", "{\"\\u00ff\":\"1\"}");
    check(JSON_TYPE, "{}", "a=\xC3\xA9\xFF", "{\"a\":\"\xC3\x83\xC2\xA9\xC3\xBF\"}");
    check(JSON_TYPE, "{}", "a=b?c/d", "{\"a\":\"b?c/d\"}");
}

static void test_query_with_200_parameters(void **state) {
    (void)state;
    struct buf query = {0}, body = {0}, wanted = {0};
    buf_putc(&body, '{');
    buf_putc(&wanted, '{');
    for (int i = 0; i < 100; i++) { /* every second of them is in the body */
        buf_printf(&body, "%s\"p%d\":{\"p%d\":%d}", i ? "," : "", 2 * i, 2 * i + 1, i);
        buf_printf(&wanted, "%s\"p%d\":[\"v0\",\"v%d\"]", i ? "," : "", 2 * i, 2 * i);
    }
    for (int i = 0; i < 200; i++)
        buf_printf(&query, "%sp%d=v0", i ? "&" : "", i);
    for (int i = 199; i >= 0; i--)
        buf_printf(&query, "&%%70%d=v%d", i, i);
    for (int i = 0; i < 100; i++)
        buf_printf(&wanted, ",\"p%d\":[\"v0\",\"v%d\"]", 2 * i + 1, 2 * i + 1);
    buf_putc(&body, '}');
    buf_putc(&wanted, '}');
    check_at(JSON_TYPE, (struct slice){body.data, body.len}, (struct slice){query.data, query.len},
             (struct slice){wanted.data, wanted.len}, __LINE__);
    buf_deinit(&query);
    buf_deinit(&body);
    buf_deinit(&wanted);
}

static void test_array(void **state) {
    (void)state;
    check_same(JSON_TYPE, "[1, 2]");
    check(JSON_TYPE, " [1, 2] ", "a=1", "{\"body\": [1, 2] ,\"a\":\"1\"}");
    check(JSON_TYPE, "[{\"a\":2}]", "a=1&b=2", "{\"body\":[{\"a\":2}],\"a\":\"1\",\"b\":\"2\"}");
    check(JSON_TYPE, "[1]", "body=x", "{\"body\":\"x\"}");
    check(JSON_TYPE, "[1]", "a=1&body=x", "{\"a\":\"1\",\"body\":\"x\"}");
    check_same(JSON_TYPE, "[\"}\"]");
}

static void test_empty(void **state) {
    (void)state;
    static const char *const types[] = {NULL, JSON_TYPE, FORM_TYPE, TEXT_TYPE,
                                        "application/octet-stream"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        check(types[i], "", "", "{}");
        check(types[i], "", "a=1&b=2&a=3", "{\"a\":[\"1\",\"3\"],\"b\":\"2\"}");
    }
}

/* --- Forms, text and bytes -------------------------------------------------------------------- */

static void test_form(void **state) {
    (void)state;
    check(FORM_TYPE, "a=1&b=2", "", "{\"a\":\"1\",\"b\":\"2\"}");
    check("application/X-WWW-form-urlencoded; charset=utf-8", "a=1", "", "{\"a\":\"1\"}");
    check(FORM_TYPE, "a=1&a=2", "", "{\"a\":[\"1\",\"2\"]}");
    check(FORM_TYPE, "payload=%7B%22a%22%3A%221+2%22%7D", "",
          "{\"payload\":\"{\\\"a\\\":\\\"1 2\\\"}\"}");
    check(FORM_TYPE, "Body=Hello%21+%F0%9F%98%80&From=%2B14155551234", "",
          "{\"Body\":\"Hello! \xF0\x9F\x98\x80\",\"From\":\"+14155551234\"}");
    check(FORM_TYPE, "a=%FF&%=%4", "", "{\"a\":\"\xC3\xBF\",\"%\":\"%4\"}");
    check(FORM_TYPE, "\xFF=1", "", "{\"\xC3\xBF\":\"1\"}");
    check(FORM_TYPE, "\xFF%00=1", "", "{\"\xC3\xBF\\u0000\":\"1\"}");
    check(FORM_TYPE,
          "\xEF\xBB\xBF"
          "a=1",
          "", "{\"a\":\"1\"}");
    check(FORM_TYPE, "to[]=a&to[]=b&to[]=c", "", "{\"to[]\":[\"a\",\"b\",\"c\"]}");
    check(FORM_TYPE, "to[]=a&to[]=b", "to[]=q&to[]=r", "{\"to[]\":[\"q\",\"r\"]}");
    /* curl's --data-binary says that a picture is a form. */
    check(FORM_TYPE, "\x89PNG\0=1", "", "{\"body_base64\":\"iVBORwA9MQ==\"}");
    check(FORM_TYPE, "a=1&b=2", "b=3&c=4", "{\"a\":\"1\",\"b\":\"3\",\"c\":\"4\"}");
    check(FORM_TYPE, "a=1", "a=2", "{\"a\":\"2\"}");
    check(FORM_TYPE, "&&", "", "{}");
    check(FORM_TYPE, "text", "", "{\"text\":\"\"}");
    /* It looks like JSON, but is none. */
    check(FORM_TYPE, "{a=1", "", "{\"{a\":\"1\"}");
    check(FORM_TYPE, "{\"a\":1,", "a=2", "{\"{\\\"a\\\":1,\":\"\",\"a\":\"2\"}");
}

static void test_text(void **state) {
    (void)state;
    check(TEXT_TYPE, "hello", "", "{\"body\":\"hello\"}");
    check("application/xml", "<a b=\"c\"/>\n", "", "{\"body\":\"<a b=\\\"c\\\"/>\\n\"}");
    check(TEXT_TYPE, "hello", "a=1", "{\"body\":\"hello\",\"a\":\"1\"}");
    check(TEXT_TYPE, "hello", "body=x&a=1", "{\"body\":\"x\",\"a\":\"1\"}");
    check(TEXT_TYPE, "a\0b", "", "{\"body\":\"a\\u0000b\"}");
    check(TEXT_TYPE, "{\"a\":1,", "a=2", "{\"body\":\"{\\\"a\\\":1,\",\"a\":\"2\"}");
    check(TEXT_TYPE, "{\f}", "", "{\"body\":\"{\\u000c}\"}");
    check(TEXT_TYPE, "42", "", "{\"body\":\"42\"}");
    check(TEXT_TYPE, " ", "", "{\"body\":\" \"}");
    check("application/jsonx", "1", "", "{\"body\":\"1\"}");
    check("application/json5", "1", "", "{\"body\":\"1\"}");
    check("multipart/form-data; boundary=x", "--x\r\n", "", "{\"body\":\"--x\\u000d\\n\"}");
}

static void test_bytes(void **state) {
    (void)state;
    static const char *const type = "application/octet-stream";
    check(type, "\xFF", "", "{\"body_base64\":\"/w==\"}");
    check(type, "\xC0\x80", "", "{\"body_base64\":\"wIA=\"}");
    check(type, "\xFF", "a=1", "{\"body_base64\":\"/w==\",\"a\":\"1\"}");
    check(type, "\xFF", "body_base64=x", "{\"body_base64\":\"x\"}");
    check(type, "{\"a\":\"\xFF\"}", "a=1", "{\"body_base64\":\"eyJhIjoi/yJ9\",\"a\":\"1\"}");
    check(TEXT_TYPE, "\0\xFF", "", "{\"body_base64\":\"AP8=\"}");
}

static void test_not_json(void **state) {
    (void)state;
    static const char *const types[] = {NULL, JSON_TYPE, "application/x+json; charset=utf-8"};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        check(types[i], "{bad", "a=1", "{\"body\":\"{bad\",\"a\":\"1\"}");
        check(types[i], "a=b&c=d", "", "{\"body\":\"a=b&c=d\"}");
        check(types[i], "temp=22.5", "", "{\"body\":\"temp=22.5\"}");
        check(types[i], "NaN", "", "{\"body\":\"NaN\"}");
        check(types[i], "5", "body=6", "{\"body\":\"6\"}");
        check(types[i], "5", "a=6", "{\"body\":5,\"a\":\"6\"}");
        check(types[i], "\"ping\"", "", "{\"body\":\"ping\"}");
        check(types[i], "\xEF\xBB\xBF\"ping\"", "", "{\"body\":\"ping\"}");
        check(types[i], "\xEF\xBB\xBF{bad", "", "{\"body\":\"{bad\"}");
        check(types[i], "null", "", "{\"body\":null}");
        check(types[i], "\"\\ud83c\"", "", "{\"body\":\"\\ufffd\"}");
        check(types[i], "\0\xFF", "", "{\"body_base64\":\"AP8=\"}");
    }
}

static void test_half_surrogates(void **state) {
    (void)state;
    check(JSON_TYPE, "{\"t\":\"a\\ud83c\"}", "", "{\"t\":\"a\\ufffd\"}");
    check(JSON_TYPE, "[\"\\uDF89\\ud83c\"]", "", "[\"\\ufffd\\ufffd\"]");
    check(JSON_TYPE, "[\"\\ud83c\\ud83c\\udf89\\\\ud83c\"]", "",
          "[\"\\ufffd\\ud83c\\udf89\\\\ud83c\"]");
    check(JSON_TYPE, "[\"\\ud83c\\n\\ud83cx\"]", "a=1",
          "{\"body\":[\"\\ufffd\\n\\ufffdx\"],\"a\":\"1\"}");
    check(JSON_TYPE, "{\"\\ud83c\":1,\"b\":2}", "b=3", "{\"\\ufffd\":1,\"b\":\"3\"}");
    check(TEXT_TYPE, "{\"t\":\"\\udc00\"}", "", "{\"t\":\"\\ufffd\"}");
    check_same(JSON_TYPE, "[\"\\ud83c\\udf89\",\"\\u00e9\\uFFFF\\\\\"]");
    check_refused(JSON_TYPE, "[\"\\ud83c\\ud8\"]", ERROR_JSON);
}

static void test_charsets(void **state) {
    (void)state;
    check(JSON_TYPE, "{\"n\":\"Ren\xE9\"}", "", "{\"n\":\"Ren\xC3\xA9\"}");
    check(JSON_TYPE, "{\"n\":\"Ren\xE9\"}", "a=1", "{\"n\":\"Ren\xC3\xA9\",\"a\":\"1\"}");
    check(NULL, "[\"\x80\"]", "", "[\"\xE2\x82\xAC\"]");
    check("application/json; charset=KOI8-R", "[\"\xD0\"]", "", "[\"\xD0\xBF\"]");
    check("application/json; charset=\"shift_jis\"", "[\"\x83\x65\"]", "", "[\"\xE3\x83\x86\"]");
    check("application/json; charset=x-nonsense//TRANSLIT", "[\"\xE9\"]", "", "[\"\xC3\xA9\"]");
    check(JSON_TYPE, "\xFF\xFE{\0}\0", "", "{}");
    check(JSON_TYPE, "\xFE\xFF\0[\x20\xAC\0]", "", "{\"body\":\"[\xE2\x82\xAC]\"}");
    check(NULL, "\xFE\xFF", "", "{\"body\":\"\"}");
    check("application/json; charset=utf-16le", "{\0}\0", "", "{}");
    check("application/json; charset=UTF-16", "\xFE\xFF\0{\0}", "", "{}");
    check("application/json; charset=utf-32", "[\0\0\0]\0\0\0", "a=1", "{\"body\":[],\"a\":\"1\"}");
    check("text/plain; charset=utf-16le", "x\0y", "", "{\"body\":\"x\\u0000y\"}"); /* cut */
    /* Some say UTF-16 and send UTF-8. */
    check("text/xml; charset=utf-16", "<a>\xC3\xA9</a>", "", "{\"body\":\"<a>\xC3\xA9</a>\"}");
    check("text/xml; charset=utf-16", "\xE9\xE9\xE9", "",
          "{\"body\":\"\xC3\xA9\xC3\xA9\xC3\xA9\"}");
    check("text/plain; charset=iso-2022-jp", "\x1B$BF|\x1B(B", "", "{\"body\":\"\xE6\x97\xA5\"}");
    check("text/plain; charset=iso-8859-15", "\xA4", "", "{\"body\":\"\xE2\x82\xAC\"}");
    check(TEXT_TYPE, "\xE9", "", "{\"body\":\"\xC3\xA9\"}");
    check(FORM_TYPE, "{\"a\":\"\xE9\"}", "", "{\"a\":\"\xC3\xA9\"}");
    check(FORM_TYPE, "n=Ren%E9&m=\xE9&o=%C3%A9", "",
          "{\"n\":\"Ren\xC3\xA9\",\"m\":\"\xC3\xA9\",\"o\":\"\xC3\xA9\"}");
    check("application/x-www-form-urlencoded; charset=windows-1251", "n=%cf", "",
          "{\"n\":\"\xD0\x9F\"}");
    check("image/png", "\xE9", "", "{\"body_base64\":\"6Q==\"}");
}

/* A form of very many fields is kept as text, and so is its memory bounded. */
static void test_form_of_many_fields(void **state) {
    (void)state;
    struct buf body = {0}, wanted = {0};
    for (int i = 0; i <= FIELDS_MAX; i++)
        buf_puts(&body, "a&");
    buf_puts(&wanted, "{\"body\":\"");
    buf_append(&wanted, body.data, body.len);
    buf_puts(&wanted, "\"}");
    check_at(FORM_TYPE, (struct slice){body.data, body.len}, SLICE(""),
             (struct slice){wanted.data, wanted.len}, __LINE__);
    buf_deinit(&body);
    buf_deinit(&wanted);
}

/* Text of control characters would take six times its bytes. */
static void test_costly_text(void **state) {
    (void)state;
    enum { LEN = 1 << 20 };
    char *body = calloc(1, LEN);
    static const char *const types[] = {NULL, JSON_TYPE, TEXT_TYPE, FORM_TYPE};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct update *update;
        assert_int_equal(build(types[i], (struct slice){body, LEN}, SLICE(""), &update),
                         HTTP_NO_ERROR);
        assert_true(update->body_len < 3 * LEN);
        assert_true(slice_starts_with(update_body(update), SLICE("{\"body_base64\":\"AAAA")));
        update_unref(update);
    }
    free(body);
}

/* One update after the other does not see the one before, however large that was. */
static void test_large_then_small(void **state) {
    (void)state;
    enum { LEN = 1 << 20 };
    char *body = malloc(LEN);
    memset(body, 'x', LEN);
    struct update *update;
    assert_int_equal(build(TEXT_TYPE, (struct slice){body, LEN}, SLICE(""), &update),
                     HTTP_NO_ERROR);
    assert_int_equal(update->body_len, LEN + 11);
    assert_int_equal(update_size(update), sizeof *update + 2 * LEN + 11 + 4);
    update_unref(update);
    memset(body, '\xFF', LEN);
    assert_int_equal(build(TEXT_TYPE, (struct slice){body, LEN}, SLICE(""), &update),
                     HTTP_NO_ERROR);
    update_unref(update);
    check(TEXT_TYPE, "a", "", "{\"body\":\"a\"}");
    check_refused(JSON_TYPE, "{\"a\":", ERROR_JSON);
    check(JSON_TYPE, "{}", "a=1", "{\"a\":\"1\"}");
    free(body);
}

/* --- Headers ---------------------------------------------------------------------------------- */

/* The headers kept of a request with the header lines `lines`, besides Host. */
static struct update *with_headers(const char *lines) {
    struct buf text = {0};
    buf_puts(&text, "GET /c HTTP/1.1\r\nHost: h\r\n");
    buf_puts(&text, lines);
    buf_puts(&text, "\r\n");
    struct parsed parsed;
    parse_request(&parsed, (struct slice){text.data, text.len});
    struct update *update = NULL;
    assert_int_equal(make(&parsed.request, &(struct sent){.query = SLICE("")}, true, &update),
                     HTTP_NO_ERROR);
    parsed_deinit(&parsed);
    buf_deinit(&text);
    assert_int_equal(json_check(update_headers(update)), JSON_OBJECT);
    assert_true(update->headers_len <= HEADERS_MAX_BYTES);
    return update;
}

static void check_headers_at(const char *lines, const char *wanted, int line) {
    struct update *update = with_headers(lines);
    assert_slices_at(update_headers(update), slice_of(wanted), __FILE__, line);
    assert_slices_at(update_method(update), SLICE("GET"), __FILE__, line);
    update_unref(update);
}

#define check_headers(lines, wanted) check_headers_at(lines, wanted, __LINE__)

static void test_headers(void **state) {
    (void)state;
    check_headers("", "{\"host\":\"h\"}");
    check_headers("X-GitHub-Event: push\r\n", "{\"host\":\"h\",\"x-github-event\":\"push\"}");
    check_headers("X: a\r\nY: b\r\nx: c\r\n", "{\"host\":\"h\",\"x\":\"a, c\",\"y\":\"b\"}");
    check_headers("X:\r\nX: a\r\n", "{\"host\":\"h\",\"x\":\", a\"}");
    check_headers("X: \"q\"\\\r\n", "{\"host\":\"h\",\"x\":\"\\\"q\\\"\\\\\"}");
    check_headers("X: a\tb\r\n", "{\"host\":\"h\",\"x\":\"a\\u0009b\"}");
}

static void test_headers_not_ascii(void **state) {
    (void)state;
    check_headers("X: \xC3\xA9\r\n", "{\"host\":\"h\",\"x\":\"\xC3\xA9\"}");
    check_headers("X: \xE9\r\n", "{\"host\":\"h\",\"x\":\"\xC3\xA9\"}");
    check_headers("X: a\xFF\x80z\r\n", "{\"host\":\"h\",\"x\":\"a\xC3\xBF\xC2\x80z\"}");
    check_headers("X: \xC3\xA9\xE9\r\n", "{\"host\":\"h\",\"x\":\"\xC3\x83\xC2\xA9\xC3\xA9\"}");
}

static void test_headers_left_out(void **state) {
    (void)state;
    check_headers(
        "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nTE: trailers\r\nTrailer: X\r\n"
        "Upgrade: h2c\r\nCookie: a=b\r\nProxy-Authorization: x\r\nproxy-anything: y\r\nProxy-: "
        "z\r\n",
        "{\"host\":\"h\"}");
    check_headers("COOKIE: a\r\nConnection: x\r\nconnection: y\r\n", "{\"host\":\"h\"}");
    check_headers(
        "Set-Cookie: a\r\nCookie2: b\r\nTeX: c\r\nProxy: d\r\nUpgrade-Insecure-Requests: 1\r\n",
        "{\"host\":\"h\",\"set-cookie\":\"a\",\"cookie2\":\"b\",\"tex\":\"c\",\"proxy\":\"d\","
        "\"upgrade-insecure-requests\":\"1\"}");
    /* Those of a chunked push. */
    struct parsed parsed;
    parse_request(&parsed,
                  SLICE("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"
                        "Authorization: Basic x\r\n\r\n2\r\n{}\r\n0\r\nX-Trailer: t\r\n\r\n"));
    struct update *update;
    assert_int_equal(make(&parsed.request, &(struct sent){.query = SLICE("")}, true, &update),
                     HTTP_NO_ERROR);
    assert_text(update_headers(update), "{\"host\":\"h\",\"authorization\":\"Basic x\"}");
    assert_text(update_body(update), "{}");
    assert_false(update->has_raw);
    update_unref(update);
    parsed_deinit(&parsed);
}

/* At most 8 KiB are kept; what does not fit is left out, what fits behind it is not. */
static void test_headers_bound(void **state) {
    (void)state;
    struct buf lines = {0};
    buf_puts(&lines, "A: 1\r\nBig: ");
    for (int i = 0; i < 9000; i++)
        buf_putc(&lines, 'b');
    buf_puts(&lines, "\r\nC: 3\r\n");
    buf_putc(&lines, '\0');
    check_headers(lines.data, "{\"host\":\"h\",\"a\":\"1\",\"c\":\"3\"}");
    buf_reset(&lines, SIZE_MAX);
    for (int i = 0; i < 100; i++)
        buf_printf(&lines, "X-%d: %0200d\r\n", i, i);
    buf_putc(&lines, '\0');
    struct update *update = with_headers(lines.data);
    assert_true(update->headers_len > HEADERS_MAX_BYTES - 300);
    update_unref(update);
    /* Around the bound to the byte: `{"host":"h","x":"…"}`. */
    for (int total = HEADERS_MAX_BYTES - 2; total <= HEADERS_MAX_BYTES + 2; total++) {
        buf_reset(&lines, SIZE_MAX);
        buf_puts(&lines, "X: ");
        for (int i = 0; i < total - 19; i++)
            buf_putc(&lines, 'x');
        buf_puts(&lines, "\r\n");
        buf_putc(&lines, '\0');
        update = with_headers(lines.data);
        assert_int_equal(update->headers_len, total <= HEADERS_MAX_BYTES ? total : 12);
        update_unref(update);
    }
    /* A header of control characters grows when it is written; the bound is on what is kept. */
    buf_reset(&lines, SIZE_MAX);
    buf_puts(&lines, "X: ");
    for (int i = 0; i < 4000; i++)
        buf_puts(&lines, "x\t");
    buf_puts(&lines, "x\r\n");
    buf_putc(&lines, '\0');
    check_headers(lines.data, "{\"host\":\"h\"}");
    buf_deinit(&lines);
}

static void test_methods(void **state) {
    (void)state;
    static const char *const methods[] = {"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "M-SEARCH"};
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        char text[64];
        snprintf(text, sizeof text, "%s / HTTP/1.0\r\n\r\n", methods[i]);
        struct parsed parsed;
        parse_request(&parsed, slice_of(text));
        struct update *update;
        assert_int_equal(make(&parsed.request, &(struct sent){.query = SLICE("")}, true, &update),
                         HTTP_NO_ERROR);
        assert_text(update_method(update), methods[i]);
        assert_text(update_headers(update), "{}");
        update_unref(update);
        parsed_deinit(&parsed);
    }
}

static void test_parts(void **state) {
    (void)state;
    struct update_parts parts = {.body = SLICE("b"),
                                 .raw = SLICE("ra\0w"),
                                 .query = SLICE("q"),
                                 .headers = SLICE("hh"),
                                 .method = SLICE("M"),
                                 .has_raw = true};
    struct update *update = update_new(&parts);
    assert_text(update_body(update), "b");
    assert_slices(update_raw(update), SLICE("ra\0w"));
    assert_text(update_query(update), "q");
    assert_text(update_headers(update), "hh");
    assert_text(update_method(update), "M");
    update_unref(update_ref(update));
    update_unref(update);
    parts.has_raw = false;
    update = update_new(&parts);
    assert_text(update_raw(update), "b");
    assert_text(update_query(update), "q");
    update_unref(update);
    parts.raw = SLICE("");
    parts.has_raw = true;
    update = update_new(&parts);
    assert_int_equal(update_raw(update).len, 0);
    update_unref(update);
}

static int set_up(void **state) {
    (void)state;
    hash_init();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_is_verbatim),
        cmocka_unit_test(test_bom),
        cmocka_unit_test(test_malformed_json),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_merge),
        cmocka_unit_test(test_merge_keeps_other_bytes),
        cmocka_unit_test(test_merge_of_keys),
        cmocka_unit_test(test_merge_of_a_repeated_key),
        cmocka_unit_test(test_query_decoding),
        cmocka_unit_test(test_query_with_200_parameters),
        cmocka_unit_test(test_array),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_form),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_not_json),
        cmocka_unit_test(test_half_surrogates),
        cmocka_unit_test(test_charsets),
        cmocka_unit_test(test_form_of_many_fields),
        cmocka_unit_test(test_costly_text),
        cmocka_unit_test(test_large_then_small),
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_headers_not_ascii),
        cmocka_unit_test(test_headers_left_out),
        cmocka_unit_test(test_headers_bound),
        cmocka_unit_test(test_methods),
        cmocka_unit_test(test_parts),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
