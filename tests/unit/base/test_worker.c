/* Works are done one after the other, beside the loop; by the loop where there is no thread. */
#include "base/turn.h"
#include "base/worker.h"
#include "support.h"

#include <dlfcn.h>
#include <signal.h>

enum { WORKS = 50 };

static uv_loop_t loop;
static struct work works[WORKS];
static uv_thread_t loop_thread;
static bool is_thread_refused;
static int run_count, done_count, threads_made;

int uv_thread_create(uv_thread_t *thread, uv_thread_cb entry, void *argument) {
    int (*real)(uv_thread_t *, uv_thread_cb, void *) = dlsym(RTLD_NEXT, "uv_thread_create");
    threads_made++;
    return is_thread_refused ? UV_EAGAIN : real(thread, entry, argument);
}

static int setup(void **state) {
    (void)state;
    run_count = done_count = threads_made = 0;
    is_thread_refused = false;
    loop_thread = uv_thread_self();
    uv_loop_init(&loop);
    turn_init(&loop);
    return worker_init(&loop);
}

static int teardown(void **state) {
    (void)state;
    worker_deinit();
    turn_deinit();
    uv_run(&loop, UV_RUN_DEFAULT);
    return uv_loop_close(&loop);
}

static bool is_on_loop(void) {
    uv_thread_t self = uv_thread_self();
    return uv_thread_equal(&self, &loop_thread);
}

static void run(struct work *work) {
    assert_ptr_equal(work, &works[run_count]);
    assert_int_equal(is_on_loop(), is_thread_refused);
    sigset_t blocked; /* signals are the loop's */
    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    assert_int_equal(sigismember(&blocked, SIGTERM), !is_on_loop());
    run_count++;
}

static void done(struct work *work) {
    assert_true(is_on_loop());
    assert_ptr_equal(work, &works[done_count]);
    done_count++;
}

static void submit_all(void) {
    for (int i = 0; i < WORKS; i++) {
        works[i] = (struct work){.run = run, .done = done};
        worker_submit(&works[i]);
        assert_int_equal(done_count, 0); /* never at once */
    }
}

static void check_all(void) {
    submit_all();
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0); /* it ends when all is done, not before */
    assert_int_equal(run_count, WORKS);
    assert_int_equal(done_count, WORKS);
}

static void test_order(void **state) {
    (void)state;
    check_all();
    assert_int_equal(threads_made, 1);
    run_count = done_count = 0;
    check_all();
    assert_int_equal(threads_made, 1);
}

static void test_no_thread(void **state) {
    (void)state;
    is_thread_refused = true;
    check_all();
    assert_int_equal(threads_made, 1);
    is_thread_refused = false;
    run_count = done_count = 0;
    check_all();
    assert_int_equal(threads_made, 2);
}

static void test_nothing_to_do(void **state) {
    (void)state;
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(threads_made, 0);
}

/* One more work is asked for when one is done. */
static void done_and_again(struct work *work) {
    done(work);
    if (done_count < WORKS) {
        works[done_count] = (struct work){.run = run, .done = done_and_again};
        worker_submit(&works[done_count]);
    }
}

static void test_again(void **state) {
    (void)state;
    works[0] = (struct work){.run = run, .done = done_and_again};
    worker_submit(&works[0]);
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(done_count, WORKS);
}

static void test_again_without_a_thread(void **state) {
    is_thread_refused = true;
    test_again(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_thread, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_to_do, setup, teardown),
        cmocka_unit_test_setup_teardown(test_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_again_without_a_thread, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
