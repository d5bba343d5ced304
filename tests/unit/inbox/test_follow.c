/*
 * The inbox over a store that others append to as well: what is told, read, lost and answered comes
 * in every order that two connections to one Redis can bring.
 */
#include "waiters.h"

/* Polls on from where the waiter is. */
static void poll_on(int i, bool may_wait) {
    start(i, "c", (int64_t)waiters[i].cursor, READ_MAX_UPDATES, may_wait);
}

static void test_a_poll_waits_for_the_subscription_then_reads(void **state) {
    (void)state;
    make_inbox();
    fake_add("c", 1);
    waiters[0].cursor = 1;
    poll_on(0, true);
    assert_true(
        list_empty(&fake.asked)); /* a read now could miss what comes before the subscription */
    fake_add("c", 1);
    fake_turn_on();
    fake_serve_read(STORE_OK);
    fake_serve_reads();
    assert_int_equal(waiters[0].cursor, 2);
}

static void test_news_told_during_the_read_are_not_lost(void **state) {
    (void)state;
    make_inbox();
    poll_on(0, true);
    fake_turn_on();
    fake_do_read();
    fake_add("c", 1); /* after the read was done, before its answer */
    fake_tell_one();
    fake_answer_read(STORE_OK);
    settle();
    assert_int_equal(waiters[0].cursor, 1);
    assert_int_equal(waiters[0].seen, 1);
}

static void test_a_wake_needs_no_read(void **state) {
    (void)state;
    make_inbox();
    poll_on(0, true);
    settle();
    assert_int_equal(waiters[0].poll.state, POLL_PARKED);
    fake_add("c", 1);
    fake_tell_one();
    run_wakes();
    assert_int_equal(waiters[0].cursor, 1);
    assert_true(list_empty(&fake.asked));
}

/* The channel was loaded for one who does not ask for its epoch. Who does hears it from a read of
 * its own, which says nothing of the channel. */
static void test_an_epoch_is_asked_for_once(void **state) {
    (void)state;
    make_inbox();
    fake_add("c", 1);
    start(0, "c", 1, READ_MAX_UPDATES, true);
    settle();
    waiters[1] = (struct waiter){
        .poll = {.ts = 1, .limit = READ_MAX_UPDATES, .may_wait = true, .wants_epoch = true},
        .channel = "c",
        .from = 1,
        .is_polling = true};
    assert_true(inbox_poll(inbox, SLICE("c"), &waiters[1].poll));
    fake_do_read();
    container_of(fake.done.next, struct store_read, op.link)->epoch = 7;
    fake_answer_read(STORE_OK);
    assert_true(list_empty(&fake.asked));
    assert_int_equal(waiters[1].poll.state, POLL_PARKED);
}

static void test_a_gap_leads_to_a_read(void **state) {
    (void)state;
    make_inbox();
    poll_on(0, true);
    settle();
    fake_add("c", 2);
    fake_lose_one(); /* the first is lost on its way */
    fake_tell_one();
    assert_int_equal(waiters[0].answers, 0);
    settle();
    assert_int_equal(waiters[0].cursor, 2);
    assert_int_equal(waiters[0].seen, 2);
}

/* What a read has found is told at once, also when the store is lost before it is answered. */
static void test_a_read_that_outlives_the_store_wakes(void **state) {
    (void)state;
    make_inbox();
    poll_on(0, true);
    settle();
    fake_add("c", 2);
    fake_lose_one();
    fake_tell_one();
    fake_do_read();
    fake_turn_off();
    fake_answer_read(STORE_OK);
    run_wakes();
    assert_int_equal(waiters[0].seen, 2);
}

static void test_parked_polls_outlive_the_loss_of_the_store(void **state) {
    (void)state;
    make_inbox();
    poll_on(0, true);
    settle();
    fake_turn_off();
    fake_add("c", 1);
    assert_int_equal(waiters[0].poll.state, POLL_PARKED);
    settle();
    assert_int_equal(waiters[0].cursor, 1);
}

static void test_a_counter_that_went_back_is_said(void **state) {
    (void)state;
    make_inbox();
    fake_add("c", 7);
    waiters[0].cursor = waiters[1].cursor = 7;
    poll_on(0, true);
    settle();
    fake_turn_off();
    fake_restart("c", 3);
    settle();
    assert_int_equal(waiters[0].resets, 1);
    assert_int_equal(waiters[0].cursor, 3);
    poll_on(1, false);
    settle();
    assert_int_equal(waiters[1].resets, 1);
}

static void test_a_counter_that_went_back_and_on_is_said(void **state) {
    (void)state;
    make_inbox();
    fake_add("c", 5);
    waiters[0].cursor = 4;
    poll_on(0, true);
    settle();
    poll_on(0, true);
    settle();
    fake_turn_off();
    fake_restart("c", 8); /* the updates of another life */
    settle();
    assert_int_equal(waiters[0].resets, 1);
    assert_int_equal(waiters[0].cursor, 5); /* it loses nothing of what came since */
}

static void test_polls_whose_time_is_over_look_once_more(void **state) {
    (void)state;
    make_inbox();
    poll_on(0, true);
    poll_on(1, true);
    settle();
    for (int i = 0; i < 2; i++) { /* they come back to a channel that is loaded */
        cancel(i);
        poll_on(i, true);
    }
    fake_add("c", 1); /* not told yet */
    inbox_expire(inbox, &waiters[0].poll, true);
    inbox_expire(inbox, &waiters[1].poll, true);
    assert_int_equal(waiters[0].answers + waiters[1].answers, 0);
    fake_serve_read(STORE_OK);
    fake_serve_read(STORE_OK);
    assert_int_equal(waiters[0].cursor, 1);
    assert_int_equal(waiters[1].cursor, 1);
    poll_on(0, true);
    inbox_expire(inbox, &waiters[0].poll, false);
    assert_int_equal(waiters[0].answers, 1);
}

static void test_a_cursor_ahead_of_the_news_is_no_reset(void **state) {
    (void)state;
    make_inbox();
    poll_on(0, true);
    settle();
    fake_add("c", 1); /* told later; another process has answered the push with its ts */
    waiters[1].cursor = 1;
    poll_on(1, true);
    fake_serve_read(STORE_OK);
    assert_int_equal(waiters[1].answers, 0);
    assert_int_equal(waiters[1].poll.state, POLL_LOADING); /* with one read for all such */
    settle();
    assert_int_equal(waiters[1].answers, 0);
    assert_int_equal(waiters[1].poll.state, POLL_PARKED);
}

static void test_a_failed_read_fails_those_who_wait_for_it(void **state) {
    (void)state;
    make_inbox();
    poll_on(0, true);
    fake_turn_on();
    fake_serve_read(STORE_AWAY);
    assert_int_equal(waiters[0].errors, 1);
    poll_on(0, true);
    settle();
    assert_int_equal(waiters[0].poll.state, POLL_PARKED);
}

/* --- What is read, and when ------------------------------------------------------------------- */

static void test_a_load_begins_where_its_poll_does(void **state) {
    (void)state;
    make_inbox();
    fake_add("c", 900);
    waiters[0].cursor = 890;
    poll_on(0, true);
    fake_turn_on();
    struct store_read *read = container_of(fake.asked.next, struct store_read, op.link);
    assert_int_equal(read->position, 890);
    fake_serve_read(STORE_OK);
    assert_int_equal(waiters[0].cursor, 900);
}

static void test_news_that_were_read_need_no_read(void **state) {
    (void)state;
    make_inbox();
    poll_on(0, true);
    fake_turn_on();
    fake_add("c", 1);
    fake_serve_read(STORE_OK);
    assert_int_equal(waiters[0].cursor, 1);
    fake_tell_one();
    assert_true(list_empty(&fake.asked));
}

/* A page may hold nothing but the newest known update: it must not be re-read for ever. */
static void test_pages_of_one_update(void **state) {
    (void)state;
    make_inbox();
    fake_add("c", 2);
    waiters[0].cursor = 2;
    poll_on(0, true);
    settle();
    fake_turn_off();
    fake_add("c", 3);
    fake.page = 1;
    fake_turn_on();
    for (int i = 0; i < 20; i++) {
        fake_do_read();
        fake_answer_read(STORE_OK);
    }
    assert_true(list_empty(&fake.asked));
    run_wakes();
    assert_int_equal(waiters[0].cursor, 5);
}

/* The channel is re-read, and some of what came meanwhile is gone. */
static void test_a_gap_that_is_gone(void **state) {
    (void)state;
    make_inbox();
    fake_add("c", 3);
    poll_on(0, true);
    settle();
    poll_on(0, true);
    fake_turn_off();
    fake_add("c", 5);
    fake_channel("c")->gone = 5;
    fake_turn_on();
    fake_serve_reads();
    run_wakes();
    check_answer(&waiters[0], 6, 8, 8, 2);
    fake_serve_reads();
}

/* While the store is away nobody is answered from memory: it may be old. */
static void test_polls_wait_while_the_store_is_away(void **state) {
    (void)state;
    make_inbox();
    fake_add("c", 3);
    poll_on(0, true);
    settle();
    fake_turn_off();
    wait_for(1, "c", 3);
    wait_for(2, "c", 1);
    assert_int_equal(waiters[1].poll.state, POLL_LOADING);
    assert_int_equal(waiters[2].poll.state, POLL_LOADING);
}

static void test_catch_ups_are_bounded(void **state) {
    (void)state;
    enum { CHANNELS = 300, CATCH_UPS_MAX = 256 };
    static char names[CHANNELS][8];
    make_inbox();
    for (int i = 0; i < CHANNELS; i++) {
        snprintf(names[i], sizeof names[i], "c%d", i);
        fake_add(names[i], 1);
        wait_for(i, names[i], 0);
    }
    fake_turn_on();
    assert_int_equal(fake.reads_made, CATCH_UPS_MAX);
    fake_serve_read(STORE_OK);
    assert_int_equal(fake.reads_made, CATCH_UPS_MAX + 1);
    settle();
    for (int i = 0; i < CHANNELS; i++)
        check_answer(&waiters[i], 1, 1, 1, 0);
}

/* --- Another life, recognized ----------------------------------------------------------------- */

/* The newest update was told, not read. */
static void test_another_life_after_news(void **state) {
    (void)state;
    make_inbox();
    poll_on(0, true);
    settle();
    fake_add("c", 1);
    settle();
    poll_on(0, true);
    fake_turn_off();
    fake_restart("c", 4);
    fake_turn_on();
    fake_serve_reads();
    assert_int_equal(waiters[0].resets, 1);
    assert_int_equal(waiters[0].cursor, 1);
}

/* What was known of the life before is forgotten with it. */
static void test_one_reset_a_life(void **state) {
    (void)state;
    make_inbox();
    fake_add("c", 5);
    waiters[0].cursor = 4;
    poll_on(0, true);
    settle();
    poll_on(0, true);
    fake_turn_off();
    fake_restart("c", 3);
    settle();
    assert_int_equal(waiters[0].resets, 1);
    for (int i = 0; i < 2; i++) {
        poll_on(0, true);
        fake_turn_off();
        if (i == 0)
            fake_add("c", 2); /* the old total again */
        settle();
    }
    assert_int_equal(waiters[0].resets, 1);
    assert_int_equal(waiters[0].cursor, 5);
    assert_int_equal(waiters[0].poll.state, POLL_PARKED);
}

/* --- Looking once more ------------------------------------------------------------------------ */

/* Waiter `i` parks on a channel that was read before it came. */
static void park_again(int i) {
    poll_on(i, true);
    settle();
    cancel(i);
    poll_on(i, true);
    assert_int_equal(waiters[i].poll.state, POLL_PARKED);
}

static void test_a_look_that_finds_nothing(void **state) {
    (void)state;
    make_inbox();
    park_again(0);
    inbox_expire(inbox, &waiters[0].poll, true);
    fake_serve_read(STORE_OK);
    check_answer(&waiters[0], 1, 0, 0, 0);
    /* The channel has been read since the last poll came: no need to look. */
    poll_on(0, true);
    inbox_expire(inbox, &waiters[0].poll, true);
    assert_int_equal(waiters[0].answers, 0);
    poll_on(1, true);
    fake_serve_reads();
    check_answer(&waiters[0], 1, 0, 0, 0);
}

static void test_no_look_at_what_was_just_read(void **state) {
    (void)state;
    make_inbox();
    poll_on(0, true);
    settle();
    inbox_expire(inbox, &waiters[0].poll, true);
    check_answer(&waiters[0], 1, 0, 0, 0);
    assert_true(list_empty(&fake.asked));
}

/* A read that began before a poll's time was over may miss what was acknowledged in between. */
static void test_a_look_must_begin_late_enough(void **state) {
    (void)state;
    make_inbox();
    park_again(0);
    park_again(1);
    inbox_expire(inbox, &waiters[0].poll, true);
    fake_do_read();
    fake_add("c", 1); /* told late */
    inbox_expire(inbox, &waiters[1].poll, true);
    fake_answer_read(STORE_OK);
    check_answer(&waiters[0], 1, 0, 0, 0);
    assert_int_equal(waiters[1].answers, 0);
    fake_serve_read(STORE_OK);
    check_answer(&waiters[1], 1, 1, 1, 0);
}

/* Whoever has waited long does not learn of the store's trouble. */
static void test_a_look_that_fails(void **state) {
    (void)state;
    make_inbox();
    park_again(0);
    inbox_expire(inbox, &waiters[0].poll, true);
    fake_serve_read(STORE_AWAY);
    check_answer(&waiters[0], 1, 0, 0, 0);
}

/* Nor when what the look found has no room in memory, and its own read fails. */
static void test_a_look_whose_read_fails(void **state) {
    (void)state;
    make_inbox();
    park_again(0);
    fake_add("c", 300);
    inbox_expire(inbox, &waiters[0].poll, true);
    fake_serve_read(STORE_OK);
    assert_int_equal(waiters[0].poll.state, POLL_READING);
    fake_serve_read(STORE_AWAY);
    assert_int_equal(waiters[0].answers, 1);
    assert_int_equal(waiters[0].error, STORE_OK);
    assert_int_equal(waiters[0].ts, 0);
}

/* A cursor ahead of the news, which come while it is being read for. */
static void test_news_overtake_a_read_ahead(void **state) {
    (void)state;
    make_inbox();
    poll_on(0, true);
    settle();
    fake_add("c", 1);
    waiters[1].cursor = 1;
    poll_on(1, true);
    fake_do_read();
    fake_tell_one();
    fake_answer_read(STORE_OK);
    assert_int_equal(waiters[1].poll.state, POLL_PARKED);
    assert_true(list_empty(&fake.asked));
}

/* --- Damaged updates -------------------------------------------------------------------------- */

static void test_a_damaged_update_wakes_those_who_wait(void **state) {
    (void)state;
    fake.damage_every = 3;
    make_inbox();
    fake_add("c", 2);
    waiters[0].cursor = 2;
    poll_on(0, true);
    settle();
    fake_add("c", 1);
    fake_tell_one();
    settle();
    check_answer(&waiters[0], 1, 0, 3, 1);
    assert_int_equal(waiters[0].ts, 3);
}

/* What is older is not gone because the newest update is damaged. */
static void test_damage_hides_nothing_older(void **state) {
    (void)state;
    fake.damage_every = 3;
    make_inbox();
    fake_add("c", 2);
    waiters[0].cursor = 2;
    poll_on(0, true);
    settle();
    fake_add("c", 2);
    fake_lose_one();
    fake_tell_one();
    settle();
    assert_int_equal(waiters[0].cursor, 4);
    waiters[1].cursor = 0;
    poll_on(1, true);
    settle();
    assert_int_equal(waiters[1].seen, 2);
    assert_int_equal(waiters[1].missed, 0);
}

/* --- Purges ----------------------------------------------------------------------------------- */

/* Three updates are in memory. */
static void load_three(void) {
    make_inbox();
    fake_add("c", 3);
    poll_on(0, true);
    settle();
    assert_int_equal(waiters[0].seen, 3);
    poll_on(0, true);
}

/* What a poll from the beginning gets from memory. */
static void check_from_memory(uint64_t first, uint64_t last, uint64_t missed) {
    int reads = fake.reads_made;
    waiters[1].cursor = 0;
    poll_on(1, true);
    check_answer(&waiters[1], first, last, last, missed);
    assert_int_equal(fake.reads_made, reads);
}

static void test_a_purge_by_another(void **state) {
    (void)state;
    load_three();
    check_from_memory(1, 3, 0);
    fake_purge("c", 2);
    fake_tell_one();
    check_from_memory(3, 3, 2);
    assert_int_equal(waiters[0].poll.state, POLL_PARKED);
    assert_int_equal(inbox_purges(inbox), 1);
    fake_add("c", 1);
    fake_tell_one();
    run_wakes();
    assert_int_equal(waiters[0].cursor, 4);
    assert_int_equal(waiters[0].all_missed, 0);
}

static void test_a_purge_that_was_missed(void **state) {
    (void)state;
    load_three();
    fake_turn_off();
    fake_purge("c", 2);
    fake_turn_on();
    fake_serve_reads();
    check_from_memory(3, 3, 2);
    assert_int_equal(waiters[0].poll.state, POLL_PARKED);
}

/* The read was done before the purge, and is answered after its news. */
static void test_a_read_that_a_purge_overtakes(void **state) {
    (void)state;
    load_three();
    fake_turn_off();
    fake_add("c", 2);
    waiters[2].cursor = 0;
    poll_on(2, false);
    fake_turn_on();
    fake_do_read();
    fake_do_read();
    fake_purge("c", 4);
    fake_tell_one();
    fake_answer_read(STORE_OK);
    fake_answer_read(STORE_OK);
    check_answer(&waiters[2], 5, 5, 5, 4);
    settle();
    assert_int_equal(waiters[0].all_missed, 1);
    check_from_memory(5, 5, 4);
}

/* The reply to a purge overtakes the news of what it purged: they come on two connections. */
static void test_news_that_a_purge_overtakes(void **state) {
    (void)state;
    load_three();
    fake_add("c", 2);
    assert_non_null(inbox_purge(inbox, SLICE("c"), 4, NULL));
    fake_answer_purge(STORE_OK);
    check_from_memory(5, 4, 4); /* the newest id is no less than where the poll goes on */
    fake_tell_one();
    settle();
    assert_int_equal(waiters[0].cursor, 5);
    assert_int_equal(waiters[0].all_missed, 1);
    check_from_memory(5, 5, 4);
    assert_int_equal(fake_channel("c")->updates[3]->refs, 1); /* nobody keeps it */
}

static void test_a_purge_of_a_life_before(void **state) {
    (void)state;
    load_three();
    fake_purge("c", 3);
    fake_tell_one();
    fake_restart("c", 2);
    fake_turn_off();
    settle();
    assert_int_equal(waiters[0].resets, 1);
    waiters[1].cursor = 0;
    poll_on(1, true);
    settle();
    check_answer(&waiters[1], 1, 2, 2, 0);
}

/* --- Everything at random --------------------------------------------------------------------- */

enum { WAITERS = 40, ROUNDS = 39, STEPS = 20000 };

static void delete_some(struct fake_channel *channel) {
    channel->gone += random_below(3);
    channel->gone = channel->gone < channel->total ? channel->gone : channel->total;
}

static void step(void) {
    int i = (int)random_below(WAITERS);
    switch (random_below(16)) {
    case 0:
    case 1:
    case 2: fake_add("c", 1); break;
    case 3:
    case 4: fake_tell_one(); break;
    case 5:
    case 6: fake_do_read(); break;
    case 7:
    case 8: fake_answer_read(random_below(5000) ? STORE_OK : STORE_AWAY); break;
    case 9: fake_turn_on(); break;
    case 10:
        if (!random_below(10))
            fake_turn_off();
        break;
    case 11:
        if (!random_below(20))
            delete_some(fake_channel("c"));
        else if (!random_below(50))
            fake_purge("c", fake_channel("c")->total - random_below(fake_channel("c")->total + 1));
        break;
    case 12: turn(); break;
    case 13: cancel(i); break;
    default:
        if (!waiters[i].is_polling)
            poll_on(i, random_below(4));
    }
}

/* Nobody sleeps on data: whoever waits has seen everything, once. */
static void check_waiters(void) {
    for (int i = 0; i < WAITERS; i++) {
        const struct waiter *waiter = &waiters[i];
        assert_true(!waiter->is_polling || (uint64_t)waiter->poll.ts == fake_channel("c")->total);
        assert_int_equal(waiter->resets, 0);
        assert_int_equal(waiter->seen + waiter->all_missed, waiter->cursor);
    }
}

static void check_all_orders(void) {
    make_inbox();
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        seed = round;
        for (int i = 0; i < STEPS; i++)
            step();
        settle();
        for (int i = 0; i < WAITERS; i++)
            if (!waiters[i].is_polling)
                poll_on(i, true);
        settle();
        check_waiters();
    }
}

static void test_no_order_of_events_loses_an_update(void **state) {
    (void)state;
    check_all_orders();
}

static void test_nor_when_some_are_damaged(void **state) {
    (void)state;
    fake.damage_every = 101;
    check_all_orders();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        SHARED_TEST(test_a_poll_waits_for_the_subscription_then_reads),
        SHARED_TEST(test_news_told_during_the_read_are_not_lost),
        SHARED_TEST(test_a_wake_needs_no_read),
        SHARED_TEST(test_an_epoch_is_asked_for_once),
        SHARED_TEST(test_a_gap_leads_to_a_read),
        SHARED_TEST(test_a_read_that_outlives_the_store_wakes),
        SHARED_TEST(test_parked_polls_outlive_the_loss_of_the_store),
        SHARED_TEST(test_a_counter_that_went_back_is_said),
        SHARED_TEST(test_a_counter_that_went_back_and_on_is_said),
        SHARED_TEST(test_polls_whose_time_is_over_look_once_more),
        SHARED_TEST(test_a_cursor_ahead_of_the_news_is_no_reset),
        SHARED_TEST(test_a_failed_read_fails_those_who_wait_for_it),
        SHARED_TEST(test_a_load_begins_where_its_poll_does),
        SHARED_TEST(test_news_that_were_read_need_no_read),
        SHARED_TEST(test_pages_of_one_update),
        SHARED_TEST(test_a_gap_that_is_gone),
        SHARED_TEST(test_polls_wait_while_the_store_is_away),
        SHARED_TEST(test_catch_ups_are_bounded),
        SHARED_TEST(test_another_life_after_news),
        SHARED_TEST(test_one_reset_a_life),
        SHARED_TEST(test_a_look_that_finds_nothing),
        SHARED_TEST(test_no_look_at_what_was_just_read),
        SHARED_TEST(test_a_look_must_begin_late_enough),
        SHARED_TEST(test_a_look_that_fails),
        SHARED_TEST(test_a_look_whose_read_fails),
        SHARED_TEST(test_news_overtake_a_read_ahead),
        SHARED_TEST(test_a_damaged_update_wakes_those_who_wait),
        SHARED_TEST(test_damage_hides_nothing_older),
        SHARED_TEST(test_a_purge_by_another),
        SHARED_TEST(test_a_purge_that_was_missed),
        SHARED_TEST(test_a_read_that_a_purge_overtakes),
        SHARED_TEST(test_news_that_a_purge_overtakes),
        SHARED_TEST(test_a_purge_of_a_life_before),
        SHARED_TEST(test_no_order_of_events_loses_an_update),
        SHARED_TEST(test_nor_when_some_are_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
