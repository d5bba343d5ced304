/* What people see: JSON in lines, and no control characters of others. */
#include "base/clock.h"
#include "cli/screen.h"
#include "need.h"

#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

static void check(void (*put)(struct buf *out, struct slice text), const char *text,
                  const char *wanted) {
    struct buf out = {0};
    put(&out, slice_of(text));
    assert_text(((struct slice){out.data, out.len}), wanted);
    buf_deinit(&out);
}

static void put_pretty(struct buf *out, struct slice json) {
    screen_put_pretty(out, json, false);
}

static void put_coloured(struct buf *out, struct slice json) {
    screen_put_pretty(out, json, true);
}

static void test_text(void **state) {
    (void)state;
    check(screen_put_text, "a\033[2J\x7f\xc2\x9b\xc2\xa0\xe2\x98\x83\n",
          "a\\u001b[2J\\u007f\\u009b\xc2\xa0\xe2\x98\x83\\u000a");
    check(screen_put_text, "\xc2", "\xc2");
    check(screen_put_text, "a\xe2\x80\xaeg\xe2\x81\xa9\xe2\x80\xa9\xe2\x80",
          "a\\u202eg\\u2069\xe2\x80\xa9\xe2\x80");
}

static void test_line(void **state) {
    (void)state;
    check(screen_put_line, "{\r\n \"a\" :\n1}\n", "{ \"a\" :1}");
    check(screen_put_line, "\n\n", "");
}

static void test_pretty(void **state) {
    (void)state;
    check(put_pretty, " 5 ", "5\n");
    check(put_pretty, "{}", "{}\n");
    check(put_pretty, "[ ]", "[]\n");
    check(
        put_pretty, "[1,[],{\"a\":{\"b\" : \"x\\\"]\" , \"c\":[ null,true]}}]",
        "[\n  1,\n  [],\n  {\n    \"a\": {\n      \"b\": \"x\\\"]\",\n      \"c\": [\n        null,"
        "\n        true\n      ]\n    }\n  }\n]\n");
    check(
        put_coloured, "{\"a\":[\"b\",1]}",
        "{\n  \033[34m\"a\"\033[0m: [\n    \033[32m\"b\"\033[0m,\n    \033[33m1\033[0m\n  ]\n}\n");
}

/* What is cut ends where it ends. */
static void test_what_is_no_json(void **state) {
    (void)state;
    check(put_pretty, "\"ab", "\"ab\n");
    check(put_pretty, "\"a\\", "\"a\\\n");
    check(put_pretty, "{\"a", "{\n  \"a\n");
}

static void test_without_memory(void **state) {
    (void)state;
    struct buf out;
    failing_allocation = 0;
    do {
        out = (struct buf){0};
        failing_allocation++;
        allocations = 0;
        is_counting = true;
        screen_put_pretty(&out, SLICE("{\"a\":{},\"b\":[]}"), true);
        is_counting = false;
        assert_int_equal(out.failed, allocations >= failing_allocation);
        assert_int_equal(screen_write(stderr, &out), !out.failed);
        assert_true(!out.failed || errno == ENOMEM);
        buf_deinit(&out);
    } while (allocations >= failing_allocation);
}

/* A stream that is full says so, when it is written to or when what it holds is. */
static void test_what_cannot_be_written(void **state) {
    (void)state;
    struct buf line = {0};
    buf_puts(&line, "text\n");
    for (int is_buffered = 0; is_buffered < 2; is_buffered++) {
        FILE *full = fopen("/dev/full", "w");
        setvbuf(full, NULL, is_buffered ? _IOFBF : _IONBF, is_buffered ? 4096 : 0);
        assert_false(screen_write(full, &line));
        assert_int_equal(errno, ENOSPC);
        fclose(full);
    }
    buf_deinit(&line);
}

static void test_terminals(void **state) {
    (void)state;
    static const struct {
        const char *term, *no_color;
        bool has_colours;
    } cases[] = {{"xterm", NULL, true},
                 {"xterm", "", true},
                 {NULL, NULL, true},
                 {"dumb", NULL, false},
                 {"xterm", "1", false}};
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    FILE *terminal = fdopen(open(ptsname(master), O_RDWR | O_NOCTTY), "w"),
         *file = fopen("/dev/null", "w");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsetenv("TERM");
        unsetenv("NO_COLOR");
        if (cases[i].term)
            setenv("TERM", cases[i].term, 1);
        if (cases[i].no_color)
            setenv("NO_COLOR", cases[i].no_color, 1);
        assert_int_equal(screen_has_colours(terminal), cases[i].has_colours);
        assert_false(screen_has_colours(file));
    }
    fclose(file);
    fclose(terminal);
    close(master);
}

/* It is some noon. */
int64_t __wrap_clock_wall_ms(void);
int64_t __wrap_clock_wall_ms(void) {
    struct tm noon = {.tm_year = 126, .tm_mon = 10, .tm_mday = 30, .tm_hour = 12};
    return (int64_t)mktime(&noon) * 1000;
}

/* Milliseconds from now, as a text of that length. */
static void check_time(int64_t from_now_ms, size_t len) {
    struct buf out = {0};
    screen_put_time(&out, clock_wall_ms() + from_now_ms);
    assert_int_equal(out.len, len);
    buf_deinit(&out);
}

static void test_times(void **state) {
    (void)state;
    const int64_t day_ms = 86400000;
    check_time(0, strlen("12:34:56"));
    check_time(-day_ms, strlen("2026-11-30 12:34:56"));
    check_time(366 * day_ms, strlen("2026-11-30 12:34:56"));
    check_time(365 * day_ms, strlen("2026-11-30 12:34:56"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),           cmocka_unit_test(test_line),
        cmocka_unit_test(test_pretty),         cmocka_unit_test(test_what_is_no_json),
        cmocka_unit_test(test_without_memory), cmocka_unit_test(test_what_cannot_be_written),
        cmocka_unit_test(test_terminals),      cmocka_unit_test(test_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
