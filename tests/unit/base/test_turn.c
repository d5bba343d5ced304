/* When a task runs: at this turn's end, at the next one's, and never twice for asking twice. */
#include "base/turn.h"
#include "support.h"

static uv_loop_t loop;
static char said[64];
static int rounds;
static struct turn_task a, b;

static void say(const char *what) {
    strncat(said, what, sizeof said - strlen(said) - 1);
}

static int setup(void **state) {
    (void)state;
    *said = '\0';
    rounds = 0;
    uv_loop_init(&loop);
    turn_init(&loop);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    turn_deinit();
    uv_run(&loop, UV_RUN_DEFAULT);
    return uv_loop_close(&loop);
}

static void say_a(struct turn_task *task) {
    assert_ptr_equal(task, &a);
    say("a");
}

static void say_b(struct turn_task *task) {
    assert_ptr_equal(task, &b);
    say("b");
}

static void test_end(void **state) {
    (void)state;
    turn_task_init(&a, say_a);
    turn_task_init(&b, say_b);
    turn_end(&b);
    turn_end(&a);
    turn_end(&b);
    assert_string_equal(said, "");
    assert_int_equal(uv_run(&loop, UV_RUN_NOWAIT), 0); /* and then nothing keeps the loop alive */
    assert_string_equal(said, "ba");
}

static void ask_b(struct turn_task *task) {
    (void)task;
    say("a");
    turn_end(&b);
}

static void test_end_asked_by_a_task(void **state) {
    (void)state;
    turn_task_init(&a, ask_b);
    turn_task_init(&b, say_b);
    turn_end(&a);
    uv_run(&loop, UV_RUN_NOWAIT);
    assert_string_equal(said, "ab");
}

static void again(struct turn_task *task) {
    say("a");
    if (++rounds < 3)
        turn_next(task);
}

static void test_next(void **state) {
    (void)state;
    turn_task_init(&a, again);
    turn_next(&a);
    for (int turn = 1; turn <= 3; turn++) {
        uv_run(&loop, UV_RUN_ONCE);
        assert_int_equal(strlen(said), turn);
    }
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_string_equal(said, "aaa");
}

static void test_cancel(void **state) {
    (void)state;
    turn_task_init(&a, say_a);
    turn_task_init(&b, say_b);
    turn_end(&a);
    turn_next(&b);
    turn_cancel(&a);
    turn_cancel(&b);
    turn_cancel(&b);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_string_equal(said, "");
}

static void on_timer(uv_timer_t *timer) {
    (void)timer;
    say("t");
    turn_end(&a);
}

static void on_socket(uv_async_t *async) {
    say("s");
    turn_next(&b);
    if (!strcmp(said, "tas"))
        uv_async_send(async);
    else
        uv_close((uv_handle_t *)async, NULL);
}

/* What a timer asks for is done before the loop waits; what a socket asks of the next turn, in
 * that, behind what the sockets have then. */
static void test_order(void **state) {
    (void)state;
    turn_task_init(&a, say_a);
    turn_task_init(&b, say_b);
    uv_timer_t timer;
    uv_async_t async;
    uv_timer_init(&loop, &timer);
    uv_async_init(&loop, &async, on_socket);
    uv_timer_start(&timer, on_timer, 0, 0);
    uv_async_send(&async);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_string_equal(said, "tassb");
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
}

static uint32_t numbers[8];
static int numbered;

static void note_number(struct turn_task *task) {
    numbers[numbered++] = turn_number();
    if (numbered % 2) {
        turn_end(task);
        return;
    }
    if (numbered < 6)
        turn_next(task);
}

/* A turn keeps its number, and the next one has another. Asking does not keep the loop alive. */
static void test_number(void **state) {
    (void)state;
    numbered = 0;
    turn_task_init(&a, note_number);
    turn_next(&a);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(numbered, 6);
    for (int i = 0; i < 6; i += 2) {
        assert_int_not_equal(numbers[i], 0);
        assert_int_equal(numbers[i], numbers[i + 1]);
        assert_int_not_equal(numbers[i], numbers[(i + 2) % 6]);
    }
}

static void use_time(struct turn_task *task) {
    assert_true(turn_has_time());
    uint64_t start = uv_hrtime();
    while (uv_hrtime() - start <= (uint64_t)TURN_SLICE_US * 1000)
        continue;
    assert_false(turn_has_time());
    if (++rounds < 3)
        turn_next(task);
}

/* A turn's time is its own. */
static void test_time(void **state) {
    (void)state;
    turn_task_init(&a, use_time);
    turn_next(&a);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(rounds, 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_end_asked_by_a_task, setup, teardown),
        cmocka_unit_test_setup_teardown(test_next, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_number, setup, teardown),
        cmocka_unit_test_setup_teardown(test_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_order, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
