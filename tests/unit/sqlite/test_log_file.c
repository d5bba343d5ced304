/* Files that are not ours, and a log without a file. */
#include "fixture.h"
#include "sqlite/log_file.h"
#include "sqlite/sql.h"

#include <sqlite3.h>
#include <unistd.h>

static void execute(const char *sql) {
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void check_does_not_open(const char *reason) {
    char error[512] = "";
    struct update_log *log = update_log_open(&options, false, error, sizeof error);
    if (log)
        update_log_close(log, false);
    assert_null(log);
    if (!strstr(error, reason) || !strstr(error, path) || strchr(error, '\n'))
        fail_msg("\"%s\" does not say \"%s\"", error, reason);
}

static void test_unknown_version(void **state) {
    (void)state;
    open_log();
    assert_int_equal(push("a"), 1);
    close_log();
    execute("PRAGMA user_version = 3");
    check_does_not_open("schema version 3");
    execute("PRAGMA user_version = 0");
    check_does_not_open("schema version 0");
    execute("PRAGMA user_version = 2");
    open_log();
    check_read("a", 0, 10, 1, 1, 1);
}

static void test_foreign_files(void **state) {
    (void)state;
    execute("CREATE TABLE t (x)");
    check_does_not_open("not a longline database");
    unlink(path);
    execute("PRAGMA application_id = 7");
    check_does_not_open("not a longline database");
    unlink(path);
    FILE *out = fopen(path, "wb");
    for (int i = 0; i < 1000; i++)
        fputs("This is no database. ", out);
    fclose(out);
    check_does_not_open("");
    unlink(path);
    snprintf(path, sizeof path, "%s/no/such/directory", dir);
    check_does_not_open("");
}

static int64_t count_pages(const struct log_file *file) {
    int64_t pages;
    assert_true(sql_get(file->page_count, &pages));
    return pages;
}

/* What was free for five seconds goes, a slice at a time; some is kept. */
static void test_a_log_in_memory_gives_back(void **state) {
    (void)state;
    struct log_file file;
    char error[256];
    assert_true(log_file_open(&file, &(struct store_options){.path = NULL}, error, sizeof error));
    assert_true(log_file_execute(&file, "CREATE TABLE t (x)"));
    assert_true(log_file_execute(&file, "INSERT INTO t VALUES (zeroblob(20000000))"));
    assert_false(log_file_give_back(&file, 5000));
    assert_true(log_file_execute(&file, "DELETE FROM t"));
    assert_false(log_file_give_back(&file, 9000));
    assert_false(log_file_give_back(&file, 10000)); /* it was not free all the time */
    int64_t most = count_pages(&file);
    assert_true(most > 20000000 / 8192);
    assert_false(log_file_give_back(&file, 14999));
    assert_true(log_file_give_back(&file, 15000));
    assert_in_range(count_pages(&file), most - 32, most - 1);
    while (log_file_give_back(&file, 15000))
        ;
    assert_in_range(count_pages(&file), 512 - 32, 520);
    assert_false(log_file_give_back(&file, 20000));
    log_file_close(&file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_unknown_version),
        LOG_TEST(test_foreign_files),
        cmocka_unit_test(test_a_log_in_memory_gives_back),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
