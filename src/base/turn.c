#include "base/turn.h"

/*
 * libuv's order within a turn: timers, idle, prepare, sockets, check, closed handles. The handles
 * are active only while a task is due, so an idle loop pays nothing for them.
 */
static struct {
    struct list now;   /* run when the sockets have been looked at, or before */
    struct list later; /* run when they have been looked at */
    struct list next;  /* become `later` when the next turn begins */
    uv_prepare_t before_sockets;
    uv_check_t after_sockets;
    uv_idle_t awake; /* while it is active the loop does not wait for its sockets */
} turns;

static void run_now(void) {
    for (struct list *link; (link = list_shift(&turns.now));) {
        struct turn_task *task = container_of(link, struct turn_task, link);
        task->run(task);
    }
}

static void keep_awake(uv_idle_t *awake) {
    uv_update_time(awake->loop);
}

static void on_before_sockets(uv_prepare_t *prepare) {
    list_splice(&turns.later, &turns.next);
    run_now(); /* what timers and closed handles have asked for */
    if (list_empty(&turns.later) && list_empty(&turns.next))
        uv_prepare_stop(prepare);
}

static void on_after_sockets(uv_check_t *check) {
    list_splice(&turns.now, &turns.later);
    run_now();
    if (!list_empty(&turns.next))
        return;
    uv_idle_stop(&turns.awake);
    uv_prepare_stop(&turns.before_sockets);
    uv_check_stop(check);
}

static void start(void) {
    uv_prepare_start(&turns.before_sockets, on_before_sockets);
    uv_check_start(&turns.after_sockets, on_after_sockets);
}

void turn_init(uv_loop_t *loop) {
    list_init(&turns.now);
    list_init(&turns.later);
    list_init(&turns.next);
    uv_prepare_init(loop, &turns.before_sockets);
    uv_check_init(loop, &turns.after_sockets);
    uv_idle_init(loop, &turns.awake);
}

void turn_deinit(void) {
    uv_close((uv_handle_t *)&turns.before_sockets, NULL);
    uv_close((uv_handle_t *)&turns.after_sockets, NULL);
    uv_close((uv_handle_t *)&turns.awake, NULL);
}

void turn_end(struct turn_task *task) {
    if (!list_empty(&task->link))
        return;
    list_append(&turns.now, &task->link);
    start();
}

void turn_next(struct turn_task *task) {
    if (!list_empty(&task->link))
        return;
    list_append(&turns.next, &task->link);
    start();
    uv_idle_start(&turns.awake, keep_awake);
}
