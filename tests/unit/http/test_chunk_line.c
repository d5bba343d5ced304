/* The lines in front of chunks: what is an extension, and what is refused. */
#include "http/chunk_line.h"
#include "support.h"

#include <string.h>

/* What llhttp gets of a line that comes in pieces of `piece` bytes; "bad" when it is refused. */
static const char *read_line(const char *text, size_t piece) {
    static char seen[256];
    size_t len = 0, rest = strlen(text);
    struct chunk_line line;
    chunk_line_begin(&line);
    for (const char *at = text; rest;) {
        const char *to = at + (rest < piece ? rest : piece);
        bool is_extension = chunk_line_is_in_extension(&line);
        const char *end = line.state == CHUNK_LINE_NONE ? to : chunk_line_scan(&line, at, to);
        if (line.state == CHUNK_LINE_BAD)
            return "bad";
        if (!is_extension) {
            memcpy(seen + len, at, (size_t)(end - at));
            len += (size_t)(end - at);
        }
        rest -= (size_t)(end - at);
        at = end;
    }
    seen[len] = '\0';
    return seen;
}

static void reads(const char *text, const char *seen) {
    for (size_t piece = 1; piece <= strlen(text); piece++)
        assert_string_equal(read_line(text, piece), seen);
}

static void test_extensions_are_left_out(void **state) {
    (void)state;
    reads("5\r\n", "5\r\n");
    reads("00aF\r\n", "00aF\r\n");
    reads("5;a\r\n", "5\r\n");
    reads("5;a=b\r\n", "5\r\n");
    reads("5;a=b;c=d\r\n", "5\r\n");
    reads("5; a=b\r\n", "5\r\n");
    reads("5 ;a=b\r\n", "5\r\n");
    reads("5 \t;\t a \t= \tb ; c\r\n", "5\r\n");
    reads("5;a=\"b;c\\\"\\\\ \xc3\xa9\t\";d=\"\"\r\n", "5\r\n");
    reads("5;!#$%&'*+-.^_`|~09azAZ=x\r\n", "5\r\n");
}

static void test_what_is_no_extension_is_refused(void **state) {
    (void)state;
    static const char *const bad[] = {
        "5;\r\n",           "5;;a\r\n",         "5;=b\r\n",       "5;a=\r\n",
        "5;a=;b\r\n",       "5 \r\n",           "5;a \r\n",       "5;a=b \r\n",
        "5;a b\r\n",        "5;a=b c\r\n",      "5;a=\"b\r\n",    "5;a=\"b\"c\r\n",
        "5;a=\"\x01\"\r\n", "5;\x01=b\r\n",     "5;a=b\n",        "5;a\n",
        "5;a=\"b\n\"\r\n",  "5;a=\"\\\n\"\r\n", "5;a=\"\r\"\r\n", "5;\xc3\xa9\r\n",
        "5;a=\"\x7f\"\r\n", "5;a=b=c\r\n",      "5 a\r\n",        "5;a==b\r\n",
        "5;(a)\r\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        reads(bad[i], "bad");
}

static void test_llhttp_judges_the_size(void **state) {
    (void)state;
    reads(";a\r\n", ";a\r\n");
    reads(" 5;a\r\n", " 5;a\r\n");
    reads("5x;a\r\n", "5x;a\r\n");
    reads("5\n", "5\n");
    reads("5;a\rx", "5\rx");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_extensions_are_left_out),
        cmocka_unit_test(test_what_is_no_extension_is_refused),
        cmocka_unit_test(test_llhttp_judges_the_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
