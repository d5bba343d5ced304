/* Watched channels: what is told of them when a line breaks, and while a slot moves. */
#include "played.h"

#include "redis/topology_parts.h"

static struct store_watch watch;
static int watched, lost, looked_for;

static struct store_watch *find(void *context, struct slice channel) {
    (void)context;
    looked_for++;
    return slice_equal(channel, SLICE("channel")) ? &watch : NULL;
}

static void on_watched(struct store_watch *it) {
    assert_ptr_equal(it, &watch);
    watched++;
}

static void on_lost(struct store_watch *it) {
    assert_ptr_equal(it, &watch);
    lost++;
}

/* Watches the channel, and says that it is subscribed to. */
static void start(struct redis_node *node, const char *message) {
    static const struct store_events events = {
        .find = find, .watched = on_watched, .lost = on_lost};
    watched = lost = 0;
    store_listen(&played->base, &events);
    watch = (struct store_watch){.name = "channel", .name_len = sizeof "channel" - 1};
    list_init(&watch.link);
    store_watch(&played->base, &watch);
    assert_int_equal(watched, 0);
    play_message(node, message);
    assert_int_equal(watched, 1);
}

#define SUBSCRIBED "*3\r\n$9\r\nsubscribe\r\n$18\r\ntotal:news:channel\r\n:1\r\n"
#define SSUBSCRIBED "*3\r\n$10\r\nssubscribe\r\n$20\r\ntotal:news:{channel}\r\n:1\r\n"

static void test_a_watch_is_lost_with_its_line(void **state) {
    (void)state;
    play_start(0);
    play_up("");
    struct redis_node *node = played_node(1);
    start(node, SUBSCRIBED);
    redis_conn_fail(&node->lanes[REDIS_LANE_READ].conn, "cut");
    assert_int_equal(lost, 0);
    redis_conn_fail(&node->lanes[REDIS_LANE_NEWS].conn, "cut");
    assert_int_equal(lost, 1);
    play_up("");
    assert_int_equal(watched, 1);
    play_message(node, SUBSCRIBED);
    assert_int_equal(watched, 2);
}

static void test_a_subscription_that_is_refused(void **state) {
    (void)state;
    play_start(0);
    play_up("");
    struct redis_node *node = played_node(1);
    const struct buf *sent = &node->lanes[REDIS_LANE_NEWS].conn.out;
    start(node, SUBSCRIBED);
    watch.state = WATCH_ASKED; /* as if it had not been heard */
    play_message(node, "-NOPERM\r\n");
    size_t before = sent->len;
    play_pass(499);
    watches_tick(played, played_now_ms());
    assert_int_equal(sent->len, before);
    play_pass(1);
    watches_tick(played, played_now_ms());
    assert_true(sent->len > before);
    play_message(node, SUBSCRIBED);
    assert_int_equal(watched, 2);
}

/* Whoever else publishes there, the lists say what is true. */
static void test_news_that_are_none(void **state) {
    (void)state;
    play_start(0);
    play_up("");
    start(played_node(1), SUBSCRIBED);
    play_message(played_node(1), "*3\r\n$7\r\nmessage\r\n$18\r\ntotal:news:channel\r\n$1\r\nx\r\n");
    assert_int_equal(watched, 2);
}

static void test_news_of_a_name_that_is_none(void **state) {
    (void)state;
    play_start(0);
    play_up("");
    struct redis_node *node = played_node(1);
    start(node, SUBSCRIBED);
    for (int len = 4096; len <= 6000; len += 1904) {
        char text[8192];
        int before = looked_for;
        snprintf(text, sizeof text, "*3\r\n$7\r\nmessage\r\n$%d\r\ntotal:news:%0*d\r\n$1\r\nx\r\n",
                 len, len - 11, 0);
        play_message(node, text);
        assert_int_equal(looked_for - before, len == 4096);
    }
    assert_int_equal(watched, 1);
}

/* What is pushed to the node that gets the slot, nobody tells of: the channel must be read. */
static void test_a_channel_whose_slot_is_on_its_way(void **state) {
    (void)state;
    static const char *const nodes[] = {
        "$46\r\na 1:1@2 myself,master - 0 1 1 connected [7->-b]\r\n",
        "$38\r\na 1:1@2 myself,master - 0 1 1 connected\r\n"};
    play_start(0);
    play_up("1");
    struct redis_node *node = played_node(1);
    start(node, SSUBSCRIBED);
    play_pass(1000);
    watches_tick(played, played_now_ms());
    assert_int_equal(watched, 1);
    for (int i = 0; i < 2; i++) {
        play_pass(1000);
        cluster_ask_migrating(node, played_now_ms());
        play_answer(&node->nodes_call, nodes[i]);
        watches_tick(played, played_now_ms());
        assert_int_equal(watched, 2);
        watches_tick(played, played_now_ms() + 999);
        assert_int_equal(watched, 2);
    }
}

#define WATCHES_TEST(test) cmocka_unit_test_teardown(test, play_end)

int main(void) {
    const struct CMUnitTest tests[] = {
        WATCHES_TEST(test_a_watch_is_lost_with_its_line),
        WATCHES_TEST(test_a_subscription_that_is_refused),
        WATCHES_TEST(test_news_that_are_none),
        WATCHES_TEST(test_news_of_a_name_that_is_none),
        WATCHES_TEST(test_a_channel_whose_slot_is_on_its_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
