/*
 * Polls with a filter, among others: each gets exactly its own, in order, whatever comes in between
 * (check_wanted() of the fixture sees to that), none sleeps on what it wants, and what is looked at
 * is looked at once for all who want the same.
 */
#include "base/hash.h"
#include "inbox/parts.h"
#include "waiters.h"

/* --- Memory that runs out --------------------------------------------------------------------- */

static uint32_t fail_one_in; /* 0: none */

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size) {
    return fail_one_in && !random_below(fail_one_in) ? NULL : __real_malloc(size);
}

/* One turn in which some allocations fail. */
static void poor_turn(void) {
    fail_one_in = 3;
    turn();
    fail_one_in = 0;
}

/* All that is under way comes to its end. */
static void finish_all(void) {
    while (!list_empty(&fake.appends) || !list_empty(&fake.asked) || uv_loop_alive(&loop)) {
        if (!list_empty(&fake.appends))
            fake_answer_append(STORE_OK);
        if (!list_empty(&fake.asked))
            fake_serve_read(STORE_OK);
        turn();
    }
}

/* --- One thing at a time ---------------------------------------------------------------------- */

/* An update `{"n":N}`, of about `bytes` bytes. */
static void push_number(const char *channel, int n, size_t bytes) {
    char *body = malloc(bytes + 64);
    int len = sprintf(body, "{\"pad\":\"");
    memset(body + len, 'x', bytes);
    len += (int)bytes;
    len += sprintf(body + len, "\",\"n\":%d}", n);
    assert_non_null(push_body(channel, (struct slice){body, (size_t)len}));
    free(body);
}

static void push_numbers(const char *channel, int from, int to) {
    for (int n = from; n <= to; n++) {
        push_number(channel, n, 0);
        fake_answer_append(STORE_OK);
    }
}

static struct waiter *want(int i, const char *where, int64_t ts) {
    return start_where(i, "a", where, ts, READ_MAX_UPDATES, true);
}

static void check_got(const struct waiter *waiter, uint32_t count, uint64_t ts, uint32_t skipped) {
    assert_int_equal(waiter->answers, 1);
    assert_int_equal(waiter->error, STORE_OK);
    assert_int_equal(waiter->count, count);
    assert_int_equal(waiter->ts, ts);
    assert_int_equal(waiter->skipped, skipped);
}

static void test_what_is_not_wanted_wakes_nobody(void **state) {
    (void)state;
    make_inbox();
    push_numbers("a", 1, 1);
    struct waiter *waiter = want(0, "body.n:5", 1), *other = want(1, "body.n:9", 1),
                  *all = wait_for(2, "a", 1);
    push_numbers("a", 2, 4);
    run_wakes();
    assert_int_equal(waiter->answers + other->answers, 0);
    check_answer(all, 2, 4, 4, 0);
    push_numbers("a", 5, 6);
    run_wakes();
    check_got(waiter, 1, 6, 4);
    assert_int_equal(other->answers, 0);
    /* The time of the other is up: its cursor stands behind all that was looked at for it. */
    inbox_expire(inbox, &other->poll, true);
    check_got(other, 0, 6, 5);
}

static void test_a_filter_and_a_limit(void **state) {
    (void)state;
    make_inbox();
    poll_once("a");
    push_numbers("a", 1, 1);
    struct waiter *waiter = start_where(0, "a", "body.n:*5|*7", 0, 1, true);
    push_numbers("a", 2, 20);
    run_wakes();
    check_got(waiter, 1, 6, 5); /* up to the next that it wants */
    waiter = start_where(0, "a", "body.n:*5|*7", 6, 2, true);
    check_got(waiter, 2, 16, 8);
    waiter = start_where(0, "a", "body.n:*5|*7", 16, 2, true);
    check_got(waiter, 1, 20, 3);
    waiter = start_where(0, "a", "body.n:x", 0, 1, false);
    check_got(waiter, 0, 20, 20);
    waiter = start_where(0, "a", "body.n:1|20", -3, 1, false);
    check_got(waiter, 1, 20, 2);
}

/* While nobody is parked, what is known of the newest updates stays known. */
static void test_one_look_an_update_and_view(void **state) {
    (void)state;
    enum { POLLS = 1000, FILTERS = 20, PUSHES = VIEW_KNOWN };
    static char wheres[FILTERS][32];
    make_inbox();
    push_numbers("a", 1, 1);
    for (int i = 0; i < FILTERS; i++)
        snprintf(wheres[i], sizeof wheres[i], "body.n:*%02d|*%02d", i, i + 50);
    for (int i = 0; i < POLLS; i++) {
        waiters[i].cursor = 1;
        want(i, wheres[i % FILTERS], 1);
    }
    run_wakes();
    uint64_t before = counters.filter_looks;
    for (int n = 2; n <= PUSHES; n++) {
        push_numbers("a", n, n);
        run_wakes();
        for (int i = 0; i < POLLS; i++)
            if (!waiters[i].is_polling)
                want(i, wheres[i % FILTERS], (int64_t)waiters[i].cursor);
        for (int i = 0; i < POLLS; i += 70) { /* and some come back meanwhile */
            cancel(i);
            want(i, wheres[i % FILTERS], (int64_t)waiters[i].cursor);
        }
    }
    assert_true(counters.filter_looks - before <= (uint64_t)FILTERS * (PUSHES - 1));
    uint64_t seen = 0;
    for (int i = 0; i < POLLS; i++)
        seen += waiters[i].seen;
    assert_true(seen > POLLS * PUSHES / 60);
    assert_true(has_seen_all(&waiters[0]));
}

/* What is known costs nothing, also when the turn's time is up. */
static void test_what_is_known_needs_no_worker(void **state) {
    (void)state;
    make_inbox();
    poll_once("a");
    push_numbers("a", 1, 8);
    push_number("a", 9, 30000);
    fake_answer_append(STORE_OK);
    check_got(start_where(0, "a", "body.n:5", 0, READ_MAX_UPDATES, false), 1, 9, 8);
    run_wakes();
    while (turn_has_time())
        ;
    check_got(start_where(0, "a", "body.n:5", 0, READ_MAX_UPDATES, false), 1, 9, 8);
    assert_int_equal(counters.filter_looks, 9);
    want(1, "body.n:x", 0);
    assert_int_equal(waiters[1].poll.state, POLL_LOOKING);
    run_wakes();
    assert_true(has_seen_all(&waiters[1]));
}

/* --- By the worker ---------------------------------------------------------------------------- */

static void test_what_the_worker_finds_wakes(void **state) {
    (void)state;
    make_inbox();
    poll_once("a");
    push_numbers("a", 1, 1);
    struct waiter *waiter = want(0, "body.n:3", 1), *other = want(1, "body.n:4", 1);
    push_number("a", 2, 100000);
    push_number("a", 3, 100000);
    fake_answer_append(STORE_OK);
    fake_answer_append(STORE_OK);
    run_wakes();
    check_got(waiter, 1, 3, 1);
    assert_int_equal(other->answers, 0);
    assert_true(has_seen_all(other));
    /* Those that come back are looked for by the worker too. */
    waiter = want(0, "body.n:2", 0);
    assert_int_equal(waiter->poll.state, POLL_LOOKING);
    run_wakes();
    check_got(waiter, 1, 3, 2);
    want(0, "body.n:2", 0);
    cancel(0);
    cancel(1);
}

/* The worker has no room for all of them: they wait, none is looked at here. */
static void test_large_updates_wait_for_the_worker(void **state) {
    (void)state;
    enum { VIEWS = 12 };
    static char wheres[VIEWS][32];
    make_inbox();
    push_numbers("a", 1, 1);
    for (int i = 0; i < VIEWS; i++) {
        snprintf(wheres[i], sizeof wheres[i], "body.n:%d|x", i % 2 ? 2 : 100 + i);
        want(i, wheres[i], 1);
    }
    cancel(4);
    push_number("a", 2, 25 << 20);
    fake_answer_append(STORE_OK);
    turn();
    turn();
    assert_true(inbox->look_bytes <= 64 << 20);
    assert_false(list_empty(&inbox->roomless));
    cancel(5);
    run_wakes();
    assert_int_equal(inbox->look_bytes, 0);
    for (int i = 0; i < VIEWS; i++) {
        if (i == 4 || i == 5)
            continue;
        if (i % 2)
            check_got(&waiters[i], 1, 2, 0);
        else
            assert_true(has_seen_all(&waiters[i]));
    }
}

/* Of what came at once, a reply brings no more than one read would. */
static void test_a_reply_has_a_bound(void **state) {
    (void)state;
    enum { BYTES = READ_MAX_BYTES / 8 };
    make_inbox();
    push_numbers("a", 1, 1);
    want(0, "body.n:*", 1);
    for (int n = 2; n <= 31; n++)
        push_number("a", n, BYTES);
    for (int n = 2; n <= 31; n++)
        fake_answer_append(STORE_OK);
    run_wakes();
    assert_int_equal(waiters[0].answers, 1);
    assert_in_range(waiters[0].count, 1, READ_MAX_BYTES / BYTES);
}

/* One look a turn when its time is up. */
static void test_looks_take_turns(void **state) {
    (void)state;
    make_inbox();
    push_numbers("a", 1, 1);
    want(0, "body.n:10", 1);
    want(1, "body.n:11", 1);
    want(2, "body.n:12", 1);
    push_number("a", 2, 0);
    while (turn_has_time())
        ;
    fake_answer_append(STORE_OK);
    turn();
    assert_int_equal(counters.filter_looks, 1);
    run_wakes();
    assert_int_equal(counters.filter_looks, 3);
}

/* --- What was, and what is there now ---------------------------------------------------------- */

static void test_a_long_way_through_the_store(void **state) {
    (void)state;
    options.channel_max_updates = 1000000;
    fake.page = 7;
    make_inbox();
    fake_add("a", 400);
    struct waiter *waiter = want(0, "body.n:350", 0);
    finish_all();
    check_got(waiter, 1, 350, 349);
    /* A poll may come back before it has found anything: it has looked through much. */
    waiter = want(0, "body.n:x", 0);
    fake.page = 1;
    finish_all();
    assert_int_equal(waiter->answers, 1);
    assert_int_equal(waiter->count, 0);
    assert_in_range(waiter->ts, 1, 399);
    assert_int_equal(waiter->skipped, waiter->ts);
}

/* What was left out before a page without any update counts. */
static void test_skipped_before_damage(void **state) {
    (void)state;
    options.channel_max_updates = 1000000;
    fake.damage_every = 4;
    fake.page = 3;
    make_inbox();
    fake_add("a", 4);
    struct waiter *waiter = want(0, "body.n:x", 0);
    fake_serve_reads();
    run_wakes();
    check_got(waiter, 0, 4, 3);
    assert_int_equal(waiter->missed, 1);
}

/* What memory knows of a channel says nothing of its next life. */
static void test_a_read_of_the_next_life(void **state) {
    (void)state;
    make_inbox();
    fake_add("a", 5);
    want(0, "body.life:1", 5);
    settle();
    fake_add("a", 1);
    fake_tell_one();
    run_wakes(); /* the 6th is known not to be wanted */
    want(1, "body.life:1", 5);
    assert_int_equal(waiters[1].poll.state, POLL_PARKED);
    fake_restart("a", 8);
    struct waiter *waiter = start_where(2, "a", "body.life:1", 0, READ_MAX_UPDATES, false);
    fake_do_read();
    fake_answer_read(STORE_OK);
    run_wakes();
    check_got(waiter, 8, 8, 0);
    /* Those that wait learn of it with the channel's news. */
    fake_add("a", 1);
    settle();
    assert_int_equal(waiters[0].resets + waiters[1].resets, 2);
}

/* Nor does what was found for those who wait, once they have been told. */
static void test_waiting_in_the_next_life(void **state) {
    (void)state;
    make_inbox();
    fake_add("a", 5);
    want(0, "body.life:1", 5);
    settle();
    fake_add("a", 1);
    settle(); /* the 6th is known not to be wanted */
    fake_restart("a", 4);
    fake_add("a", 1);
    settle();
    assert_int_equal(waiters[0].resets, 1);
    want(0, "body.life:1", 5);
    settle();
    fake_add("a", 1);
    settle();
    assert_int_equal(waiters[0].answers, 1);
    assert_int_equal(waiters[0].last, 6);
}

static void test_a_reset_says_the_epoch(void **state) {
    (void)state;
    make_inbox();
    push_numbers("a", 1, 1);
    struct channel *channel = cache_find(inbox, hash_of(SLICE("a")), SLICE("a"));
    channel->epoch = 77;
    struct waiter *waiter = ask(0, "a", 9);
    assert_true(waiter->reset);
    assert_int_equal(waiter->epoch, 77);
}

/* Only the store can tell whether data of another epoch has been seen. */
static void test_another_epoch_is_judged(void **state) {
    (void)state;
    make_inbox();
    push_numbers("a", 1, 1);
    cache_find(inbox, hash_of(SLICE("a")), SLICE("a"))->epoch = 77;
    struct waiter *waiter = &waiters[0];
    waiter->poll =
        (struct poll){.ts = 1, .limit = 1, .may_wait = true, .wants_epoch = true, .epoch = 5};
    waiter->is_polling = true;
    assert_true(inbox_poll(inbox, SLICE("a"), &waiter->poll));
    assert_false(list_empty(&fake.asked));
    fake_serve_reads();
    assert_int_equal(counters.polls_parked, 1);
}

static void test_idle_views_are_bounded(void **state) {
    (void)state;
    static char wheres[2000][32];
    make_inbox();
    push_numbers("a", 1, 1);
    for (int i = 0; i < 2000; i++) {
        snprintf(wheres[i], sizeof wheres[i], "body.n:%d", i);
        want(i, wheres[i], 1);
    }
    assert_int_equal(inbox->views.count, 2000);
    push_numbers("a", 2, 2);
    run_wakes();
    for (int i = 0; i < 2000; i++)
        if (i != 2)
            cancel(i);
    assert_in_range(inbox->views.count, 1, 64);
    assert_in_range(inbox->filters.table.count, 1, 64);
}

/* Those that are behind what is in memory read for themselves; the others go on waiting. */
static void test_updates_that_left_memory(void **state) {
    (void)state;
    options.channel_max_updates = 1000000;
    make_inbox();
    push_numbers("a", 1, 1);
    want(0, "body.n:9999", 1);
    push_numbers("a", 2, 1500);
    struct channel *channel = cache_find(inbox, hash_of(SLICE("a")), SLICE("a"));
    assert_in_range(channel->recent_count, 256, 1024);
    want(1, "body.n:9999", 1500);
    want(2, "body.n:9999", 1500);
    run_wakes();
    assert_int_equal(waiters[0].poll.state, POLL_READING);
    assert_int_equal(waiters[1].poll.view->looked, 1500);
    while (waiters[0].poll.state == POLL_READING) {
        fake_serve_read(STORE_OK);
        run_wakes();
    }
    push_numbers("a", 9999, 9999);
    run_wakes();
    check_got(&waiters[0], 1, 1501, 1499);
    check_got(&waiters[1], 1, 1501, 0);
    check_got(&waiters[2], 1, 1501, 0);
}

static void test_idle_views_make_room_for_filters(void **state) {
    (void)state;
    make_inbox();
    push_numbers("a", 1, 1);
    static char channels[40][8];
    char text[FILTER_MAX_BYTES];
    for (int i = 0; i < 3000; i++) {
        int len = sprintf(text, "body.n:%d", i);
        memset(text + len, 'x', sizeof text - (size_t)len - 1);
        text[sizeof text - 1] = '\0';
        sprintf(channels[i % 40], "c%d", i % 40); /* as many as have idle views for all the room */
        start_where(0, channels[i % 40], text, 0, READ_MAX_UPDATES, true);
        fake_serve_reads();
        cancel(0);
    }
    assert_in_range(inbox->filters.bytes, FILTERS_MAX_BYTES / 2, FILTERS_MAX_BYTES);
}

/* --- Everything at random --------------------------------------------------------------------- */

enum { WAITERS = 300, NAMES = 3, STEPS = 40000 };

static const char *const names[NAMES] = {"a", "b", "c"};
static const char *const wheres[] = {NULL,        "body.n:*3", "body.n:*3|*7", "!body.n:*0",
                                     "!body.n:*", "body.n:1*", "body.n:*00",   "body.pad:*x"};
enum { WHERES = sizeof wheres / sizeof *wheres };

static const char *name_of(int i) {
    return names[i % NAMES];
}

static void poll_on(int i) {
    uint32_t limit = random_below(4) ? READ_MAX_UPDATES : 1 + random_below(3);
    start_where(i, name_of(i), wheres[i / NAMES % WHERES], (int64_t)waiters[i].cursor, limit,
                random_below(10) > 0);
}

static void expire(int i) {
    if (waiters[i].poll.state == POLL_PARKED)
        inbox_expire(inbox, &waiters[i].poll, random_below(2));
}

static void push_some(const char *channel) {
    if (!random_below(40))
        push_number(channel, (int)random_below(1000), 100000);
    else if (!random_below(10))
        push_batch(channel, 1 + random_below(5));
    else
        push_number(channel, (int)random_below(1000), 0);
}

static void step(int i, bool is_poor) {
    uint32_t what = random_below(100);
    if (what < 50 && !waiters[i].is_polling)
        poll_on(i);
    else if (what < 54 && waiters[i].is_polling)
        cancel(i);
    else if (what < 58)
        expire(i);
    else if (what < 66)
        push_some(name_of(i));
    else if (what < 78 && !list_empty(&fake.appends))
        fake_answer_append(random_below(10) ? STORE_OK : STORE_FAILED);
    else if (what < 90 && !list_empty(&fake.asked))
        fake_serve_read(random_below(20) ? STORE_OK : STORE_FAILED);
    else if (what < 96)
        is_poor ? poor_turn() : turn();
}

/* Nothing was passed over, and whoever waits has been told all that it wants. */
static void check_everybody(bool is_all_kept) {
    for (int i = 0; i < WAITERS; i++) {
        const struct waiter *waiter = &waiters[i];
        assert_int_equal(waiter->resets, 0);
        assert_int_equal(waiter->seen + waiter->all_missed + waiter->all_skipped, waiter->cursor);
        if (is_all_kept)
            assert_int_equal(waiter->all_missed, 0);
        if (waiter->is_polling)
            assert_true(has_seen_all(waiter));
    }
}

static void storm(uint64_t first_seed, bool is_poor) {
    make_inbox();
    seed = first_seed;
    for (int i = 0; i < STEPS; i++)
        step((int)random_below(WAITERS), is_poor);
    finish_all();
    check_everybody(options.channel_max_updates > STEPS);
    uint64_t seen = 0, skipped = 0;
    for (int i = 0; i < WAITERS; i++) {
        seen += waiters[i].seen;
        skipped += waiters[i].all_skipped;
    }
    assert_true(seen > 200 && skipped > 1000);
}

static void test_storm(void **state) {
    (void)state;
    options.channel_max_updates = 1000000;
    storm(1, false);
}

static void test_storm_with_a_small_cache(void **state) {
    (void)state;
    options.channel_max_updates = 1000000;
    options.cache_max_bytes = 3000;
    storm(2, false);
}

static void test_storm_of_small_pages(void **state) {
    (void)state;
    options.channel_max_updates = 1000000;
    options.cache_max_bytes = 6000;
    fake.page = 3;
    storm(3, false);
}

static void test_storm_where_little_is_kept(void **state) {
    (void)state;
    options.channel_max_updates = 5;
    storm(4, false);
}

static void test_storm_where_memory_runs_out(void **state) {
    (void)state;
    options.channel_max_updates = 1000000;
    storm(5, true);
}

/* --- A shared store --------------------------------------------------------------------------- */

static void add_some(const char *channel) {
    fake_add(channel, 1 + (int)random_below(3));
}

static void shared_step(bool with_restarts) {
    int i = (int)random_below(WAITERS);
    switch (random_below(18)) {
    case 0: add_some(name_of(i)); break;
    case 1:
    case 2:
    case 3: fake_tell_one(); break;
    case 4:
        if (!random_below(20))
            fake_lose_one();
        break;
    case 5:
    case 6: fake_do_read(); break;
    case 7:
    case 8: fake_answer_read(random_below(500) ? STORE_OK : STORE_AWAY); break;
    case 9: fake_turn_on(); break;
    case 10:
        if (!random_below(20))
            fake_turn_off();
        break;
    case 11: turn(); break;
    case 12: cancel(i); break;
    case 13: expire(i); break;
    case 14:
        if (with_restarts && !random_below(200))
            fake_restart(name_of(i), random_below(20));
        break;
    default:
        if (!waiters[i].is_polling)
            poll_on(i);
    }
}

static void shared_storm(uint64_t rounds, bool with_restarts) {
    make_inbox();
    for (uint64_t round = 1; round <= rounds; round++) {
        seed = round;
        for (int i = 0; i < STEPS / 4; i++)
            shared_step(with_restarts);
        settle();
        for (int i = 0; i < WAITERS; i++)
            if (!waiters[i].is_polling)
                poll_on(i);
        settle();
        for (int i = 0; i < WAITERS; i++)
            if (waiters[i].is_polling)
                assert_true(has_seen_all(&waiters[i]));
        if (!with_restarts)
            check_everybody(!fake.damage_every);
    }
}

static void test_shared_storm(void **state) {
    (void)state;
    shared_storm(12, false);
}

static void test_shared_storm_with_damage(void **state) {
    (void)state;
    fake.damage_every = 11;
    shared_storm(12, false);
}

static void test_shared_storm_with_restarts(void **state) {
    (void)state;
    shared_storm(12, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        INBOX_TEST(test_what_is_not_wanted_wakes_nobody),
        INBOX_TEST(test_a_filter_and_a_limit),
        INBOX_TEST(test_one_look_an_update_and_view),
        INBOX_TEST(test_what_is_known_needs_no_worker),
        INBOX_TEST(test_what_the_worker_finds_wakes),
        INBOX_TEST(test_large_updates_wait_for_the_worker),
        INBOX_TEST(test_a_reply_has_a_bound),
        INBOX_TEST(test_looks_take_turns),
        INBOX_TEST(test_a_long_way_through_the_store),
        INBOX_TEST(test_skipped_before_damage),
        SHARED_TEST(test_a_read_of_the_next_life),
        SHARED_TEST(test_waiting_in_the_next_life),
        INBOX_TEST(test_a_reset_says_the_epoch),
        INBOX_TEST(test_another_epoch_is_judged),
        INBOX_TEST(test_idle_views_are_bounded),
        INBOX_TEST(test_updates_that_left_memory),
        INBOX_TEST(test_idle_views_make_room_for_filters),
        INBOX_TEST(test_storm),
        INBOX_TEST(test_storm_with_a_small_cache),
        INBOX_TEST(test_storm_of_small_pages),
        INBOX_TEST(test_storm_where_little_is_kept),
        INBOX_TEST(test_storm_where_memory_runs_out),
        SHARED_TEST(test_shared_storm),
        SHARED_TEST(test_shared_storm_with_damage),
        SHARED_TEST(test_shared_storm_with_restarts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
