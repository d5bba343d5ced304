/*
 * Turns of the loop: work that waits for the end of this turn, or for the next one.
 *
 * A turn waits for its sockets and timers, calls back for each that is ready, and ends. Whoever
 * must not act in the middle of a callback, or wants to act once for all that a turn brings (one
 * lock, one write), asks for the turn's end; whoever has done enough for one turn asks for the
 * next, and the loop looks at its sockets in between, without waiting.
 *
 * Turns have numbers, for what may be done once a turn, and a short time for work that can also be
 * done in the next.
 *
 * A task is embedded in its owner. Asking again while it is due changes nothing, nothing allocates.
 * A process has one loop, and its turns stand here.
 */
#pragma once

#include "base/list.h"
#include <stdint.h>
#include <uv.h>

struct turn_task {
    struct list link; /* to itself while it is not due */
    void (*run)(struct turn_task *task);
};

enum { TURN_SLICE_US = 500 };

/* Before any task is due. */
void turn_init(uv_loop_t *loop);
/* No task may be due. Closes the handles; the loop must run once more. */
void turn_deinit(void);

static inline void turn_task_init(struct turn_task *task, void (*run)(struct turn_task *task)) {
    list_init(&task->link);
    task->run = run;
}

/* Runs `task` when this turn ends. A task that asks while it runs is still run in this turn,
 * before the loop looks at its sockets: what may go on without end uses turn_next(). */
void turn_end(struct turn_task *task);

/* Runs `task` when the next turn ends. */
void turn_next(struct turn_task *task);

static inline bool turn_is_due(const struct turn_task *task) {
    return !list_empty(&task->link);
}

/* The number of this turn, which lasts until the loop looks at its sockets again; never 0, and it
 * may come again after some billions. */
uint32_t turn_number(void);

/* Whether no more than TURN_SLICE_US have passed since this was first asked in this turn. When they
 * have, whoever can wait leaves the rest to the next turn, so that all of it together holds up
 * nobody. */
bool turn_has_time(void);

/* The task is not due any more; harmless when it was not. */
static inline void turn_cancel(struct turn_task *task) {
    list_remove(&task->link);
}
