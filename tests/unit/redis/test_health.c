/* What /-/health says of two masters of a cluster: what the worse of them promises, and what is
 * wrong with either. */
#include "redis/parts.h"
#include "support.h"

static uv_loop_t loop;
static struct redis_store store;
static struct redis_options options;
static struct redis_node nodes[3];
static struct redis_node *slots[1]; /* it is a cluster */
static struct buf line;

static const struct redis_promise sound = {.is_known = true,
                                           .appendonly = true,
                                           .appendfsync = "always",
                                           .version = "7",
                                           .policy = "noeviction"};

/* Two that serve and are well, and one that serves nothing and is not. */
static int set_up(void **state) {
    (void)state;
    memset(&store, 0, sizeof store);
    memset(nodes, 0, sizeof nodes);
    options = (struct redis_options){.wait_replicas = 1};
    store.redis = &options;
    store.topology = (struct redis_topology){
        .loop = &loop, .options = &options, .is_known = true, .slots = slots};
    list_init(&store.topology.nodes);
    for (int i = 0; i < 3; i++) {
        struct redis_node *node = &nodes[i];
        node->topology = &store.topology;
        snprintf(node->address.host, sizeof node->address.host, "r%d", i);
        node->address.port = 1;
        node->promise = sound;
        node->slots = i < 2 ? REDIS_SLOTS / 2 : 0;
        for (int kind = 0; kind < REDIS_LANES; kind++) {
            node->lanes[kind].node = node;
            node->lanes[kind].conn.state = REDIS_CONN_READY;
        }
        list_append(&store.topology.nodes, &node->link);
    }
    nodes[2].rights.error = STORE_REFUSED;
    return 0;
}

static void check(enum store_error error, const char *wanted) {
    buf_reset(&line, SIZE_MAX);
    assert_int_equal(redis_store_health(&store.base, &line), error);
    assert_int_equal(redis_store_health(&store.base, NULL), error);
    if (!memmem(line.data, line.len, wanted, strlen(wanted)))
        fail_msg("wanted %s; got %.*s", wanted, (int)line.len, line.data);
}

static bool says(const char *text) {
    return memmem(line.data, line.len, text, strlen(text));
}

static void test_the_weaker_counts(void **state) {
    (void)state;
    check(STORE_OK, "appendfsync always");
    assert_true(says("; a cluster of 2 masters") && !says("warning"));
    for (int i = 0; i < 2; i++) {
        set_up(NULL);
        nodes[i].promise.appendonly = false;
        check(STORE_OK, "appendonly no");
        strcpy(nodes[!i].promise.policy, "allkeys-lru");
        nodes[!i].promise.evicts = true; /* the other one is not well, either */
        check(STORE_OK, "a cluster of 2 masters");
    }
    nodes[0].promise.is_known = nodes[1].promise.is_known = false;
    check(STORE_OK, "redis");
}

static void test_evictions(void **state) {
    (void)state;
    nodes[1].promise.evicts = true;
    nodes[0].promise.appendonly = false;
    check(STORE_OK, "; warning: the maxmemory-policy of a master evicts");
    nodes[0].promise.appendonly = true;
    check(STORE_OK, "maxmemory-policy evicts: ");
    assert_false(says("; warning: the maxmemory-policy of a master evicts"));
    nodes[1].promise.evicted_keys = 5;
    nodes[1].evicted_ms = uv_now(&loop) - 59999;
    check(STORE_OK, "; warning: Redis is evicting keys: 5 so far");
    nodes[1].evicted_ms = uv_now(&loop) - 60000;
    check(STORE_OK, "");
    assert_false(says("evicting keys"));
}

static void test_damage(void **state) {
    (void)state;
    store.stats.damaged = 3;
    store.damaged_ms = uv_now(&loop) - 59999;
    check(STORE_OK, "; warning: damaged updates were left out 3 times");
    assert_true(says("; warning: the keys of a channel are damaged"));
    store.damaged_ms = uv_now(&loop) - 60000;
    check(STORE_OK, "left out 3 times");
    assert_false(says("the keys of a channel"));
}

/* The first one that is not well is named. */
static void test_rights(void **state) {
    (void)state;
    strcpy(nodes[0].rights.optional, "HSET a");
    strcpy(nodes[1].rights.optional, "HSET b");
    check(STORE_OK, "the user has no right at r0:1 for HSET a");
    nodes[1].rights.error = STORE_FAILED;
    strcpy(nodes[1].rights.obstacle, "OOM");
    check(STORE_FAILED, "; r1:1 refuses pushes: OOM");
    nodes[0].rights.error = STORE_REFUSED;
    strcpy(nodes[0].rights.missing, "INCR");
    check(STORE_REFUSED, "; the user has no right at r0:1 for INCR");
}

static void test_what_was_refused(void **state) {
    (void)state;
    store.refused = STORE_FAILED;
    store.refused_ms = uv_now(&loop) - 4999;
    check(STORE_FAILED, "; the last push was not acknowledged");
    store.refused_ms = uv_now(&loop) - 5000;
    check(STORE_OK, "");
    store.deaf_ms = uv_now(&loop);
    snprintf(store.deaf, sizeof store.deaf, "NOPERM");
    check(STORE_REFUSED, "; Redis refuses subscriptions: NOPERM");
}

/* It is up when all that serve are, and together serve all. */
static void test_away(void **state) {
    (void)state;
    nodes[1].lanes[REDIS_LANE_NEWS].conn.state = REDIS_CONN_GREETING;
    assert_int_not_equal(redis_store_health(&store.base, NULL), STORE_OK);
    nodes[1].lanes[REDIS_LANE_NEWS].conn.state = REDIS_CONN_READY;
    nodes[1].slots--;
    assert_int_not_equal(redis_store_health(&store.base, NULL), STORE_OK);
    buf_reset(&line, SIZE_MAX);
    redis_store_health(&store.base, &line);
    assert_true(says("connecting"));
    nodes[1].slots++;
    assert_int_equal(redis_store_health(&store.base, NULL), STORE_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_the_weaker_counts, set_up),
        cmocka_unit_test_setup(test_evictions, set_up),
        cmocka_unit_test_setup(test_damage, set_up),
        cmocka_unit_test_setup(test_rights, set_up),
        cmocka_unit_test_setup(test_what_was_refused, set_up),
        cmocka_unit_test_setup(test_away, set_up),
    };
    uv_loop_init(&loop);
    loop.time = 1000000;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    buf_deinit(&line);
    uv_loop_close(&loop);
    return failed;
}
