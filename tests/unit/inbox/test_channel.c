/* A channel's ring of updates against a plain array, and the memory it counts. */
#include "base/counters.h"
#include "inbox/channel.h"
#include "support.h"

enum { UPDATES = 300 };

static struct update *updates[UPDATES + 1]; /* by ts */
static struct channel *channel;

static int set_up(void **state) {
    (void)state;
    memset(&counters, 0, sizeof counters);
    for (uint64_t ts = 1; ts <= UPDATES; ts++) {
        struct update_parts parts = {.body = SLICE("{}"), .method = SLICE("POST")};
        updates[ts] = update_new(&parts);
        updates[ts]->ts = ts;
    }
    channel = channel_new(7, SLICE("name"));
    return channel ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    channel_free(channel);
    assert_int_equal(counters.cache_bytes, 0);
    for (uint64_t ts = 1; ts <= UPDATES; ts++) {
        assert_int_equal(updates[ts]->refs, 1);
        update_unref(updates[ts]);
    }
    return 0;
}

/* Exactly the updates `first` to `last` are in memory. */
static void check_recents(uint64_t first, uint64_t last) {
    assert_int_equal(channel->recent_count, last + 1 - first);
    for (uint32_t i = 0; i < channel->recent_count; i++)
        assert_ptr_equal(channel_recent(channel, i), updates[first + i]);
    for (uint64_t ts = 1; ts <= UPDATES; ts++)
        assert_int_equal(updates[ts]->refs, ts >= first && ts <= last ? 2 : 1);
}

/* It grows while its oldest stand in the middle of the ring. */
static void test_ring(void **state) {
    (void)state;
    uint64_t first = 1, last = 0;
    for (uint64_t keep = 1; last < UPDATES; keep = keep % 37 + 1) {
        channel_remember(channel, updates[++last]);
        channel_trim(channel, keep + 20);
        if (last + 1 - first > keep + 20)
            first = last + 1 - (keep + 20);
        check_recents(first, last);
    }
    channel_trim(channel, UPDATES); /* nothing to drop */
    check_recents(first, last);
    channel_trim(channel, 1);
    check_recents(last, last);
}

static void test_memory_is_counted(void **state) {
    (void)state;
    uint64_t empty = counters.cache_bytes;
    assert_true(empty >= sizeof *channel + 4);
    for (uint64_t ts = 1; ts <= 100; ts++)
        channel_remember(channel, updates[ts]);
    assert_int_equal(counters.cache_bytes,
                     empty + 100 * update_size(updates[1]) + 128 * sizeof(void *));
    channel_trim(channel, 30);
    assert_int_equal(counters.cache_bytes,
                     empty + 30 * update_size(updates[1]) + 128 * sizeof(void *));
    channel_drop_recents(channel);
    assert_int_equal(counters.cache_bytes, empty);
    channel_remember(channel, updates[101]); /* and it can begin again */
    check_recents(101, 101);
}

static void test_name(void **state) {
    (void)state;
    assert_true(channel_equal(&channel->node, "name", 4));
    assert_false(channel_equal(&channel->node, "name", 3));
    assert_false(channel_equal(&channel->node, "names", 5));
    assert_false(channel_equal(&channel->node, "nams", 4));
}

#define CHANNEL_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        CHANNEL_TEST(test_ring),
        CHANNEL_TEST(test_memory_is_counted),
        CHANNEL_TEST(test_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
