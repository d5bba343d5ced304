/*
 * Ends that are rare: reads that fail for polls that wait, channels that begin anew under them, and
 * polls that are given up or taken out on their way.
 */
#include "inbox/parts.h"
#include "waiters.h"

/* --- Reads that fail for polls that wait ------------------------------------------------------ */

/* An update that is damaged is not in memory: the poll needs a read, and the store goes away. */
static struct waiter *fall_behind(const char *where) {
    fake.damage_every = 2;
    make_inbox();
    fake_add("c", 1);
    struct waiter *waiter = start_where(0, "c", where, 1, 10, true);
    settle();
    assert_int_equal(waiter->poll.state, POLL_PARKED);
    fake_turn_off();
    fake_add("c", 2);
    fake_turn_on();
    fake_serve_read(STORE_OK);
    turn();
    assert_int_equal(waiter->poll.state, POLL_READING);
    fake_serve_read(STORE_AWAY);
    assert_int_equal(waiter->answers, 0);
    return waiter;
}

/* They do not learn of it, and miss nothing else. */
static void test_a_read_that_fails(void **state) {
    (void)state;
    struct waiter *waiter = fall_behind(NULL);
    assert_int_equal(waiter->poll.state, POLL_PARKED);
    settle();
    check_answer(waiter, 3, 3, 3, 1);
}

static void test_a_read_that_fails_for_a_filter(void **state) {
    (void)state;
    struct waiter *waiter = fall_behind("body.n:3");
    assert_int_equal(waiter->poll.state, POLL_LOADING);
    settle();
    check_answer(waiter, 3, 3, 3, 1);
}

/* --- Channels that begin anew ----------------------------------------------------------------- */

/* A push that is the first of a life, in which there are `before` updates already. */
static void begin_anew(uint64_t before, uint64_t epoch) {
    fake_restart("c", before);
    push("c")->epoch = epoch;
    fake_answer_append(STORE_OK);
    run_wakes();
}

static struct waiter *wait_knowing(int i, uint64_t epoch, bool wants_epoch) {
    waiters[i] = (struct waiter){.poll = {.ts = 3,
                                          .limit = 10,
                                          .may_wait = true,
                                          .epoch = epoch,
                                          .wants_epoch = wants_epoch},
                                 .channel = "c",
                                 .from = 3,
                                 .is_polling = true};
    assert_true(inbox_poll(inbox, SLICE("c"), &waiters[i].poll));
    assert_int_equal(waiters[i].poll.state, POLL_PARKED);
    return &waiters[i];
}

/* One waits that asks for epochs, one that does not, and one for what does not come. */
static void test_another_life(void **state) {
    (void)state;
    static const struct {
        uint64_t before, epoch;
        bool resets_asker, resets_other;
        uint64_t asker_ts;
    } cases[] = {
        {5, 8, true, false, 0}, /* the counter is past them already: only the epoch tells */
        {1, 8, true, true, 0},
        {1, 7, true, true, 1}, /* the same data, of which some is not there any more */
        {5, 7, false, false, 6},
    };
    make_inbox();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fake_restart("c", 2);
        push("c")->epoch = 7;
        fake_answer_append(STORE_OK);
        struct waiter *asker = wait_knowing(0, 7, true), *other = wait_knowing(1, 0, false);
        struct waiter *chooser = start_where(2, "c", "body.n:99", 3, 10, true);
        begin_anew(cases[i].before, cases[i].epoch);
        fake_serve_reads();
        run_wakes();
        assert_int_equal(chooser->answers, cases[i].resets_other);
        assert_int_equal(chooser->reset, cases[i].resets_other);
        cancel(2);
        assert_int_equal(asker->reset, cases[i].resets_asker);
        assert_int_equal(other->reset, cases[i].resets_other);
        assert_int_equal(asker->ts, cases[i].asker_ts);
        assert_int_equal(other->ts, other->reset ? 1 : 6);
        assert_int_equal(asker->answers, 1);
        assert_int_equal(other->answers, 1);
        inbox_cancel(inbox, &asker->poll);
        inbox_cancel(inbox, &other->poll);
    }
}

/* --- Streams ---------------------------------------------------------------------------------- */

static int answered;

static void on_held(struct poll *poll, struct answer *answer) {
    (void)poll;
    answered += answer->count > 0;
}

static void on_end(struct answer *answer) {
    (void)answer;
}

static void stream(struct poll *poll, int64_t ts) {
    inbox->events.poll_done = on_held;
    inbox->events.answer_end = on_end;
    answered = 0;
    *poll = (struct poll){.ts = ts, .limit = 10, .may_wait = true, .is_stream = true};
    assert_true(inbox_poll(inbox, SLICE("c"), poll));
}

static void test_a_stream_is_given_up_while_it_ends(void **state) {
    (void)state;
    struct poll poll;
    make_inbox();
    push_durable("c", 3);
    stream(&poll, 3);
    fake_restart("c", 0);
    assert_non_null(push("c"));
    inbox->turn = turn_number();
    inbox->answers_left = 0; /* others end in this turn */
    fake_answer_append(STORE_OK);
    assert_int_equal(poll.state, POLL_ENDING);
    inbox_cancel(inbox, &poll);
    run_wakes();
    assert_int_equal(poll.state, POLL_IDLE);
    assert_int_equal(answered, 0);
}

/* It asks again twice before it is its turn, and once more where it is. */
static void test_a_stream_goes_on(void **state) {
    (void)state;
    struct poll poll;
    make_inbox();
    poll_once("c");
    push_durable("c", 3);
    stream(&poll, 1);
    assert_int_equal(answered, 1);
    assert_int_equal(poll.state, POLL_HELD);
    assert_true(inbox_is_behind(&poll));
    inbox_poll_again(inbox, &poll); /* from where it was */
    inbox_poll_again(inbox, &poll);
    run_wakes();
    assert_int_equal(answered, 2);
    poll.ts = 3;
    assert_false(inbox_is_behind(&poll));
    inbox_poll_again(inbox, &poll);
    assert_int_equal(poll.state, POLL_PARKED);
    inbox_cancel(inbox, &poll);
}

/* --- On the way to another inbox -------------------------------------------------------------- */

static void test_what_can_be_taken_out(void **state) {
    (void)state;
    struct poll poll;
    struct poll_place place;
    make_inbox();
    fake_add("c", 3);
    struct waiter *waiter = wait_for(0, "c", 3);
    assert_int_equal(waiter->poll.state, POLL_READING);
    assert_false(inbox_can_take_out(inbox, &waiter->poll)); /* it is answered soon */
    fake_serve_reads();
    assert_true(inbox_can_take_out(inbox, &waiter->poll));
    cancel(0);
    stream(&poll, 1);
    fake_serve_reads();
    assert_int_equal(poll.state, POLL_HELD);
    assert_true(inbox_can_take_out(inbox, &poll));
    inbox_take_out(inbox, &poll, &place);
    assert_true(place.is_known && poll.has_position);
    assert_int_equal(place.total, 3);
}

/* Its channel is being read for another one when it is put back. */
static void test_put_back_beside_a_read(void **state) {
    (void)state;
    struct poll_place place;
    make_inbox();
    push_durable("c", 3);
    struct waiter *waiter = wait_for(0, "c", 3);
    inbox_take_out(inbox, &waiter->poll, &place);
    stop_inbox();
    inbox_free(inbox);
    fake.is_closing = false;
    make_inbox();
    struct waiter *other = ask(1, "c", 0);
    assert_true(inbox_put_back(inbox, &waiter->poll, &place));
    assert_int_equal(waiter->poll.state, POLL_LOADING);
    fake_serve_reads();
    run_wakes();
    check_answer(other, 1, 3, 3, 0);
    assert_int_equal(waiter->poll.state, POLL_PARKED);
    push_durable("c", 1);
    run_wakes();
    check_answer(waiter, 4, 4, 4, 0);
}

/* With others, also while the channel is not there yet: a consumer that was forgotten meanwhile is
 * still where it was. */
static void test_taken_out_before_it_is_loaded(void **state) {
    (void)state;
    struct poll_place place;
    make_inbox();
    fake_add("c", 3);
    fake_save_cursor("c", "bot", 2);
    struct waiter *waiter = start_as(0, "c", "bot", FROM_CONFIRMED, true, false);
    fake_serve_cursors(STORE_OK);
    run_wakes();
    assert_int_equal(waiter->poll.state, POLL_LOADING);
    const struct waiter *forgetting = forget(1, "c", "bot");
    assert_false(inbox_can_take_out(inbox, &forgetting->poll));
    fake_serve_cursors(STORE_OK);
    assert_true(inbox_can_take_out(inbox, &waiter->poll));
    inbox_take_out(inbox, &waiter->poll, &place);
    assert_true(place.is_gone && !place.is_known);
    assert_int_equal(place.confirmed, 2);
    assert_true(inbox_put_back(inbox, &waiter->poll, &place));
    settle();
    check_answer(waiter, 3, 3, 3, 0);
}

/* A poll that has seen two of three updates, of a channel that is not loaded here. */
static void put_back_behind_two(void) {
    struct poll_place place = {.channel_len = 1, .channel = "c", .is_known = true, .total = 2};
    make_inbox();
    fake_add("c", 3);
    waiters[0] = (struct waiter){.poll = {.ts = 2, .limit = 10, .may_wait = true},
                                 .channel = "c",
                                 .from = 2,
                                 .is_polling = true};
    assert_true(inbox_put_back(inbox, &waiters[0].poll, &place));
}

/* What it is at, when it was ours alone, does not count once others write as well. */
static void test_put_back_where_others_write(void **state) {
    (void)state;
    put_back_behind_two();
    assert_int_equal(waiters[0].poll.state, POLL_LOADING);
    settle();
    check_answer(&waiters[0], 3, 3, 3, 0);
}

/* It does not learn that the store is away, and is told of no total below what it has seen. */
static void test_put_back_while_the_store_is_away(void **state) {
    (void)state;
    put_back_behind_two();
    waiters[0].poll.was_parked = true;
    fake_turn_on();
    fake_serve_read(STORE_AWAY);
    run_wakes();
    check_answer(&waiters[0], 1, 0, 2, 0);
}

/* Nobody waits on it: what others say of it is nobody's. */
static void test_a_channel_that_is_not_watched(void **state) {
    (void)state;
    make_inbox();
    fake_add("c", 3);
    struct waiter *waiter = ask(0, "c", 0);
    assert_null(fake.events->find(fake.events->context, SLICE("c")));
    fake_serve_reads();
    check_answer(waiter, 1, 3, 3, 0);
}

/* --- Consumers -------------------------------------------------------------------------------- */

/* Those that waited for the same load go on, some in each turn. */
static void test_many_wait_for_a_load(void **state) {
    (void)state;
    enum { MANY = 600 };
    make_inbox();
    poll_once("c");
    push_durable("c", 3);
    for (int i = 0; i < MANY; i++)
        start_as(i, "c", "bot", FROM_CONFIRMED, false, false);
    fake_serve_cursors(STORE_OK);
    turn();
    assert_in_range(polls_done, 1, MANY - 1);
    run_wakes();
    assert_int_equal(polls_done, MANY);
    for (int i = 0; i < MANY; i++)
        check_answer(&waiters[i], 1, 3, 3, 0);
}

/* One that was not used for too long lags behind nothing. */
static void test_lags_of_the_expired(void **state) {
    (void)state;
    struct inbox_lags lags;
    make_inbox();
    poll_once("c");
    push_durable("c", 3);
    start_as(0, "c", "bot", 1, false, false);
    fake_serve_cursors(STORE_OK);
    run_wakes();
    inbox_lags(inbox, &lags);
    assert_int_equal(lags.consumers, 1);
    assert_int_equal(lags.most, 2);
    fake.now_ms += options.ttl_ms + 1;
    inbox_lags(inbox, &lags);
    assert_int_equal(lags.consumers + lags.most, 0);
}

static void on_handle(uv_handle_t *handle, void *context) {
    (void)context;
    if (handle->type == UV_TIMER && uv_is_active(handle))
        ((uv_timer_t *)handle)->timer_cb((uv_timer_t *)handle);
}

/* Half a second later. */
static void save(enum store_error error) {
    uv_walk(&loop, on_handle, NULL);
    fake_serve_cursors(error);
    run_wakes();
}

/* It was lowered, as the channel began anew, and the store could not forget what it was at. */
static void test_a_lowered_one_that_is_not_forgotten(void **state) {
    (void)state;
    make_inbox();
    fake_add("c", 2);
    fake_save_cursor("c", "bot", 9);
    struct waiter *waiter = start_as(0, "c", "bot", 9, false, false);
    fake_serve_cursors(STORE_OK);
    run_wakes();
    fake_serve_reads();
    run_wakes();
    assert_true(waiter->reset);
    save(STORE_BUSY);
    assert_int_equal(fake_cursor("c", "bot")->ts, 9);
    fake.now_ms += options.ttl_ms / 2;
    start_as(1, "c", "bot", 2, false, false);
    run_wakes();
    save(STORE_OK);
    assert_int_equal(fake_cursor("c", "bot")->ts, 2);
}

/* --- Purges ----------------------------------------------------------------------------------- */

/* Of channels that are not in memory. */
static void test_noted_purges(void **state) {
    (void)state;
    static int owner;
    make_inbox();
    fake_add("a", 3);
    fake_add("b", 3);
    assert_false(inbox_may_be_purged(inbox, SLICE("a"), 1, 0));
    assert_non_null(inbox_purge(inbox, SLICE("a"), 2, &owner));
    fake_answer_purge(STORE_OK);
    assert_int_equal(inbox_purges(inbox), 1);
    assert_true(inbox_may_be_purged(inbox, SLICE("a"), 2, 0));
    assert_false(inbox_may_be_purged(inbox, SLICE("a"), 3, 0));
    assert_false(inbox_may_be_purged(inbox, SLICE("b"), 1, 0));
    assert_false(inbox_may_be_purged(inbox, SLICE("a"), 2, 1));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        SHARED_TEST(test_a_read_that_fails),
        SHARED_TEST(test_a_read_that_fails_for_a_filter),
        INBOX_TEST(test_another_life),
        INBOX_TEST(test_a_stream_is_given_up_while_it_ends),
        INBOX_TEST(test_a_stream_goes_on),
        INBOX_TEST(test_what_can_be_taken_out),
        INBOX_TEST(test_put_back_beside_a_read),
        SHARED_TEST(test_taken_out_before_it_is_loaded),
        SHARED_TEST(test_put_back_where_others_write),
        SHARED_TEST(test_put_back_while_the_store_is_away),
        SHARED_TEST(test_a_channel_that_is_not_watched),
        INBOX_TEST(test_many_wait_for_a_load),
        INBOX_TEST(test_lags_of_the_expired),
        INBOX_TEST(test_a_lowered_one_that_is_not_forgotten),
        INBOX_TEST(test_noted_purges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
