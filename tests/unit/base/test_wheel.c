/*
 * The wheel of deadlines on a real loop. "Late" is measured against a time stamp taken when the
 * loop last waited, so that a busy machine does not count as lateness.
 */
#include "base/wheel.h"
#include "support.h"

enum { NODES = 3000 };

struct item {
    struct wheel_node node;
    uint64_t due_ms, fired_ms;
    int fired;
};

static uv_loop_t loop;
static struct wheel wheel;
static struct item items[NODES];
static uint64_t turned_ms, turned_before_ms; /* when the loop came back from its last two waits */
static int fired, late, early;
static void (*also)(struct item *item); /* called when an item is due */

static void on_due(struct wheel_node *node) {
    struct item *item = container_of(node, struct item, node);
    uint64_t now_ms = uv_hrtime() / 1000000;
    item->fired++;
    item->fired_ms = now_ms;
    fired++;
    early += now_ms < item->due_ms;
    /* Two ticks after it was due, a loop that turned then must have reported it already. */
    late += turned_before_ms > item->due_ms + 2 * WHEEL_TICK_MS;
    if (also)
        also(item);
}

static void on_check(uv_check_t *check) {
    (void)check;
    turned_before_ms = turned_ms;
    turned_ms = uv_hrtime() / 1000000;
}

static uv_check_t check;

static int set_up(void **state) {
    (void)state;
    uv_loop_init(&loop);
    turn_init(&loop);
    wheel_init(&wheel, &loop, on_due);
    uv_check_init(&loop, &check);
    uv_check_start(&check, on_check);
    uv_unref((uv_handle_t *)&check);
    memset(items, 0, sizeof items);
    for (int i = 0; i < NODES; i++)
        wheel_node_init(&items[i].node);
    fired = late = early = 0;
    turned_ms = turned_before_ms = 0;
    also = NULL;
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    wheel_deinit(&wheel);
    turn_deinit();
    uv_close((uv_handle_t *)&check, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    return uv_loop_close(&loop);
}

static void set(struct item *item, uint64_t due_ms) {
    item->due_ms = due_ms;
    wheel_set(&wheel, &item->node, due_ms);
}

static uint64_t random_below(uint64_t bound) {
    static uint64_t seed = 7;
    seed = seed * 6364136223846793005 + 1442695040888963407;
    return (seed >> 33) % bound;
}

static void on_stop(uv_timer_t *timer) {
    uv_stop(timer->loop);
}

static void run_for(uint64_t ms) {
    uv_timer_t timer;
    uv_timer_init(&loop, &timer);
    uv_update_time(&loop);
    uv_timer_start(&timer, on_stop, ms, 0);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
}

static void run_until_fired(int count) {
    while (fired < count)
        uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(fired, count);
}

/* The timer keeps the loop alive just as long as something is to be due. */
static void test_many_deadlines(void **state) {
    (void)state;
    uint64_t now_ms = wheel_now_ms();
    for (int i = 0; i < NODES; i++)
        set(&items[i], now_ms + random_below(500));
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(fired, NODES);
    assert_int_equal(early, 0);
    assert_int_equal(late, 0);
    assert_int_equal(wheel.count, 0);
    for (int i = 0; i < NODES; i++)
        assert_int_equal(items[i].fired, 1);
}

static void test_one_deadline(void **state) {
    (void)state;
    for (int i = 0; i < 6; i++) {
        uint64_t start_ms = uv_hrtime() / 1000000;
        set(&items[i], wheel_now_ms() + 20 + (uint64_t)i * 7);
        uv_run(&loop, UV_RUN_DEFAULT);
        assert_int_equal(items[i].fired, 1);
        assert_true(items[i].fired_ms - start_ms >= 20 + (uint64_t)i * 7);
    }
    assert_int_equal(early, 0);
    assert_int_equal(late, 0);
}

/* A deadline that has passed is reported by the loop, not by wheel_set(). */
static void test_past_deadline(void **state) {
    (void)state;
    set(&items[0], wheel_now_ms() - 1);
    wheel_set(&wheel, &items[1].node, 0);
    wheel_set(&wheel, &items[2].node, wheel_now_ms() > 500 ? wheel_now_ms() - 500 : 0);
    assert_int_equal(fired, 0);
    uint64_t start_ms = uv_hrtime() / 1000000;
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(fired, 3);
    assert_true(uv_hrtime() / 1000000 - start_ms < 60000); /* a turn of the wheel takes longer */
}

static void test_clear(void **state) {
    (void)state;
    uint64_t now_ms = wheel_now_ms();
    wheel_clear(&wheel, &items[0].node); /* not in the wheel: harmless */
    for (int i = 0; i < 100; i++)
        set(&items[i], now_ms + 10 + random_below(60));
    for (int i = 0; i < 100; i += 2)
        wheel_clear(&wheel, &items[i].node);
    wheel_clear(&wheel, &items[0].node);
    assert_int_equal(wheel.count, 50);
    uv_run(&loop, UV_RUN_DEFAULT);
    for (int i = 0; i < 100; i++)
        assert_int_equal(items[i].fired, i % 2);
    assert_int_equal(early, 0);
}

static void test_move(void **state) {
    (void)state;
    uint64_t now_ms = wheel_now_ms();
    set(&items[0], now_ms + 40); /* further away */
    set(&items[0], now_ms + 250);
    set(&items[1], now_ms + 100000); /* nearer */
    set(&items[1], now_ms + 60);
    set(&items[2], now_ms + 40); /* away and back */
    set(&items[2], now_ms + 5000);
    set(&items[2], now_ms + 120);
    set(&items[3], now_ms + 40); /* away beyond the horizon, and back */
    set(&items[3], now_ms + (uint64_t)WHEEL_SLOTS * WHEEL_TICK_MS * 3);
    set(&items[3], now_ms + 120);
    set(&items[4],
        now_ms + (uint64_t)WHEEL_SLOTS * WHEEL_TICK_MS * 3); /* beyond the horizon, and near */
    set(&items[4], now_ms + 90);
    assert_int_equal(wheel.count, 5);
    uv_run(&loop, UV_RUN_DEFAULT);
    for (int i = 0; i < 5; i++)
        assert_int_equal(items[i].fired, 1);
    assert_int_equal(early, 0);
    assert_int_equal(late, 0);
    assert_true(items[1].fired_ms <= items[4].fired_ms);
    assert_true(items[4].fired_ms <= items[2].fired_ms);
    assert_true(items[2].fired_ms <= items[0].fired_ms);
}

/* Pushed away again and again before it is due, as by a busy connection, then left alone. */
static void test_moved_again_and_again(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++) {
        set(&items[0], wheel_now_ms() + 70);
        run_for(10); /* or longer, on a busy machine: then it may be due */
        assert_int_equal(early, 0);
    }
    fired = 0;
    set(&items[0], wheel_now_ms() + 70);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(fired, 1);
    assert_int_equal(early, 0);
    assert_int_equal(late, 0);
}

/* Many that are due together are reported in slices; each may be moved or cleared until its turn
 * comes. */
static void test_slices(void **state) {
    (void)state;
    uint64_t now_ms = wheel_now_ms();
    for (int i = 0; i < NODES; i++)
        set(&items[i], now_ms + 40 + (i % 3 ? 0 : 70));
    wheel.epoch_ms -= 200; /* all slots have passed */
    int turns = 0;
    while (fired < WHEEL_SLICE)
        uv_run(&loop, UV_RUN_ONCE);
    assert_int_equal(fired, WHEEL_SLICE);
    wheel_clear(&wheel, &items[NODES - 1].node); /* its slot has passed */
    set(&items[NODES - 2], wheel_now_ms() + 60);
    assert_int_equal(items[NODES - 1].fired + items[NODES - 2].fired, 0);
    for (int before = fired; fired < NODES - 2; before = fired, turns++) {
        uv_run(&loop, UV_RUN_ONCE);
        assert_true(fired - before <= WHEEL_SLICE);
    }
    assert_true(turns >= NODES / WHEEL_SLICE);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(wheel.count, 0);
    for (int i = 0; i < NODES - 1; i++)
        assert_int_equal(items[i].fired, 1);
    assert_int_equal(items[NODES - 1].fired, 0);
}

/* A tick that is shared by many is full; further ones are earlier, but not more than they may. */
static void test_shared_ticks(void **state) {
    (void)state;
    uint64_t due_ms = wheel_now_ms() + 60000;
    uint32_t in_tick[16] = {0};
    wheel_share(&wheel, &items[0].node, due_ms, 0);
    uint32_t last = items[0].node.due_tick;
    for (int i = 1; i < NODES; i++)
        wheel_share(&wheel, &items[i].node, due_ms, 9 * WHEEL_TICK_MS);
    for (int i = 0; i < NODES; i++) {
        assert_true(last - items[i].node.due_tick <= 9);
        if (i < WHEEL_SHARE_MAX)
            assert_int_equal(items[i].node.due_tick, last);
        in_tick[last - items[i].node.due_tick]++;
    }
    for (int i = 0; i < 10; i++) /* there is room for 2,560 of the 3,000: the others spread too */
        assert_true(in_tick[i] >= WHEEL_SHARE_MAX && in_tick[i] <= NODES / 10 + 1);
    for (int i = 0; i < NODES; i++) {
        wheel_unshare(&wheel, &items[i].node);
        wheel_clear(&wheel, &items[i].node);
    }
    for (int i = 0; i < 2; i++) { /* there is room again */
        wheel_share(&wheel, &items[i].node, due_ms, 9 * WHEEL_TICK_MS);
        assert_int_equal(items[i].node.due_tick, last);
        wheel_unshare(&wheel, &items[i].node);
    }
    wheel_share(&wheel, &items[1].node, due_ms + (uint64_t)WHEEL_SLOTS * WHEEL_TICK_MS, 0);
    wheel_unshare(&wheel, &items[0].node); /* another tick's now: harmless */
    wheel_clear(&wheel, &items[0].node);
    wheel_clear(&wheel, &items[1].node);
}

/* At the horizon's edge and far beyond it nothing is reported while it can be waited for. */
static void test_far_deadlines(void **state) {
    (void)state;
    uint64_t now_ms = wheel_now_ms(), horizon_ms = (uint64_t)WHEEL_SLOTS * WHEEL_TICK_MS;
    for (int i = 0; i < 200; i++)
        set(&items[i], now_ms + horizon_ms - 3200 + (uint64_t)i * WHEEL_TICK_MS);
    set(&items[200], now_ms + 10 * horizon_ms);
    set(&items[201], now_ms + 86400000);
    set(&items[202], now_ms + 30);
    run_until_fired(1);
    assert_int_equal(items[202].fired, 1);
    assert_int_equal(wheel.count, 202);
    for (int i = 0; i < 202; i++)
        wheel_clear(&wheel, &items[i].node);
    run_for(50);
    assert_int_equal(fired, 1);
}

static void on_bytes(uv_async_t *async) {
    wheel_clear(&wheel, &items[0].node);
    uv_close((uv_handle_t *)async, NULL);
}

/* The loop was held up, and both are there: what came, and the deadline. */
static void test_what_came_goes_first(void **state) {
    (void)state;
    uv_async_t bytes;
    uv_async_init(&loop, &bytes, on_bytes);
    set(&items[0], wheel_now_ms() + 2000);
    set(&items[1], wheel_now_ms() + 2000);
    uv_async_send(&bytes);
    wheel.epoch_ms -= 3000;
    uv_timer_start(&wheel.timer, wheel.timer.timer_cb, 0, 0);
    run_until_fired(1);
    assert_int_equal(items[0].fired, 0);
    assert_int_equal(items[1].fired, 1);
}

/*
 * Far deadlines are waited for by turning the wheel's own clock: with the epoch moved back by `ms`,
 * the loop finds that so much time has passed.
 */
static void pass_time(uint64_t ms) {
    wheel.epoch_ms -= ms;
    uv_timer_start(&wheel.timer, wheel.timer.timer_cb, 0, 0);
    uv_run(&loop, UV_RUN_NOWAIT);
    do
        uv_run(&loop, UV_RUN_NOWAIT);
    while (turn_is_due(&wheel.turn));
}

static void test_beyond_the_horizon(void **state) {
    (void)state;
    uint64_t now_ms = wheel_now_ms(), horizon_ms = (uint64_t)WHEEL_SLOTS * WHEEL_TICK_MS,
             passed_ms = 0;
    for (int i = 0; i < 100; i++)
        wheel_set(&wheel, &items[i].node, now_ms + 1000 + (uint64_t)i * horizon_ms / 20);
    while (wheel.count && passed_ms < 6 * horizon_ms) {
        uint64_t step_ms = 1 + random_below(horizon_ms / 3);
        passed_ms += step_ms;
        pass_time(step_ms);
        for (int i = 0; i < 100; i++) {
            uint64_t due_after_ms = 1000 + (uint64_t)i * horizon_ms / 20;
            uint64_t real_ms = passed_ms + wheel_now_ms() - now_ms;
            if (items[i].fired && due_after_ms > real_ms)
                fail_msg("%d fired early", i);
            if (!items[i].fired && due_after_ms + 2 * WHEEL_TICK_MS < passed_ms)
                fail_msg("%d is late", i);
        }
    }
    assert_int_equal(fired, 100);
}

/* After a pause longer than the whole wheel, all that is due is reported, once. */
static void test_long_pause(void **state) {
    (void)state;
    uint64_t now_ms = wheel_now_ms(), horizon_ms = (uint64_t)WHEEL_SLOTS * WHEEL_TICK_MS;
    for (int i = 0; i < 1000; i++)
        wheel_set(&wheel, &items[i].node, now_ms + random_below(2 * horizon_ms));
    wheel_set(&wheel, &items[1000].node, now_ms + 3 * horizon_ms);
    pass_time(5 * horizon_ms / 2);
    assert_int_equal(fired, 1000);
    assert_int_equal(items[1000].fired, 0);
    assert_int_equal(wheel.count, 1);
    pass_time(horizon_ms);
    assert_int_equal(items[1000].fired, 1);
}

static void change_others(struct item *item) {
    int i = (int)(item - items);
    if (i % 3 == 0) /* clears one that is due in the same turn */
        wheel_clear(&wheel, &items[i + 1].node);
    if (i % 3 == 0) /* moves another one */
        set(&items[i + 2], wheel_now_ms() + 60);
    if (i % 3 == 2 && item->fired == 1) /* sets itself anew */
        set(item, wheel_now_ms() + 10);
}

static void test_changes_from_within(void **state) {
    (void)state;
    uint64_t due_ms = wheel_now_ms() + 40;
    also = change_others;
    for (int i = 0; i < 300; i++)
        set(&items[i], due_ms);
    uv_run(&loop, UV_RUN_DEFAULT);
    for (int i = 0; i < 300; i++)
        assert_int_equal(items[i].fired, i % 3 == 0 ? 1 : i % 3 == 1 ? 0 : 2);
    assert_int_equal(early, 0);
    assert_int_equal(wheel.count, 0);
}

static void move_far_away(struct item *item) {
    if (item->fired == 1)
        wheel_set(&wheel, &item->node, wheel_now_ms() + 75000);
}

/* As a reply does that sets the idle timeout of its connection: the near deadlines of others
 * stay. */
static void test_far_deadline_from_within(void **state) {
    (void)state;
    also = move_far_away;
    set(&items[0], wheel_now_ms() + 40);
    set(&items[1], wheel_now_ms() + 150);
    set(&items[2], wheel_now_ms() + 300);
    run_until_fired(3);
    assert_int_equal(early, 0);
    assert_int_equal(wheel.count, 3);
    for (int i = 0; i < 3; i++)
        wheel_clear(&wheel, &items[i].node);
}

/* A wheel that stood empty for a while takes near deadlines as a fresh one does. */
static void test_after_standing_empty(void **state) {
    (void)state;
    uint64_t horizon_ms = (uint64_t)WHEEL_SLOTS * WHEEL_TICK_MS;
    wheel.epoch_ms -= 3 * horizon_ms + 12345;
    set(&items[0], wheel_now_ms() + 50);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(fired, 1);
    assert_int_equal(early, 0);
    assert_int_equal(late, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_many_deadlines, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_one_deadline, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_past_deadline, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_clear, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_move, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_moved_again_and_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_slices, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_came_goes_first, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_shared_ticks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_far_deadlines, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_beyond_the_horizon, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_long_pause, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_changes_from_within, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_far_deadline_from_within, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_after_standing_empty, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
