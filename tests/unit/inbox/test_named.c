/*
 * Consumers whose cursor the inbox keeps: what is confirmed, saved, loaded and forgotten, in any
 * order, while the store answers late or not at all.
 */
#include "named.h"

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
    keep(9);
    get(0, "bot", 1);
    fake_turn_off();
    struct waiter *waiter = start_as(0, "c", "bot", -2, !WAITS, CONFIRMS_NOW);
    fake_turn_on();
    fake_do_read();
    fake_answer_read(STORE_AWAY);
    check_error(waiter, STORE_AWAY);
    settle();
    check_lag("bot", 8);
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
    save(); /* a second later */
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

/* --- A shared store --------------------------------------------------------------------------- */

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

/* A channel whose consumers were asked for, and that only pushes use since, is still counted. */
static void test_lags_of_a_channel_that_is_pushed_to(void **state) {
    (void)state;
    make_inbox();
    push_durable("c", 2);
    get(0, "a", 0);
    get(0, "a", 1);
    save();
    serve();
    restart();
    push_durable("c", 1);
    start_as(1, "c", "a", FROM_CONFIRMED, WAITS, CONFIRMS_NOW);
    cancel(1);
    serve();
    push_durable("c", 1);
    struct inbox_lags lags;
    inbox_lags(inbox, &lags);
    assert_int_equal(lags.consumers, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        INBOX_TEST(test_goes_on_behind_what_is_confirmed),
        INBOX_TEST(test_confirms_what_is_sent),
        INBOX_TEST(test_what_could_not_be_sent_is_not_confirmed),
        SHARED_TEST(test_a_failure_confirms_nothing),
        INBOX_TEST(test_a_reset_does_not_stick),
        INBOX_TEST(test_left_out_is_not_confirmed),
        INBOX_TEST(test_survives_a_restart),
        INBOX_TEST(test_saves_what_has_changed_at_once),
        INBOX_TEST(test_a_save_that_fails_is_made_good),
        INBOX_TEST(test_a_stop_while_the_store_hangs),
        INBOX_TEST(test_cancelled_in_every_state),
        INBOX_TEST(test_forgets),
        INBOX_TEST(test_forgets_what_is_being_saved_and_loaded),
        INBOX_TEST(test_forgetting_that_fails),
        SHARED_TEST(test_others_change_cursors),
        SHARED_TEST(test_unsaved_is_newer),
        SHARED_TEST(test_an_unknown_time_ends_nobody),
        SHARED_TEST(test_one_that_waits_long_is_in_use),
        SHARED_TEST(test_a_load_is_older_than_a_save),
        SHARED_TEST(test_a_load_is_older_than_a_reset),
        INBOX_TEST(test_storm),
        SHARED_TEST(test_storm),
        INBOX_TEST(test_storm_with_failures),
        SHARED_TEST(test_storm_with_failures),
        INBOX_TEST(test_lags_of_a_channel_that_is_pushed_to),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
