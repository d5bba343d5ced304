/* A start of which each call fails in turn: it is refused, with a reason, or nothing is missing;
 * and the next start finds all that was acknowledged. */
#include "failures.h"

#include "sqlite/wal_repair.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

enum kinds { IO = 1, NOMEM = 2, CORRUPT = 4, MEMORY = 8, SYSTEM = 16, ALL = 31 };

/* Of the first calls each fails, behind them each `step`th, for time's sake. */
enum { FIRST_CALLS = 16 };
static const struct {
    struct failure failure;
    int step;
} failures[] = {
    {{FAIL_SQLITE, SQLITE_IOERR, .rolls_back = true}, 1},
    {{.kind = FAIL_SQLITE, .code = SQLITE_NOMEM}, 8},
    {{.kind = FAIL_SQLITE, .code = SQLITE_CORRUPT}, 2},
    {{.kind = FAIL_MEMORY}, 1},
    {{.kind = FAIL_SYSTEM, .code = ETIMEDOUT}, 2}, /* SQLite takes EIO for damage */
};

/* What must be there, or may be lost to damage. */
typedef void check_content(bool is_damaged);

/* Starts on what put() puts there. False when it needs fewer calls than `n`. */
static bool try_start(const struct failure *failure, int n, void (*put)(void),
                      check_content *check) {
    char error[512] = "";
    bool is_damage = failure_is_damage(failure);
    put();
    fail_at(failure, n);
    the_log = update_log_open(&options, false, error, sizeof error);
    bool has_failed = fail_end();
    if (the_log) {
        check(is_damage);
        close_log();
        return has_failed;
    }
    assert_true(has_failed);
    if (!*error || strchr(error, '\n'))
        fail_msg("call %d: \"%s\" is no reason", n, error);
    if (!is_damage && strstr(error, "restore a backup"))
        fail_msg("call %d: \"%s\" calls a failure damage", n, error);
    open_log();
    check(is_damage);
    close_log();
    return true;
}

static void check_starts(enum kinds kinds, void (*put)(void), check_content *check) {
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++)
        for (int n = 1; kinds >> i & 1 && try_start(&failures[i].failure, n, put, check);)
            n += n < FIRST_CALLS ? 1 : failures[i].step;
}

/* --- Files ------------------------------------------------------------------------------------ */

static void put_nothing(void) {
    is_clean = false;
    char wal[sizeof path + 8];
    snprintf(wal, sizeof wal, "%s-wal", path);
    unlink(path);
    unlink(wal);
}

static void check_new(bool is_damaged) {
    (void)is_damaged;
    assert_int_equal(push("a"), 1);
    check_read("a", 0, 10, 1, 1, 1);
}

static void test_a_new_file(void **state) {
    (void)state;
    check_starts(IO | SYSTEM, put_nothing, check_new);
}

/* Of all that there can be, some of it behind the checkpoint. */
static void make_all(void) {
    uint64_t same, gone;
    options.max_bytes = 64 << 20;
    open_log();
    assert_true(push_many("a", 1, 150));
    assert_true(push_many("b", 1, 5));
    assert_int_equal(push_id_to("b", 7, true, &same), 6);
    assert_true(do_cursor(CURSORS_SAVE, "a", "bot", 120));
    settle();
    assert_int_equal(try_purge("a", 100, &gone), STORE_OK);
    assert_int_equal(push_id_to("b", 8, true, &same), 7);
    assert_true(push_many("a", 151, 2));
    assert_true(push_many("c", 1, 3));
    keep_backup();
    close_log();
}

static void check_all(bool is_damaged) {
    check_read("c", 0, 10, 3, 1, 3);
    assert_int_equal(total_of("a"), 152);
    if (!is_damaged) {
        uint64_t same;
        check_read("a", 0, 1000, 152, 101, 152);
        assert_int_equal(cursor_of("a", "bot"), 120);
        assert_int_equal(push_id_to("b", 7, true, &same), 6);
        assert_int_equal(push_id_to("b", 8, true, &same), 7);
    }
    assert_int_equal(push("a"), 153);
    assert_int_equal(push("b"), 8);
    assert_int_equal(push("d"), 1);
}

static void test_a_file_with_everything(void **state) {
    (void)state;
    make_all();
    check_starts(ALL, put_backup_back, check_all);
}

/* On the backup. */
static void run_sql_on_backup(const char *sql) {
    sqlite3 *db;
    assert_int_equal(sqlite3_open(backup_path(), &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

/* The row of a channel; and behind the checkpoint the newest update of a channel that has other new
 * ones, of one that has none, and of a new one. */
static void make_damaged(void) {
    open_log();
    assert_true(push_many("a", 1, 5));
    assert_true(push_many("b", 1, 5));
    assert_true(push_many("c", 1, 5));
    settle();
    assert_true(push_many("a", 6, 1));
    assert_true(push_many("a", 7, 1));
    assert_true(push_many("b", 6, 1));
    assert_true(push_many("d", 1, 1));
    keep_backup();
    close_log();
    run_sql_on_backup("UPDATE channel SET total = 4 WHERE name = CAST('c' AS BLOB);"
                      "UPDATE update_log SET at = at + 1 WHERE seq > 16");
}

static void check_damaged(bool is_damaged) {
    (void)is_damaged;
    assert_int_equal(total_of("a"), 7);
    assert_int_equal(total_of("b"), 6);
    assert_int_equal(total_of("d"), 1);
    check_read("c", 0, 10, 5, 1, 5);
    assert_int_equal(push("a"), 8);
    assert_int_equal(push("b"), 7);
    assert_int_equal(push("c"), 6);
    assert_int_equal(push("d"), 2);
}

static void test_a_damaged_file(void **state) {
    (void)state;
    make_damaged();
    check_starts(IO | MEMORY, put_backup_back, check_damaged);
}

/* More ids and cursors than a new bound on the bytes leaves room for, and no index of purges. */
static void make_too_much(void) {
    uint64_t same, gone;
    open_log();
    assert_true(push_many("a", 1, 5));
    for (int id = 1; id < 4; id++)
        assert_true(push_id_to("a", id, true, &same));
    assert_true(do_cursor(CURSORS_SAVE, "a", "bot", 1));
    assert_int_equal(try_purge("a", 2, &gone), STORE_OK);
    settle();
    assert_int_equal(try_purge("a", 3, &gone), STORE_OK);
    keep_backup();
    close_log();
    run_sql_on_backup("DROP INDEX purge_job_channel");
    options.max_bytes = 2048;
}

static void check_too_much(bool is_damaged) {
    (void)is_damaged;
    assert_int_equal(total_of("a"), 8);
    assert_int_equal(push("a"), 9);
}

static void test_a_file_with_too_much(void **state) {
    (void)state;
    make_too_much();
    check_starts(IO, put_backup_back, check_too_much);
}

/* As the first version of longline wrote it; its clock was set, once back and once by a week. */
static void make_old(void) {
    open_log();
    keep_backup();
    close_log();
    run_sql_on_backup(
        "DROP TABLE channel; DROP TABLE update_log; DROP TABLE meta; DROP TABLE lax;"
        "DROP TABLE epoch;"
        "CREATE TABLE channel (id INTEGER PRIMARY KEY, name BLOB NOT NULL UNIQUE,"
        " total INTEGER NOT NULL, head INTEGER NOT NULL, mark INTEGER NOT NULL,"
        " last_at INTEGER NOT NULL);"
        "CREATE TABLE update_log (seq INTEGER PRIMARY KEY, channel INTEGER NOT NULL,"
        " ts INTEGER NOT NULL, prev INTEGER NOT NULL, skip INTEGER NOT NULL, at INTEGER NOT NULL,"
        " size INTEGER NOT NULL, name BLOB, body TEXT NOT NULL, raw, method TEXT NOT NULL,"
        " query TEXT NOT NULL, headers TEXT);"
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
        "PRAGMA user_version = 1;"
        "WITH RECURSIVE n(seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM n WHERE seq < 8)"
        " INSERT INTO update_log SELECT seq, 1 + seq % 2, (seq + 1) / 2, max(seq - 2, 0), 0,"
        " 1699000000000 + seq + 604800000 * (seq > 3) - 1000 * (seq > 5), 2,"
        " iif(seq < 3, CAST(char(97 + seq % 2) AS BLOB), NULL), '{}', NULL, 'POST', '', NULL"
        " FROM n;"
        "INSERT INTO channel SELECT channel, name, 2, 5 - channel, 0, at"
        " FROM update_log WHERE name IS NOT NULL;"
        "INSERT INTO meta VALUES ('checkpoint', 4), ('last_channel', 2), ('channel_max', 1000),"
        " ('counted_seq', 4), ('rows', 4), ('excess', 0)");
}

static void check_old(bool is_damaged) {
    (void)is_damaged;
    assert_int_equal(stats().updates, 8);
    check_read("a", 0, 100, 4, 1, 4);
    check_read("b", 0, 100, 4, 1, 4);
    assert_int_equal(push("a"), 5);
    assert_int_equal(push("b"), 5);
}

static void test_an_old_file(void **state) {
    (void)state;
    make_old();
    check_starts(IO | MEMORY, put_backup_back, check_old);
}

static int64_t wal_most_bytes;

static void look_at_wal(void) {
    char wal[sizeof path + 8];
    struct stat now;
    snprintf(wal, sizeof wal, "%s-wal", path);
    if (stat(wal, &now) == 0 && now.st_size > wal_most_bytes)
        wal_most_bytes = now.st_size;
}

/* The write-ahead log is copied once in 64 MiB, which are eight updates by what the file says. */
static void test_an_upgrade_of_many_bytes(void **state) {
    (void)state;
    make_old();
    run_sql_on_backup(
        "WITH RECURSIVE n(i) AS (SELECT 9 UNION ALL SELECT i + 1 FROM n WHERE i < 200)"
        " INSERT INTO update_log SELECT i, channel, (i + 1) / 2, i - 2, 0, at, size, name, body,"
        " raw, method, query, headers FROM n, update_log WHERE seq = 8 - i % 2;"
        "UPDATE update_log SET size = 8388608");
    put_backup_back();
    options.at_work = look_at_wal;
    open_log();
    assert_int_equal(total_of("a"), 100);
    assert_in_range(wal_most_bytes, 1, 1 << 20);
}

/* --- A write-ahead log with a flipped bit ----------------------------------------------------- */

static const char *backup_wal(void) {
    static char text[80];
    snprintf(text, sizeof text, "%s-wal", backup_path());
    return text;
}

static void flip(long at, int bit) {
    FILE *wal = fopen(backup_wal(), "r+b");
    fseek(wal, at, SEEK_SET);
    int byte = fgetc(wal);
    assert_true(byte >= 0);
    fseek(wal, at, SEEK_SET);
    fputc(byte ^ bit, wal);
    fclose(wal);
}

/* Whether mending it writes all of the log anew. */
static bool is_rewritten(void) {
    struct stat before, after;
    struct wal_end end;
    char error[256];
    assert_int_equal(stat(backup_wal(), &before), 0);
    assert_int_equal(wal_repair(backup_path(), true, true, &end, error, sizeof error),
                     WAL_REPAIRED);
    assert_int_equal(stat(backup_wal(), &after), 0);
    return before.st_ino != after.st_ino;
}

/* One that only the flipped bit explains, or one that several explain. */
static void make_flipped(bool is_certain) {
    enum { FIRST_PAGE = WAL_HEADER_BYTES + WAL_FRAME_HEADER_BYTES };
    options.sync = SYNC_ALWAYS;
    open_log();
    for (int i = 0; i < 4; i++)
        push("a");
    for (long at = FIRST_PAGE;; at++) {
        keep_backup();
        flip(at, is_certain ? 1 : 0x80);
        if (is_rewritten() == !is_certain) {
            keep_backup();
            flip(at, is_certain ? 1 : 0x80);
            break;
        }
    }
    close_log();
}

static void check_flipped(bool is_damaged) {
    (void)is_damaged;
    check_read("a", 0, 10, 4, 1, 4);
    assert_int_equal(push("a"), 5);
}

static void test_a_bit_of_the_log(void **state) {
    (void)state;
    make_flipped(true);
    check_starts(MEMORY | SYSTEM, put_backup_back, check_flipped);
}

static void test_a_bit_of_the_log_that_is_not_certain(void **state) {
    (void)state;
    make_flipped(false);
    check_starts(MEMORY | SYSTEM, put_backup_back, check_flipped);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_a_new_file),       LOG_TEST(test_a_file_with_everything),
        LOG_TEST(test_a_damaged_file),   LOG_TEST(test_a_file_with_too_much),
        LOG_TEST(test_an_old_file),      LOG_TEST(test_an_upgrade_of_many_bytes),
        LOG_TEST(test_a_bit_of_the_log), LOG_TEST(test_a_bit_of_the_log_that_is_not_certain),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
