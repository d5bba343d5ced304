#include "base/wheel.h"

#include <string.h>

static void on_timer(uv_timer_t *timer);
static void on_turn(struct turn_task *task);

void wheel_init(struct wheel *wheel, uv_loop_t *loop, wheel_due *on_due) {
    uv_timer_init(loop, &wheel->timer);
    turn_task_init(&wheel->turn, on_turn);
    wheel->epoch_ms = uv_hrtime() / 1000000;
    wheel->tick = 0;
    wheel->armed = false;
    wheel->count = 0;
    wheel->on_due = on_due;
    memset(wheel->shares, 0, sizeof wheel->shares);
    for (int i = 0; i < WHEEL_SLOTS; i++)
        list_init(&wheel->slots[i]);
}

void wheel_deinit(struct wheel *wheel) {
    turn_cancel(&wheel->turn);
    uv_close((uv_handle_t *)&wheel->timer, NULL);
}

/* Ticks are compared by their difference, so that they may wrap around. */
static bool is_before(uint32_t a, uint32_t b) {
    return (int32_t)(a - b) < 0;
}

static void arm(struct wheel *wheel, uint32_t tick) {
    wheel->armed = true;
    wheel->armed_tick = tick;
    uint64_t passed_ms = uv_hrtime() / 1000000 - wheel->epoch_ms;
    int64_t wait_ms =
        (int64_t)(int32_t)(tick - (uint32_t)(passed_ms / WHEEL_TICK_MS)) * WHEEL_TICK_MS -
        (int64_t)(passed_ms % WHEEL_TICK_MS);
    uv_update_time(wheel->timer.loop);
    uv_timer_start(&wheel->timer, on_timer, wait_ms > 0 ? (uint64_t)wait_ms : 0, 0);
}

static void link_node(struct wheel *wheel, struct wheel_node *node) {
    uint32_t tick = node->due_tick;
    if (!is_before(wheel->tick, tick))
        tick = wheel->tick + 1;
    if (!is_before(tick, wheel->tick + WHEEL_SLOTS))
        tick = wheel->tick + WHEEL_SLOTS - 1;
    node->slot_tick = tick;
    list_append(&wheel->slots[tick % WHEEL_SLOTS], &node->link);
    wheel->count++;
    if (!wheel->armed || is_before(tick, wheel->armed_tick))
        arm(wheel, tick);
}

/* The earliest slot in use; there must be one. */
static uint32_t next_tick(const struct wheel *wheel) {
    uint32_t tick = wheel->tick + 1;
    while (list_empty(&wheel->slots[tick % WHEEL_SLOTS]))
        tick++;
    return tick;
}

static uint32_t tick_now(const struct wheel *wheel) {
    return (uint32_t)((uv_hrtime() / 1000000 - wheel->epoch_ms) / WHEEL_TICK_MS);
}

/* Deals with up to `max` nodes of the slot; returns with how many. */
static int run_slot(struct wheel *wheel, struct list *slot, uint32_t now, int max) {
    int count = 0;
    for (struct list *link; count < max && (link = list_shift(slot)); count++) {
        struct wheel_node *node = container_of(link, struct wheel_node, link);
        wheel->count--;
        if (is_before(now, node->due_tick))
            link_node(wheel, node);
        else
            wheel->on_due(node);
    }
    return count;
}

/* Empties the slots that time has passed, as far as one turn goes. */
static void run_slice(struct wheel *wheel) {
    uint32_t now = tick_now(wheel);
    int left = WHEEL_SLICE;
    if (is_before(wheel->tick + WHEEL_SLOTS, now)) /* one round sees all slots */
        wheel->tick = now - WHEEL_SLOTS;
    while (is_before(wheel->tick, now)) {
        uint32_t tick = wheel->tick + 1;
        struct list *slot = &wheel->slots[tick % WHEEL_SLOTS];
        left -= run_slot(wheel, slot, now, left);
        if (!list_empty(slot)) {
            turn_next(&wheel->turn);
            return;
        }
        if (is_before(wheel->tick, tick)) /* else it ran empty meanwhile, and caught up */
            wheel->tick = tick;
    }
    if (wheel->count && (!wheel->armed || is_before(next_tick(wheel), wheel->armed_tick)))
        arm(wheel, next_tick(wheel));
}

static void on_turn(struct turn_task *task) {
    run_slice(container_of(task, struct wheel, turn));
}

static void on_timer(uv_timer_t *timer) {
    struct wheel *wheel = container_of(timer, struct wheel, timer);
    wheel->armed = false;
    turn_next(&wheel->turn); /* the sockets first */
}

static void set_tick(struct wheel *wheel, struct wheel_node *node, uint32_t tick) {
    node->due_tick = tick;
    bool linked = !list_empty(&node->link);
    if (linked && !is_before(node->due_tick, node->slot_tick))
        return;
    wheel_clear(wheel, node);
    if (!wheel->count) /* an empty wheel has not turned: catch up, so that the horizon is whole */
        wheel->tick = tick_now(wheel);
    link_node(wheel, node);
}

static uint32_t tick_of(const struct wheel *wheel, uint64_t due_ms) {
    return (uint32_t)((due_ms - wheel->epoch_ms + WHEEL_TICK_MS - 1) / WHEEL_TICK_MS);
}

void wheel_set(struct wheel *wheel, struct wheel_node *node, uint64_t due_ms) {
    set_tick(wheel, node, tick_of(wheel, due_ms));
}

static uint32_t sharing(const struct wheel *wheel, uint32_t tick) {
    const struct wheel_share *share = &wheel->shares[tick % WHEEL_SLOTS];
    return share->tick == tick ? share->count : 0;
}

void wheel_share(struct wheel *wheel, struct wheel_node *node, uint64_t due_ms,
                 uint64_t earlier_ms) {
    uint32_t last = tick_of(wheel, due_ms), best = last;
    uint32_t span = (uint32_t)(earlier_ms / WHEEL_TICK_MS);
    for (uint32_t back = 0; back <= span && sharing(wheel, best) >= WHEEL_SHARE_MAX; back++)
        if (sharing(wheel, last - back) < sharing(wheel, best))
            best = last - back;
    struct wheel_share *share = &wheel->shares[best % WHEEL_SLOTS];
    *share = (struct wheel_share){.tick = best, .count = sharing(wheel, best) + 1};
    set_tick(wheel, node, best);
}

void wheel_unshare(struct wheel *wheel, const struct wheel_node *node) {
    struct wheel_share *share = &wheel->shares[node->due_tick % WHEEL_SLOTS];
    if (share->tick == node->due_tick && share->count) /* else a later tick has taken its place */
        share->count--;
}

uint64_t wheel_due_ms(const struct wheel *wheel, const struct wheel_node *node) {
    if (list_empty(&node->link))
        return 0;
    uint64_t tick = (uv_hrtime() / 1000000 - wheel->epoch_ms) / WHEEL_TICK_MS;
    int64_t ticks = (int64_t)tick + (int32_t)(node->due_tick - (uint32_t)tick);
    return ticks > 0 ? wheel->epoch_ms + (uint64_t)ticks * WHEEL_TICK_MS : 1;
}

void wheel_clear(struct wheel *wheel, struct wheel_node *node) {
    if (list_empty(&node->link))
        return;
    list_remove(&node->link);
    wheel->count--;
}
