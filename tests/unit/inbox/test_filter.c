/* Filters: what parses, and which updates match. */
#include "base/hash.h"
#include "inbox/filter.h"
#include "support.h"

static struct filters filters;

static int set_up(void **state) {
    (void)state;
    hash_init();
    return filters_init(&filters) ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    assert_int_equal(filters.bytes, 0);
    assert_int_equal(filters.table.count, 0);
    filters_deinit(&filters);
    return 0;
}

/* --- Parsing ---------------------------------------------------------------------------------- */

/* Of conditions with a NUL behind each but the last. */
static enum filter_error get(struct slice text, struct filter **filter) {
    char *copy = malloc(text.len + 1); /* of the exact size: reading beyond it is seen */
    memcpy(copy, text.data, text.len);
    copy[text.len] = '\0';
    enum filter_error error = filters_get(&filters, (struct slice){copy, text.len + 1}, filter);
    free(copy);
    return error;
}

static void check_parse_at(struct slice text, enum filter_error wanted, int line) {
    struct filter *filter = NULL;
    enum filter_error error = get(text, &filter);
    if (error != wanted)
        print_error("%d for %.*s\n", error, (int)text.len, text.data);
    if (error == FILTER_OK)
        filter_unref(&filters, filter);
    if (error != wanted)
        _fail(__FILE__, line);
}

#define check_parse(text, wanted) check_parse_at(SLICE(text), wanted, __LINE__)

static void test_what_parses(void **state) {
    (void)state;
    check_parse("body.a:x", FILTER_OK);
    check_parse("body.a:", FILTER_OK);
    check_parse("body.a:x:y", FILTER_OK);
    check_parse("!body.a:*", FILTER_OK);
    check_parse("body.:x", FILTER_MALFORMED);
    check_parse("body.a..b:x", FILTER_OK); /* a member may have an empty name */
    check_parse("body..:x", FILTER_OK);
    check_parse("header.x-y:a|b|", FILTER_OK);
    check_parse("query.a b:1", FILTER_OK);
    check_parse("method:POST", FILTER_OK);
    check_parse("path:/v1/*", FILTER_OK);
    check_parse("!!path:x", FILTER_MALFORMED);
    check_parse("!:x", FILTER_MALFORMED);
    check_parse("!", FILTER_MALFORMED);
    check_parse(":x", FILTER_MALFORMED);
    check_parse("x", FILTER_MALFORMED);
    check_parse("body:x", FILTER_MALFORMED);
    check_parse("body.a", FILTER_MALFORMED);
    check_parse("header.:x", FILTER_MALFORMED);
    check_parse("header:x", FILTER_MALFORMED);
    check_parse("query.:x", FILTER_MALFORMED);
    check_parse("methods:x", FILTER_MALFORMED);
    check_parse("method.x:x", FILTER_MALFORMED);
    check_parse("Method:x", FILTER_MALFORMED);
    check_parse(" method:x", FILTER_MALFORMED);
    check_parse("ts:5", FILTER_MALFORMED);
    check_parse("", FILTER_MALFORMED);
    check_parse("method:x\0", FILTER_MALFORMED); /* an empty condition behind it */
    check_parse("method:x\0path:y", FILTER_OK);
    check_parse("method:x\0path", FILTER_MALFORMED);
}

static void test_escapes_and_control_characters(void **state) {
    (void)state;
    check_parse("path:\\*\\|\\\\", FILTER_OK);
    check_parse("path:\\", FILTER_MALFORMED);
    check_parse("path:a\\\\\\", FILTER_MALFORMED);
    check_parse("path:\\n", FILTER_MALFORMED);
    check_parse("path:\1", FILTER_MALFORMED); /* not what stands for `*` inside */
    check_parse("path:\2", FILTER_MALFORMED);
    check_parse("path:\\\1", FILTER_MALFORMED);
    check_parse("path:\x1f", FILTER_MALFORMED);
    check_parse("path:\x7f", FILTER_MALFORMED);
    check_parse("path:\x80\xff", FILTER_OK);
}

/* `count` conditions that are `bytes` long together. */
static enum filter_error parse_many(size_t count, size_t bytes) {
    char text[8192];
    size_t len = 0, each = bytes / count;
    for (size_t i = 0; i < count; i++) {
        size_t size = i + 1 == count ? bytes - each * i : each;
        memset(text + len, 'x', size);
        memcpy(text + len, "path:", 5);
        len += size;
        text[len++] = '\0';
    }
    struct filter *filter = NULL;
    enum filter_error error = get((struct slice){text, len - 1}, &filter);
    if (error == FILTER_OK)
        filter_unref(&filters, filter);
    return error;
}

static void test_limits(void **state) {
    (void)state;
    assert_int_equal(parse_many(1, FILTER_MAX_BYTES), FILTER_OK);
    assert_int_equal(parse_many(1, FILTER_MAX_BYTES + 1), FILTER_TOO_LARGE);
    assert_int_equal(parse_many(16, FILTER_MAX_BYTES), FILTER_OK);
    assert_int_equal(parse_many(16, FILTER_MAX_BYTES + 1), FILTER_TOO_LARGE);
    assert_int_equal(parse_many(16, 200), FILTER_OK);
    assert_int_equal(parse_many(17, 200), FILTER_TOO_LARGE);
    assert_int_equal(parse_many(1, 8000), FILTER_TOO_LARGE);
    assert_int_equal(parse_many(600, 3000), FILTER_TOO_LARGE);
    assert_int_equal(parse_many(500, 4000), FILTER_TOO_LARGE);
}

static void test_costly_ones_are_refused(void **state) {
    (void)state;
    check_parse("body.a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p:x", FILTER_OK);
    check_parse("body.a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q:x", FILTER_TOO_LARGE);
    char text[FILTER_MAX_BYTES] = "body.a:x";
    for (int reads = 1; reads < FILTER_MAX_READS; reads++)
        strcat(text, "|*x*");
    check_parse_at(slice_of(text), FILTER_OK, __LINE__);
    strcat(text, "|*x|x*|**|x"); /* these read nothing again */
    check_parse_at(slice_of(text), FILTER_OK, __LINE__);
    strcat(text, "|x*x*x");
    check_parse_at(slice_of(text), FILTER_TOO_LARGE, __LINE__);
}

static void test_who_asks_for_the_same_shares(void **state) {
    (void)state;
    struct filter *a, *b, *c;
    assert_int_equal(get(SLICE("path:a"), &a), FILTER_OK);
    assert_int_equal(get(SLICE("path:a"), &b), FILTER_OK);
    assert_int_equal(get(SLICE("path:a\0path:a"), &c), FILTER_OK);
    assert_ptr_equal(a, b);
    assert_ptr_not_equal(a, c);
    assert_int_equal(filters.table.count, 2);
    filter_unref(&filters, a);
    assert_int_equal(filters.table.count, 2);
    filter_unref(&filters, c);
    filter_unref(&filters, b);
}

static void test_all_of_them_are_bounded(void **state) {
    (void)state;
    static struct filter *all[FILTERS_MAX_BYTES / 512];
    int count = 0;
    enum filter_error error;
    do {
        char text[64];
        int len = snprintf(text, sizeof text, "path:%d", count);
        error = get((struct slice){text, (size_t)len}, &all[count]);
    } while (error == FILTER_OK && ++count);
    assert_int_equal(error, FILTER_NO_ROOM);
    assert_in_range(count, 10000, sizeof all / sizeof *all);
    assert_true(filters.bytes <= FILTERS_MAX_BYTES);
    struct filter *again; /* one that is there needs no room */
    assert_int_equal(get(SLICE("path:0"), &again), FILTER_OK);
    filter_unref(&filters, again);
    while (count)
        filter_unref(&filters, all[--count]);
}

/* --- Matching --------------------------------------------------------------------------------- */

static struct update *make(const char *body, const char *headers, const char *query,
                           const char *method) {
    struct update_parts parts = {.body = slice_of(body),
                                 .headers = slice_of(headers),
                                 .query = slice_of(query),
                                 .method = slice_of(method)};
    struct update *update = update_new(&parts);
    assert_non_null(update);
    return update;
}

static bool matches(struct slice text, const struct update *update) {
    struct filter *filter;
    assert_int_equal(get(text, &filter), FILTER_OK);
    bool result = filter_matches(filter, update);
    filter_unref(&filters, filter);
    return result;
}

static void check_match_at(struct slice text, struct update *update, bool wanted, int line) {
    bool result = matches(text, update);
    update_unref(update);
    if (result != wanted)
        _fail(__FILE__, line);
}

#define check_match(text, update, wanted) check_match_at(SLICE(text), update, wanted, __LINE__)

/* Whether the pattern matches the text, as a string of a body; without quotes in either. */
#define check_text(pattern, text, wanted)                                                          \
    check_match("body.a:" pattern, make("{\"a\":\"" text "\"}", "", "", "POST"), wanted)

static void test_patterns(void **state) {
    (void)state;
    check_text("", "", true);
    check_text("", "x", false);
    check_text("abc", "abc", true);
    check_text("abc", "Abc", false);
    check_text("abc", "abcd", false);
    check_text("abc", "xabc", false);
    check_text("*", "", true);
    check_text("*", "x", true);
    check_text("**", "", true);
    check_text("***", "x", true);
    check_text("a*", "a", true);
    check_text("a*", "ba", false);
    check_text("*a", "ba", true);
    check_text("*a", "ab", false);
    check_text("*a", "", false);
    check_text("a*a", "a", false); /* parts do not overlap */
    check_text("a*a", "aa", true);
    check_text("ab*ba", "aba", false);
    check_text("ab*ba", "abba", true);
    check_text("*aa*aa*", "aaa", false);
    check_text("*aa*aa*", "aaaa", true);
    check_text("*ab*b", "ab", false);
    check_text("*ab*b", "abb", true);
    check_text("a*b*c", "abbc", true);
    check_text("a*b*c", "acb", false);
    check_text("a*bc*bcd", "abcbcd", true);
    check_text("a*bc*bcd", "abcd", false);
    check_text("*x**y*", "xy", true);
    check_text("*abcabd*", "abcabcabd", true);
}

static void test_alternatives(void **state) {
    (void)state;
    check_text("a|b", "a", true);
    check_text("a|b", "b", true);
    check_text("a|b", "a|b", false);
    check_text("a|b", "", false);
    check_text("a|", "", true);
    check_text("|a", "", true);
    check_text("|", "", true);
    check_text("|", "x", false);
    check_text("x*|*y", "xz", true);
    check_text("x*|*y", "zy", true);
    check_text("x*|*y", "yx", false);
    check_text("a||b", "c", false);
}

static void test_escaped_patterns(void **state) {
    (void)state;
    check_text("a\\|b", "a|b", true);
    check_text("a\\|b", "a", false);
    check_text("a\\*", "a*", true);
    check_text("a\\*", "ab", false);
    check_text("a\\\\b", "a\\\\b", true); /* both are one backslash */
    check_text("\\**\\*", "*x*", true);
    check_text("\\\\*", "\\\\x", true);
}

/* Some bytes that stand for `*` and `|` inside a filter may be in a text, where they do not. */
static void test_control_characters_in_a_text(void **state) {
    (void)state;
    check_text("a\\*", "a\\u0001", false);
    check_text("*", "a\\u0001\\u0002\\u0000", true);
    check_text("a*b", "a\\u0002b", true);
    check_text("a|b", "a\\u0002b", false);
    check_text("a*", "a\\u0000b", true);
    check_text("a", "a\\u0000", false);
}

static void test_strings_are_decoded(void **state) {
    (void)state;
    check_text("\"", "\\\"", true);
    check_text("/", "\\/", true);
    check_text("\xd0\x9f", "\\u041f", true);
    check_text("\xd0\x9f", "\xd0\x9f", true);
    check_text("\xf0\x9f\x98\x80", "\\ud83d\\ude00", true);
    check_text("\xef\xbf\xbd", "\\ud83d", true);
    check_match("body.\xd0\x9f:x", make("{\"\\u041f\":\"x\"}", "", "", "POST"), true);
    check_match("body.a\"b:x", make("{\"a\\\"b\":\"x\"}", "", "", "POST"), true);
}

static void test_values_that_are_no_strings(void **state) {
    (void)state;
    static const char body[] = "{\"n\":1.10,\"e\":1E5,\"t\":true,\"f\":false,\"z\":null,"
                               "\"o\":{\"x\":1},\"l\":[1],\"s\":\"\",\"big\":12345678901234567890}";
    static const struct {
        struct slice text;
        bool wanted;
    } cases[] = {
        {SLICE("body.n:1.10"), true},     {SLICE("body.n:1.1"), false},
        {SLICE("body.e:1E5"), true},      {SLICE("body.e:100000"), false},
        {SLICE("body.t:true"), true},     {SLICE("body.t:TRUE"), false},
        {SLICE("body.f:fal*"), true},     {SLICE("body.big:*67890"), true},
        {SLICE("body.z:null"), false},    {SLICE("body.z:*"), false},
        {SLICE("body.z:"), false},        {SLICE("!body.z:*"), true},
        {SLICE("body.o:*"), false},       {SLICE("!body.o:*"), true},
        {SLICE("body.l:*"), false},       {SLICE("!body.l:*"), true},
        {SLICE("body.missing:*"), false}, {SLICE("body.missing:"), false},
        {SLICE("!body.missing:*"), true}, {SLICE("!body.missing:x"), true},
        {SLICE("body.s:"), true},         {SLICE("body.s:*"), true},
        {SLICE("!body.s:*"), false},      {SLICE("!body.s:x"), true},
        {SLICE("!body.t:true"), false},   {SLICE("body.o.x:1"), true},
        {SLICE("body.l.0:1"), true},      {SLICE("body.l.1:*"), false},
        {SLICE("body.n.0:*"), false},     {SLICE("body.s.a:*"), false},
    };
    struct update *update = make(body, "", "", "POST");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (matches(cases[i].text, update) != cases[i].wanted)
            fail_msg("%s", cases[i].text.data);
    update_unref(update);
}

static void test_paths_into_a_body(void **state) {
    (void)state;
    check_match("body.a.b.2:x", make("{\"a\":{\"b\":[1,2,\"x\"]}}", "", "", "POST"), true);
    check_match("body.1.a:x", make(" [0, {\"a\" : \"x\"}] ", "", "", "POST"), true);
    check_match("body.01:x", make("[0,\"x\"]", "", "", "POST"), true);
    check_match("body.-1:x", make("[\"x\"]", "", "", "POST"), false);
    check_match("body.99999999999999999999:x", make("[\"x\"]", "", "", "POST"), false);
    check_match("body.0:x", make("{\"0\":\"x\"}", "", "", "POST"), true);
    check_match("body.a..b:x", make("{\"a\":{\"\":{\"b\":\"x\"}}}", "", "", "POST"), true);
    check_match("body.a:2", make("{\"a\":1,\"a\":2}", "", "", "POST"), true); /* the last */
    check_match("body.a:1", make("{\"a\":1,\"a\":2}", "", "", "POST"), false);
}

static void test_headers(void **state) {
    (void)state;
    static const char headers[] = "{\"x-event\":\"push\",\"x-empty\":\"\",\"q\":\"a\\\"\\\\b\"}";
    check_match("header.x-event:push", make("{}", headers, "", "POST"), true);
    check_match("header.X-EVENT:push", make("{}", headers, "", "POST"), true);
    check_match("header.X-Event:Push", make("{}", headers, "", "POST"), false);
    check_match("header.x-empty:", make("{}", headers, "", "POST"), true);
    check_match("header.q:a\"\\\\b", make("{}", headers, "", "POST"), true);
    check_match("header.x-none:*", make("{}", headers, "", "POST"), false);
    check_match("!header.x-none:*", make("{}", headers, "", "POST"), true);
    check_match("header.x-event:*", make("{}", "", "", "POST"), false); /* none were kept */
    check_match("!header.x-event:*", make("{}", "", "", "POST"), true);
    /* Written to Redis by somebody else. */
    check_match("header.x-event:*", make("{}", "{\"x-event\":5}", "", "POST"), false);
    check_match("header.x-event:*", make("{}", "{\"x-event\":null}", "", "POST"), false);
    check_match("header.x-event:*", make("{}", "{\"x-event\":{}}", "", "POST"), false);
}

static void test_parameters(void **state) {
    (void)state;
    check_match("query.app:shop", make("{}", "", "app=shop", "POST"), true);
    check_match("query.app:shop", make("{}", "", "App=shop", "POST"), false);
    check_match("query.app:blog", make("{}", "", "app=shop&app=blog", "POST"), true);
    check_match("query.app:shop", make("{}", "", "app=shop&app=blog", "POST"), true);
    check_match("!query.app:shop", make("{}", "", "app=shop&app=blog", "POST"), false);
    check_match("query.app:a b&c", make("{}", "", "app=a+b%26c", "POST"), true);
    check_match("query.a b:1", make("{}", "", "&&a+b=1", "POST"), true);
    check_match("query.app:", make("{}", "", "app", "POST"), true);
    check_match("query.app:", make("{}", "", "app=", "POST"), true);
    check_match("query.app:*", make("{}", "", "apple=1", "POST"), false);
    check_match("!query.app:*", make("{}", "", "", "POST"), true);
    check_match("query.app:x=y", make("{}", "", "app=x=y", "POST"), true);
    check_match("query.app:*%zz", make("{}", "", "app=%zz", "POST"), true);
}

static void test_method_and_path(void **state) {
    (void)state;
    static const char method[] = "PUT 203.0.113.7 /v1/a =00000000000000000041";
    check_match("method:PUT", make("{}", "", "", method), true);
    check_match("method:POST|PATCH", make("{}", "", "", method), false);
    check_match("method:PUT", make("{}", "", "", "PUT"), true);
    check_match("path:/v1/*", make("{}", "", "", method), true);
    check_match("path:/v1", make("{}", "", "", method), false);
    check_match("path:*", make("{}", "", "", "PUT 203.0.113.7"), false);
    check_match("path:", make("{}", "", "", "PUT 203.0.113.7"), false);
    check_match("!path:*", make("{}", "", "", "PUT 203.0.113.7"), true);
}

static void test_all_conditions_must_hold(void **state) {
    (void)state;
    check_match("body.a:1\0body.b:2", make("{\"a\":1,\"b\":2}", "", "", "POST"), true);
    check_match("body.a:1\0body.b:3", make("{\"a\":1,\"b\":2}", "", "", "POST"), false);
    check_match("body.a:1\0!body.b:3", make("{\"a\":1,\"b\":2}", "", "", "POST"), true);
    check_match("!body.a:1\0body.b:2", make("{\"a\":1,\"b\":2}", "", "", "POST"), false);
}

/* --- Cost and memory -------------------------------------------------------------------------- */

static size_t cost(struct slice text, const struct update *update) {
    struct filter *filter;
    assert_int_equal(get(text, &filter), FILTER_OK);
    size_t bytes = filter_cost(filter, update);
    filter_unref(&filters, filter);
    return bytes;
}

static void test_cost(void **state) {
    (void)state;
    char body[1100] = "{\"a\":\"";
    memset(body + 6, 'x', 1000);
    strcpy(body + 1006, "\"}");
    struct update *update = make(body, "{\"h\":\"1\"}", "q=1", "POST");
    assert_in_range(cost(SLICE("method:x"), update), 9, 20);
    assert_in_range(cost(SLICE("query.q:x|y"), update), 12, 25);
    assert_in_range(cost(SLICE("header.h:x"), update), 20, 35);
    assert_in_range(cost(SLICE("body.a:x|y*|*z"), update), 1000, 1100);
    assert_in_range(cost(SLICE("body.a.b.c:x"), update), 3000, 3300);
    assert_in_range(cost(SLICE("body.a:x\0body.b:x"), update), 2000, 2200);
    assert_in_range(cost(SLICE("body.a:*x*|*y*|a*b*c"), update), 4000, 4400);
    update_unref(update);
}

static int failing; /* this many allocations succeed, then one fails; < 0: none */

void *__real_realloc(void *at, size_t size);
void *__wrap_realloc(void *at, size_t size);
void *__wrap_realloc(void *at, size_t size) {
    return failing-- == 0 ? NULL : __real_realloc(at, size);
}

/* An update that cannot be looked at is wanted, whatever else is asked of it. */
static void test_without_memory_it_is_wanted(void **state) {
    (void)state;
    char long_text[3000] = "";
    for (int i = 0; i < 400; i++)
        strcat(long_text, "\\u0041");
    char body[8192];
    snprintf(body, sizeof body, "{\"%s\":1,\"a\":\"%s%s\"}", long_text, long_text, long_text);
    char headers[8192];
    snprintf(headers, sizeof headers, "{\"h\":\"%s%s\"}", long_text, long_text);
    char query[8192];
    snprintf(query, sizeof query, "q=%.1000s", long_text);
    struct update *update = make(body, headers, query, "POST");
    static const struct slice texts[] = {
        SLICE("body.a:x"),           SLICE("!body.a:*"),
        SLICE("header.h:x"),         SLICE("!header.h:*"),
        SLICE("query.q:x"),          SLICE("!query.q:*"),
        SLICE("body.missing:x"),     SLICE("body.a:x\0method:GET"),
        SLICE("body.a:x\0body.b:x"),
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        failing = -1;
        struct filter *filter;
        assert_int_equal(get(texts[i], &filter), FILTER_OK);
        assert_false(filter_matches(filter, update));
        for (int j = 0; j < 8; j++) {
            failing = j;
            bool is_wanted = filter_matches(filter, update), has_failed = failing < 0;
            if (is_wanted != has_failed)
                fail_msg("%s, allocation %d: %d", texts[i].data, j, is_wanted);
        }
        failing = -1;
        filter_unref(&filters, filter);
    }
    update_unref(update);
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    failing = -1;
    const struct CMUnitTest tests[] = {
        TEST(test_what_parses),
        TEST(test_escapes_and_control_characters),
        TEST(test_limits),
        TEST(test_costly_ones_are_refused),
        TEST(test_who_asks_for_the_same_shares),
        TEST(test_all_of_them_are_bounded),
        TEST(test_patterns),
        TEST(test_alternatives),
        TEST(test_escaped_patterns),
        TEST(test_control_characters_in_a_text),
        TEST(test_strings_are_decoded),
        TEST(test_values_that_are_no_strings),
        TEST(test_paths_into_a_body),
        TEST(test_headers),
        TEST(test_parameters),
        TEST(test_method_and_path),
        TEST(test_all_conditions_must_hold),
        TEST(test_cost),
        TEST(test_without_memory_it_is_wanted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
