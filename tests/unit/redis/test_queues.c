/* Operations that wait: which are sent, which go together, and which are given up. */
#include "played.h"

#define APPEND REDIS_LANE_APPEND
#define READ REDIS_LANE_READ

static struct redis_node *node; /* the only one */

static void start(void) {
    play_start(0);
    play_up("");
    node = played_node(1);
}

static void push_some(int count, size_t bytes, uint32_t updates) {
    while (count--)
        play_push("channel", bytes, updates);
    assert_false(play_turn());
}

/* --- Sending ---------------------------------------------------------------------------------- */

static void test_pushes_of_a_turn_go_together(void **state) {
    (void)state;
    static const struct {
        int pushes;
        size_t bytes;
        uint32_t updates;
        int commands;
    } cases[] = {{64, 1, 1, 1},        {65, 1, 1, 2},  {129, 1, 1, 3}, {2, 100 << 10, 1, 1},
                 {2, 200 << 10, 1, 2}, {2, 1, 128, 1}, {2, 1, 129, 2}};
    start();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        push_some(cases[i].pushes, cases[i].bytes, cases[i].updates);
        assert_int_equal(played_calls(node, APPEND), cases[i].commands);
        while (played_calls(node, APPEND))
            play_reply(node, APPEND, "-ERR\r\n");
    }
}

static void test_a_redis_that_is_behind_gets_no_more(void **state) {
    (void)state;
    start();
    play_read("first");
    play_turn();
    play_pass(PLAYED_TIMEOUT_MS / 2);
    play_read("second");
    play_turn();
    assert_int_equal(played_calls(node, READ), 2);
    play_pass(1);
    play_read("third");
    play_turn();
    assert_int_equal(played_calls(node, READ), 2);
    play_reply(node, READ, "-ERR\r\n");
    play_turn();
    assert_int_equal(played_calls(node, READ), 2);
}

/* How long the replies are is not known yet. */
static void test_reads_under_way_are_bounded(void **state) {
    (void)state;
    start();
    play_turn();
    assert_false(turn_is_due(&played->flush));
    for (int i = 0; i < 18; i++)
        play_read("channel");
    assert_true(turn_is_due(&played->flush));
    play_turn();
    for (int i = 0; i < 2; i++) {
        assert_int_equal(played_calls(node, READ), 16);
        play_reply(node, READ, "-ERR\r\n");
        assert_int_equal(played_calls(node, READ), 15);
        play_turn();
    }
    assert_int_equal(played_calls(node, READ), 16);
}

static void test_what_is_beyond_a_turn_is_for_the_next(void **state) {
    (void)state;
    start();
    for (int i = 0; i < 4096; i++)
        play_read("channel");
    assert_false(play_turn());
    for (int i = 0; i < 4097; i++)
        play_read("channel");
    assert_true(play_turn());
    assert_false(play_turn());
    assert_true(list_empty(&played->pending));
}

/* --- Giving up -------------------------------------------------------------------------------- */

static void test_what_gets_no_reply_is_given_up(void **state) {
    (void)state;
    start();
    play_push("channel", 1, 1);
    play_turn();
    play_pass(PLAYED_TIMEOUT_MS - 1);
    queues_tick(played);
    assert_int_equal(played_answers, 0);
    play_pass(1);
    node->lanes[READ].answered_ms = played_now_ms(); /* which gives no push more time */
    queues_tick(played);
    assert_int_equal(played_answers, 1);
    assert_int_equal(played_error, STORE_UNSURE);
}

/* The loop was held up, and both are there: the reply, and the time that is over. */
static void test_a_reply_that_has_come_goes_before_the_tick(void **state) {
    (void)state;
    start();
    play_push("channel", 1, 1);
    play_turn();
    play_pass(PLAYED_TIMEOUT_MS);
    played->tick.timer_cb(&played->tick);
    assert_int_equal(played_answers, 0);
    play_reply(node, APPEND, play_stored(1));
    assert_int_equal(played_answers, 1);
    assert_int_equal(played_error, STORE_OK);
}

/* What a node could not do yet is not asked again when its time is over: what becomes of it then
 * would not be known. */
static void test_nothing_is_tried_when_its_time_is_over(void **state) {
    (void)state;
    start();
    play_push("channel", 1, 1);
    play_turn();
    play_reply(node, APPEND, "-TRYAGAIN\r\n");
    play_pass(PLAYED_TIMEOUT_MS);
    play_turn();
    queues_tick(played);
    assert_int_equal(played_answers, 1);
    assert_int_equal(played_error, STORE_CLUSTER_DOWN);
}

/* ... also not along with another, or when its node has room at last. */
static void test_nothing_late_goes_along(void **state) {
    (void)state;
    start();
    play_push("channel", 1, 1);
    play_turn();
    play_pass(PLAYED_TIMEOUT_MS - 60);
    play_reply(node, APPEND, "-TRYAGAIN\r\n");
    node->is_waiting = true;
    play_push("channel", 1, 1);
    play_turn();
    play_pass(60);
    play_turn(); /* the first stands behind the second now */
    node->is_waiting = false;
    play_turn();
    queues_tick(played);
    assert_int_equal(played_answers, 1);
    assert_int_equal(played_error, STORE_CLUSTER_DOWN);
    play_reply(node, APPEND, play_stored(1));
    assert_int_equal(played_answers, 2);
    assert_int_equal(played_error, STORE_OK);
    node->is_waiting = true;
    play_push("channel", 1, 1);
    play_turn();
    play_pass(PLAYED_TIMEOUT_MS);
    node->is_waiting = false;
    play_turn();
    queues_tick(played);
    assert_int_equal(played_answers, 3);
    assert_int_not_equal(played_error, STORE_UNSURE);
}

/* A Redis that answers others will come to it. */
static void test_a_read_gets_more_time_but_not_for_ever(void **state) {
    (void)state;
    start();
    play_read("channel");
    play_turn();
    for (int i = 1; i <= 10; i++) {
        assert_int_equal(played_answers, 0);
        play_pass(PLAYED_TIMEOUT_MS);
        node->lanes[READ].answered_ms = played_now_ms();
        queues_tick(played);
    }
    assert_int_equal(played_answers, 1);
    assert_int_equal(played_error, STORE_AWAY);
}

static void test_nobody_waits_for_a_redis_that_has_long_been_away(void **state) {
    (void)state;
    play_start(0);
    play_pass(PLAYED_TIMEOUT_MS - 1);
    play_push("channel", 1, 1);
    play_turn();
    queues_tick(played);
    assert_int_equal(played_answers, 0);
    play_pass(1);
    queues_tick(played);
    assert_int_equal(played_answers, 1);
    assert_int_equal(played_error, STORE_AWAY);
}

static void test_many_are_given_up_in_several_turns(void **state) {
    (void)state;
    play_start(0);
    for (int i = 0; i < 600; i++)
        play_read("channel");
    play_turn();
    play_pass(PLAYED_TIMEOUT_MS);
    queues_tick(played);
    assert_int_equal(played_answers, 512);
    assert_true(turn_is_due(&played->giving_up));
    turn_cancel(&played->giving_up);
    played->giving_up.run(&played->giving_up);
    assert_int_equal(played_answers, 600);
    assert_false(turn_is_due(&played->giving_up));
}

#define QUEUES_TEST(test) cmocka_unit_test_teardown(test, play_end)

int main(void) {
    const struct CMUnitTest tests[] = {
        QUEUES_TEST(test_pushes_of_a_turn_go_together),
        QUEUES_TEST(test_a_redis_that_is_behind_gets_no_more),
        QUEUES_TEST(test_reads_under_way_are_bounded),
        QUEUES_TEST(test_what_is_beyond_a_turn_is_for_the_next),
        QUEUES_TEST(test_what_gets_no_reply_is_given_up),
        QUEUES_TEST(test_a_reply_that_has_come_goes_before_the_tick),
        QUEUES_TEST(test_nothing_is_tried_when_its_time_is_over),
        QUEUES_TEST(test_nothing_late_goes_along),
        QUEUES_TEST(test_a_read_gets_more_time_but_not_for_ever),
        QUEUES_TEST(test_nobody_waits_for_a_redis_that_has_long_been_away),
        QUEUES_TEST(test_many_are_given_up_in_several_turns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
