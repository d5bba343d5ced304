/*
 * Many consumers poll a store of our own, each from where it was, in a random order of everything
 * that can happen. None gets a gap.
 */
#include "waiters.h"

enum { CONSUMERS = 900, NAMES = 6, STEPS = 40000 };

static const char *const names[NAMES] = {"a", "b", "c", "d", "e", "f"};

static const char *channel_of(int i) {
    return names[i % NAMES];
}

static void step(int i) {
    uint32_t what = random_below(100);
    if (what < 55 && !waiters[i].is_polling) {
        uint32_t limit = random_below(4) ? READ_MAX_UPDATES : 1 + random_below(3);
        start(i, channel_of(i), (int64_t)waiters[i].cursor, limit, random_below(10) > 0);
    } else if (what < 60 && waiters[i].is_polling) {
        cancel(i);
    } else if (what < 68) {
        push(channel_of(i));
    } else if (what < 80 && !list_empty(&fake.appends)) {
        fake_answer_append(random_below(10) ? STORE_OK : STORE_FAILED);
    } else if (what < 92 && !list_empty(&fake.asked)) {
        fake_serve_read(random_below(20) ? STORE_OK : STORE_FAILED);
    } else if (what < 96) {
        turn();
    }
}

static void finish_all(void) {
    while (!list_empty(&fake.appends) || !list_empty(&fake.asked) || uv_loop_alive(&loop)) {
        if (!list_empty(&fake.appends))
            fake_answer_append(STORE_OK);
        if (!list_empty(&fake.asked))
            fake_serve_read(STORE_OK);
        turn();
    }
}

/* check_continuity() sees to it that no answer leaves a gap or repeats an update. */
static void run_consumers(uint64_t cache_max_bytes, uint64_t first_seed) {
    options.cache_max_bytes = cache_max_bytes;
    options.channel_max_updates = 1000000;
    make_inbox();
    seed = first_seed;
    for (int i = 0; i < STEPS; i++)
        step((int)random_below(CONSUMERS));
    uint64_t delivered = 0;
    for (int i = 0; i < CONSUMERS; i++) {
        delivered += waiters[i].seen;
        assert_int_equal(waiters[i].resets, 0);
        assert_int_equal(waiters[i].all_missed, 0);
        assert_int_equal(waiters[i].seen, waiters[i].cursor);
    }
    assert_true(delivered > 10000);
    /* At the end everybody who waits has been told everything. */
    finish_all();
    for (int i = 0; i < CONSUMERS; i++) {
        if (!waiters[i].is_polling)
            continue;
        assert_int_equal(waiters[i].poll.state, POLL_PARKED);
        assert_int_equal(waiters[i].poll.ts, fake_channel(channel_of(i))->total);
    }
}

static void test_consumers(void **state) {
    (void)state;
    run_consumers(64 << 20, 1);
}

static void test_consumers_with_a_small_cache(void **state) {
    (void)state;
    run_consumers(3000, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        INBOX_TEST(test_consumers),
        INBOX_TEST(test_consumers_with_a_small_cache),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
