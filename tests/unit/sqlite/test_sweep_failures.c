/* A sweep that fails half-way, at each of SQLite's steps: nothing is deleted that is not past a
 * bound, and nothing at all if it says that it failed. On a database in memory. */
#include "support.h"

#include "base/config.h"
#include "base/log.h"
#include "sqlite/rows.h"
#include "sqlite/sweeper.h"

enum { OLD = 30, YOUNG = 30, CUTOFF_MS = 1000 };

static struct log_file file;
static struct rows rows;
static struct log_state state;
static struct sweeper sweeper;
static struct store_options options;
static int steps_left;

static int fail_at_step(void *context) {
    assert_null(context);
    return --steps_left == 0;
}

static int64_t count(const char *condition) {
    char sql[128];
    int64_t rows_found = -1;
    snprintf(sql, sizeof sql, "SELECT count(*) FROM update_log WHERE %s", condition);
    assert_true(log_file_query(&file, sql, CUTOFF_MS, 0, &rows_found));
    return rows_found;
}

static void add_row(int64_t seq) {
    struct update_parts parts = {.body = SLICE("{}"), .method = SLICE("POST")};
    struct update *update = update_new(&parts);
    struct new_row new = {.update = update,
                          .row = {.seq = seq,
                                  .channel = 1,
                                  .ts = seq,
                                  .prev = seq - 1,
                                  .born = seq <= OLD ? CUTOFF_MS - 1 : CUTOFF_MS}};
    if (seq == 1)
        new.name = SLICE("a");
    assert_true(rows_append(&rows, &new, 1));
    update_unref(update);
}

static void open_file(uint64_t max_bytes) {
    char error[512] = "";
    log_init(LOG_LEVEL_ERROR + 1, false);
    options = (struct store_options){
        .sync = SYNC_NEVER, .max_bytes = max_bytes, .channel_max_updates = YOUNG};
    state = (struct log_state){
        .last_seq = OLD + YOUNG, .checkpoint_seq = OLD + YOUNG, .rows = OLD + YOUNG};
    state.excess.ready = OLD;
    assert_true(log_file_open(&file, &options, error, sizeof error));
    assert_true(rows_init(&rows, &file));
    assert_true(sweeper_init(&sweeper, &file, &state, &options));
    assert_true(log_file_begin(&file));
    for (int64_t seq = 1; seq <= OLD + YOUNG; seq++)
        add_row(seq);
    struct channel_row channel = {.id = 1, .total = OLD + YOUNG, .head = OLD + YOUNG};
    assert_true(rows_put_channel(&rows, SLICE("a"), &channel));
    assert_true(log_file_commit(&file));
}

/* Sweeps with a failure at the given step; true when it came to its end before. */
static bool sweep_until(enum sweep sweep, int step) {
    struct log_state before = state;
    steps_left = step;
    assert_true(log_file_begin(&file));
    assert_int_equal(sweeper_due(&sweeper, sweep == SWEEP_AGE ? CUTOFF_MS : 0, true), sweep);
    sqlite3_progress_handler(file.db, 1, fail_at_step, NULL);
    bool ok = sweeper_sweep(&sweeper, sweep, CUTOFF_MS, OLD / 2);
    sqlite3_progress_handler(file.db, 0, NULL, NULL);
    bool was_interrupted = steps_left <= 0;
    assert_int_equal(ok, !was_interrupted);
    if (ok) {
        assert_true(log_file_commit(&file));
        return true;
    }
    log_file_roll_back(&file);
    state = before;
    sweeper_changed(&sweeper);
    assert_int_equal(count("1"), OLD + YOUNG);
    return false;
}

static void check_sweep(enum sweep sweep, uint64_t max_bytes) {
    open_file(max_bytes);
    int step = 1;
    while (!sweep_until(sweep, step))
        step++;
    assert_true(step > 20);
    assert_int_equal(count("born >= ?1"), YOUNG);
    assert_true(count("born < ?1") < OLD);
    log_file_close(&file);
}

static void test_by_age(void **unused) {
    (void)unused;
    check_sweep(SWEEP_AGE, 0);
}

static void test_by_bytes(void **unused) {
    (void)unused;
    check_sweep(SWEEP_BYTES, 1);
}

static void test_by_count(void **unused) {
    (void)unused;
    check_sweep(SWEEP_COUNT, 0);
}

static void break_down(sqlite3_context *context, int count, sqlite3_value **values) {
    (void)count, (void)values;
    sqlite3_result_error_code(context, SQLITE_CORRUPT);
}

/* What damage keeps it from deleting it leaves alone, for whoever pushes would fail with it. */
static void check_gives_up(const char *trigger, bool ok) {
    open_file(0);
    assert_int_equal(sqlite3_create_function(file.db, "break_down", 0, SQLITE_UTF8, NULL,
                                             break_down, NULL, NULL),
                     SQLITE_OK);
    assert_true(log_file_execute(&file, trigger));
    assert_int_equal(sweeper_due(&sweeper, CUTOFF_MS, true), SWEEP_AGE);
    assert_true(log_file_begin(&file));
    assert_int_equal(sweeper_sweep(&sweeper, SWEEP_AGE, CUTOFF_MS, OLD), ok);
    log_file_roll_back(&file);
    sweeper_changed(&sweeper);
    assert_int_equal(count("born < ?1"), OLD);
    assert_int_not_equal(sweeper_due(&sweeper, CUTOFF_MS, true), SWEEP_AGE);
    log_file_close(&file);
}

static void test_what_cannot_be_deleted(void **unused) {
    (void)unused;
    check_gives_up("CREATE TEMP TRIGGER damage BEFORE DELETE ON update_log"
                   " BEGIN SELECT break_down(); END",
                   false);
    check_gives_up("CREATE TEMP TRIGGER damage BEFORE DELETE ON update_log"
                   " BEGIN SELECT RAISE(IGNORE); END",
                   true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_age),
        cmocka_unit_test(test_by_bytes),
        cmocka_unit_test(test_by_count),
        cmocka_unit_test(test_what_cannot_be_deleted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
