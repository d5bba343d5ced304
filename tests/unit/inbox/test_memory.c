/*
 * Memory runs out: each operation is done again and again, and each time another one of its
 * allocations fails, until none is left that could. What is said to be done is done, what is
 * refused has left nothing behind, and the next one works.
 */
#include "inbox/parts.h"
#include "need.h"
#include "waiters.h"

/* --- The inbox in need ------------------------------------------------------------------------ */

static void (*tell)(struct poll *poll, struct answer *answer);
static int lists_made, lists_refused;

/* A poll is answered, as far as that is the inbox's. */
static void on_poll_done(struct poll *poll, struct answer *answer) {
    bool was_counting = is_counting;
    is_counting = false;
    struct store_cursors list;
    if (poll->is_roster && !answer->error) {
        bool is_made = IN_NEED(inbox_list_consumers(inbox, poll, &list));
        lists_made += is_made;
        lists_refused += !is_made;
        if (is_made)
            free(list.list);
    }
    tell(poll, answer);
    is_counting = was_counting;
}

static void make_inbox_in_need(void) {
    make_inbox();
    tell = inbox->events.poll_done;
    inbox->events.poll_done = on_poll_done;
    lists_made = lists_refused = 0;
}

static void (*done_first)(struct store_op *op);

static void on_done(struct store_op *op) {
    is_counting = true;
    done_first(op);
    is_counting = false;
}

/* The answer to the first operation in the queue comes in need. */
static bool has_one_in_need(struct list *queue) {
    if (list_empty(queue))
        return false;
    struct store_op *op = container_of(queue->next, struct store_op, link);
    done_first = op->done;
    op->done = on_done;
    return true;
}

static void turn_in_need(void) {
    is_counting = true;
    turn();
    is_counting = false;
}

/* All that is under way comes to its end. */
static void serve_in_need(void) {
    for (bool goes_on = true; goes_on;) {
        goes_on = false;
        while (has_one_in_need(&fake.appends)) {
            fake_answer_append(STORE_OK);
            goes_on = true;
        }
        while (has_one_in_need(&fake.asked)) {
            fake_serve_read(STORE_OK);
            goes_on = true;
        }
        while (has_one_in_need(&fake.cursors_asked)) {
            fake_do_cursors(STORE_OK, false);
            fake_answer_cursors();
            goes_on = true;
        }
        while (uv_loop_alive(&loop))
            turn_in_need();
    }
}

static struct waiter *make_waiter(int i, const char *channel, int64_t ts, bool may_wait) {
    struct waiter *waiter = &waiters[i];
    *waiter = (struct waiter){
        .poll = {.ts = ts, .limit = READ_MAX_UPDATES, .may_wait = may_wait, .has_position = true},
        .channel = channel,
        .from = ts,
        .is_polling = true,
    };
    return waiter;
}

/* It was refused, or answered with an error: only the lack of memory is a reason. */
static bool has_failed(struct waiter *waiter, bool is_taken) {
    waiter->is_polling &= is_taken;
    assert_true(is_taken || !waiter->answers);
    assert_true(!waiter->error || waiter->error == STORE_BUSY || waiter->error == STORE_FAILED);
    return !is_taken || waiter->error;
}

static struct update *make_update(void) {
    struct update_parts parts = {.body = SLICE("{}"), .method = SLICE("POST")};
    return update_new(&parts);
}

/* Does it with each allocation failing, of which there are `count` at least. */
static void fail_each(void (*operation)(void), bool is_shared, int count) {
    failing_allocation = 0;
    do {
        failing_allocation++;
        assert_int_equal(is_shared ? set_up_shared(NULL) : set_up(NULL), 0);
        make_inbox_in_need();
        allocations = 0;
        operation();
        assert_int_equal(tear_down(NULL), 0);
    } while (allocations >= failing_allocation);
    assert_true(failing_allocation > count);
}

/* --- Pushes and polls ------------------------------------------------------------------------- */

static void push_and_poll(void) {
    static int owner;
    struct delivery delivery = {.has_id = true};
    struct update **batch = malloc(2 * sizeof *batch);
    batch[0] = make_update();
    batch[1] = make_update();
    struct update *one = make_update();
    struct waiter *waiter = make_waiter(0, "a", 0, true);
    bool is_taken = IN_NEED(inbox_poll(inbox, SLICE("a"), &waiter->poll));
    serve_in_need();
    bool has_one = IN_NEED(inbox_push(inbox, SLICE("a"), one, &delivery, &owner));
    bool has_batch = IN_NEED(
        inbox_push_batch(inbox, SLICE("a"), batch, calloc(2, sizeof(struct delivery)), 2, &owner));
    serve_in_need();
    uint64_t total = (uint64_t)has_one + 2 * (uint64_t)has_batch;
    assert_int_equal(fake_channel("a")->total, total);
    assert_int_equal(pushes_done, has_one + has_batch);
    assert_int_equal(pushes_failed + pushes_without_owner, 0);
    if (!has_failed(waiter, is_taken))
        assert_true(waiter->answers == 1 && waiter->first == 1 && waiter->count);
    cancel(0);
    push_durable("a", 1);
    waiter = ask(1, "a", 0);
    fake_serve_reads();
    run_wakes();
    check_answer(waiter, 1, total + 1, total + 1, 0);
}

static void test_pushes_and_polls(void **state) {
    (void)state;
    fail_each(push_and_poll, false, 6);
}

/* What others store is read, told, and asked for again. */
static void follow_others(void) {
    fake_add("a", 3);
    struct waiter *waiter = make_waiter(0, "a", 1, true);
    bool is_taken = IN_NEED(inbox_poll(inbox, SLICE("a"), &waiter->poll));
    fake_turn_on();
    serve_in_need();
    if (!has_failed(waiter, is_taken) && waiter->answers)
        assert_true(waiter->first == 2 && waiter->count == 2);
    struct waiter *late = make_waiter(1, "a", 3, true);
    is_taken = IN_NEED(inbox_poll(inbox, SLICE("a"), &late->poll));
    serve_in_need();
    fake_add("a", 2);
    fake_turn_off();
    fake_turn_on();
    serve_in_need();
    settle();
    if (!has_failed(late, is_taken))
        check_answer(late, 4, 5, 5, 0);
    cancel(0);
    struct waiter *after = wait_for(2, "a", 0);
    settle();
    check_answer(after, 1, 5, 5, 0);
}

static void test_others(void **state) {
    (void)state;
    fail_each(follow_others, true, 4);
}

/* What it waits for is not in memory when it comes, and must be read. */
static void fall_behind(void) {
    fake.damage_every = 2;
    fake_add("a", 1);
    struct waiter *waiter = wait_for(0, "a", 1);
    settle();
    assert_int_equal(waiter->poll.state, POLL_PARKED);
    fake_turn_off();
    fake_add("a", 2);
    fake_turn_on();
    serve_in_need();
    settle();
    if (!waiter->error && waiter->ts != 1) /* else it may ask again */
        check_answer(waiter, 3, 3, 3, 1);
    struct waiter *after = ask(1, "a", 1);
    fake_serve_reads();
    run_wakes();
    check_answer(after, 3, 3, 3, 1);
}

static void test_falling_behind(void **state) {
    (void)state;
    fail_each(fall_behind, true, 2);
}

/* It looks through many pages for one update. */
static void look_through(void) {
    struct filter *filter;
    fake_add("a", 600);
    struct waiter *waiter = make_waiter(0, "a", 0, false);
    struct slice text = {"body.n:600", sizeof "body.n:600"};
    assert_int_equal(inbox_filter(inbox, text, &filter), FILTER_OK);
    waiter->where = "body.n:600";
    waiter->poll.filter = filter;
    waiter->poll.limit = 10;
    bool is_taken = IN_NEED(inbox_poll(inbox, SLICE("a"), &waiter->poll));
    serve_in_need();
    bool has_failed_once = has_failed(waiter, is_taken);
    assert_true(has_failed_once || (waiter->first == 600 && waiter->skipped == 599));
    if (!is_taken)
        inbox_filter_unref(inbox, filter);
    waiter->poll.filter = NULL;
}

static void test_looking(void **state) {
    (void)state;
    fail_each(look_through, false, 3);
    fail_each(look_through, true, 3);
}

static void purge(void) {
    push_durable("a", 3);
    static int owner;
    bool is_taken = IN_NEED(inbox_purge(inbox, SLICE("a"), 2, &owner));
    if (is_taken)
        fake_answer_purge(STORE_OK);
    assert_int_equal(purges_done, is_taken);
    struct waiter *waiter = ask(0, "a", 0);
    fake_serve_reads();
    run_wakes();
    check_answer(waiter, is_taken ? 3 : 1, 3, 3, is_taken ? 2 : 0);
}

static void test_purges(void **state) {
    (void)state;
    fail_each(purge, false, 1);
}

/* --- Consumers -------------------------------------------------------------------------------- */

static void on_handle(uv_handle_t *handle, void *context) {
    (void)context;
    if (handle->type == UV_TIMER && uv_is_active(handle))
        ((uv_timer_t *)handle)->timer_cb((uv_timer_t *)handle);
}

/* What has changed is saved, as if half a second had passed. */
static void save_in_need(void) {
    is_counting = true;
    uv_walk(&loop, on_handle, NULL);
    is_counting = false;
    serve_in_need();
}

static bool poll_as_bot(struct waiter *waiter) {
    waiter->poll.confirms_now = true;
    bool is_taken = IN_NEED(inbox_poll_as(inbox, SLICE("a"), &waiter->poll, SLICE("bot")));
    serve_in_need();
    return is_taken;
}

/* What bot has confirmed, is what was sent; and as soon as there is memory, that is saved. */
static void confirm_and_save(void) {
    fake_add("a", 3);
    fake_save_cursor("a", "other", 1);
    struct waiter *waiter = make_waiter(0, "a", 1, false);
    bool is_taken = poll_as_bot(waiter);
    bool has_failed_once = has_failed(waiter, is_taken);
    if (!has_failed_once)
        check_answer(waiter, 2, 3, 3, 0);
    save_in_need();
    save_in_need();
    const struct store_cursor *cursor = fake_cursor("a", "bot");
    if (!has_failed_once)
        assert_true(cursor && cursor->ts == 3);
    else
        assert_true(!cursor || !cursor->ts);
    waiter = make_waiter(1, "a", -1, false);
    waiter->poll.has_position = false;
    waiter->poll.ts = 0;
    is_taken = poll_as_bot(waiter);
    if (!has_failed(waiter, is_taken))
        assert_int_equal(waiter->count, has_failed_once ? 3 : 0);
    struct waiter *list = make_waiter(2, "a", POSITION_NOW, false);
    is_taken = IN_NEED(inbox_poll_consumers(inbox, SLICE("a"), &list->poll));
    serve_in_need();
    if (!has_failed(list, is_taken))
        assert_int_equal(lists_made + lists_refused, 1);
}

static void test_consumers(void **state) {
    (void)state;
    fail_each(confirm_and_save, false, 8);
    fail_each(confirm_and_save, true, 8);
}

/* A consumer of another life of the channel is lowered: it is forgotten, and saved anew. */
static void lower(void) {
    fake_add("a", 2);
    fake_save_cursor("a", "bot", 9);
    struct waiter *waiter = make_waiter(0, "a", 9, false);
    bool is_taken = poll_as_bot(waiter);
    bool is_lowered = !has_failed(waiter, is_taken);
    assert_int_equal(is_lowered, waiter->reset);
    save_in_need();
    save_in_need();
    assert_int_equal(fake_cursor("a", "bot")->ts, is_lowered ? 2 : 9);
}

static void test_lowered(void **state) {
    (void)state;
    fail_each(lower, false, 6);
}

static void forget_bot(void) {
    fake_add("a", 1);
    fake_save_cursor("a", "bot", 1);
    struct waiter *waiter = make_waiter(0, "a", -1, false);
    bool is_taken = IN_NEED(inbox_forget_consumer(inbox, SLICE("a"), SLICE("bot"), &waiter->poll));
    serve_in_need();
    assert_int_equal(waiter->answers, is_taken);
    assert_int_equal(!fake_cursor("a", "bot"), is_taken);
    forget(1, "a", "bot");
    fake_serve_cursors(STORE_OK);
    assert_null(fake_cursor("a", "bot"));
}

static void test_forgetting(void **state) {
    (void)state;
    fail_each(forget_bot, false, 3);
}

/* --- From one inbox to another ---------------------------------------------------------------- */

/* A poll that waits as a consumer, or as one that was forgotten meanwhile, goes on in another. */
static void hand_over(bool is_gone) {
    push_durable("a", 2);
    struct waiter *waiter = start_as(0, "a", "bot", 2, true, false);
    fake_serve_cursors(STORE_OK);
    run_wakes();
    if (is_gone)
        forget(1, "a", "bot");
    fake_serve_cursors(STORE_OK);
    struct poll_place place;
    assert_true(inbox_can_take_out(inbox, &waiter->poll));
    inbox_take_out(inbox, &waiter->poll, &place);
    assert_int_equal(place.is_gone, is_gone);
    place.is_known &= !is_gone; /* then it is read */
    stop_inbox();
    inbox_free(inbox);
    fake.is_closing = false;
    make_inbox_in_need();
    bool is_taken = IN_NEED(inbox_put_back(inbox, &waiter->poll, &place));
    serve_in_need();
    push_durable("a", 1);
    serve_in_need();
    if (!has_failed(waiter, is_taken))
        check_answer(waiter, 3, 3, 3, 0);
}

static void hand_over_named(void) {
    hand_over(false);
}

static void hand_over_gone(void) {
    hand_over(true);
}

static void test_handover(void **state) {
    (void)state;
    fail_each(hand_over_named, false, 3);
    fail_each(hand_over_gone, false, 2);
}

/* --- The inbox itself, and filters ------------------------------------------------------------ */

static void make_another(void) {
    static const struct inbox_events events = {0};
    struct inbox *made = IN_NEED(inbox_new(&loop, &fake.store, &options, &events));
    assert_int_equal(!made, allocations >= failing_allocation);
    if (made)
        inbox_free(made);
    run_wakes();
}

static void test_making(void **state) {
    (void)state;
    fail_each(make_another, false, 8);
    fail_each(make_another, true, 9);
}

static void make_filter(void) {
    struct slice text = {"body.n:1", sizeof "body.n:1"};
    struct filter *filter = NULL, *again = NULL;
    enum filter_error error = IN_NEED(inbox_filter(inbox, text, &filter));
    assert_true(error == FILTER_OK || error == FILTER_NO_ROOM);
    assert_int_equal(inbox_filter(inbox, text, &again), FILTER_OK);
    if (error == FILTER_OK)
        inbox_filter_unref(inbox, filter);
    inbox_filter_unref(inbox, again);
}

static void test_filters(void **state) {
    (void)state;
    fail_each(make_filter, false, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pushes_and_polls), cmocka_unit_test(test_others),
        cmocka_unit_test(test_purges),           cmocka_unit_test(test_falling_behind),
        cmocka_unit_test(test_looking),          cmocka_unit_test(test_consumers),
        cmocka_unit_test(test_lowered),          cmocka_unit_test(test_forgetting),
        cmocka_unit_test(test_handover),         cmocka_unit_test(test_making),
        cmocka_unit_test(test_filters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
