/* What the replies to pushes mean: of a master that is no more, with REDIS_WAIT, and of nodes that
 * name one another. */
#include "need.h"
#include "played.h"

#define APPEND REDIS_LANE_APPEND

static struct redis_node *node_of(const char *channel) {
    return redis_topology_node(&played->topology, slice_of(channel));
}

static void check_answer(int answers, enum store_error error) {
    assert_int_equal(played_answers, answers);
    assert_int_equal(played_error, error);
}

/* --- Replies ------------------------------------------------------------------------------- */

static void test_what_is_no_reply_to_a_push(void **state) {
    (void)state;
    static const char *const replies[] = {"+OK\r\n", ":1\r\n", "*3\r\n:1\r\n$0\r\n\r\n$0\r\n\r\n",
                                          "*4\r\n:-1\r\n$0\r\n\r\n$0\r\n\r\n:1\r\n",
                                          "*4\r\n:1\r\n$0\r\n\r\n$0\r\n\r\n:0\r\n"};
    play_start(0);
    play_up("");
    for (int i = 0; i < (int)(sizeof replies / sizeof *replies); i++) {
        play_push("channel", 1, 1);
        play_turn();
        play_reply(played_node(1), APPEND, replies[i]);
        check_answer(i + 1, STORE_FAILED);
    }
}

static void on_read(struct store_op *op) {
    played_answers++;
    played_error = container_of(op, struct store_read, op)->error;
}

static void test_an_operation_without_memory(void **state) {
    (void)state;
    struct store_read read = {.op.done = on_read, .limit = 1};
    play_start(0);
    play_turn();
    failing_allocation = 1;
    is_counting = true;
    store_read(&played->base, &read);
    is_counting = false;
    assert_int_equal(played_answers, 0);
    assert_true(turn_is_due(&played->flush));
    play_turn();
    check_answer(1, STORE_FAILED);
}

/* A right on one channel's keys is missing: the other one need not suffer. */
static void test_channels_that_were_refused_together(void **state) {
    (void)state;
    play_start(0);
    play_up("");
    struct redis_node *node = played_node(1);
    play_push("one", 1, 1);
    play_push("other", 1, 1);
    play_turn();
    assert_int_equal(played_calls(node, APPEND), 1);
    play_reply(node, APPEND, "-NOPERM\r\n");
    play_turn();
    assert_int_equal(played_answers, 0);
    assert_int_equal(played_calls(node, APPEND), 2);
    play_reply(node, APPEND, "-NOPERM\r\n");
    check_answer(1, STORE_REFUSED);
    play_reply(node, APPEND, play_stored(1));
    check_answer(2, STORE_OK);
}

/* --- REDIS_WAIT ------------------------------------------------------------------------------- */

static void test_a_push_is_answered_by_its_wait(void **state) {
    (void)state;
    play_start(2);
    play_up("");
    struct redis_node *node = played_node(1);
    const char *replies[] = {":2\r\n", ":1\r\n", "-ERR\r\n"};
    enum store_error errors[] = {STORE_OK, STORE_NOT_REPLICATED, STORE_NOT_REPLICATED};
    for (int i = 0; i < 3; i++) {
        play_push("channel", 1, 1);
        play_turn();
        assert_int_equal(played_calls(node, APPEND), 2);
        play_reply(node, APPEND, play_stored(i + 1));
        assert_int_equal(played_answers, i);
        play_reply(node, APPEND, replies[i]);
        check_answer(i + 1, errors[i]);
    }
}

/* Else its reply would speak of a push that it does not know. */
static void test_nothing_is_sent_behind_a_wait(void **state) {
    (void)state;
    play_start(1);
    play_up("");
    struct redis_node *node = played_node(1);
    play_push("channel", 1, 1);
    play_turn();
    play_push("channel", 1, 1);
    play_turn();
    assert_int_equal(played_calls(node, APPEND), 2);
    play_reply(node, APPEND, play_stored(1));
    play_turn();
    assert_int_equal(played_calls(node, APPEND), 1);
    play_reply(node, APPEND, ":1\r\n");
    check_answer(1, STORE_OK);
    play_turn();
    assert_int_equal(played_calls(node, APPEND), 2);
}

/* WAIT was sent, or there was no memory for it yet. */
static void test_a_line_that_breaks_before_a_wait_is_answered(void **state) {
    (void)state;
    play_start(1);
    play_up("");
    struct redis_node *node = played_node(1);
    for (int is_sent = 0; is_sent <= 1; is_sent++) {
        play_push("channel", 1, 1);
        if (is_sent)
            play_turn();
        else
            queues_send(played);
        play_reply(node, APPEND, play_stored(1));
        redis_conn_fail(&node->lanes[APPEND].conn, "cut");
        check_answer(is_sent + 1, STORE_UNSURE);
        play_up("");
    }
}

/* Another one may have taken its place, or has: by the map, it serves nothing any more. */
static void test_replicas_of_a_master_that_was_replaced_do_not_count(void **state) {
    (void)state;
    play_start(1);
    play_up("12");
    struct redis_node *node = node_of("channel");
    struct redis_conn *conn = &node->lanes[APPEND].conn;
    enum { WELL, SILENT, REPLACED, CASES };
    for (int i = WELL; i < CASES; i++) {
        play_push("channel", 1, 1);
        play_turn();
        play_reply(node, APPEND, play_stored(i + 1));
        if (i == SILENT)
            conn->events->silent(conn);
        if (i == REPLACED)
            play_answer(play_question(), play_map(node->address.port == 1 ? "2" : "1"));
        play_reply(node, APPEND, ":1\r\n");
        check_answer(i + 1, i == WELL ? STORE_OK : STORE_UNSURE);
        if (i == SILENT)
            play_up("12");
    }
}

/* --- Redirections ----------------------------------------------------------------------------- */

/* Answers what was sent with the other node's name; false: nothing was sent. */
static bool bounce(unsigned slot, bool is_ask) {
    play_turn();
    for (int port = 1; port <= 2; port++) {
        struct redis_node *node = played_node(port);
        char text[64];
        int calls = played_calls(node, APPEND);
        if (!calls)
            continue;
        if (calls == 2)
            play_reply(node, APPEND, "+OK\r\n"); /* to ASKING */
        snprintf(text, sizeof text, "-%s %u 127.0.0.1:%d\r\n", is_ask ? "ASK" : "MOVED", slot,
                 3 - port);
        play_reply(node, APPEND, text);
        return true;
    }
    return false;
}

/* They are asked in turn some times, and then after a pause. */
static void test_nodes_that_name_one_another(void **state) {
    (void)state;
    play_start(0);
    play_up("12");
    unsigned slot = redis_layout_slot(&played->topology.layout, SLICE("channel"));
    play_push("channel", 1, 1);
    for (int round = 0; round < 3; round++) {
        int bounces = 0;
        while (bounces < 100 && bounce(slot, round == 1))
            bounces++;
        assert_int_equal(bounces, 9);
        play_pass(50);
    }
    assert_int_equal(played_answers, 0);
    play_turn();
    play_reply(node_of("channel"), APPEND, play_stored(1));
    check_answer(1, STORE_OK);
}

#define OPERATIONS_TEST(test) cmocka_unit_test_teardown(test, play_end)

int main(void) {
    const struct CMUnitTest tests[] = {
        OPERATIONS_TEST(test_what_is_no_reply_to_a_push),
        OPERATIONS_TEST(test_an_operation_without_memory),
        OPERATIONS_TEST(test_channels_that_were_refused_together),
        OPERATIONS_TEST(test_a_push_is_answered_by_its_wait),
        OPERATIONS_TEST(test_nothing_is_sent_behind_a_wait),
        OPERATIONS_TEST(test_a_line_that_breaks_before_a_wait_is_answered),
        OPERATIONS_TEST(test_replicas_of_a_master_that_was_replaced_do_not_count),
        OPERATIONS_TEST(test_nodes_that_name_one_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
