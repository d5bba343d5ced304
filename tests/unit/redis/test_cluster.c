/* What the texts of a cluster say, and whose word counts. */
#include "redis/cluster.h"
#include "redis/options.h"
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_redirections),
        cmocka_unit_test(test_what_is_no_redirection),
        cmocka_unit_test(test_a_slot_that_is_on_its_way),
        cmocka_unit_test(test_whose_word_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
