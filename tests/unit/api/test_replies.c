/* Requests and what they hear: where there is no room, who shares a reply with whom. */
#include "fixture.h"

static char sent_room[1 << 20], got_room[1 << 20];
static struct buf sent = {.data = sent_room, .cap = sizeof sent_room, .is_borrowed = true},
                  got = {.data = got_room, .cap = sizeof got_room, .is_borrowed = true};

#define END " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"

/* Sends `times` copies of the body; the reply is in `got`. Returns its status. */
static int ask(const char *head, const char *body, unsigned times) {
    sent.len = 0;
    put_request(&sent, head, body, times);
    return request(&sent, NULL, &got);
}

/* The same while `bytes` of BUFFER_SIZE are left. */
static int ask_within(size_t bytes, const char *head, const char *body, unsigned times) {
    size_t taken = budget_left() - bytes;
    budget_take(taken);
    int status = ask(head, body, times);
    budget_give(taken);
    return status;
}

/* A path of ours has no second name as a channel's. */
static void test_names_that_are_none(void **state) {
    (void)state;
    assert_int_equal(ask("GET //-/metrics" END, "", 1), 400);
    assert_int_equal(ask("POST //-/metrics" END, "{}", 1), 400);
    assert_int_equal(ask("POST //-/poll" END, "{\"a\":0}", 1), 400);
}

/* Whoever balances the load must look for another server. */
static void test_health_of_a_server_that_stops(void **state) {
    (void)state;
    assert_int_equal(ask("GET /-/health" END, "", 1), 200);
    api.is_draining = true;
    assert_int_equal(ask("GET /-/health" END, "", 1), 503);
    assert_true(has_text(&got, "{\"ok\":false,\"status\":\"draining\""));
}

/* An empty reply is kept for whoever gets the same, for as long as a second. */
static void test_a_consumer_hears_its_own_lag(void **state) {
    (void)state;
    push("a", "x", 1);
    for (int times = 0; times < 3; times++) {
        assert_int_equal(ask("GET /a?ts=1" END, "", 1), 200);
        assert_false(has_text(&got, "\"lag\":"));
        assert_int_equal(ask("GET /a?ts=1&as=bot" END, "", 1), 200);
        assert_true(has_text(&got, "\"lag\":0"));
    }
}

#define TEN "xxxxxxxxxx"
#define HUNDRED TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN
#define BATCH                                                                                      \
    "POST /a?x=" HUNDRED HUNDRED HUNDRED HUNDRED END "Content-Type: application/x-ndjson\r\n"

/* Each line becomes an update, with the query in it. */
static void test_no_room_for_a_batch(void **state) {
    (void)state;
    assert_int_equal(ask_within(65536, BATCH, "{}\n", 100), 503);
    assert_int_equal(ask(BATCH, "{}\n", 100), 200);
}

#define LARGE "POST /a" END "Content-Type: text/plain\r\n"

/* There is room for its body, but not for the update that the worker would make of it. */
static void test_no_room_for_a_large_push(void **state) {
    (void)state;
    assert_int_equal(ask_within(600000, LARGE, HUNDRED, 2000), 503);
    assert_int_equal(ask(LARGE, HUNDRED, 2000), 200);
}

#define SERVER_TEST(test) cmocka_unit_test_setup_teardown(test, server_up, server_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        SERVER_TEST(test_names_that_are_none),
        SERVER_TEST(test_health_of_a_server_that_stops),
        SERVER_TEST(test_a_consumer_hears_its_own_lag),
        SERVER_TEST(test_no_room_for_a_batch),
        SERVER_TEST(test_no_room_for_a_large_push),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
