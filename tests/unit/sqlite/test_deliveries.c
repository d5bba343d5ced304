/* Deliveries that come again: known as long as they should be, whatever became of transactions. */
#include "fixture.h"
#include "sqlite/deliveries.h"

#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>

static uint64_t push_id(int id, bool is_once, uint64_t *same_as) {
    return push_id_to("c", id, is_once, same_as);
}

#define check_push(id, is_once, wanted_ts, wanted_same)                                            \
    do {                                                                                           \
        uint64_t same;                                                                             \
        assert_int_equal(push_id(id, is_once, &same), wanted_ts);                                  \
        assert_int_equal(same, wanted_same);                                                       \
    } while (0)

static void test_known(void **state) {
    (void)state;
    open_log();
    check_push(7, false, 1, 0);
    check_push(7, false, 2, 1);
    check_push(7, true, 1, 1);
    check_push(8, true, 3, 0);
    crash();
    check_push(8, false, 4, 3);
    reopen();
    check_push(7, true, 1, 1);
    now_ms += DAY_MS - 1;
    check_push(7, false, 5, 1);
    now_ms++;
    check_push(7, false, 6, 0); /* a new day, and a new first one */
    check_push(7, false, 7, 6);
}

/* A transaction that fails leaves no id behind, nor half a table. */
static void test_failed(void **state) {
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    open_log();
    assert_int_equal(push("a"), 1);
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    rlim_t before = limit.rlim_cur;
    int failures = 0;
    for (rlim_t room = 0;; room += 4096) {
        char wal[sizeof path + 8];
        struct stat status;
        snprintf(wal, sizeof wal, "%s-wal", path);
        assert_int_equal(stat(wal, &status), 0);
        limit.rlim_cur = (rlim_t)status.st_size + room;
        setrlimit(RLIMIT_FSIZE, &limit);
        uint64_t same, ts = push_id(1, true, &same);
        limit.rlim_cur = before;
        setrlimit(RLIMIT_FSIZE, &limit);
        assert_int_equal(same, 0);
        if (ts) {
            assert_int_equal(ts, 1);
            break;
        }
        failures++;
    }
    assert_true(failures > 0);
    check_push(1, true, 1, 1);
    check_push(2, true, 2, 0);
    crash();
    check_push(1, true, 1, 1);
}

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

static int64_t count_ids(void) {
    return query("SELECT count(*) FROM delivery");
}

static void test_forgotten(void **state) {
    (void)state;
    options.sync = SYNC_NEVER;
    open_log();
    enum { MANY = 1000 };
    uint64_t same;
    for (int i = 0; i < MANY; i++)
        assert_int_equal(push_id(i, false, &same), i + 1);
    assert_int_equal(count_ids(), MANY);
    now_ms += DAY_MS / 2;
    push_id(MANY, false, &same);
    settle();
    assert_int_equal(count_ids(), MANY + 1);
    now_ms += DAY_MS / 2 + HOUR_MS;
    settle();
    assert_int_equal(count_ids(), 1);
}

/* Whether the channel's update with that id is known when it comes again. */
static bool knows(const char *channel, int id) {
    uint64_t same;
    assert_true(push_id_to(channel, id, true, &same) > 0);
    return same != 0;
}

/* Where there is room for 800 ids, one channel cannot push out those of others. */
static void test_loud_and_quiet(void **state) {
    (void)state;
    enum { QUIET = 100, LOUD = 3000, ROOM = 800 };
    char name[16];
    uint64_t same;
    options.sync = SYNC_NEVER;
    options.max_bytes = ROOM * 8 * 128;
    open_log();
    for (int i = 0; i < QUIET; i++) {
        snprintf(name, sizeof name, "quiet%d", i);
        push_id_to(name, 0, true, &same);
    }
    for (int i = 0; i < LOUD; i++)
        push_id_to("loud", i, true, &same);
    assert_int_equal(count_ids(), ROOM);
    for (int i = 0; i < QUIET; i++) {
        snprintf(name, sizeof name, "quiet%d", i);
        assert_true(knows(name, 0));
    }
    assert_true(knows("loud", LOUD - 1));
    assert_true(knows("loud", LOUD - (ROOM - QUIET)));
    for (int i = 0; i < LOUD;
         i++) { /* many channels with few: who comes is known, and the loud one pays */
        snprintf(name, sizeof name, "more%d", i);
        push_id_to(name, 0, true, &same);
        assert_true(knows(name, 0));
    }
    assert_int_equal(count_ids(), ROOM);
    assert_false(knows("loud", 0));
}

/* Whether the id is known, if it comes for the channel's update `ts`. */
static bool comes_again(struct deliveries *deliveries, int64_t ts, uint8_t id) {
    struct delivery delivery = {.has_id = true, .id = {id}};
    assert_true(deliveries_note(deliveries, 1, ts, now_ms, &delivery));
    return delivery.same_as;
}

static void test_a_channel_has_a_bound(void **state) {
    (void)state;
    struct log_file file;
    struct deliveries deliveries;
    char error[512];
    options.path = NULL;
    assert_true(log_file_open(&file, &options, error, sizeof error));
    assert_true(deliveries_init(&deliveries, &file, 0));
    assert_true(log_file_begin(&file));
    assert_false(comes_again(&deliveries, 1, 'a'));
    assert_false(comes_again(&deliveries, DELIVERIES_MAX, 'b'));
    assert_true(comes_again(&deliveries, DELIVERIES_MAX, 'a'));
    assert_false(comes_again(&deliveries, DELIVERIES_MAX + 1, 'c'));
    assert_false(comes_again(&deliveries, DELIVERIES_MAX + 1, 'a'));
    log_file_roll_back(&file);
    log_file_close(&file);
}

/* Else the sweeper would delete updates for them. */
static void test_a_lower_bound(void **state) {
    (void)state;
    uint64_t same;
    open_log();
    for (int i = 0; i < 50; i++)
        push_id(i, false, &same);
    close_log();
    options.max_bytes = 49 * 8 * 128;
    open_log();
    assert_int_equal(count_ids(), 0);
}

static void spoil(const char *sql) {
    sqlite3 *db;
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

/* A bit that has flipped makes an id unknown; it names no other update. */
static void test_damaged(void **state) {
    (void)state;
    open_log();
    check_push(1, false, 1, 0);
    check_push(2, false, 2, 0);
    close_log();
    spoil("UPDATE delivery SET ts = 5 WHERE ts = 1; UPDATE delivery SET born = born + 1 WHERE ts = "
          "2");
    open_log();
    check_push(1, true, 3, 0);
    check_push(2, true, 4, 0);
    check_push(1, true, 3, 3);
    close_log();
    spoil("DROP INDEX delivery_id; CREATE INDEX delivery_id ON delivery (born)");
    open_log();
    uint64_t same;
    assert_true(push_id(1, true, &same) > 0);
}

/* Pushes go on where the ids cannot be read any more. */
static void test_damaged_page(void **state) {
    (void)state;
    open_log();
    check_push(1, false, 1, 0);
    int64_t page = query("SELECT rootpage FROM sqlite_schema WHERE name = 'delivery'");
    close_log();
    FILE *file = fopen(path, "r+b");
    fseek(file, (long)(page - 1) * 8192, SEEK_SET);
    fputs("damage", file);
    fclose(file);
    open_log();
    check_push(1, true, 2, 0);
    check_push(2, true, 3, 0);
}

/* Without an id there is no table. */
static void test_unused(void **state) {
    (void)state;
    open_log();
    assert_int_equal(push("c"), 1);
    settle();
    spoil("CREATE TABLE delivery (x)");
    spoil("DROP TABLE delivery");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_known),          LOG_TEST(test_failed),
        LOG_TEST(test_forgotten),      LOG_TEST(test_a_channel_has_a_bound),
        LOG_TEST(test_a_lower_bound),  LOG_TEST(test_damaged),
        LOG_TEST(test_damaged_page),   LOG_TEST(test_unused),
        LOG_TEST(test_loud_and_quiet),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
