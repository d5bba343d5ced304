/* Memory for libuv: a start without it ends with one line, and later nobody is lost. */
#include "support.h"

#include "base/loop_memory.h"
#include "failing.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

MAY_FAIL(void *, malloc, (size_t size), (size), "memory", NULL)
MAY_FAIL(void *, calloc, (size_t count, size_t size), (count, size), "memory", NULL)
MAY_FAIL(void *, realloc, (void *old, size_t size), (old, size), "memory", NULL)

static uv_loop_t loop;

static void begin_again(void) {
    _exit(42);
}

/* The exit code of a start without memory; `said` gets what it writes to standard error. */
static int start_without_memory(void (*at_end)(void), bool has_stderr, char said[128]) {
    int ends[2], status = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        if (!has_stderr)
            close(STDERR_FILENO);
        loop_memory_init(at_end);
        fail_call("memory", 0, ENOMEM);
        uv_loop_init(&loop);
        _exit(0);
    }
    close(ends[1]);
    ssize_t len = read(ends[0], said, 127);
    said[len > 0 ? len : 0] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_at_the_start(void **state) {
    (void)state;
    char said[128];
    assert_int_equal(start_without_memory(NULL, true, said), 1);
    assert_string_equal(said, "longline: out of memory\n");
    assert_int_equal(start_without_memory(NULL, false, said), 1);
    assert_string_equal(said, "");
    assert_int_equal(start_without_memory(begin_again, true, said), 42);
    assert_string_equal(said, "longline: out of memory\n");
}

static void on_poll(uv_poll_t *poll, int status, int events) {
    assert_int_equal(status, 0);
    *(int *)poll->data = events;
}

/* What has a place that is reserved can be watched, and nothing else is. */
static void test_a_reserved_place(void **state) {
    (void)state;
    int ends[2], events = 0;
    uv_poll_t poll = {.data = &events};
    loop_memory_init(NULL);
    loop_memory_started();
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(pipe(ends), 0);
    int high = fcntl(ends[0], F_DUPFD, 600);
    assert_true(loop_memory_reserve(&loop, high));
    fail_call("memory", 0, ENOMEM);
    assert_true(loop_memory_reserve(&loop, high)); /* already */
    assert_false(loop_memory_reserve(&loop, 5000));
    assert_true(loop_memory_reserve_next(&loop));
    assert_int_equal(uv_poll_init(&loop, &poll, high), 0);
    assert_int_equal(uv_poll_start(&poll, UV_READABLE, on_poll), 0);
    unsigned places = loop.nwatchers;
    loop.nwatchers = 0; /* as if there were none */
    assert_false(loop_memory_reserve_next(&loop));
    loop.nwatchers = places;
    fail_nothing();
    assert_int_equal(write(ends[1], "x", 1), 1);
    uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(events, UV_READABLE);
    uv_close((uv_handle_t *)&poll, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    close(high);
    close(ends[0]);
    close(ends[1]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_at_the_start),
        cmocka_unit_test(test_a_reserved_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
