/* The steps of an upgrade, and the signals that come meanwhile. */
#include "support.h"

#include "base/log.h"
#include "base/turn.h"
#include "http/server.h"
#include "process/successor.h"
#include "upgrade.h"

#include <signal.h>
#include <unistd.h>

static uv_loop_t loop;
static struct conn_shared connections;
static jmp_buf become;
static int checks_cancelled, late_signal, killed_by;
static void (*checked)(const char *error);
static void (*store_settled)(void), (*store_closed)(void), (*quiet)(bool is_quiet);
static struct turn_task *last_task;

/* --- What it asks of others ------------------------------------------------------------------- */

void __wrap_successor_check(uv_loop_t *on, const char *version, void (*done)(const char *error));
void __wrap_successor_check(uv_loop_t *on, const char *version, void (*done)(const char *error)) {
    assert_ptr_equal(on, &loop);
    assert_string_equal(version, UPGRADE_STATE_VERSION);
    checked = done;
}

void __wrap_successor_cancel(void);
void __wrap_successor_cancel(void) {
    checks_cancelled++;
}

_Noreturn void __wrap_successor_become(int state);
_Noreturn void __wrap_successor_become(int state) {
    close(state);
    longjmp(become, 1);
}

void __wrap_server_hold(void (*done)(bool is_quiet));
void __wrap_server_hold(void (*done)(bool is_quiet)) {
    quiet = done;
}

void __wrap_server_take_out(struct pack *out);
void __wrap_server_take_out(struct pack *out) {
    assert_true(pack_at(out) > 0);
}

int __wrap_server_late_signal(void);
int __wrap_server_late_signal(void) {
    return late_signal;
}

int __wrap_kill(pid_t process, int number);
int __wrap_kill(pid_t process, int number) {
    assert_int_equal(process, getpid());
    killed_by = number;
    return 0;
}

void __wrap_turn_next(struct turn_task *task);
void __wrap_turn_next(struct turn_task *task) {
    last_task = task;
}

static const char *refusal(void) {
    return NULL;
}

static void settle_store(void (*settled)(void)) {
    store_settled = settled;
}

static void leave_store(struct buf *left, void (*closed)(void)) {
    assert_int_equal(left->len, 0);
    store_closed = closed;
}

/* ---------------------------------------------------------------------------------------------- */

static int set_up(void **state) {
    (void)state;
    log_init(LOG_LEVEL_ERROR + 1, false);
    uv_loop_init(&loop);
    turn_init(&loop);
    assert_true(conn_shared_init(&connections, &loop));
    upgrade_init(&(struct upgrade_parts){.loop = &loop,
                                         .connections = &connections,
                                         .refusal = refusal,
                                         .settle_store = settle_store,
                                         .leave_store = leave_store});
    checks_cancelled = killed_by = late_signal = 0;
    return 0;
}

static void close_handle(uv_handle_t *handle, void *context) {
    (void)context;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static int tear_down(void **state) {
    (void)state;
    conn_shared_deinit(&connections);
    turn_deinit();
    uv_walk(&loop, close_handle, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    return uv_loop_close(&loop);
}

/* The program that is checked is ended: nobody waits for it. */
static void test_a_stop_while_it_is_checked(void **state) {
    (void)state;
    upgrade_begin();
    upgrade_cancel();
    assert_int_equal(checks_cancelled, 1);
    upgrade_cancel();
    assert_int_equal(checks_cancelled, 1);
}

/* The next program finds the signal that came when the old one could not hear it any more. */
static void test_a_stop_between_two_programs(void **state) {
    (void)state;
    upgrade_begin();
    checked(NULL);
    store_settled();
    quiet(true);
    late_signal = SIGTERM;
    store_closed();
    if (setjmp(become) == 0)
        last_task->run(last_task);
    assert_int_equal(killed_by, SIGTERM);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_stop_while_it_is_checked, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_stop_between_two_programs, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
