/* Polls on their way into another program: another inbox over the same store. */
#include "waiters.h"

static bool is_memory_out;

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);

void *__wrap_malloc(size_t size) {
    return is_memory_out ? NULL : __real_malloc(size);
}

/* The waiter's poll has parked at the end of the channel "a", and is taken out; then the other
 * inbox is there. */
static void change_inbox(struct waiter *waiter, struct poll_place *place) {
    assert_int_equal(waiter->poll.state, POLL_PARKED);
    inbox_take_out(inbox, &waiter->poll, place);
    assert_true(place->is_known);
    stop_inbox();
    inbox_free(inbox);
    make_inbox();
}

/* Somebody waits behind three updates, and the inbox is another. */
static struct waiter *hand_over(struct poll_place *place) {
    make_inbox();
    push_durable("a", 3);
    struct waiter *waiter = wait_for(0, "a", 3);
    change_inbox(waiter, place);
    return waiter;
}

static void test_it_waits_on(void **state) {
    (void)state;
    struct poll_place place;
    struct waiter *waiter = hand_over(&place);
    assert_true(inbox_put_back(inbox, &waiter->poll, &place));
    assert_int_equal(waiter->poll.state, POLL_PARKED);
    assert_int_equal(fake.reads_made, 0);
    push_durable("a", 1);
    run_wakes();
    check_answer(waiter, 4, 4, 4, 0);
}

/* What comes before it is put back is not forgotten where memory was out for its channel. */
static void test_a_push_that_memory_was_out_for(void **state) {
    (void)state;
    struct poll_place place;
    struct waiter *waiter = hand_over(&place);
    assert_non_null(push("a"));
    is_memory_out = true;
    fake_answer_append(STORE_OK);
    is_memory_out = false;
    assert_true(inbox_put_back(inbox, &waiter->poll, &place));
    fake_serve_reads();
    run_wakes();
    check_answer(waiter, 4, 4, 4, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        INBOX_TEST(test_it_waits_on),
        INBOX_TEST(test_a_push_that_memory_was_out_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
