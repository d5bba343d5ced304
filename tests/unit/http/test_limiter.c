/* The rate limit on a clock that the test moves. */
#include "base/hash.h"
#include "http/limiter.h"
#include "support.h"

static const uint8_t *ipv4(uint32_t number) {
    static uint8_t ip[16] = {[10] = 0xff, [11] = 0xff};
    for (int i = 0; i < 4; i++)
        ip[12 + i] = (uint8_t)(number >> (24 - 8 * i));
    return ip;
}

static const uint8_t *ipv6(uint64_t network, uint64_t host) {
    static uint8_t ip[16];
    for (int i = 0; i < 8; i++) {
        ip[i] = (uint8_t)(network >> (56 - 8 * i));
        ip[8 + i] = (uint8_t)(host >> (56 - 8 * i));
    }
    return ip;
}

static void test_window(void **state) {
    (void)state;
    struct limiter *limiter = limiter_new(3, 10000);
    assert_int_equal(limiter_limit(limiter), 3);
    for (uint64_t i = 0; i < 3; i++) {
        struct limiter_verdict verdict = limiter_take(limiter, ipv4(1), 1000 + i);
        assert_true(verdict.allowed);
        assert_int_equal(verdict.remaining, 2 - i);
    }
    /* The window began at 1,000 and ends at 11,000. */
    struct limiter_verdict verdict = limiter_take(limiter, ipv4(1), 1003);
    assert_false(verdict.allowed);
    assert_int_equal(verdict.remaining, 0);
    assert_int_equal(verdict.retry_after_s, 10);
    assert_int_equal(limiter_take(limiter, ipv4(1), 2000).retry_after_s, 9);
    verdict = limiter_take(limiter, ipv4(1), 10999);
    assert_false(verdict.allowed);
    assert_int_equal(verdict.retry_after_s, 1);
    /* Whoever waits as long as told is let in. */
    verdict = limiter_take(limiter, ipv4(1), 11000);
    assert_true(verdict.allowed);
    assert_int_equal(verdict.remaining, 2);
    limiter_free(limiter);
}

static void test_clients_are_apart(void **state) {
    (void)state;
    struct limiter *limiter = limiter_new(1, 1000);
    assert_true(limiter_take(limiter, ipv4(0x0A000001), 0).allowed);
    assert_false(limiter_take(limiter, ipv4(0x0A000001), 0).allowed);
    assert_true(limiter_take(limiter, ipv4(0x0A000002), 0).allowed);
    assert_true(limiter_take(limiter, ipv4(0x0B000001), 0).allowed);
    /* IPv6 by /64. */
    assert_true(limiter_take(limiter, ipv6(0x20010DB800000001, 1), 0).allowed);
    assert_false(limiter_take(limiter, ipv6(0x20010DB800000001, 0xFFFFFFFFFFFFFFFF), 0).allowed);
    assert_true(limiter_take(limiter, ipv6(0x20010DB800000002, 1), 0).allowed);
    limiter_free(limiter);
}

static void test_window_begins_with_the_first_request(void **state) {
    (void)state;
    struct limiter *limiter = limiter_new(2, 1000);
    assert_true(limiter_take(limiter, ipv4(1), 0).allowed);
    assert_true(limiter_take(limiter, ipv4(2), 500).allowed);
    assert_true(limiter_take(limiter, ipv4(1), 999).allowed);
    assert_false(limiter_take(limiter, ipv4(1), 999).allowed);
    assert_int_equal(limiter_take(limiter, ipv4(1), 1000).remaining, 1);
    assert_int_equal(limiter_take(limiter, ipv4(2), 1499).remaining, 0);
    assert_int_equal(limiter_take(limiter, ipv4(2), 1500).remaining, 1);
    limiter_free(limiter);
}

static void test_many_clients_push_the_oldest_out(void **state) {
    (void)state;
    struct limiter *limiter = limiter_new(1, 1000000);
    for (uint32_t i = 0; i < LIMITER_MAX_CLIENTS; i++)
        assert_true(limiter_take(limiter, ipv4(i), i / 1000).allowed);
    assert_false(limiter_take(limiter, ipv4(LIMITER_MAX_CLIENTS - 1), 200).allowed);
    assert_true(limiter_take(limiter, ipv4(LIMITER_MAX_CLIENTS), 200).allowed);
    /* The newest are remembered; the first was forgotten and begins anew. */
    assert_false(limiter_take(limiter, ipv4(LIMITER_MAX_CLIENTS), 200).allowed);
    assert_false(limiter_take(limiter, ipv4(LIMITER_MAX_CLIENTS - 1), 200).allowed);
    assert_true(limiter_take(limiter, ipv4(0), 200).allowed);
    limiter_free(limiter);
}

/* A client that stays under the limit is never refused; one above it gets exactly its due. */
static void test_steady_load(void **state) {
    (void)state;
    struct limiter *limiter = limiter_new(10, 1000);
    uint64_t allowed = 0;
    for (uint64_t now = 0; now < 100000; now += 10) {
        allowed += limiter_take(limiter, ipv4(1), now).allowed;
        if (now % 100 == 0)
            assert_true(limiter_take(limiter, ipv4(2), now).allowed);
    }
    assert_int_equal(allowed, 1000);
    limiter_free(limiter);
}

static int set_up(void **state) {
    (void)state;
    hash_init();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_clients_are_apart),
        cmocka_unit_test(test_window_begins_with_the_first_request),
        cmocka_unit_test(test_many_clients_push_the_oldest_out),
        cmocka_unit_test(test_steady_load),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
