/* Files that are not ours, and a log without a file. */
#include "fixture.h"
#include "sqlite/log_file.h"
#include "sqlite/sql.h"

#include <errno.h>
#include <fcntl.h>
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

/* --- Calls of SQLite that fail ---------------------------------------------------------------- */

static const char *refused; /* the end of the path of a file that cannot be opened, or written */
static int refused_flags;   /* only to open it with them */

static bool is_refused(const char *file) {
    size_t len = strlen(file), end_len = strlen(refused);
    errno = ENOSPC;
    return len >= end_len && strcmp(file + len - end_len, refused) == 0;
}

static int refuse_open(const char *file, int flags, int mode) {
    bool has_flags = (flags & refused_flags) == refused_flags;
    return has_flags && is_refused(file) ? -1 : open(file, flags, mode);
}

static ssize_t refuse_write(int fd, const void *bytes, size_t len, off_t at) {
    char link[64], file[256] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return readlink(link, file, sizeof file - 1) > 0 && is_refused(file)
               ? -1
               : pwrite(fd, bytes, len, at);
}

static void refuse(const char *call, void *function) {
    sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
    assert_int_equal(vfs->xSetSystemCall(vfs, call, (sqlite3_syscall_ptr)function), SQLITE_OK);
}

static int refuse_nothing(void **state) {
    sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
    vfs->xSetSystemCall(vfs, NULL, NULL);
    return tear_down(state);
}

/* No push would ever work. */
static void test_parts_that_may_only_be_read(void **state) {
    (void)state;
    static const char *const parts[] = {".db", "-wal", "-shm"};
    open_log();
    assert_int_equal(push("a"), 1);
    close_log();
    refused_flags = O_RDWR;
    refuse("open", refuse_open);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        refused = parts[i];
        check_does_not_open("cannot be opened for writing");
    }
    refused = "nothing";
    open_log();
    assert_int_equal(push("a"), 2);
}

/* The disk has no room for it, or not even for its name. */
static void test_no_shared_memory(void **state) {
    (void)state;
    open_log();
    assert_int_equal(push("a"), 1);
    close_log();
    refused = "-shm";
    refused_flags = 0;
    refuse("pwrite", refuse_write);
    refuse("pwrite64", refuse_write);
    open_log();
    check_read("a", 0, 10, 1, 1, 1);
    assert_int_equal(push("a"), 2);
    close_log();
    refuse("open", refuse_open);
    open_log();
    assert_int_equal(push("a"), 3);
}

/* --- A page whose list of cells is damaged ---------------------------------------------------- */

enum { PAGE_BYTES = 8192, LEAF_OF_TABLE = 0x0d, CELL_COUNT = 4, FIRST_CELL = 8 };

/* Flips a bit of the first pointer of a page, if it is one with many rows. */
static bool flip_pointer(long page) {
    uint8_t head[FIRST_CELL + 1];
    FILE *file = fopen(path, "r+b");
    fseek(file, page * PAGE_BYTES, SEEK_SET);
    bool is_one = fread(head, 1, sizeof head, file) == sizeof head && head[0] == LEAF_OF_TABLE &&
                  head[CELL_COUNT] > 20;
    if (is_one) {
        fseek(file, page * PAGE_BYTES + FIRST_CELL, SEEK_SET);
        fputc(head[FIRST_CELL] ^ 0x80, file);
    }
    fclose(file);
    return is_one;
}

/* It stops neither the start, which looks at the oldest and the newest, nor pushes. */
static void test_a_bit_of_a_list_of_cells(void **state) {
    (void)state;
    int flipped = 0;
    open_log();
    assert_true(push_many("a", 1, 400));
    settle();
    close_log();
    open_log();
    keep_backup();
    for (long page = 1; page < 20; page++) {
        close_log();
        put_backup_back();
        flipped += flip_pointer(page);
        open_log();
        assert_int_equal(push("a"), 401);
        check_read("a", 300, 1000, 401, 301, 401);
    }
    assert_in_range(flipped, 3, 18);
}

/* Nor does one of the list of channels: each goes on where it was. */
static void test_a_bit_of_the_list_of_channels(void **state) {
    (void)state;
    static const char *const channels[] = {"a", "b", "c", "d", "e"};
    enum { CHANNELS = sizeof channels / sizeof *channels };
    open_log();
    for (int i = 0; i < CHANNELS; i++)
        assert_true(push_many(channels[i], 1, 3));
    settle();
    keep_backup();
    for (long bit = 0; bit < 16L * CHANNELS; bit++) {
        close_log();
        put_backup_back();
        FILE *file = fopen(path, "r+b");
        long at = PAGE_BYTES + FIRST_CELL + bit / 8;
        fseek(file, at, SEEK_SET);
        int byte = fgetc(file);
        fseek(file, at, SEEK_SET);
        fputc(byte ^ 1 << bit % 8, file);
        fclose(file);
        open_log();
        for (int i = 0; i < CHANNELS; i++) {
            check_read(channels[i], 0, 10, 3, 1, 3);
            assert_int_equal(push(channels[i]), 4);
        }
    }
}

/* --- In memory -------------------------------------------------------------------------------- */

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
        cmocka_unit_test_setup_teardown(test_parts_that_may_only_be_read, set_up, refuse_nothing),
        cmocka_unit_test_setup_teardown(test_no_shared_memory, set_up, refuse_nothing),
        LOG_TEST(test_a_bit_of_a_list_of_cells),
        LOG_TEST(test_a_bit_of_the_list_of_channels),
        cmocka_unit_test(test_a_log_in_memory_gives_back),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
