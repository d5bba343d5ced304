#include "named.h"

static void on_handle(uv_handle_t *handle, void *context) {
    (void)context;
    if (handle->type == UV_TIMER && uv_is_active(handle))
        ((uv_timer_t *)handle)->timer_cb((uv_timer_t *)handle);
}

void save(void) {
    uv_walk(&loop, on_handle, NULL);
    turn();
}

void serve(void) {
    for (int i = 0; i < 4; i++) {
        fake_serve_cursors(STORE_OK);
        fake_serve_reads();
        turn();
        run_wakes();
    }
}

void save_and_serve(void) {
    save();
    serve();
}

void restart(void) {
    fake_turn_off();
    stop_inbox();
    fake.is_closing = false;
    inbox_free(inbox);
    for (int i = 0; i < fake.channel_count; i++)
        fake.channels[i].watch = NULL;
    make_inbox();
}

struct waiter *get(int i, const char *name, int64_t ts) {
    struct waiter *waiter = start_as(i, "c", name, ts, !WAITS, !CONFIRMS_NOW);
    serve();
    assert_int_equal(waiter->answers, 1);
    return waiter;
}

void check_lag(const char *name, uint64_t lag) {
    assert_int_equal(get(WAITERS_MAX - 1, name, -1)->lag, lag);
}

uint64_t stored(const char *name) {
    const struct store_cursor *cursor = fake_cursor("c", name);
    return cursor ? cursor->ts : UINT64_MAX;
}

char *number_name(int i) {
    static char name[16];
    snprintf(name, sizeof name, "n%d", i);
    return name;
}

void keep(int total) {
    make_inbox();
    fake_add("c", total);
    wait_for(WAITERS_MAX - 2, "c", total);
    settle();
}
