/*
 * Consumers whose cursor the inbox keeps: what is confirmed, saved, loaded and forgotten, in any
 * order, while the store answers late or not at all.
 */
#include "waiters.h"

#define WAITS true
#define CONFIRMS_NOW true

static void on_handle(uv_handle_t *handle, void *context) {
    (void)context;
    if (handle->type == UV_TIMER && uv_is_active(handle))
        ((uv_timer_t *)handle)->timer_cb((uv_timer_t *)handle);
}

/* What has changed is saved, half a second later. */
static void save(void) {
    uv_walk(&loop, on_handle, NULL);
    turn();
}

/* Reads and loads, and whatever they lead to. */
static void serve(void) {
    for (int i = 0; i < 4; i++) {
        fake_serve_cursors(STORE_OK);
        fake_serve_reads();
        turn();
        run_wakes();
    }
}

static void save_and_serve(void) {
    save();
    serve();
}

static void restart(void) {
    fake_turn_off();
    stop_inbox();
    fake.is_closing = false;
    inbox_free(inbox);
    for (int i = 0; i < fake.channel_count; i++)
        fake.channels[i].watch = NULL;
    make_inbox();
}

/* Asks as a consumer, and gets an answer. */
static struct waiter *get(int i, const char *name, int64_t ts) {
    struct waiter *waiter = start_as(i, "c", name, ts, !WAITS, !CONFIRMS_NOW);
    serve();
    assert_int_equal(waiter->answers, 1);
    return waiter;
}

static void check_lag(const char *name, uint64_t lag) {
    assert_int_equal(get(WAITERS_MAX - 1, name, -1)->lag, lag);
}

static uint64_t stored(const char *name) {
    const struct store_cursor *cursor = fake_cursor("c", name);
    return cursor ? cursor->ts : UINT64_MAX;
}

/* --- What is confirmed ------------------------------------------------------------------------ */

static void test_goes_on_behind_what_is_confirmed(void **state) {
    (void)state;
    make_inbox();
    push_durable("c", 5);
    check_answer(get(0, "bot", FROM_CONFIRMED), 1, 5, 5, 0);
    assert_int_equal(waiters[0].lag, 5);
    check_answer(get(0, "bot", FROM_CONFIRMED), 1, 5, 5, 0); /* nothing was confirmed */
    check_answer(get(0, "bot", 3), 4, 5, 5, 0);
    assert_int_equal(waiters[0].lag, 2);
    check_answer(get(0, "bot", FROM_CONFIRMED), 4, 5, 5, 0);
    check_answer(get(0, "bot", 1), 2, 5, 5, 0); /* never backwards */
    check_lag("bot", 2);
    get(0, "bot", POSITION_NOW);
    assert_int_equal(waiters[0].lag, 0);
    check_answer(get(0, "bot", -2), 4, 5, 5, 0);
    check_lag("other", 5);
}

static void test_confirms_what_is_sent(void **state) {
    (void)state;
    make_inbox();
    push_durable("c", 2);
    struct waiter *waiter = start_as(0, "c", "bot", FROM_CONFIRMED, WAITS, CONFIRMS_NOW);
    serve();
    check_answer(waiter, 1, 2, 2, 0);
    assert_int_equal(waiter->lag, 0);
    start_as(0, "c", "bot", FROM_CONFIRMED, WAITS, CONFIRMS_NOW);
    serve();
    assert_int_equal(waiter->answers, 0);
    push_durable("c", 1);
    run_wakes();
    check_answer(waiter, 3, 3, 3, 0);
    check_lag("bot", 0);
}

static void test_what_could_not_be_sent_is_not_confirmed(void **state) {
    (void)state;
    make_inbox();
    push_durable("c", 2);
    are_replies_lost = true;
    struct waiter *waiter = start_as(0, "c", "bot", 1, !WAITS, CONFIRMS_NOW);
    serve();
    assert_int_equal(waiter->lag, 0); /* had it been sent */
    are_replies_lost = false;
    check_lag("bot", 1);
    start_as(0, "c", "bot", FROM_CONFIRMED, !WAITS, CONFIRMS_NOW);
    serve();
    check_answer(waiter, 2, 2, 2, 0);
    check_lag("bot", 0);
}

static void test_a_failure_confirms_nothing(void **state) {
    (void)state;
    make_inbox();
    push_durable("c", 5);
    check_answer(ask(0, "c", 4), 5, 5, 5, 0); /* so that it is known what -2 means */
    struct waiter *waiter = start_as(0, "c", "bot", -2, !WAITS, CONFIRMS_NOW);
    fake_serve_cursors(STORE_FAILED);
    check_error(waiter, STORE_FAILED);
    check_lag("bot", 5);
}

static void test_a_reset_does_not_stick(void **state) {
    (void)state;
    make_inbox();
    push_durable("c", 3);
    assert_true(get(0, "bot", 9)->reset); /* beyond the newest */
    check_lag("bot", 3);
    get(0, "bot", 2);
    assert_true(get(0, "bot", 9)->reset);
    check_lag("bot", 1); /* it has lost nothing */
    save_and_serve();
    /* The channel begins anew, and what is stored is too much. */
    fake_restart("c", 1);
    restart();
    struct waiter *waiter = get(0, "bot", FROM_CONFIRMED);
    assert_true(waiter->reset);
    assert_int_equal(waiter->ts, 1);
    assert_false(get(0, "bot", FROM_CONFIRMED)->reset);
    save_and_serve();
    assert_int_equal(stored("bot"), 1);
    push_durable("c", 1);
    restart();
    check_answer(get(0, "bot", FROM_CONFIRMED), 2, 2, 2, 0);
}

/* What a filter leaves out is passed, but not confirmed. */
static void test_left_out_is_not_confirmed(void **state) {
    (void)state;
    make_inbox();
    push_durable("c", 4);
    for (int i = 0; i < 2; i++) {
        struct filter *filter;
        assert_int_equal(inbox_filter(inbox, SLICE("body.no:x\0"), &filter), FILTER_OK);
        struct waiter *waiter = &waiters[0];
        *waiter = (struct waiter){.poll = {.limit = 10,
                                           .may_wait = i,
                                           .has_position = true,
                                           .confirms = true,
                                           .ts = 1,
                                           .filter = filter},
                                  .channel = "c",
                                  .where = "body.no:x",
                                  .from = -1,
                                  .is_polling = true};
        assert_true(inbox_poll_as(inbox, SLICE("c"), &waiter->poll, SLICE("bot")));
        serve();
        if (i)
            inbox_expire(inbox, &waiter->poll, false);
        assert_int_equal(waiter->ts, 4);
        assert_int_equal(waiter->lag, 3);
    }
    check_lag("bot", 3);
}

/* --- The store -------------------------------------------------------------------------------- */

static void test_survives_a_restart(void **state) {
    (void)state;
    make_inbox();
    push_durable("c", 5);
    get(0, "bot", 4);
    restart(); /* it had not been saved yet */
    check_answer(get(0, "bot", FROM_CONFIRMED), 5, 5, 5, 0);
    get(0, "bot", 5);
    save_and_serve();
    assert_int_equal(stored("bot"), 5);
}

static void test_saves_what_has_changed_at_once(void **state) {
    (void)state;
    make_inbox();
    push_durable("c", 5);
    char name[8] = "n00";
    for (int i = 0; i < 10; i++) {
        name[2] = (char)('0' + i);
        get(0, name, i % 6);
    }
    save();
    struct store_cursors *cursors =
        container_of(fake.cursors_asked.next, struct store_cursors, op.link);
    assert_int_equal(cursors->count, 10);
    serve();
    get(0, name, FROM_CONFIRMED);
    get(0, name, 1);
    save();
    assert_true(list_empty(&fake.cursors_asked)); /* nothing has changed */
}

static void test_a_save_that_fails_is_made_good(void **state) {
    (void)state;
    make_inbox();
    push_durable("c", 5);
    get(0, "bot", 4);
    save();
    fake_serve_cursors(STORE_FAILED);
    assert_int_equal(stored("bot"), UINT64_MAX);
    check_lag("bot", 1);
    save_and_serve();
    assert_int_equal(stored("bot"), 4);
}

static void test_a_load_that_fails(void **state) {
    (void)state;
    make_inbox();
    push_durable("c", 1);
    for (int i = 0; i < 2000; i++)
        start_as(i, "c", "bot", FROM_CONFIRMED, WAITS, !CONFIRMS_NOW);
    fake_serve_cursors(STORE_AWAY);
    int now = polls_done;
    assert_in_range(now, 1, 1999); /* not all at once */
    cancel(1999);
    run_wakes();
    for (int i = 0; i < 1999; i++)
        check_error(&waiters[i], STORE_AWAY);
    assert_int_equal(waiters[1999].answers, 0);
    list_consumers(0, "c");
    serve();
    assert_int_equal(waiters[0].listed, 0);
    check_answer(get(0, "bot", FROM_CONFIRMED), 1, 1, 1, 0);
}

static void test_a_load_for_many(void **state) {
    (void)state;
    make_inbox();
    push_durable("c", 1);
    for (int i = 0; i < 2000; i++)
        start_as(i, "c", "bot", FROM_CONFIRMED, !WAITS, !CONFIRMS_NOW);
    fake_serve_cursors(STORE_OK);
    fake_serve_reads();
    turn();
    assert_in_range(polls_done, 1, 1999); /* not all at once */
    serve();
    for (int i = 0; i < 2000; i++)
        check_answer(&waiters[i], 1, 1, 1, 0);
}

static bool is_stopped;

static void note_stopped(void) {
    is_stopped = true;
}

/* A stop waits for what is being saved, but not for ever. */
static void test_a_stop_while_the_store_hangs(void **state) {
    (void)state;
    is_stopped = false;
    make_inbox();
    push_durable("c", 1);
    get(0, "bot", 1);
    inbox_stop(inbox, note_stopped);
    assert_false(is_stopped);
    uv_walk(&loop, on_handle, NULL); /* a second later */
    assert_true(is_stopped);
}

static void test_cancelled_in_every_state(void **state) {
    (void)state;
    make_inbox();
    push_durable("c", 1);
    start_as(0, "c", "bot", FROM_CONFIRMED, WAITS, !CONFIRMS_NOW);
    cancel(0); /* it loads */
    serve();
    start_as(0, "d", "bot", FROM_CONFIRMED, WAITS, !CONFIRMS_NOW);
    fake_serve_cursors(STORE_OK);
    cancel(0); /* it could go on */
    start_as(0, "d", "bot", 0, WAITS, !CONFIRMS_NOW);
    run_wakes();
    cancel(0); /* it reads */
    start_as(0, "c", "bot", 1, WAITS, !CONFIRMS_NOW);
    cancel(0); /* it is parked */
    forget(0, "c", "bot");
    cancel(0);
    list_consumers(0, "e");
    cancel(0);
    serve();
    check_lag("bot", 1);
}

/* --- Forgetting ------------------------------------------------------------------------------- */

static void test_forgets(void **state) {
    (void)state;
    make_inbox();
    push_durable("c", 3);
    get(0, "bot", 3);
    save_and_serve();
    start_as(1, "c", "bot", 3, WAITS, !CONFIRMS_NOW); /* one that is parked meanwhile */
    forget(0, "c", "bot");
    serve();
    check_error(&waiters[0], STORE_OK);
    assert_int_equal(stored("bot"), UINT64_MAX);
    check_answer(get(0, "bot", FROM_CONFIRMED), 1, 3, 3, 0);
    push_durable("c", 1);
    run_wakes();
    check_answer(&waiters[1], 4, 4, 4, 0);
    check_lag("bot", 4);
    forget(0, "nobody", "bot");
    serve();
    check_error(&waiters[0], STORE_OK);
}

static void test_forgets_what_is_being_saved_and_loaded(void **state) {
    (void)state;
    make_inbox();
    push_durable("c", 3);
    get(0, "bot", 3);
    save(); /* under way */
    forget(0, "c", "bot");
    start_as(1, "c", "bot", 1, !WAITS, !CONFIRMS_NOW);
    serve();
    check_answer(get(1, "new", FROM_CONFIRMED), 1, 3, 3, 0);
    get(1, "bot", 2);
    restart();
    start_as(1, "c", "new", FROM_CONFIRMED, !WAITS, !CONFIRMS_NOW); /* loads */
    forget(0, "c", "bot");
    serve();
    assert_int_equal(stored("bot"), UINT64_MAX);
    check_answer(get(1, "bot", FROM_CONFIRMED), 1, 3, 3, 0);
}

static void test_forgetting_that_fails(void **state) {
    (void)state;
    make_inbox();
    push_durable("c", 3);
    get(0, "bot", 3);
    save_and_serve();
    forget(0, "c", "bot");
    fake_serve_cursors(STORE_FAILED);
    check_error(&waiters[0], STORE_FAILED);
    check_lag("bot", 0); /* as the store still knows it */
}

/* --- Many names ------------------------------------------------------------------------------- */

static char *number_name(int i) {
    static char name[16];
    snprintf(name, sizeof name, "n%d", i);
    return name;
}

static void test_a_thousand_names(void **state) {
    (void)state;
    make_inbox();
    push_durable("c", 2);
    for (int i = 0; i < CONSUMERS_MAX; i++)
        get(0, number_name(i), 1);
    check_error(get(0, "more", FROM_CONFIRMED), STORE_CONSUMERS_FULL);
    check_error(get(0, number_name(7), FROM_CONFIRMED), STORE_OK);
    list_consumers(0, "c");
    assert_int_equal(waiters[0].listed, CONSUMERS_MAX);
    /* After a restart many come before those that are stored are loaded. */
    restart();
    for (int i = 0; i < 50; i++)
        start_as(i, "c", number_name(CONSUMERS_MAX + i), FROM_CONFIRMED, !WAITS, !CONFIRMS_NOW);
    start_as(50, "c", number_name(3), FROM_CONFIRMED, !WAITS, !CONFIRMS_NOW);
    serve();
    for (int i = 0; i < 50; i++)
        check_error(&waiters[i], STORE_CONSUMERS_FULL);
    check_answer(&waiters[50], 2, 2, 2, 0);
    list_consumers(0, "c");
    assert_int_equal(waiters[0].listed, CONSUMERS_MAX);
    for (uint32_t i = 1; i < CONSUMERS_MAX; i++) /* "n1" before "n10" */
        assert_true(strcmp(listed[i - 1].name, listed[i].name) < 0);
    forget(0, "c", number_name(5));
    serve();
    check_error(get(0, "more", FROM_CONFIRMED), STORE_OK);
}

/* As long as they are not loaded, nobody knows which of the names are new. */
static void test_names_that_come_before_the_load(void **state) {
    (void)state;
    make_inbox();
    push_durable("c", 1);
    for (int i = 0; i < 2 * CONSUMERS_MAX; i++)
        start_as(i, "c", number_name(i), FROM_CONFIRMED, !WAITS, !CONFIRMS_NOW);
    struct waiter *more = start_as(2 * CONSUMERS_MAX, "c", "more", 0, !WAITS, !CONFIRMS_NOW);
    check_error(more, STORE_CONSUMERS_FULL);
    serve();
    list_consumers(0, "c");
    assert_int_equal(waiters[0].listed, CONSUMERS_MAX);
}

static void test_expires(void **state) {
    (void)state;
    options.ttl_ms = 1000;
    make_inbox();
    push_durable("c", 2);
    for (int i = 0; i < CONSUMERS_MAX; i++)
        get(0, number_name(i), 2);
    save_and_serve();
    fake.now_ms += 900;
    get(0, number_name(1), -1);
    struct waiter *parked = start_as(1, "c", number_name(2), 2, WAITS, !CONFIRMS_NOW);
    fake.now_ms += 900;
    list_consumers(0, "c");
    assert_int_equal(waiters[0].listed, 2);
    fake.now_ms += 200;
    assert_int_equal(parked->answers, 0);
    inbox_expire(inbox, &parked->poll, false); /* it has been used until now */
    check_error(get(0, "new", FROM_CONFIRMED), STORE_OK);
    check_lag(number_name(2), 0);
    check_lag(number_name(1), 2);
}

/* --- A shared store --------------------------------------------------------------------------- */

/* The channel stays in memory, and has `total` updates. */
static void keep(int total) {
    make_inbox();
    fake_add("c", total);
    wait_for(WAITERS_MAX - 2, "c", total);
    settle();
}

static void test_others_change_cursors(void **state) {
    (void)state;
    keep(9);
    get(0, "bot", 3);
    save_and_serve();
    assert_int_equal(stored("bot"), 3);
    fake_save_cursor("c", "bot", 7);
    check_answer(get(0, "bot", FROM_CONFIRMED), 8, 9, 9, 0);
    fake_forget_cursor("c", "bot");
    check_answer(get(0, "bot", FROM_CONFIRMED), 1, 9, 9, 0);
    save_and_serve();
    assert_int_equal(stored("bot"), 0); /* it is known again */
}

/* What was confirmed and is not saved yet is newer than what is loaded. */
static void test_unsaved_is_newer(void **state) {
    (void)state;
    keep(9);
    get(0, "bot", 3);
    save_and_serve();
    get(0, "bot", 5);
    check_answer(get(0, "bot", FROM_CONFIRMED), 6, 9, 9, 0);
}

/* Before the store knows the time, and while it does not know it any more, nobody expires. */
static void test_an_unknown_time_ends_nobody(void **state) {
    (void)state;
    int64_t now_ms = fake.now_ms;
    fake.now_ms = 1;
    keep(9);
    get(0, "bot", 3);
    fake.now_ms = now_ms;
    check_answer(get(0, "bot", FROM_CONFIRMED), 4, 9, 9, 0);
    fake.now_ms = 1;
    get(0, "bot", 5);
    list_consumers(1, "c");
    serve();
    assert_int_equal(listed[0].used_ms, now_ms);
    fake.now_ms = now_ms + 1;
    check_answer(get(0, "bot", FROM_CONFIRMED), 6, 9, 9, 0);
}

/* The store forgets one that waits for longer than that takes; this server does not. */
static void test_one_that_waits_long_is_in_use(void **state) {
    (void)state;
    options.ttl_ms = 2000;
    make_inbox();
    fake_add("c", 9);
    start_as(1, "c", "bot", 9, WAITS, !CONFIRMS_NOW);
    settle();
    save_and_serve();
    fake.now_ms += 2100;
    fake_forget_cursor("c", "bot");
    list_consumers(0, "c");
    settle();
    save_and_serve();
    assert_int_equal(stored("bot"), 9);
}

/* A load begins, then a cursor is saved, and only then the load is answered. */
static struct list *load;

static void begin_load(void) {
    start_as(0, "c", "other", FROM_CONFIRMED, !WAITS, !CONFIRMS_NOW);
    fake_do_cursors(STORE_OK, false);
    load = list_shift(&fake.cursors_done);
}

static void end_load(void) {
    fake_serve_reads();
    save();
    fake_serve_cursors(STORE_OK);
    list_append(&fake.cursors_done, load);
    serve();
}

static void test_a_load_is_older_than_a_save(void **state) {
    (void)state;
    keep(9);
    get(0, "other", FROM_CONFIRMED);
    for (int64_t ts = 5; ts < 9; ts++) { /* as a new one, and as one that was forgotten */
        begin_load();
        start_as(1, "c", "bot", ts, !WAITS, !CONFIRMS_NOW);
        end_load();
        assert_int_equal(stored("bot"), ts);
        assert_int_equal(get(1, "bot", -1)->lag, 9 - ts);
        fake_forget_cursor("c", "bot");
    }
}

/* The same, and the save lowers the cursor because the channel has begun anew. */
static void test_a_load_is_older_than_a_reset(void **state) {
    (void)state;
    keep(9);
    get(0, "bot", 7);
    save_and_serve();
    begin_load();
    fake_restart("c", 2);
    start_as(1, "c", "bot", 5, !WAITS, !CONFIRMS_NOW);
    end_load();
    assert_true(waiters[1].reset);
    assert_int_equal(stored("bot"), 2);
    check_answer(get(1, "bot", FROM_CONFIRMED), 3, 2, 2, 0);
}

static void test_others_forget_when_it_is_full(void **state) {
    (void)state;
    keep(2);
    for (int i = 0; i < CONSUMERS_MAX; i++)
        get(0, number_name(i), 1);
    check_error(get(0, "more", 1), STORE_CONSUMERS_FULL);
    save_and_serve();
    fake_forget_cursor("c", number_name(9));
    check_error(get(0, "more", 1), STORE_OK);
    check_error(get(0, "even more", 1), STORE_CONSUMERS_FULL);
}

/* --- Storms ----------------------------------------------------------------------------------- */

enum { NAMES = 5, CHANNELS = 3, POLLS = 60, STEPS = 60000 };

static const char *const channels[CHANNELS] = {"a", "b", "c"};
static const char *const bots[NAMES] = {"v", "w", "x", "y", "z"};

/* What a consumer has confirmed for certain, and at most. */
struct model {
    uint64_t sure, claimed;
};

static struct model models[CHANNELS][NAMES];
static struct {
    struct model *model;
    uint64_t sure; /* when it began */
    int64_t ts;
    bool confirms_now, was_forgotten;
} asked[POLLS];

/* The cursor is where it must be, once a poll is answered. */
static void check_storm(int i) {
    struct waiter *waiter = &waiters[i];
    struct model *model = asked[i].model;
    asked[i].model = NULL;
    if (waiter->error)
        return;
    assert_false(waiter->reset);
    uint64_t confirmed = waiter->total - waiter->lag;
    assert_true(waiter->lag <= waiter->total);
    if (!asked[i].was_forgotten) {
        /* Of a shared store the total may be one of a while ago. */
        assert_true(confirmed >= asked[i].sure || (fake.is_shared && !waiter->lag));
        if (asked[i].ts == FROM_CONFIRMED && waiter->count)
            assert_true(waiter->first <= model->claimed + 1);
        if (asked[i].ts == FROM_CONFIRMED && waiter->count)
            assert_true(waiter->first > asked[i].sure);
        if (asked[i].ts != FROM_CONFIRMED && asked[i].ts >= 0)
            assert_true(confirmed >= (uint64_t)asked[i].ts);
        if (confirmed > model->sure)
            model->sure = confirmed;
    }
    assert_true(confirmed <= model->claimed);
}

static void check_all(void) {
    for (int i = 0; i < POLLS; i++) {
        const struct waiter *waiter = &waiters[i];
        struct model *model = asked[i].model;
        if (model && waiter->answers && asked[i].confirms_now && waiter->ts > model->claimed)
            model->claimed = waiter->ts;
    }
    for (int i = 0; i < POLLS; i++)
        if (asked[i].model && waiters[i].answers)
            check_storm(i);
}

static void storm_poll(int i) {
    uint32_t c = random_below(CHANNELS), n = random_below(NAMES);
    struct model *model = &models[c][n];
    uint64_t total = fake_channel(channels[c])->total;
    int64_t ts = FROM_CONFIRMED;
    bool confirms_now = random_below(4) == 0;
    if (random_below(2)) /* near what was confirmed, or anywhere */
        ts = (int64_t)(model->sure + random_below(4));
    if (ts > (int64_t)total)
        ts = (int64_t)total;
    if (random_below(20) == 0)
        ts = -(int64_t)random_below(5) - 1;
    if (ts != FROM_CONFIRMED && ts > (int64_t)model->claimed)
        model->claimed = (uint64_t)ts;
    asked[i].model = model;
    asked[i].sure = model->sure;
    asked[i].ts = ts;
    asked[i].confirms_now = confirms_now;
    asked[i].was_forgotten = false;
    start_as(i, channels[c], bots[n], ts, random_below(2), confirms_now);
}

static void storm_cancel(int i) {
    cancel(i);
    asked[i].model = NULL;
}

static void storm_forget(void) {
    uint32_t c = random_below(CHANNELS), n = random_below(NAMES);
    struct waiter *waiter = &waiters[POLLS + 1];
    if (waiter->is_polling)
        return;
    models[c][n].sure = 0;
    for (int i = 0; i < POLLS; i++)
        asked[i].was_forgotten |= asked[i].model == &models[c][n];
    forget(POLLS + 1, channels[c], bots[n]);
    while (waiter->is_polling) { /* polls that come meanwhile are another test's */
        fake_do_cursors(STORE_OK, false);
        fake_answer_cursors();
    }
}

static void storm_restart(void) {
    for (int i = 0; i < POLLS; i++)
        storm_cancel(i);
    while (!list_empty(&fake.appends))
        fake_answer_append(STORE_OK);
    serve();
    restart();
}

static void step(bool may_fail) {
    uint32_t what = random_below(1000);
    int i = (int)random_below(POLLS);
    enum store_error error = may_fail && random_below(6) == 0 ? STORE_FAILED : STORE_OK;
    if (what < 400 && !waiters[i].is_polling)
        storm_poll(i);
    else if (what < 450 && waiters[i].is_polling)
        storm_cancel(i);
    else if (what < 480)
        push(channels[random_below(CHANNELS)]);
    else if (what < 600 && !list_empty(&fake.appends))
        fake_answer_append(STORE_OK);
    else if (what < 700) {
        fake_do_read();
        if (!fake.is_shared) /* its answers come in order */
            fake_answer_read(STORE_OK);
    } else if (what < 780)
        fake_answer_read(STORE_OK);
    else if (what < 850)
        fake_do_cursors(error, random_below(2));
    else if (what < 920)
        fake_answer_cursors();
    else if (what < 950)
        save();
    else if (what < 955)
        storm_forget();
    else if (what < 957 && !may_fail)
        storm_restart();
    else
        turn();
    check_all();
}

static void run_storm(uint64_t first_seed, bool may_fail) {
    options.channel_max_updates = 1000000;
    make_inbox();
    memset(models, 0, sizeof models);
    memset(asked, 0, sizeof asked);
    for (int c = 0; c < CHANNELS; c++)
        fake_add(channels[c], 3);
    seed = first_seed;
    for (int i = 0; i < STEPS; i++) {
        if (fake.is_shared && i % 50 == 0)
            fake_turn_on();
        if (fake.is_shared && i % 3 == 0)
            fake_tell_one();
        step(may_fail);
    }
    uint64_t confirmed = 0;
    for (int c = 0; c < CHANNELS; c++)
        for (int n = 0; n < NAMES; n++)
            confirmed += models[c][n].sure;
    assert_true(confirmed > 100);
}

static void test_storm(void **state) {
    (void)state;
    run_storm(1, false);
}

static void test_storm_with_failures(void **state) {
    (void)state;
    run_storm(2, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        INBOX_TEST(test_goes_on_behind_what_is_confirmed),
        INBOX_TEST(test_confirms_what_is_sent),
        INBOX_TEST(test_what_could_not_be_sent_is_not_confirmed),
        INBOX_TEST(test_a_failure_confirms_nothing),
        INBOX_TEST(test_a_reset_does_not_stick),
        INBOX_TEST(test_left_out_is_not_confirmed),
        INBOX_TEST(test_survives_a_restart),
        INBOX_TEST(test_saves_what_has_changed_at_once),
        INBOX_TEST(test_a_save_that_fails_is_made_good),
        INBOX_TEST(test_a_load_that_fails),
        INBOX_TEST(test_a_load_for_many),
        INBOX_TEST(test_a_stop_while_the_store_hangs),
        INBOX_TEST(test_cancelled_in_every_state),
        INBOX_TEST(test_forgets),
        INBOX_TEST(test_forgets_what_is_being_saved_and_loaded),
        INBOX_TEST(test_forgetting_that_fails),
        INBOX_TEST(test_a_thousand_names),
        INBOX_TEST(test_names_that_come_before_the_load),
        INBOX_TEST(test_expires),
        SHARED_TEST(test_others_change_cursors),
        SHARED_TEST(test_unsaved_is_newer),
        SHARED_TEST(test_an_unknown_time_ends_nobody),
        SHARED_TEST(test_one_that_waits_long_is_in_use),
        SHARED_TEST(test_a_load_is_older_than_a_save),
        SHARED_TEST(test_a_load_is_older_than_a_reset),
        SHARED_TEST(test_others_forget_when_it_is_full),
        INBOX_TEST(test_storm),
        SHARED_TEST(test_storm),
        INBOX_TEST(test_storm_with_failures),
        SHARED_TEST(test_storm_with_failures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
