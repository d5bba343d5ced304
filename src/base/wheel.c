#include "base/wheel.h"

static void on_timer(uv_timer_t *timer);

void wheel_init(struct wheel *wheel, uv_loop_t *loop, wheel_due *on_due) {
    uv_timer_init(loop, &wheel->timer);
    wheel->epoch_ms = uv_hrtime() / 1000000;
    wheel->tick = 0;
    wheel->armed = false;
    wheel->count = 0;
    wheel->on_due = on_due;
    for (int i = 0; i < WHEEL_SLOTS; i++)
        list_init(&wheel->slots[i]);
}

void wheel_deinit(struct wheel *wheel) {
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

static void on_timer(uv_timer_t *timer) {
    struct wheel *wheel = container_of(timer, struct wheel, timer);
    uint32_t now = (uint32_t)((uv_hrtime() / 1000000 - wheel->epoch_ms) / WHEEL_TICK_MS);
    wheel->armed = false;
    struct list due;
    list_init(&due);
    for (uint32_t steps = 0; is_before(wheel->tick, now) && steps < WHEEL_SLOTS; steps++) {
        wheel->tick++;
        list_splice(&due, &wheel->slots[wheel->tick % WHEEL_SLOTS]);
    }
    wheel->tick = now;
    for (struct list *link; (link = list_shift(&due));) {
        struct wheel_node *node = container_of(link, struct wheel_node, link);
        wheel->count--;
        if (is_before(now, node->due_tick))
            link_node(wheel, node);
        else
            wheel->on_due(node);
    }
    if (wheel->count && (!wheel->armed || is_before(next_tick(wheel), wheel->armed_tick)))
        arm(wheel, next_tick(wheel));
}

void wheel_set(struct wheel *wheel, struct wheel_node *node, uint64_t due_ms) {
    node->due_tick = (uint32_t)((due_ms - wheel->epoch_ms + WHEEL_TICK_MS - 1) / WHEEL_TICK_MS);
    bool linked = !list_empty(&node->link);
    if (linked && !is_before(node->due_tick, node->slot_tick))
        return;
    wheel_clear(wheel, node);
    if (!wheel->count) /* an empty wheel has not turned: catch up, so that the horizon is whole */
        wheel->tick = (uint32_t)((uv_hrtime() / 1000000 - wheel->epoch_ms) / WHEEL_TICK_MS);
    link_node(wheel, node);
}

void wheel_clear(struct wheel *wheel, struct wheel_node *node) {
    if (list_empty(&node->link))
        return;
    list_remove(&node->link);
    wheel->count--;
}
