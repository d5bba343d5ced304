/* What the texts of a cluster say, and whose word counts. */
#include "base/log.h"
#include "redis/cluster.h"
#include "redis/options.h"
#include "redis/topology_parts.h"
#include "support.h"

static void check_redirect(const char *text, bool is_ask, unsigned slot, const char *host,
                           uint16_t port) {
    struct redis_redirect redirect;
    assert_true(redis_redirect_parse(text, &redirect));
    assert_int_equal(redirect.is_ask, is_ask);
    assert_int_equal(redirect.slot, slot);
    assert_text(redirect.host, host);
    assert_int_equal(redirect.port, port);
}

static void test_redirections(void **state) {
    (void)state;
    check_redirect("MOVED 3999 127.0.0.1:6381", false, 3999, "127.0.0.1", 6381);
    check_redirect("ASK 16383 redis-1.example:1", true, 16383, "redis-1.example", 1);
    check_redirect("MOVED 0 ::1:65535", false, 0, "::1", 65535);
    check_redirect("MOVED 1 :6379", false, 1, "", 6379);
    check_redirect("MOVED 1 ?:6379", false, 1, "?", 6379);
}

static void test_what_is_no_redirection(void **state) {
    (void)state;
    static const char *const others[] = {
        "",           "MOVED",           "MOVED ",       "MOVED 1",      "MOVED 1 ",
        "MOVED 1 h",  "MOVED 16384 h:1", "MOVED -1 h:1", "MOVED x h:1",  "MOVED 1 h:",
        "ASK 1 h:0",  "ASK 1 h:65536",   "ASK 1 h:1x",   "ASKING 1 h:1", "ERR MOVED 1 h:1",
        "moved 1 h:1"};
    struct redis_redirect redirect;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(redis_redirect_parse(others[i], &redirect));
    char text[REDIS_HOST_MAX_BYTES + 64];
    for (int over = 0; over <= 1; over++) {
        snprintf(text, sizeof text, "MOVED 1 %0*d:1", REDIS_HOST_MAX_BYTES + over, 0);
        assert_int_equal(redis_redirect_parse(text, &redirect), !over);
    }
}

static void test_a_slot_that_is_on_its_way(void **state) {
    (void)state;
    assert_true(redis_nodes_is_migrating("a 1:1@2 master - 0 1 1 connected 0-5\n"
                                         "b 1:2@3 myself,master - 0 1 1 connected 6-9 [7->-a]\n"
                                         "c 1:3@4 master - 0 1 1 connected\n"));
    assert_true(redis_nodes_is_migrating("b 1:2@3 myself,master - 0 1 1 connected 6-9 [7->-a]"));
    /* It gets one, another node gives one away, nobody is named. */
    assert_false(redis_nodes_is_migrating("b 1:2@3 myself,master - 0 1 1 connected [7-<-a]\n"));
    assert_false(redis_nodes_is_migrating("b 1:2@3 myself,master - 0 1 1 connected 6-9\n"
                                          "c 1:3@4 master - 0 1 1 connected [7->-a]\n"));
    assert_false(redis_nodes_is_migrating("c 1:3@4 master - 0 1 1 connected [7->-a]\n"));
    assert_false(redis_nodes_is_migrating(""));
}

static void test_whose_word_counts(void **state) {
    (void)state;
    assert_true(redis_cluster_may_vouch(3, true, false));
    assert_false(redis_cluster_may_vouch(3, true, true));   /* nobody for itself */
    assert_false(redis_cluster_may_vouch(3, false, false)); /* perhaps under another name */
    for (int masters = 1; masters <= 2; masters++)          /* no election is possible */
        assert_true(redis_cluster_may_vouch((unsigned)masters, true, true));
}

static void on_changed(struct redis_topology *topology) {
    (void)topology;
}

/* A map with one range of slots: how many of them it has then. */
static unsigned slots_of(long long first, long long last) {
    static const struct redis_topology_events events = {.changed = on_changed};
    static const struct redis_options options = {.prefix = ""};
    static struct redis_topology topology;
    static struct redis_node node;
    uv_loop_t loop;
    uv_loop_init(&loop);
    topology = (struct redis_topology){.loop = &loop, .options = &options, .events = &events};
    list_init(&topology.nodes);
    node = (struct redis_node){.topology = &topology, .address = {.host = "h", .port = 1}};
    for (int lane = 0; lane < REDIS_LANES; lane++)
        node.lanes[lane].conn.is_open = true;
    list_init(&node.link);
    list_append(&topology.nodes, &node.link);
    redisReply numbers[] = {{.type = REDIS_REPLY_INTEGER, .integer = first},
                            {.type = REDIS_REPLY_INTEGER, .integer = last},
                            {.type = REDIS_REPLY_INTEGER, .integer = 1}},
               host = {.type = REDIS_REPLY_STRING, .str = "h", .len = 1};
    redisReply *address[] = {&host, &numbers[2]},
               master = {.type = REDIS_REPLY_ARRAY, .elements = 2, .element = address};
    redisReply *parts[] = {&numbers[0], &numbers[1], &master},
               range = {.type = REDIS_REPLY_ARRAY, .elements = 3, .element = parts};
    redisReply *ranges[] = {&range},
               map = {.type = REDIS_REPLY_ARRAY, .elements = 1, .element = ranges};
    cluster_on_slots(&node.slots_call, &map);
    free(topology.slots);
    uv_loop_close(&loop);
    return node.slots;
}

static void test_ranges_of_slots(void **state) {
    (void)state;
    log_init(LOG_LEVEL_ERROR, false);
    assert_int_equal(slots_of(0, 16383), 16384);
    assert_int_equal(slots_of(16383, 16383), 1);
    assert_int_equal(slots_of(0, 16384), 0);
    assert_int_equal(slots_of(16384, 16384), 0);
    assert_int_equal(slots_of(-1, 5), 0);
    assert_int_equal(slots_of(5, 4), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_redirections),
        cmocka_unit_test(test_what_is_no_redirection),
        cmocka_unit_test(test_a_slot_that_is_on_its_way),
        cmocka_unit_test(test_whose_word_counts),
        cmocka_unit_test(test_ranges_of_slots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
