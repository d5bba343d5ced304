/* Files that are not ours. */
#include "fixture.h"

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

int main(void) {
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_unknown_version),
        LOG_TEST(test_foreign_files),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
