/* Purges: what is not read any more at once, what is deleted and overwritten later. */
#include "fixture.h"

#include "sqlite/purges.h"
#include "sqlite/seal.h"
#include "sqlite/update_log_parts.h"

#include <sqlite3.h>

static uint64_t passed_ns, step_ns; /* what has passed beside real time, and does when asked */

uint64_t __real_uv_hrtime(void);
uint64_t __wrap_uv_hrtime(void);
uint64_t __wrap_uv_hrtime(void) {
    passed_ns += step_ns;
    return __real_uv_hrtime() + passed_ns;
}

static uint64_t purge(const char *channel, uint64_t upto) {
    uint64_t gone;
    assert_int_equal(try_purge(channel, upto, &gone), STORE_OK);
    return gone;
}

#define purge_all(channel) purge(channel, UINT64_MAX)

/* How often the text stands in the file and its write-ahead log. */
static int count_in_files(const char *text) {
    char command[512];
    snprintf(command, sizeof command, "cat %s %s-wal 2>/dev/null | grep -ao '%s' | wc -l", path,
             path, text);
    FILE *out = popen(command, "r");
    int count = -1;
    assert_int_equal(fscanf(out, "%d", &count), 1);
    pclose(out);
    return count;
}

/* A number that the file says, read by somebody else. */
static int64_t query(const char *sql) {
    sqlite3 *db;
    sqlite3_stmt *statement;
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    int64_t number = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return number;
}

/* All that purges have left, with the checkpoint that it needs. */
static void finish(void) {
    for (int i = 0; i < 5; i++) {
        now_ms += 6000;
        maintain();
    }
    assert_int_equal(query("SELECT count(*) FROM purge_job"), 0);
}

static void push_some(const char *channel, uint64_t first, uint64_t last) {
    for (uint64_t ts = first; ts <= last; ts++)
        assert_int_equal(push(channel), ts);
}

static void check_gone(const char *channel, uint64_t gone) {
    struct store_read *read = read_channel(channel, 0);
    assert_int_equal(read->gone, gone);
    read_free(read);
}

static void test_floor(void **state) {
    (void)state;
    static const uint64_t floors[] = {0, 1, 127, 128, 129, 255, 300, 399, 400};
    open_log();
    for (uint64_t ts = 1; ts <= 400; ts++) {
        assert_int_equal(push("a"), ts);
        assert_int_equal(push("b"), ts);
    }
    for (size_t i = 0; i < sizeof floors / sizeof *floors; i++) {
        assert_int_equal(purge("a", floors[i]), floors[i]);
        for (int round = 0; round < 5; round++) {
            check_read("a", 0, 1000, 400, floors[i] + 1, 400);
            check_read("a", -1000, 1000, 400, floors[i] + 1, 400);
            check_read("a", (int64_t)floors[i], 1000, 400, floors[i] + 1, 400);
            check_read("a", 398, 1000, 400, floors[i] < 398 ? 399 : floors[i] + 1, 400);
            check_gone("a", floors[i]);
            if (round == 0)
                reopen();
            if (round == 1)
                crash();
            if (round == 2 && floors[i])
                finish();
            if (round == 3)
                crash();
        }
        assert_int_equal(purge("a", 0), floors[i]);
    }
    check_read("b", 0, 1000, 400, 1, 400);
    assert_int_equal(query("SELECT count(*) FROM update_log"), 400);
    assert_int_equal(stats().updates, 400);
    push_some("a", 401, 402);
    check_read("a", 0, 1000, 402, 401, 402);
    assert_int_equal(purge("a", 1000000), 402);
    assert_int_equal(purge_all("unknown"), 0);
}

/* A channel that only the log knows, for no checkpoint has been: a replay must find its floor. */
static void test_before_any_checkpoint(void **state) {
    (void)state;
    open_log();
    push_some("a", 1, 5);
    assert_int_equal(purge("a", 3), 3);
    crash();
    check_read("a", 0, 100, 5, 4, 5);
    push_some("a", 6, 6);
    assert_int_equal(purge_all("a"), 6);
    for (int i = 0; i < 10; i++)
        update_log_purge_some(the_log); /* the checkpoint lags behind: nothing may be deleted yet */
    assert_int_equal(query("SELECT count(*) FROM update_log WHERE ts > 3"), 3);
    crash();
    check_read("a", 0, 100, 6, 7, 6);
    push_some("a", 7, 7);
    finish();
    check_read("a", 0, 100, 7, 7, 7);
    crash();
    check_read("a", 0, 100, 7, 7, 7);
}

/* A purge while an earlier one of the same channel is half done. */
static void test_one_after_the_other(void **state) {
    (void)state;
    open_log();
    assert_true(push_many("a", 1, 20000));
    now_ms += 6000;
    settle();
    assert_int_equal(purge("a", 15000), 15000);
    int64_t before = query("SELECT count(*) FROM update_log");
    while (query("SELECT count(*) FROM update_log") == before)
        update_log_purge_some(the_log);
    assert_true(query("SELECT count(*) FROM update_log WHERE ts <= 15000") > 0);
    assert_int_equal(purge("a", 16000), 16000);
    crash();
    assert_int_equal(purge("a", 17000), 17000);
    finish();
    assert_int_equal(query("SELECT count(*) FROM update_log"), 3000);
    check_read("a", 0, 5000, 20000, 17001, 20000);
}

/* However many channels have a floor, none of the store's turns removes more than some of them. */
static void test_floors_are_forgotten_in_slices(void **state) {
    (void)state;
    enum { CHANNELS = 10000, A_SLICE = 4096 };
    char sql[256];
    options.ttl_ms = DAY_MS;
    open_log();
    push_some("a", 1, 5);
    purge_all("a");
    finish();
    push_some("b", 1, 1);
    settle();
    close_log();
    snprintf(sql, sizeof sql,
             "WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL SELECT i + 1 FROM n WHERE i < %d)"
             " INSERT INTO purge SELECT i, 1, 1, 0 FROM n",
             1000 + CHANNELS - 1);
    run_sql(sql);
    open_log();
    while (update_log_purge_some(the_log))
        ;
    int64_t before, left = query("SELECT count(*) FROM purge");
    assert_int_equal(left, CHANNELS + 1);
    do {
        before = left;
        update_log_maintain(the_log, true);
        left = query("SELECT count(*) FROM purge");
        assert_in_range(before - left, 0, A_SLICE);
    } while (left < before);
    assert_int_equal(left, 0);
}

static void write_at(long offset, const char *text, size_t count) {
    FILE *file = fopen(path, "r+b");
    fseek(file, offset, SEEK_SET);
    fwrite(text, 1, count, file);
    fclose(file);
}

static uint32_t read_number(long offset, size_t bytes) {
    FILE *file = fopen(path, "rb");
    uint32_t number = 0;
    fseek(file, offset, SEEK_SET);
    for (size_t i = 0; i < bytes; i++)
        number = number << 8 | (uint32_t)fgetc(file);
    fclose(file);
    return number;
}

/* As SQLite may leave it: in a free page, behind a list of them, and between the cells of a page
 * of a B-tree. */
static void test_what_was_deleted_before(void **state) {
    (void)state;
    static char body[100000];
    memset(body, 'y', sizeof body);
    open_log();
    for (int i = 0; i < 5; i++)
        push_body("large", (struct slice){body, sizeof body});
    push_some("a", 1, 300);
    settle();
    close_log();
    run_sql("PRAGMA secure_delete = ON; DELETE FROM update_log WHERE channel = 1 AND ts < 4");
    long trunk = (long)(read_number(32, 4) - 1) * 8192;
    uint32_t count = read_number(trunk + 4, 4);
    assert_true(count > 2);
    long leaf = (long)(read_number(trunk + 8 + 4 * (long)(count / 2), 4) - 1) * 8192;
    write_at(leaf, "\rleft-behind", 12); /* it looks like a page of a B-tree */
    write_at(leaf + 8192 - 11, "left-behind", 11);
    write_at(trunk + 8 + 4 * (long)count, "left-behind", 11);
    long tree = 0;
    while (read_number(tree, 1) != 0x0d || read_number(tree + 5, 2) < 200)
        tree += 8192;
    write_at(tree + 8 + 2 * (long)read_number(tree + 3, 2), "left-behind", 11);
    assert_int_equal(count_in_files("left-behind"), 4);
    open_log();
    assert_int_equal(purge("a", 10), 10);
    finish();
    assert_int_equal(count_in_files("left-behind"), 0);
    assert_int_equal(query("SELECT count(*) FROM pragma_integrity_check WHERE"
                           " integrity_check <> 'ok'"),
                     0);
    check_read("a", 0, 1000, 300, 11, 300);
}

static void test_it_is_as_durable_as_a_push(void **state) {
    (void)state;
    options.sync = SYNC_ALWAYS;
    open_log();
    push_some("a", 1, 3);
    int before = syncs;
    purge_all("a");
    assert_true(syncs > before); /* as a push */
    check_read("a", 0, 10, 3, 4, 3);
}

/* What is overwritten is on the disk before a purge counts as done, whatever SYNC says. */
static void test_wiping_is_synced(void **state) {
    (void)state;
    options.sync = SYNC_NEVER;
    open_log();
    push_some("a", 1, 5);
    settle();
    int before = syncs;
    purge_all("a");
    failing_sync = "log.db";
    settle();
    assert_int_equal(query("SELECT count(*) FROM purge_job"), 1);
    failing_sync = NULL;
    finish();
    assert_true(was_synced("log.db", before));
}

/* More than is wiped at once. */
static void push_large(void) {
    static char body[1 << 20];
    memset(body, 'x', sizeof body);
    push_body("large", (struct slice){body, sizeof body});
}

/* Goes on until pages are being overwritten. */
static void begin_wipe(void) {
    now_ms += 6000;
    step_ns = 1000000;
    while (!wipe_is_scanning(&the_log->purges.wipe))
        update_log_maintain(the_log, true);
    step_ns = 0;
}

/* What retention deletes is not wiped; SQLite overwrites its cells. */
static void test_what_retention_deletes(void **state) {
    (void)state;
    options.ttl_ms = HOUR_MS;
    open_log();
    push_body("a", SLICE("\"left-behind\""));
    settle();
    now_ms += 2 * HOUR_MS;
    push_some("b", 1, 1);
    settle();
    close_log();
    assert_int_equal(count_in_files("left-behind"), 0);
    open_log();
}

/* Else pages that SQLite moves could take their room to where the wipe has been. */
static void test_the_sweeper_waits_for_a_wipe(void **state) {
    (void)state;
    options.ttl_ms = DAY_MS;
    open_log();
    push_some("old", 1, 5);
    push_large();
    push_some("a", 1, 1);
    settle();
    purge_all("a");
    begin_wipe();
    now_ms += 2 * DAY_MS;
    update_log_maintain(the_log, false);
    assert_int_equal(query("SELECT count(*) FROM update_log"), 6);
    finish();
    settle();
    assert_int_equal(query("SELECT count(*) FROM update_log"), 0);
}

/* It has a wipe of its own, behind that. */
static void test_a_purge_during_a_wipe(void **state) {
    (void)state;
    open_log();
    push_some("a", 1, 3);
    for (uint64_t ts = 1; ts <= 3; ts++)
        purge("a", ts);
    finish();
    push_large();
    push_some("b", 1, 1);
    static char body[100000];
    for (size_t at = 0; at + 12 < sizeof body; at += 11)
        memcpy(body + at, "left-behind", 11);
    push_body("c", (struct slice){body, sizeof body});
    settle();
    purge_all("b");
    begin_wipe();
    purge_all("c");
    finish();
    assert_int_equal(query("SELECT count(*) FROM update_log"), 1);
    assert_int_equal(count_in_files("left-behind"), 0);
}

/* A purge need not wait until a checkpoint is due, nor does one that fails try without a pause. */
static void test_when_it_is_done(void **state) {
    (void)state;
    open_log();
    push_some("a", 1, 5);
    purge_all("a");
    now_ms += 2000;
    maintain();
    assert_int_equal(query("SELECT count(*) FROM update_log"), 0);
    push_some("a", 6, 6);
    settle();
    purge_all("a");
    assert_int_equal(purges_due(&the_log->purges, options.steady_ms()), PURGE_DELETE);
    purges_failed(&the_log->purges, options.steady_ms());
    assert_int_equal(purges_due(&the_log->purges, options.steady_ms()), PURGE_WAIT);
}

static void test_count_bound_and_purge(void **state) {
    (void)state;
    options.channel_max_updates = 10;
    open_log();
    push_some("a", 1, 100);
    assert_int_equal(purge("a", 5), 90); /* gone is gone */
    assert_int_equal(purge("a", 95), 95);
    check_read("a", 0, 100, 100, 96, 100);
    finish();
    settle();
    check_read("a", 0, 100, 100, 96, 100);
    assert_int_equal(query("SELECT count(*) FROM update_log"), 5);
    assert_int_equal(stats().updates, 5);
    options.channel_max_updates = 1000; /* brings nothing back */
    reopen();
    check_read("a", 0, 100, 100, 96, 100);
}

/* A floor is forgotten when all rows of the log are newer. */
static void test_floors_are_forgotten(void **state) {
    (void)state;
    options.ttl_ms = 2 * HOUR_MS;
    open_log();
    push_some("b", 1, 1);
    push_some("a", 1, 5);
    purge_all("a");
    finish();
    assert_int_equal(query("SELECT count(*) FROM purge"), 1);
    now_ms += 3 * HOUR_MS;
    push_some("b", 2, 2);
    settle();
    now_ms += 2 * HOUR_MS / 2 + 6000;
    settle();
    assert_int_equal(query("SELECT count(*) FROM purge"), 0);
    crash();
    check_read("a", 0, 100, 5, 6, 5);
    check_gone("a", 5);
}

/* The write-ahead log cannot be emptied then; rows can be deleted all the same. */
static void test_while_somebody_reads(void **state) {
    (void)state;
    sqlite3 *reader;
    open_log();
    push_some("a", 1, 5);
    push_some("b", 1, 5);
    settle();
    purge_all("a");
    assert_int_equal(sqlite3_open(path, &reader), SQLITE_OK);
    assert_int_equal(sqlite3_exec(reader, "BEGIN; SELECT * FROM update_log", NULL, NULL, NULL),
                     SQLITE_OK);
    settle();
    assert_int_equal(query("SELECT count(*) FROM update_log WHERE channel = 1"), 0);
    purge_all("b");
    settle();
    assert_int_equal(query("SELECT count(*) FROM update_log"), 0);
    assert_int_equal(query("SELECT count(*) FROM purge_job"), 2);
    sqlite3_close(reader);
    finish();
    check_gone("a", 5);
    check_gone("b", 5);
}

/* Floors and jobs say the same while rows are left: one of them is enough. */
static void test_damaged_floors(void **state) {
    (void)state;
    static const char *const damages[] = {
        "UPDATE purge SET upto = 1", "UPDATE purge SET channel = 77",
        "UPDATE purge_job SET upto = 1", "UPDATE purge_job SET channel = 77"};
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        open_log();
        push_some("a", 1, 5);
        assert_int_equal(purge("a", 3), 3);
        close_log();
        run_sql(damages[i]);
        open_log();
        check_read("a", 0, 100, 5, 4, 5);
        check_gone("a", 3);
        close_log();
        unlink(path);
    }
    static const char *const tables[] = {"purge", "purge_job"};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        char sql[128];
        open_log();
        push_some("a", 1, 5);
        assert_int_equal(purge("a", 3), 3);
        snprintf(sql, sizeof sql, "SELECT rootpage FROM sqlite_schema WHERE name = '%s'",
                 tables[i]);
        int64_t page = query(sql);
        close_log();
        write_at((long)(page - 1) * 8192, "damage", 6);
        open_log();
        check_read("a", 0, 100, 5, 4, 5);
        push_some("a", 6, 6);
        close_log();
        unlink(path);
    }
    open_log();
}

static void test_jobs_that_cannot_be_read(void **state) {
    (void)state;
    open_log();
    push_some("a", 1, 5);
    purge_all("a");
    int64_t page = query("SELECT rootpage FROM sqlite_schema WHERE name = 'purge_job'");
    close_log();
    write_at((long)(page - 1) * 8192, "damage", 6);
    open_log();
    uint64_t before = stats().errors;
    for (int i = 0; i < 3; i++) {
        now_ms += 6000;
        settle();
    }
    assert_int_equal(stats().errors, before + 1);
    check_gone("a", 5);
    push_some("a", 6, 6);
    check_read("a", 0, 100, 6, 6, 6);
}

/* It tries each number, but not all that a damaged link may say. */
static void test_a_search_behind_damage_has_a_bound(void **state) {
    (void)state;
    struct log_file file;
    struct rows rows = {0};
    struct update_row row;
    char error[512];
    open_log();
    push_some("a", 1, 5);
    int64_t page = query("SELECT rootpage FROM sqlite_schema WHERE name = 'update_log'");
    close_log();
    write_at((long)(page - 1) * 8192, "damage", 6);
    assert_true(log_file_open(&file, &options, error, sizeof error));
    assert_true(rows_init(&rows, &file));
    alarm(600);
    assert_int_equal(rows_find_older(&rows, 1, INT64_MAX, 1, &row), ROW_MISSING);
    alarm(0);
    log_file_close(&file);
}

/* Where damage makes a job come to a row of another channel, or to one that is not purged. */
static void test_rows_that_are_not_the_jobs(void **state) {
    (void)state;
    open_log();
    push_some("a", 1, 5); /* seqs 1 to 5 */
    push_some("b", 1, 3); /* 6 to 8 */
    push_some("a", 6, 8); /* 9 to 11 */
    push_some("b", 4, 4); /* 12 */
    static const int64_t seqs[] = {12, 11, 8};
    for (size_t i = 0; i < sizeof seqs / sizeof *seqs; i++) {
        assert_int_equal(purge("a", i + 1), i + 1);
        assert_int_equal(query("SELECT count(*) FROM purge_job"), 1);
        close_log();
        char sql[160];
        int64_t job[] = {(int64_t)i + 1, 1, (int64_t)i + 1, seqs[i]};
        snprintf(sql, sizeof sql, "UPDATE purge_job SET id = %d, seq = %d, seal = %lld",
                 (int)job[0], (int)job[3], (long long)seal_purge(job, 4));
        run_sql(sql);
        open_log();
        finish();
        check_read("a", 0, 100, 8, i + 2, 8);
        check_read("b", 0, 100, 4, 1, 4);
    }
    assert_int_equal(query("SELECT count(*) FROM update_log WHERE channel = 2"), 4);
}

/* Its row is made again from the log, of which the purge has deleted the newest rows. */
static void test_a_channel_whose_row_is_damaged(void **state) {
    (void)state;
    open_log();
    push_some("a", 1, 300);
    push_some("b", 1, 1);
    assert_int_equal(purge("a", 299), 299);
    assert_int_equal(purge_all("a"), 300);
    close_log();
    run_sql("DELETE FROM update_log WHERE channel = 1 AND ts > 100;"
            "UPDATE channel SET total = 7 WHERE id = 1");
    open_log();
    assert_int_equal(total_of("a"), 300);
    push_some("a", 301, 500);
    for (int round = 0; round < 3; round++) {
        check_read("a", 0, 1000, 500, 301, 500);
        check_gone("a", 300);
        if (round == 0)
            crash();
        if (round == 1)
            finish();
    }
    check_read("b", 0, 100, 1, 1, 1);
}

static const char *refused; /* the table from which nothing may be deleted */

static int authorize(void *context, int action, const char *table, const char *column,
                     const char *db, const char *trigger) {
    (void)context, (void)column, (void)db, (void)trigger;
    return action == SQLITE_DELETE && refused && table && !strcmp(table, refused) ? SQLITE_DENY
                                                                                  : SQLITE_OK;
}

static int count_statements(sqlite3 *db) {
    int count = 0;
    for (sqlite3_stmt *next = NULL; (next = sqlite3_next_stmt(db, next));)
        count++;
    return count;
}

/* The tables go with the transaction that made them: nobody asks them any more, whichever of the
 * statements was the last that could be prepared. */
static void test_the_first_purge_fails(void **state) {
    (void)state;
    static const char *const tables[] = {NULL, "purge", "purge_job", "update_log"};
    struct log_file file;
    struct log_state log_state = {0};
    struct wal wal;
    struct rows rows = {0};
    struct purges purges;
    char error[512];
    assert_true(log_file_open(&file, &options, error, sizeof error));
    assert_true(wal_init(&wal, &file, &options));
    assert_true(rows_init(&rows, &file));
    assert_true(purges_init(&purges, &file, &rows, &log_state, &wal));
    sqlite3_set_authorizer(file.db, authorize, NULL);
    int statements = count_statements(file.db);
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        struct purge_range range = {.channel = 1, .upto = 5, .seq = 5, .last_seq = 5};
        uint64_t floor = 1;
        refused = tables[i];
        assert_true(log_file_begin(&file));
        assert_true(purges_add(&purges, &range) == !refused);
        log_file_roll_back(&file);
        purges_undone(&purges);
        assert_int_equal(count_statements(file.db), statements);
        assert_true(rows_find_floor(&rows, 1, &floor));
        assert_int_equal(floor, 0);
    }
    purges_deinit(&purges);
    log_file_close(&file);
}

static int refuse_commit(void *context) {
    (void)context;
    return 1;
}

/* Its tables are gone again, and the next one makes them. */
static void test_the_first_purge_is_not_committed(void **state) {
    (void)state;
    uint64_t gone;
    open_log();
    push_some("a", 1, 3);
    sqlite3_commit_hook(the_log->file.db, refuse_commit, NULL);
    assert_int_equal(try_purge("a", 2, &gone), STORE_FAILED);
    check_gone("a", 0);
    sqlite3_commit_hook(the_log->file.db, NULL, NULL);
    purge("a", 2);
    check_gone("a", 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_floor),
        LOG_TEST(test_before_any_checkpoint),
        LOG_TEST(test_one_after_the_other),
        LOG_TEST(test_what_was_deleted_before),
        LOG_TEST(test_it_is_as_durable_as_a_push),
        LOG_TEST(test_wiping_is_synced),
        LOG_TEST(test_what_retention_deletes),
        LOG_TEST(test_the_sweeper_waits_for_a_wipe),
        LOG_TEST(test_a_purge_during_a_wipe),
        LOG_TEST(test_when_it_is_done),
        LOG_TEST(test_count_bound_and_purge),
        LOG_TEST(test_floors_are_forgotten),
        LOG_TEST(test_floors_are_forgotten_in_slices),
        LOG_TEST(test_while_somebody_reads),
        LOG_TEST(test_damaged_floors),
        LOG_TEST(test_jobs_that_cannot_be_read),
        LOG_TEST(test_a_search_behind_damage_has_a_bound),
        LOG_TEST(test_rows_that_are_not_the_jobs),
        LOG_TEST(test_a_channel_whose_row_is_damaged),
        LOG_TEST(test_the_first_purge_fails),
        LOG_TEST(test_the_first_purge_is_not_committed),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
