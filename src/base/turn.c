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
    uint32_t number;
    bool is_counted;     /* somebody knows the number: the next turn gets another one */
    uint64_t started_ns; /* when this turn was first asked for time; 0: not yet */
} the_turns;

static void run_now(struct turns *turns) {
    for (struct list *link; (link = list_shift(&turns->now));) {
        struct turn_task *task = container_of(link, struct turn_task, link);
        task->run(task);
    }
}

/* Lets go of the loop where nothing is due. */
static void settle(struct turns *turns) {
    if (!list_empty(&turns->later) || !list_empty(&turns->next))
        return;
    uv_idle_stop(&turns->begin);
    uv_check_stop(&turns->after_sockets);
    if (!turns->is_counted)
        uv_prepare_stop(&turns->before_sockets);
}

static void begin_turn(struct turns *turns) {
    turns->number += turns->number == UINT32_MAX ? 2 : 1;
    turns->is_counted = false;
    turns->started_ns = 0;
}

static void on_begin(uv_idle_t *begin) {
    struct turns *turns = container_of(begin, struct turns, begin);
    list_splice(&turns->later, &turns->next);
}

/* Runs what timers and closed handles have asked for; here one turn ends and the next begins. */
static void on_before_sockets(uv_prepare_t *prepare) {
    struct turns *turns = container_of(prepare, struct turns, before_sockets);
    run_now(turns);
    begin_turn(turns);
    settle(turns);
}

static void on_after_sockets(uv_check_t *check) {
    struct turns *turns = container_of(check, struct turns, after_sockets);
    list_splice(&turns->now, &turns->later);
    run_now(turns);
    settle(turns);
}

static void start(void) {
    uv_prepare_start(&the_turns.before_sockets, on_before_sockets);
    uv_check_start(&the_turns.after_sockets, on_after_sockets);
}

void turn_init(uv_loop_t *loop) {
    the_turns.number = 0;
    begin_turn(&the_turns);
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

uint32_t turn_number(void) {
    if (!the_turns.is_counted)
        uv_prepare_start(&the_turns.before_sockets, on_before_sockets);
    the_turns.is_counted = true;
    return the_turns.number;
}

bool turn_has_time(void) {
    uint64_t now_ns = uv_hrtime();
    turn_number();
    if (!the_turns.started_ns)
        the_turns.started_ns = now_ns;
    return now_ns - the_turns.started_ns <= (uint64_t)TURN_SLICE_US * 1000;
}
