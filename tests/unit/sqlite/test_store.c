/* What passes between the loop and the store thread: who wakes whom, in which order, how much. */
#include "fixture.h"

#include "base/hash.h"
#include "base/turn.h"
#include "sqlite/store.h"

#include <stdatomic.h>
#include <unistd.h>

static uv_loop_t loop;
static struct store *store;
static struct list done; /* operations that were answered, in their order */
static int answers, failures;
static bool is_closed, is_settled;

static void start(void) {
    char text[512];
    store = store_sqlite_open(&loop, &options, text, sizeof text);
    if (!store)
        fail_msg("%s", text);
    is_closed = false;
}

static int set_up_store(void **state) {
    if (set_up(state))
        return -1;
    uv_loop_init(&loop);
    turn_init(&loop);
    list_init(&done);
    answers = failures = 0;
    alarm(600); /* nobody waits for ever for a loop that is not woken */
    start();
    return 0;
}

static void on_closed(void *context) {
    *(bool *)context = true;
}

/* Answers all, and closes. */
static void stop(void) {
    store_close(store, on_closed, &is_closed);
    while (!is_closed)
        uv_run(&loop, UV_RUN_ONCE);
    store = NULL;
}

static int tear_down_store(void **state) {
    if (store)
        stop();
    for (struct list *link; (link = list_shift(&done));)
        append_free(container_of(link, struct store_append, op.link));
    turn_deinit();
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    alarm(0);
    return tear_down(state);
}

static void on_pushed(struct store_op *op) {
    answers++;
    failures += container_of(op, struct store_append, op)->error != STORE_OK;
    list_append(&done, &op->link);
}

static void push_one(struct slice body) {
    struct store_append *append = append_new(SLICE("a"), body);
    append->op.done = on_pushed;
    store_append(store, append);
}

static void push_some(int count) {
    while (count--)
        push_one(SLICE("{}"));
}

static void on_read(struct store_op *op) {
    struct store_read *read = container_of(op, struct store_read, op);
    answers++;
    failures += read->error != STORE_OK;
    read_free(read);
}

static void read_some(int count) {
    while (count--) {
        struct store_read *read = calloc(1, sizeof *read + 1);
        read->op.done = on_read;
        read->limit = READ_MAX_UPDATES;
        read->hash = hash_of(SLICE("a"));
        read->name_len = 1;
        read->name[0] = 'a';
        store_read(store, read);
    }
}

static void run_until(const int *number, int wanted) {
    while (*number < wanted)
        uv_run(&loop, UV_RUN_ONCE);
}

static uint64_t count_commits(void) {
    struct store_stats stats;
    store_stats(store, &stats);
    return stats.commits;
}

/* The updates that were answered have their ts in the order of their answers, and no gap. */
static void check_order(uint64_t first_ts) {
    for (struct list *link; (link = list_shift(&done));) {
        struct store_append *append = container_of(link, struct store_append, op.link);
        assert_int_equal(append->only->ts, first_ts++);
        append_free(append);
    }
}

/* Twenty times nothing waits for the store thread's own waking, each half second. It is tried
 * again: other work on the machine may take as long. */
static void check_wakes(void (*once)(void)) {
    for (int tries = 0; tries < 10; tries++) {
        uint64_t begun = uv_hrtime();
        for (int i = 0; i < 20; i++) {
            usleep(3000); /* it waits again */
            once();
        }
        if (uv_hrtime() - begun < 5000000000)
            return;
    }
    fail_msg("it is woken late, each time");
}

static void push_and_wait(void) {
    push_some(1);
    run_until(&answers, answers + 1);
}

static void test_work_wakes_the_store_thread(void **state) {
    (void)state;
    check_wakes(push_and_wait);
}

static void on_settled(void) {
    is_settled = true;
}

static void settle_and_wait(void) {
    is_settled = false;
    store_settle(store, on_settled);
    while (!is_settled)
        uv_run(&loop, UV_RUN_ONCE);
}

static void test_settling_wakes_both(void **state) {
    (void)state;
    check_wakes(settle_and_wait);
}

/* So that each read brings a MiB. */
static void push_a_mebibyte(void) {
    static char body[READ_MAX_BYTES - 4096];
    memset(body, '1', sizeof body);
    push_one((struct slice){body, sizeof body});
    run_until(&answers, 1);
}

/* No more of them are read than the loop takes. */
static void test_reads_wait_for_the_loop(void **state) {
    (void)state;
    push_a_mebibyte();
    read_some(40);
    uv_run(&loop, UV_RUN_NOWAIT); /* hands them over */
    int taken = answers;
    usleep(300000);
    struct store_stats stats;
    store_stats(store, &stats);
    assert_in_range(stats.reads, taken - 1, taken + 3);
    uint64_t begun = uv_hrtime();
    run_until(&answers, 41);
    assert_true(uv_hrtime() - begun < 5000000000);
    assert_int_equal(failures, 0);
}

/* Nor while there is something else to do. */
static void test_reads_beside_pushes_wait_for_the_loop(void **state) {
    (void)state;
    enum { BATCHES = 8, BATCH = 2048 };
    struct store_stats stats;
    push_a_mebibyte();
    uint64_t before = count_commits();
    push_some(BATCHES * BATCH);
    read_some(40);
    uv_run(&loop, UV_RUN_NOWAIT); /* hands them over */
    while (count_commits() < before + BATCHES)
        usleep(1000);
    store_stats(store, &stats);
    assert_in_range(stats.reads, 1, 3);
    run_until(&answers, 41 + BATCHES * BATCH);
    assert_int_equal(failures, 0);
}

static _Atomic int64_t steady_ms; /* the test moves it while the store thread looks at it */

static int64_t steady_clock(void) {
    return steady_ms;
}

/* Reads that wait for the loop are work that never ends. */
static void test_maintenance_beside_work(void **state) {
    (void)state;
    stop();
    options.steady_ms = steady_clock;
    start();
    push_a_mebibyte();
    read_some(40);
    uv_run(&loop, UV_RUN_NOWAIT); /* hands them over */
    struct store_stats stats = {0};
    for (; !stats.reads; usleep(1000))
        store_stats(store, &stats);
    uint64_t before = stats.commits;
    steady_ms += 2 * HOUR_MS; /* the file must hear what time it is */
    while (count_commits() == before)
        usleep(1000);
    run_until(&answers, 41);
    assert_int_equal(failures, 0);
}

static void test_a_batch_has_a_bound(void **state) {
    (void)state;
    uint64_t before = count_commits();
    push_some(20480);
    run_until(&answers, 20480);
    assert_in_range(count_commits() - before, 10, 30);
    check_order(1);
}

static void test_a_batch_has_a_bound_in_bytes(void **state) {
    (void)state;
    static char body[2 << 20];
    memset(body, '1', sizeof body);
    uint64_t before = count_commits();
    for (int i = 0; i < 32; i++)
        push_one((struct slice){body, sizeof body});
    run_until(&answers, 32);
    assert_in_range(count_commits() - before, 4, 20);
}

/* More than a turn of the loop answers. */
static void test_many_answers(void **state) {
    (void)state;
    push_some(3000);
    run_until(&answers, 3000);
    check_order(1);
}

/* Also when the store thread tells of more while some wait for the next turn. */
static void test_answers_of_a_turn_are_bounded(void **state) {
    (void)state;
    enum { A_TURN = 512, COUNT = 2000 };
    uint64_t before = count_commits();
    push_some(COUNT);
    uv_run(&loop, UV_RUN_NOWAIT); /* hands them over */
    while (count_commits() == before)
        usleep(1000);
    run_until(&answers, 1);
    before = count_commits();
    push_some(1);
    uv_run(&loop, UV_RUN_NOWAIT);
    while (count_commits() == before)
        usleep(1000);
    usleep(1000); /* it tells of it behind that */
    int last = answers;
    uv_run(&loop, UV_RUN_NOWAIT);
    assert_in_range(answers - last, 1, A_TURN);
    run_until(&answers, COUNT + 1);
}

static void test_a_stop_answers_all(void **state) {
    (void)state;
    push_some(5000);
    stop();
    assert_int_equal(answers, 5000);
    assert_int_equal(failures, 0);
    check_order(1);
    start();
    push_some(1);
    run_until(&answers, 5001);
    check_order(5001);
}

/* Nobody waits for them any more. */
static void test_a_stop_reads_nothing(void **state) {
    (void)state;
    push_some(1);
    run_until(&answers, 1);
    read_some(3000);
    stop();
    assert_int_equal(answers, 3001);
    assert_int_equal(failures, 3000);
}

static int set_up_memory(void **state) {
    if (set_up_store(state))
        return -1;
    stop();
    options.path = NULL;
    start();
    return 0;
}

static void test_in_memory(void **state) {
    (void)state;
    push_some(3000);
    read_some(10);
    run_until(&answers, 3010);
    assert_int_equal(failures, 0);
    check_order(1);
    push_some(3000);
    stop();
    assert_int_equal(answers, 6010);
    check_order(3001);
}

static void test_trouble_is_told(void **state) {
    (void)state;
    stop();
    options.sync = SYNC_ALWAYS;
    start();
    failing_sync = "-wal";
    push_some(1);
    run_until(&answers, 1);
    assert_int_equal(failures, 1);
    assert_int_equal(store_health(store, NULL), STORE_FAILED);
    failing_sync = NULL;
    push_some(1);
    run_until(&answers, 2);
    assert_int_equal(failures, 1);
    assert_int_equal(store_health(store, NULL), STORE_OK);
}

/* An epoch that could not be stored ends with its process: consumers must be told at the next. */
static void test_no_stamp_without_the_epoch(void **state) {
    (void)state;
    char lock[160];
    snprintf(lock, sizeof lock, "%s-lock", path);
    options.sync = SYNC_ALWAYS;
    stop();
    assert_int_equal(truncate(lock, 0), 0);
    failing_sync = "-wal";
    start();
    failing_sync = NULL;
    stop();
    FILE *stamp = fopen(lock, "r");
    assert_int_equal(fgetc(stamp), EOF);
    fclose(stamp);
}

#define STORE_TEST(test) cmocka_unit_test_setup_teardown(test, set_up_store, tear_down_store)

int main(void) {
    const struct CMUnitTest tests[] = {
        STORE_TEST(test_work_wakes_the_store_thread),
        STORE_TEST(test_settling_wakes_both),
        STORE_TEST(test_reads_wait_for_the_loop),
        STORE_TEST(test_reads_beside_pushes_wait_for_the_loop),
        STORE_TEST(test_maintenance_beside_work),
        STORE_TEST(test_a_batch_has_a_bound),
        STORE_TEST(test_a_batch_has_a_bound_in_bytes),
        STORE_TEST(test_many_answers),
        STORE_TEST(test_answers_of_a_turn_are_bounded),
        STORE_TEST(test_a_stop_answers_all),
        STORE_TEST(test_a_stop_reads_nothing),
        cmocka_unit_test_setup_teardown(test_in_memory, set_up_memory, tear_down_store),
        STORE_TEST(test_trouble_is_told),
        STORE_TEST(test_no_stamp_without_the_epoch),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
