/* Consumers' cursors: what was saved is found, over kills, failures and damage. */
#include "fixture.h"

#include "base/hash.h"

#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static void save(const char *channel, const char *name, uint64_t ts) {
    assert_true(do_cursor(CURSORS_SAVE, channel, name, ts));
}

static void forget(const char *channel, const char *name) {
    assert_true(do_cursor(CURSORS_FORGET, channel, name, 0));
}

/* `count` names "0", "1", ... */
static bool save_many(const char *channel, uint32_t count, uint64_t ts) {
    struct store_cursors *cursors = cursors_new(channel, CURSORS_SAVE, count);
    for (uint32_t i = 0; i < count; i++) {
        char name[16];
        snprintf(name, sizeof name, "%u", i);
        set_cursor(&cursors->list[i], name, ts);
    }
    return finish_cursors(cursors);
}

static struct store_cursors *load(const char *channel) {
    struct store_cursors *cursors = cursors_new(channel, CURSORS_LOAD, 0);
    update_log_cursors(the_log, cursors);
    assert_false(cursors->error);
    return cursors;
}

static uint32_t count_of(const char *channel) {
    struct store_cursors *cursors = load(channel);
    uint32_t count = cursors->count;
    free(cursors->list);
    free(cursors);
    return count;
}

/* Waits until nothing does. */
static void write_all(void) {
    now_ms += 1000;
    maintain();
}

static int64_t count_rows(const char *sql) {
    sqlite3 *db;
    sqlite3_stmt *statement = NULL;
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
    int64_t count = statement && sqlite3_step(statement) == SQLITE_ROW
                        ? sqlite3_column_int64(statement, 0)
                        : -1;
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return count;
}

static int64_t rows(void) {
    return count_rows("SELECT count(*) FROM consumer");
}

static void test_saved(void **state) {
    (void)state;
    open_log();
    save("a", "bot", 1); /* nobody knows the channel */
    assert_int_equal(count_of("a"), 0);
    push("a");
    push("b");
    assert_int_equal(count_of("a"), 0);
    save("a", "bot", 1);
    assert_int_equal(cursor_of("a", "bot"), 1);
    assert_int_equal(count_of("b"), 0);
    save("a", "bot", 7);
    save("a", "bot", 5); /* never back */
    save("a", "", 3);
    assert_int_equal(rows(), -1);
    write_all();
    assert_int_equal(rows(), 2);
    save("a", "bot", 6);
    save("a", "b\xc3\xb6t", 9);
    assert_int_equal(cursor_of("a", "bot"), 7);
    assert_int_equal(count_of("a"), 3);
    push("b"); /* takes them along */
    assert_int_equal(rows(), 3);
    assert_int_equal(cursor_of("a", "bot"), 7);
    settle(); /* so that the close has nothing else to write */
    save("b", "bot", 1);
    reopen();
    assert_int_equal(cursor_of("a", "bot"), 7);
    assert_int_equal(cursor_of("a", ""), 3);
    assert_int_equal(cursor_of("b", "bot"), 1);
}

static void test_in_memory(void **state) {
    (void)state;
    options.path = NULL;
    open_log();
    push("a");
    save("a", "bot", 1);
    write_all();
    save("a", "b", 1);
    assert_int_equal(count_of("a"), 2);
    forget("a", "bot");
    write_all();
    assert_int_equal(cursor_of("a", "bot"), -1);
    assert_int_equal(count_of("a"), 1);
}

static void test_killed(void **state) {
    (void)state;
    open_log();
    push("a");
    save("a", "written", 1);
    write_all();
    save("a", "appended", 1);
    push("a");
    save("a", "waiting", 1);
    crash();
    assert_int_equal(cursor_of("a", "written"), 1);
    assert_int_equal(cursor_of("a", "appended"), 1);
    assert_int_equal(count_of("a"), 2);
}

/* What rides on an append is synced with it; what does not is there after a kill all the same. */
static void test_no_sync_of_their_own(void **state) {
    (void)state;
    for (int sync = SYNC_ALWAYS; sync <= SYNC_NEVER; sync++) {
        options.sync = sync;
        open_log();
        push("a");
        save("a", "bot", 1);
        settle();
        now_ms += 1000; /* what SYNC=interval owes */
        maintain();
        int before = syncs;
        for (uint64_t ts = 2; ts < 30; ts++) {
            save("a", "bot", ts);
            write_all();
            assert_int_equal(count_rows("SELECT ts FROM consumer"), ts);
        }
        assert_int_equal(syncs, before);
        crash();
        assert_int_equal(cursor_of("a", "bot"), 29);
        before = syncs;
        save("a", "bot", 30);
        push("a");
        assert_int_equal(syncs - before, sync == SYNC_ALWAYS);
        close_log();
        unlink(path);
        is_clean = false;
    }
}

static void test_forgotten(void **state) {
    (void)state;
    open_log();
    push("a");
    forget("a", "nobody");
    write_all();
    assert_int_equal(rows(), -1);
    save("a", "bot", 7);
    forget("a", "bot");
    assert_int_equal(count_of("a"), 0);
    save("a", "bot", 5);
    write_all();
    forget("a", "bot");
    assert_int_equal(count_of("a"), 0);
    save("a", "bot", 2); /* anew */
    assert_int_equal(cursor_of("a", "bot"), 2);
    write_all();
    assert_int_equal(cursor_of("a", "bot"), 2);
    forget("a", "bot");
    push("a");
    crash();
    assert_int_equal(count_of("a"), 0);
    assert_int_equal(rows(), 0);
}

/* An append takes some of many along, and none too often. */
static void test_many(void **state) {
    (void)state;
    open_log();
    push("a");
    assert_true(save_many("a", CONSUMERS_MAX, 1));
    push("a");
    int64_t first = rows();
    assert_true(first > 0 && first < CONSUMERS_MAX / 2);
    assert_int_equal(count_of("a"), CONSUMERS_MAX);
    assert_true(save_many("a", 10, 2)); /* some are written again */
    for (int i = 0; i < 20; i++)
        push("a");
    assert_int_equal(rows(), CONSUMERS_MAX);
    assert_int_equal(cursor_of("a", "9"), 2);
    assert_int_equal(cursor_of("a", "10"), 1);
    /* More than may wait: some are written at once. */
    for (int i = 0; i < 40; i++) {
        char channel[16];
        snprintf(channel, sizeof channel, "c%d", i);
        push(channel);
        push(channel);
    }
    for (int i = 0; i < 40; i++) {
        char channel[16];
        int64_t before = rows();
        snprintf(channel, sizeof channel, "c%d", i);
        assert_true(save_many(channel, CONSUMERS_MAX, 1));
        assert_in_range(rows() - before, 0, 3000);
        assert_int_equal(count_of(channel), CONSUMERS_MAX);
    }
    assert_true(rows() > CONSUMERS_MAX);
    crash();
    write_all();
    assert_int_equal(count_of("c0"), CONSUMERS_MAX);
}

/* What waits is found among what waits of other channels. */
static void test_many_channels(void **state) {
    (void)state;
    open_log();
    push("a");
    for (int round = 0; round < 2; round++)
        for (uint64_t i = 1; i <= 600; i++) {
            char channel[16];
            snprintf(channel, sizeof channel, "c%d", (int)i);
            if (round == 0)
                push(channel);
            save(channel, channel, i + (uint64_t)round);
            save(channel, "bot", i);
            assert_int_equal(count_of(channel), 2);
            assert_int_equal(cursor_of(channel, channel), i + (uint64_t)round);
            assert_int_equal(cursor_of(channel, "bot"), i);
        }
    assert_int_equal(count_of("a"), 0);
}

static void test_expired(void **state) {
    (void)state;
    options.ttl_ms = HOUR_MS;
    open_log();
    push("a");
    push("b");
    save_many("a", CONSUMERS_MAX, 1);
    save("b", "used", 1);
    save("b", "old", 1);
    write_all();
    now_ms += HOUR_MS - 10000;
    save("b", "used", 1);
    write_all();
    maintain();
    assert_int_equal(rows(), CONSUMERS_MAX + 2);
    now_ms += 20000;
    assert_int_equal(count_of("a"), 0); /* before they are deleted */
    now_ms += HOUR_MS / 4;
    settle();
    assert_int_equal(rows(), 1);
    assert_int_equal(cursor_of("b", "used"), 1);
    assert_int_equal(count_of("b"), 1);
}

static void test_forgotten_channel(void **state) {
    (void)state;
    options.ttl_ms = (int64_t)1000 * DAY_MS;
    open_log();
    push("b");
    push("a");
    options.ttl_ms = DAY_MS; /* of updates: they go */
    reopen();
    settle();
    now_ms += (int64_t)364 * DAY_MS + 12 * HOUR_MS;
    push("b");
    save("a", "bot", 1);
    save("b", "bot", 1);
    write_all();
    now_ms += 2 * HOUR_MS;
    settle();
    assert_int_equal(rows(), 2);
    now_ms += 11 * HOUR_MS; /* a year without an update; the bot was used within the day */
    settle();
    now_ms += HOUR_MS;
    settle();
    assert_int_equal(total_of("a"), 0);
    assert_int_equal(count_rows("SELECT count(*) FROM consumer WHERE channel = 2"), 0);
    push("a");
    assert_int_equal(count_of("a"), 0);
}

/* With a bound on bytes, further names are not written. */
static void test_bound(void **state) {
    (void)state;
    enum { ROOM = 341 }; /* 1 MiB / 16 / 192 */
    options.max_bytes = 1 << 20;
    open_log();
    push("a");
    assert_true(save_many("a", CONSUMERS_MAX, 1));
    write_all();
    assert_int_equal(rows(), ROOM);
    assert_true(save_many("a", CONSUMERS_MAX, 2)); /* those that are there go on */
    write_all();
    assert_int_equal(rows(), ROOM);
    assert_int_equal(count_rows("SELECT count(*) FROM consumer WHERE ts = 2"), ROOM);
    for (int i = 0; i < 10; i++) {
        char name[16];
        snprintf(name, sizeof name, "%d", i);
        forget("a", name);
    }
    write_all();
    assert_int_equal(rows(), ROOM - 10);
    now_ms += 1000;
    save("a", "x", 1);
    write_all();
    reopen();
    assert_int_equal(rows(), ROOM - 9);
    now_ms += options.ttl_ms + HOUR_MS;
    settle();
    assert_int_equal(rows(), 0);
    assert_true(save_many("a", CONSUMERS_MAX, 1));
    write_all();
    assert_int_equal(rows(), ROOM);
    now_ms += 1000;
    save("a", "0", 2);
    write_all();
    options.max_bytes = 1 << 17;
    reopen();
    assert_int_equal(rows(), 42);
    assert_int_equal(cursor_of("a", "0"), 2); /* used last */
}

/* However many a file has: they are loaded at once. */
static void test_a_load_has_a_bound(void **state) {
    (void)state;
    enum { MAX = 4 * CONSUMERS_MAX };
    open_log();
    push("a");
    assert_true(save_many("a", MAX + 10, 1));
    write_all();
    assert_int_equal(rows(), MAX + 10);
    assert_int_equal(count_of("a"), MAX);
}

/* --- Failures --------------------------------------------------------------------------------- */

static rlim_t limit_files(rlim_t bytes) {
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    rlim_t before = limit.rlim_cur;
    limit.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &limit);
    return before;
}

static rlim_t wal_bytes(void) {
    char wal[sizeof path + 8];
    struct stat status;
    snprintf(wal, sizeof wal, "%s-wal", path);
    assert_int_equal(stat(wal, &status), 0);
    return (rlim_t)status.st_size;
}

/* Cursors that cannot be written are in no append's way, and wait. */
static void test_in_nobodys_way(void **state) {
    (void)state;
    open_log();
    push("a");
    save("a", "bot", 1);
    write_all();
    run_sql("CREATE TRIGGER no BEFORE INSERT ON consumer BEGIN SELECT RAISE(ABORT, 'no'); END");
    for (uint64_t ts = 2; ts < 5; ts++) {
        save("a", "bot", ts);
        assert_int_equal(push("a"), ts);
        write_all();
        assert_int_equal(cursor_of("a", "bot"), ts);
    }
    assert_int_equal(count_rows("SELECT ts FROM consumer"), 1);
    run_sql("DROP TRIGGER no");
    write_all();
    assert_int_equal(count_rows("SELECT ts FROM consumer"), 4);
    save("a", "bot", 5);
    push("a"); /* they ride again */
    assert_int_equal(count_rows("SELECT ts FROM consumer"), 5);
}

/* A commit of cursors alone that fails is made again. */
static void test_no_room_for_cursors(void **state) {
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    open_log();
    push("a");
    settle();
    save("a", "bot", 1);
    rlim_t before = limit_files(wal_bytes());
    now_ms += 1000;
    assert_false(update_log_maintain(the_log, true));
    limit_files(before);
    assert_int_equal(cursor_of("a", "bot"), 1);
    assert_int_equal(rows(), -1);
    write_all();
    assert_int_equal(rows(), 1);
}

static void spoil(const char *sql) {
    close_log();
    run_sql(sql);
    open_log();
}

static void test_damaged(void **state) {
    (void)state;
    open_log();
    push("a");
    save("a", "x", 1);
    save("a", "y", 1);
    spoil("UPDATE consumer SET ts = 5 WHERE name = CAST('x' AS BLOB)");
    assert_int_equal(cursor_of("a", "x"), -1);
    assert_int_equal(cursor_of("a", "y"), 1);
    save("a", "x", 2);
    write_all();
    assert_int_equal(cursor_of("a", "x"), 2);
    spoil("DROP TABLE consumer; CREATE TABLE consumer (x)");
    assert_int_equal(count_of("a"), 0);
    save("a", "x", 1);
    assert_true(push("a") > 0);
    write_all();
    assert_int_equal(rows(), 1);
    assert_int_equal(cursor_of("a", "x"), 1);
}

/* A page of the table is garbage. */
static void test_damaged_page(void **state) {
    (void)state;
    open_log();
    push("a");
    save_many("a", CONSUMERS_MAX, 1);
    close_log();
    int64_t root = count_rows("SELECT rootpage FROM sqlite_schema WHERE name = 'consumer'");
    FILE *file = fopen(path, "r+b");
    fseek(file, (long)((root - 1) * 8192), SEEK_SET);
    for (int i = 0; i < 8192; i++)
        fputc(0x5a, file);
    fclose(file);
    is_clean = false;
    open_log();
    assert_int_equal(count_of("a"), 0);
    for (int i = 0; i < 5; i++) {
        save("a", "x", 1);
        assert_int_equal(push("a"), 2 + i);
        write_all();
        count_of("a");
    }
    reopen();
    assert_int_equal(push("a"), 7);
    check_read("a", 0, 10, 7, 1, 7);
}

/* Without a name there is no table. */
static void test_unused(void **state) {
    (void)state;
    open_log();
    push("a");
    count_of("a");
    settle();
    assert_int_equal(rows(), -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_saved),
        LOG_TEST(test_in_memory),
        LOG_TEST(test_killed),
        LOG_TEST(test_no_sync_of_their_own),
        LOG_TEST(test_forgotten),
        LOG_TEST(test_many),
        LOG_TEST(test_many_channels),
        LOG_TEST(test_expired),
        LOG_TEST(test_forgotten_channel),
        LOG_TEST(test_bound),
        LOG_TEST(test_a_load_has_a_bound),
        LOG_TEST(test_in_nobodys_way),
        LOG_TEST(test_no_room_for_cursors),
        LOG_TEST(test_damaged),
        LOG_TEST(test_damaged_page),
        LOG_TEST(test_unused),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
