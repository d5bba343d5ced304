/*
 * A wheel of deadlines: setting, moving and clearing one costs no allocation and no search.
 *
 * Time is cut into ticks of WHEEL_TICK_MS; a node waits in the slot of its tick. A deadline is
 * never reported early, and late by less than one tick plus what the loop is busy with. Moving a
 * deadline further away only notes it: the node moves when its old slot comes by, so a connection
 * that is busy never touches the lists. One uv_timer sleeps until the next slot that is not empty.
 *
 * A deadline is reported when the sockets have been looked at once more: where the process was held
 * up, whoever moves or clears it for what has come is early enough.
 *
 * Of many deadlines that pass together, WHEEL_SLICE are reported in one turn of the loop
 * (base/turn.h) and the others in the next ones. Until then each can be moved or cleared.
 *
 * Those who do not need their deadline to the tick share ticks: wheel_share() lets WHEEL_SHARE_MAX
 * of them pass in one, and others earlier.
 */
#pragma once

#include "base/turn.h"
#include <stdint.h>
#include <uv.h>

enum { WHEEL_TICK_MS = 32, WHEEL_SLOTS = 4096, WHEEL_SLICE = 128, WHEEL_SHARE_MAX = 256 };

struct wheel_node {
    struct list link;
    uint32_t slot_tick; /* the tick in whose slot it is linked */
    uint32_t due_tick;  /* the tick at which it is due, never before slot_tick */
};

/* Called on the loop for a node whose deadline has passed; the node is out of the wheel. */
typedef void wheel_due(struct wheel_node *node);

struct wheel {
    uv_timer_t timer;
    struct turn_task turn; /* reports what is due */
    uint64_t epoch_ms;
    uint32_t tick;       /* all slots up to this one are empty */
    uint32_t armed_tick; /* what the timer waits for */
    bool armed;
    size_t count;
    wheel_due *on_due;
    struct list slots[WHEEL_SLOTS];
    struct wheel_share {
        uint32_t tick, count;
    } shares[WHEEL_SLOTS]; /* how many share a tick; of another one: nobody */
};

void wheel_init(struct wheel *wheel, uv_loop_t *loop, wheel_due *on_due);
/* Closes the timer; nodes still in the wheel are forgotten. */
void wheel_deinit(struct wheel *wheel);

static inline void wheel_node_init(struct wheel_node *node) {
    list_init(&node->link);
}

/* Sets or moves the deadline of `node`, in milliseconds of the monotonic clock of
 * wheel_now_ms(). */
void wheel_set(struct wheel *wheel, struct wheel_node *node, uint64_t due_ms);
/* The same; but where WHEEL_SHARE_MAX nodes share that tick, the deadline is in the latest one
 * before it that has room, at most `earlier_ms` earlier. wheel_unshare() must follow, before the
 * node is moved. */
void wheel_share(struct wheel *wheel, struct wheel_node *node, uint64_t due_ms,
                 uint64_t earlier_ms);
/* The node counts no more; its deadline stays. */
void wheel_unshare(struct wheel *wheel, const struct wheel_node *node);
/* When the deadline of `node` is, in milliseconds of wheel_now_ms(); 0: it has none. */
uint64_t wheel_due_ms(const struct wheel *wheel, const struct wheel_node *node);
/* Takes `node` out; harmless when it is not in the wheel. */
void wheel_clear(struct wheel *wheel, struct wheel_node *node);

/* The monotonic clock, rounded up, so that now + n is never less than n milliseconds away. */
static inline uint64_t wheel_now_ms(void) {
    return uv_hrtime() / 1000000 + 1;
}
