/*
 * Requests whose store, or worker, takes its time: their clients hang up meanwhile, their time is
 * over, or the store fails.
 */
#include "fixture.h"

#include "../inbox/fake_store.h"
#include "api/many.h"
#include "base/worker.h"
#include "http/handover.h"

#include <unistd.h>

static char got_room[4 << 20], body[100001];
static struct buf sent, got = {.data = got_room, .cap = sizeof got_room, .is_borrowed = true};

#define HEAD " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
#define LINES "Content-Type: application/x-ndjson\r\n"

static const struct visit {
    const char *head, *body;
    unsigned times;
} visits[] = {
    {"POST /a0" HEAD, "{}", 1},
    {"POST /a1" HEAD LINES, "{\"n\":1}\n", 3},
    {"DELETE /a2" HEAD, "", 1},
    {"GET /a3" HEAD, "", 1},
    {"GET /a4?sleep=60&where=method:P*" HEAD, "", 1},
    {"GET /a5?as=bot" HEAD, "", 1},
    {"GET /a6?feed=sse" HEAD, "", 1},
    {"GET /a7/consumers" HEAD, "", 1},
    {"DELETE /a8?as=bot" HEAD, "", 1},
    {"POST /-/poll?sleep=60" HEAD, "{\"x\":-1,\"y\":0,\"z\":\"now\"}", 1},
};
enum { VISITS = sizeof visits / sizeof *visits };

static int begin(const struct visit *visit) {
    sent.len = got.len = 0;
    put_request(&sent, visit->head, visit->body, visit->times);
    int client = client_new();
    client_send(client, (struct slice){sent.data, sent.len});
    return client;
}

/* --- A store that takes its time -------------------------------------------------------------- */

static enum store_error outcome;

static void answer_all(void) {
    while (!list_empty(&fake.appends))
        fake_answer_append(outcome);
    while (!list_empty(&fake.purges))
        fake_answer_purge(outcome);
    while (!list_empty(&fake.asked))
        fake_serve_read(outcome);
    fake_serve_cursors(outcome);
}

static bool is_asked(void) {
    return !list_empty(&fake.appends) || !list_empty(&fake.purges) || !list_empty(&fake.asked) ||
           !list_empty(&fake.cursors_asked);
}

static int set_up(void **state) {
    outcome = STORE_OK;
    fake_init(false);
    given_store = &fake.store;
    int status = server_up(state);
    fake_add("a", 3);
    return status;
}

static int tear_down(void **state) {
    outcome = STORE_OK;
    on_turn = answer_all;
    int status = server_down(state);
    on_turn = NULL;
    given_store = NULL;
    fake_deinit();
    return status;
}

static void test_the_client_hangs_up(void **state) {
    (void)state;
    for (int i = 0; i < VISITS; i++) {
        int client = begin(&visits[i]);
        UNTIL(is_asked());
        close(client);
        for (int turns = 0; turns < 3; turns++)
            turn();
        on_turn = answer_all;
        until_idle();
        on_turn = NULL;
    }
}

/* All connections are closed, as at the end of a stop. */
static void test_all_are_closed(void **state) {
    (void)state;
    int clients[VISITS];
    for (int i = 0; i < VISITS; i++)
        clients[i] = begin(&visits[i]);
    UNTIL(connections.open == VISITS && is_asked());
    conn_close_all(&connections);
    conn_close_all(&connections);
    UNTIL(!connections.open);
    answer_all();
    until_idle();
    for (int i = 0; i < VISITS; i++)
        close(clients[i]);
}

/* Whether there could be an upgrade now. */
static bool is_quiet(void) {
    conn_hold_all(&connections);
    bool quiet = conn_all_quiet(&connections);
    conn_release_all(&connections);
    return quiet;
}

/* There is no upgrade before the store has done what nobody waits for. */
static void test_an_upgrade_waits_for_the_store(void **state) {
    (void)state;
    int client = begin(&visits[0]);
    UNTIL(is_asked());
    conn_close_all(&connections);
    UNTIL(!connections.open);
    assert_false(is_quiet());
    answer_all();
    turn();
    assert_true(is_quiet());
    close(client);
}

/* Replies leave at the end of a turn, all at once. Until then nothing is quiet; and who is closed
 * gets none. */
static void test_closed_before_the_turn_ends(void **state) {
    (void)state;
    if (!connections.sender)
        skip();
    for (int i = 0; i < 4; i++) {
        int client = begin(&visits[i]);
        UNTIL(is_asked());
        answer_all();
        assert_false(conn_all_quiet(&connections));
        conn_close_all(&connections);
        UNTIL(!connections.open);
        assert_false(client_read(client, &got));
        assert_int_equal(got.len, 0);
        close(client);
        until_idle();
    }
}

static int set_up_ring(void **state) {
    uses_io_uring = true;
    int status = set_up(state);
    uses_io_uring = false;
    return status;
}

/* The store's error is the client's, and the next request is served. */
static void test_the_store_fails(void **state) {
    (void)state;
    for (int i = 0; i < 3 * VISITS; i++) {
        static const struct {
            enum store_error error;
            const char *heard;
        } errors[] = {
            {STORE_FAILED, " 503 "}, {STORE_BUSY, " 503 "}, {STORE_CONSUMERS_FULL, " 409 "}};
        outcome = errors[i % 3].error;
        int client = begin(&visits[i / 3]);
        UNTIL(is_asked());
        on_turn = answer_all;
        UNTIL(!client_read(client, &got));
        on_turn = NULL;
        if (!has_text(&got, errors[i % 3].heard) && !has_text(&got, " 503 "))
            fail_msg("%s: %.*s", visits[i / 3].head, (int)got.len, got.data);
        close(client);
        until_idle();
    }
}

/* --- Batches ---------------------------------------------------------------------------------- */

/* Updates that the store has and has not answered. */
static uint32_t count_appended(void) {
    uint32_t count = 0;
    for (struct list *link = fake.appends.next; link != &fake.appends; link = link->next)
        count += container_of(link, struct store_append, op.link)->count;
    return count;
}

static void test_batches_wait_for_the_store(void **state) {
    (void)state;
    enum { BATCHES = 12, LINES_EACH = 2000 };
    struct visit visit = {"POST /a" HEAD LINES, "{}\n", LINES_EACH};
    int clients[BATCHES], stored = begin(&visit); /* so the store works */
    on_turn = answer_all;
    UNTIL(!client_read(stored, &got));
    close(stored);
    on_turn = NULL;
    for (int i = 0; i < BATCHES; i++)
        clients[i] = begin(&visit);
    UNTIL(count_appended() >= APPEND_MAX_UPDATES);
    for (int turns = 0; turns < 50; turns++)
        turn();
    assert_in_range(count_appended(), APPEND_MAX_UPDATES, APPEND_MAX_UPDATES + LINES_EACH - 1);
    on_turn = answer_all;
    for (int i = 0; i < BATCHES; i++) {
        got.len = 0;
        UNTIL(!client_read(clients[i], &got));
        assert_true(has_text(&got, "HTTP/1.1 200 OK"));
        close(clients[i]);
    }
    until_idle();
    on_turn = NULL;
}

/* --- Polls of many channels ------------------------------------------------------------------- */

/* The store has answered for one of three, and that is news. */
static int begin_many(const char *query, const char *channels) {
    char head[128];
    snprintf(head, sizeof head, "POST /-/poll%s" HEAD, query);
    struct visit visit = {head, channels, 1};
    int client = begin(&visit);
    UNTIL(is_asked());
    return client;
}

static void test_many_of_which_one_is_late(void **state) {
    (void)state;
    int client = begin_many("?sleep=60", "{\"a\":0,\"b\":-1,\"c\":5}");
    assert_false(is_quiet());
    fake_serve_read(STORE_OK);
    assert_false(is_quiet());
    UNTIL(!client_read(client, &got)); /* after MANY_LATE_MS */
    assert_true(has_text(&got, "\"a\":{\"ts\":3,") && !has_text(&got, "\"c\":"));
    close(client);
    answer_all();
    until_idle();
}

static void test_many_of_which_one_fails(void **state) {
    (void)state;
    static struct pack out = {.fd = -1};
    int client = begin_many("?sleep=60&where=method:P*", "{\"a\":3,\"b\":0,\"c\":0}");
    fake_serve_read(STORE_OK);
    fake_serve_read(STORE_FAILED);
    assert_false(is_quiet());
    fake_serve_read(STORE_OK);
    turn();
    assert_true(is_quiet()); /* it waits for the others */
    conn_hold_all(&connections);
    conn_take_out_all(&connections, &out);
    assert_true(memmem(out.buffer, out.len, "method:P*", 9));
    conn_close_all(&connections);
    connections.is_holding = false;
    close(client);
    until_idle();
    client = begin_many("", "{\"d\":0,\"e\":0}");
    fake_serve_read(STORE_OK);
    fake_serve_read(STORE_FAILED);
    UNTIL(!client_read(client, &got));
    assert_true(has_text(&got, "\"e\":{\"error_code\":503"));
    close(client);
}

/* What one of them was answered with is purged before the other is. */
static void test_many_of_which_one_is_purged(void **state) {
    (void)state;
    int client = begin_many("?sleep=60", "{\"a\":0,\"b\":0}");
    int purger = begin(&(struct visit){"DELETE /a" HEAD, "", 1});
    UNTIL(!list_empty(&fake.purges));
    fake_serve_read(STORE_OK);
    fake_answer_purge(STORE_OK);
    fake_serve_read(STORE_OK);
    UNTIL(!client_read(client, &got));
    assert_true(has_text(&got, "HTTP/1.1 200 OK"));
    assert_false(has_text(&got, "life")); /* a body of the store's */
    close(client);
    close(purger);
    until_idle();
}

/* --- A worker that takes its time ------------------------------------------------------------- */

static struct hold {
    struct work work;
    uv_sem_t go_on;
    bool is_over;
} hold;

static void wait_for_it(struct work *work) {
    uv_sem_wait(&container_of(work, struct hold, work)->go_on);
}

static void on_over(struct work *work) {
    container_of(work, struct hold, work)->is_over = true;
}

static void hold_worker(void) {
    hold = (struct hold){.work = {.run = wait_for_it, .done = on_over}};
    uv_sem_init(&hold.go_on, 0);
    worker_submit(&hold.work);
}

static void release_worker(void) {
    uv_sem_post(&hold.go_on);
    UNTIL(hold.is_over);
    uv_sem_destroy(&hold.go_on);
}

static int set_up_large(void **state) {
    int status = server_up(state);
    memset(body, 'x', sizeof body - 1);
    for (int i = 0; i < 4; i++)
        push("large", body, 1);
    push("larger", body, 3);
    return status;
}

static const struct visit large_visits[] = {
    {"GET /large?view=full" HEAD, "", 1},
    {"GET /large?feed=lines&view=full&ts=0" HEAD, "", 1},
    {"POST /-/poll?sleep=0.01" HEAD, "{\"large\":0,\"larger\":-1}", 1},
    {"POST /a" HEAD "Content-Type: text/plain\r\n", body, 2},
};
enum { LARGE_VISITS = sizeof large_visits / sizeof *large_visits };

static void test_the_client_hangs_up_on_the_worker(void **state) {
    (void)state;
    for (int i = 0; i < 2 * LARGE_VISITS; i++) {
        hold_worker();
        int client = begin(&large_visits[i / 2]);
        UNTIL(connections.open);
        for (int turns = 0; turns < 20; turns++)
            turn();
        conn_hold_all(&connections);
        assert_false(conn_all_quiet(&connections));
        conn_release_all(&connections);
        if (i % 2 == 0) {
            conn_close_all(&connections);
            UNTIL(!connections.open);
            close(client);
        } else {
            api.is_draining = true;
            conn_drain_all(&connections); /* what is written is still sent */
            for (int turns = 0; turns < 20; turns++)
                turn();
        }
        release_worker();
        if (i % 2) {
            UNTIL(!client_read(client, &got));
            assert_true(has_text(&got, "HTTP/1.1 200 OK"));
            close(client);
        }
        until_idle();
        api.is_draining = connections.is_draining = false;
    }
}

/* While it writes, a page counts in BUFFER_SIZE; so there are not any number of them. */
static void test_no_room_for_a_page(void **state) {
    (void)state;
    size_t taken = budget_left() - sizeof body;
    hold_worker();
    budget_take(taken);
    int client = begin(&large_visits[0]);
    UNTIL(!client_read(client, &got));
    assert_true(has_text(&got, "HTTP/1.1 503"));
    budget_give(taken);
    release_worker();
    close(client);
}

#define STORE_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_the_client_hangs_up),
        STORE_TEST(test_all_are_closed),
        STORE_TEST(test_an_upgrade_waits_for_the_store),
        cmocka_unit_test_setup_teardown(test_closed_before_the_turn_ends, set_up_ring, tear_down),
        STORE_TEST(test_the_store_fails),
        STORE_TEST(test_batches_wait_for_the_store),
        STORE_TEST(test_many_of_which_one_is_late),
        STORE_TEST(test_many_of_which_one_fails),
        STORE_TEST(test_many_of_which_one_is_purged),
        cmocka_unit_test_setup_teardown(test_the_client_hangs_up_on_the_worker, set_up_large,
                                        server_down),
        cmocka_unit_test_setup_teardown(test_no_room_for_a_page, set_up_large, server_down),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    buf_deinit(&sent);
    return failed;
}
