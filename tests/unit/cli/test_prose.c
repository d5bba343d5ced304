/* The texts of the tables: wrapped for a terminal, and as roff. */
#include "cli/prose.h"
#include "support.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static char printed[4096];

/* Runs what prints, with standard output in a file; then `printed` has it. */
#define PRINTED(call)                                                                              \
    do {                                                                                           \
        int out = begin();                                                                         \
        call;                                                                                      \
        end(out);                                                                                  \
    } while (0)

static int begin(void) {
    int before = dup(STDOUT_FILENO), file = memfd_create("printed", MFD_CLOEXEC);
    fflush(stdout);
    dup2(file, STDOUT_FILENO);
    close(file);
    return before;
}

static void end(int before) {
    fflush(stdout);
    lseek(STDOUT_FILENO, 0, SEEK_SET);
    ssize_t len = read(STDOUT_FILENO, printed, sizeof printed - 1);
    printed[len < 0 ? 0 : len] = '\0';
    dup2(before, STDOUT_FILENO);
    close(before);
}

static void test_lines_end_before_the_width(void **state) {
    (void)state;
    PRINTED(prose_print("one two three", 0, 7));
    assert_string_equal(printed, "one two\nthree\n");
    PRINTED(prose_print("one two three", 0, 6));
    assert_string_equal(printed, "one\ntwo\nthree\n");
    PRINTED(prose_print("one two three", 2, 9));
    assert_string_equal(printed, "one two\n  three\n");
}

static void test_a_word_that_is_too_long_has_its_own_line(void **state) {
    (void)state;
    PRINTED(prose_print("a http://localhost:3000 b", 0, 8));
    assert_string_equal(printed, "a\nhttp://localhost:3000\nb\n");
    PRINTED(prose_print("", 0, 8));
    assert_string_equal(printed, "\n");
}

static void test_paragraphs(void **state) {
    (void)state;
    PRINTED(prose_print("one\ntwo", 1, 80));
    assert_string_equal(printed, "one\n\n two\n");
    PRINTED(prose_roff("One.\nTwo.", ""));
    assert_string_equal(printed, "One.\n.Pp\nTwo.");
}

static void test_a_sentence_has_its_own_line(void **state) {
    (void)state;
    PRINTED(prose_roff("It is. It was, e.g. here... or there. 0: none.", ""));
    assert_string_equal(printed, "It is.\nIt was, e.g. here... or there.\n0: none.");
}

static void test_two_spaces_are_two_spaces(void **state) {
    (void)state;
    PRINTED(prose_roff("a  b ", ""));
    assert_string_equal(printed, "a  b ");
}

static void test_roff_takes_nothing_for_a_macro(void **state) {
    (void)state;
    PRINTED(prose_roff("'a' is .b or c\\d at ~/e^ .Sh", ""));
    assert_string_equal(printed, "\\&'a' is \\&.b or c\\ed at \\(ti/e\\(ha \\&.Sh");
}

static void test_options_are_bold(void **state) {
    (void)state;
    PRINTED(prose_roff("With --on-reject, -d or @- at 2026-11-29; re-read /-/x.", ""));
    assert_string_equal(printed, "With \\fB\\-\\-on\\-reject\\fR, \\fB\\-d\\fR or @\\- at "
                                 "2026\\-11\\-29; re-read /\\-/x.");
}

static void test_names_are_marked(void **state) {
    (void)state;
    PRINTED(prose_roff("URL is no URLS: stop, config.stop or nonstop", "URL stop|skip"));
    assert_string_equal(printed, "\\fIURL\\fR is no URLS: \\fBstop\\fR, config.stop or nonstop");
    PRINTED(prose_roff("[--SETTING VALUE]... KEY=VALUE", "[--SETTING VALUE]... KEY"));
    assert_string_equal(printed, "[\\fB\\-\\-\\fR\\fISETTING\\fR \\fIVALUE\\fR]... "
                                 "\\fIKEY\\fR=\\fIVALUE\\fR");
}

static void test_quotes(void **state) {
    (void)state;
    PRINTED(prose_roff("`longline X --man | man -l -` (`r_`)", "X man"));
    assert_string_equal(printed, "\\(oqlongline \\fIX\\fR \\-\\-man | man \\-l \\-\\(cq "
                                 "(\\(oqr_\\(cq)");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_end_before_the_width),
        cmocka_unit_test(test_a_word_that_is_too_long_has_its_own_line),
        cmocka_unit_test(test_paragraphs),
        cmocka_unit_test(test_a_sentence_has_its_own_line),
        cmocka_unit_test(test_two_spaces_are_two_spaces),
        cmocka_unit_test(test_roff_takes_nothing_for_a_macro),
        cmocka_unit_test(test_options_are_bold),
        cmocka_unit_test(test_names_are_marked),
        cmocka_unit_test(test_quotes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
