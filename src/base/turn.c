#include "base/turn.h"

#include <assert.h>

/*
 * libuv's order within a turn: timers, idle, prepare, sockets, check, closed handles. The handles
 * are active only while a task is due, so an idle loop pays nothing for them.
 */
static struct turns {
    struct list now;   /* run when the sockets have been looked at, or before */
    struct list later; /* run when they have been looked at */
    struct list next;  /* become `later` when the next turn begins */
    uv_idle_t begin;   /* while it is active, the loop does not wait for its sockets */
    uv_prepare_t before_sockets;
    uv_check_t after_sockets;
} the_turns;

static void run_now(struct turns *turns) {
    for (struct list *link; (link = list_shift(&turns->now));) {
        struct turn_task *task = container_of(link, struct turn_task, link);
        task->run(task);
    }
    if (!list_empty(&turns->later) || !list_empty(&turns->next))
        return;
    uv_idle_stop(&turns->begin);
    uv_prepare_stop(&turns->before_sockets);
    uv_check_stop(&turns->after_sockets);
}

static void on_begin(uv_idle_t *begin) {
    struct turns *turns = container_of(begin, struct turns, begin);
    list_splice(&turns->later, &turns->next);
}

/* Runs what timers and closed handles have asked for. */
static void on_before_sockets(uv_prepare_t *prepare) {
    run_now(container_of(prepare, struct turns, before_sockets));
}

static void on_after_sockets(uv_check_t *check) {
    struct turns *turns = container_of(check, struct turns, after_sockets);
    list_splice(&turns->now, &turns->later);
    run_now(turns);
}

static void start(void) {
    uv_prepare_start(&the_turns.before_sockets, on_before_sockets);
    uv_check_start(&the_turns.after_sockets, on_after_sockets);
}

void turn_init(uv_loop_t *loop) {
    list_init(&the_turns.now);
    list_init(&the_turns.later);
    list_init(&the_turns.next);
    uv_prepare_init(loop, &the_turns.before_sockets);
    uv_check_init(loop, &the_turns.after_sockets);
    uv_idle_init(loop, &the_turns.begin);
}

void turn_deinit(void) {
    assert(list_empty(&the_turns.now) && list_empty(&the_turns.later) &&
           list_empty(&the_turns.next));
    uv_close((uv_handle_t *)&the_turns.before_sockets, NULL);
    uv_close((uv_handle_t *)&the_turns.after_sockets, NULL);
    uv_close((uv_handle_t *)&the_turns.begin, NULL);
}

void turn_end(struct turn_task *task) {
    if (!list_empty(&task->link))
        return;
    list_append(&the_turns.now, &task->link);
    start();
}

void turn_next(struct turn_task *task) {
    if (!list_empty(&task->link))
        return;
    list_append(&the_turns.next, &task->link);
    start();
    uv_idle_start(&the_turns.begin, on_begin);
}
