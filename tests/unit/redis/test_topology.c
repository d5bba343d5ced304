/* Whose word about a cluster is taken, and when; and how many nodes it may have. */
#include "played.h"

#include "redis/topology_parts.h"

static int port_of(const char *channel) {
    return redis_topology_node(&played->topology, slice_of(channel))->address.port;
}

static struct redis_node *node_of(const struct redis_call *question) {
    return container_of(question, struct redis_node, slots_call);
}

/* A node may have asked long ago, and answer late: what it says is older than what is known. */
static void test_an_older_map_does_not_count(void **state) {
    (void)state;
    play_start(0);
    play_up("12");
    struct redis_call *old = play_question();
    play_pass(200);
    struct redis_call *young = play_question();
    assert_ptr_not_equal(old, young);
    play_answer(young, play_map("2"));
    assert_int_equal(port_of("a"), 2);
    play_answer(old, play_map("1"));
    assert_int_equal(port_of("a"), 2);
    assert_false(node_of(old)->is_asking_slots);
    struct redis_call *next = play_question();
    play_answer(next, play_map("1"));
    assert_int_equal(port_of("a"), 1);
}

/* Who was asked a moment after a master was back may not have heard that another was elected. */
static void test_what_was_asked_too_early_settles_no_doubt(void **state) {
    (void)state;
    play_start(0);
    play_up("123");
    struct redis_lane *lane = &played_node(1)->lanes[REDIS_LANE_APPEND];
    uint64_t back_ms = played_now_ms();
    lane->conn.events->silent(&lane->conn);
    int early = 0, late = 0;
    while (late < 2) {
        struct redis_call *question = play_question();
        assert_false(redis_lane_is_trusted(lane));
        bool is_early = question->sent_ms < back_ms + 100;
        play_answer(question, play_map("123"));
        bool may_vouch = node_of(question) != lane->node;
        early += may_vouch && is_early;
        assert_int_equal(redis_lane_is_trusted(lane), may_vouch && !is_early);
        if (redis_lane_is_trusted(lane)) {
            late++;
            back_ms = played_now_ms();
            lane->conn.events->silent(&lane->conn);
        }
    }
    assert_int_not_equal(early, 0);
}

/* News, and what is said to pushes, must wait until it is known who speaks; a read is repeated. */
static void test_what_comes_after_a_silence(void **state) {
    (void)state;
    for (int is_cluster = 0; is_cluster <= 1; is_cluster++) {
        play_start(0);
        play_up(is_cluster ? "12" : "");
        for (int kind = 0; kind < REDIS_LANES; kind++) {
            struct redis_conn *conn = &played_node(1)->lanes[kind].conn;
            assert_int_equal(conn->events->silent(conn), is_cluster && kind != REDIS_LANE_READ);
        }
        if (!is_cluster)
            play_end(NULL);
    }
}

static void test_nodes_are_bounded(void **state) {
    (void)state;
    play_start(0);
    play_up("12");
    struct redis_topology *topology = &played->topology;
    const struct redis_address known = played_node(2)->address;
    struct redis_address another = known;
    int count = topology->node_count;
    assert_int_equal(count, 2);
    topology->node_count = REDIS_NODES_MAX;
    another.port = 3;
    assert_ptr_equal(node_get(topology, &known), played_node(2));
    assert_null(node_get(topology, &another));
    topology->node_count = count;
    assert_non_null(node_get(topology, &another));
    assert_int_equal(topology->node_count, count + 1);
}

#define TOPOLOGY_TEST(test) cmocka_unit_test_teardown(test, play_end)

int main(void) {
    const struct CMUnitTest tests[] = {
        TOPOLOGY_TEST(test_an_older_map_does_not_count),
        TOPOLOGY_TEST(test_what_was_asked_too_early_settles_no_doubt),
        TOPOLOGY_TEST(test_what_comes_after_a_silence),
        TOPOLOGY_TEST(test_nodes_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
