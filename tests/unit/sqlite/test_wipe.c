/* What is overwritten: everything that a page does not use, and nothing else. */
#include "fixture.h"

#include "sqlite/wipe.h"

#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 512 };

static unsigned char page[PAGE];

static void put16(size_t at, unsigned number) {
    page[at] = (unsigned char)(number >> 8);
    page[at + 1] = (unsigned char)number;
}

/* A page of a B-tree with `count` cells, of which the last begins at `content`. */
static void make_page(unsigned char type, unsigned count, unsigned content) {
    size_t header = type == 0x0d || type == 0x0a ? 8 : 12;
    memset(page, 'x', sizeof page);
    page[0] = type;
    put16(1, 0);
    put16(3, count);
    put16(5, content);
    for (unsigned i = 0; i < count; i++)
        put16(header + 2 * (size_t)i, content + 10 * i);
}

static void check_room(uint32_t begin, uint32_t bytes) {
    struct room room = wipe_room(page, PAGE, 1000);
    assert_int_equal(room.begin, begin);
    assert_int_equal(room.bytes, bytes);
}

static void test_room(void **state) {
    (void)state;
    for (int type = 0; type < 256; type++) {
        bool is_leaf = type == 0x0d || type == 0x0a, is_tree = is_leaf || type == 5 || type == 2;
        uint32_t begin = is_leaf ? 14 : 18;
        make_page((unsigned char)type, 3, 400);
        check_room(is_tree ? begin : 0, is_tree ? 400 - begin : 0);
    }
    make_page(0x0d, 0, PAGE);
    check_room(8, PAGE - 8);
    make_page(0x0d, 3, 14);
    check_room(14, 0);
}

static void test_pages_that_make_no_sense(void **state) {
    (void)state;
    make_page(0x0d, 3, 13); /* cells within the cell pointers */
    check_room(0, 0);
    make_page(0x0d, 3, PAGE + 1);
    check_room(0, 0);
    make_page(0x0d, 3, 0); /* 65536 */
    check_room(0, 0);
    make_page(0x0d, 3, 400);
    put16(3, 253); /* more than there is room for */
    check_room(0, 0);
    make_page(0x0d, 3, 400);
    put16(10, 399); /* a cell before the cells */
    check_room(0, 0);
    put16(10, PAGE);
    check_room(0, 0);
    put16(10, 400);
    check_room(14, 386);
    put16(1, 399); /* a free block before the cells */
    check_room(0, 0);
    put16(1, 420);
    check_room(14, 386);
}

/* In a large file, what looks like a page of a B-tree may be a page of an overflow chain. */
static void test_large_files(void **state) {
    (void)state;
    static const unsigned char types[] = {2, 5, 0x0a, 0x0d};
    for (size_t i = 0; i < sizeof types; i++) {
        make_page(types[i], 3, 400);
        uint32_t first = (uint32_t)types[i] << 24; /* the first page whose number begins so */
        assert_true(wipe_room(page, PAGE, first - 1).bytes);
        assert_false(wipe_room(page, PAGE, first).bytes);
        assert_false(wipe_room(page, PAGE, UINT32_MAX).bytes);
    }
}

/* --- Beside another process ------------------------------------------------------------------- */

enum { CHECKPOINT_LOCK = 1 }; /* SQLite's WAL_CKPT_LOCK */

static struct log_file file;
static struct wal wal;
static struct wipe wipe;
static sqlite3 *other;
static const sqlite3_io_methods *methods;

static void run_other(const char *sql) {
    assert_int_equal(sqlite3_exec(other, sql, NULL, NULL, NULL), SQLITE_OK);
}

static int64_t ask_other(const char *sql) {
    sqlite3_stmt *statement;
    assert_int_equal(sqlite3_prepare_v2(other, sql, -1, &statement, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    int64_t number = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return number;
}

static sqlite3_file *file_of(sqlite3 *db) {
    sqlite3_file *found;
    assert_int_equal(sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &found),
                     SQLITE_OK);
    return found;
}

/* The checkpoint of the other comes between what is read of the list of free pages and the pages
 * themselves. */
static int read_beside_checkpoint(sqlite3_file *from, void *out, int bytes, sqlite3_int64 offset) {
    if (bytes > file.page_bytes && from->pMethods != methods) {
        from->pMethods = methods;
        run_other("PRAGMA wal_checkpoint");
    }
    return methods->xRead(from, out, bytes, offset);
}

#define ROWS_FROM_TO(first, last)                                                                  \
    "WITH RECURSIVE n(i) AS (SELECT " #first " UNION ALL SELECT i + 1 FROM n WHERE i < " #last     \
    ") INSERT INTO t SELECT i, randomblob(60000) FROM n"

/* A wipe that has not begun, of a file with many free pages. */
static void open_wipe(void) {
    char error[512];
    assert_true(log_file_open(&file, &options, error, sizeof error));
    assert_true(wal_init(&wal, &file, &options));
    wipe_init(&wipe, &file, &wal);
    assert_true(log_file_execute(&file, "CREATE TABLE t (id INTEGER PRIMARY KEY, x)"));
    assert_true(log_file_execute(&file, ROWS_FROM_TO(1, 100)));
    assert_true(log_file_execute(&file, "DELETE FROM t WHERE id > 20"));
    assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
    run_other("PRAGMA wal_autocheckpoint = 0");
    wipe_begin(&wipe);
}

/* It has done its first slice. */
static void begin_wipe(void) {
    open_wipe();
    assert_int_equal(wipe_some(&wipe, 1, 0), 0);
    assert_int_equal(wipe.state, WIPE_PAGES);
    assert_true(wipe.next_page > 1);
}

static void close_wipe(void) {
    sqlite3_close(other);
    wipe_deinit(&wipe);
    log_file_close(&file);
}

/* Goes on, beside a checkpoint: all that was committed must stay. */
static void end_wipe(void) {
    static sqlite3_io_methods beside;
    sqlite3_file *data = file_of(file.db);
    methods = data->pMethods;
    beside = *methods;
    beside.xRead = read_beside_checkpoint;
    data->pMethods = &beside;
    for (int64_t now = 1000; wipe.state != WIPE_DONE && now < 60000; now += 1000)
        wipe_some(&wipe, now, UINT64_MAX);
    assert_ptr_equal(data->pMethods, methods); /* the checkpoint was run */
    assert_int_equal(wipe.state, WIPE_DONE);
    char log[sizeof path + 8];
    struct stat status;
    snprintf(log, sizeof log, "%s-wal", path);
    assert_int_equal(stat(log, &status), 0);
    assert_int_equal(status.st_size, 0);
    sqlite3_close(other);
    assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
    assert_int_equal(ask_other("SELECT count(*) FROM t"), 20 + 78);
    assert_int_equal(ask_other("SELECT count(*) FROM t WHERE instr(x, zeroblob(400))"), 0);
    assert_int_equal(ask_other("SELECT count(*) FROM pragma_integrity_check WHERE"
                               " integrity_check <> 'ok'"),
                     0);
    close_wipe();
}

static void test_another_commits_between_two_slices(void **state) {
    (void)state;
    begin_wipe();
    run_other(ROWS_FROM_TO(1001, 1078));
    end_wipe();
}

/* Then the write-ahead log cannot be copied by us. */
static void test_another_copies_between_two_slices(void **state) {
    (void)state;
    begin_wipe();
    assert_true(log_file_execute(&file, ROWS_FROM_TO(1001, 1078)));
    assert_int_equal(ask_other("SELECT count(*) FROM t"), 20 + 78);
    sqlite3_file *data = file_of(other);
    assert_int_equal(
        data->pMethods->xShmLock(data, CHECKPOINT_LOCK, 1, SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE),
        SQLITE_OK);
    wal_maintain(&wal, 2);
    assert_int_equal(wal.pages, 0); /* it was tried */
    data->pMethods->xShmLock(data, CHECKPOINT_LOCK, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);
    end_wipe();
}

static void commit_once(const char *path_of_it) {
    (void)path_of_it;
    on_sync = NULL;
    run_other("UPDATE t SET x = randomblob(60000) WHERE id = 1");
}

/* What it has committed is not in the file yet, where it may take a page that was free. */
static void test_another_commits_before_a_slice(void **state) {
    (void)state;
    options.sync = SYNC_ALWAYS;
    open_wipe();
    on_sync = commit_once;
    wipe_some(&wipe, 1, 0);
    assert_null(on_sync);
    assert_int_equal(wipe.next_page, 1);
    wipe_some(&wipe, 1, 0);
    assert_true(wipe.next_page > 1);
    close_wipe();
}

static sqlite3_int64 list_offset; /* the first page of the list of free pages */
static int list_reads;

/* Its number. */
static unsigned find_list(void) {
    unsigned char bytes[4];
    sqlite3_file *data = file_of(file.db);
    assert_int_equal(data->pMethods->xRead(data, bytes, 4, 32), SQLITE_OK);
    list_offset = ((sqlite3_int64)bytes[2] * 256 + bytes[3] - 1) * file.page_bytes;
    return bytes[2] * 256U + bytes[3];
}

/* Writes a number of the list's first page, and lets it be read anew: how long to wait then. */
static int64_t wipe_with(sqlite3_int64 at, unsigned number) {
    unsigned char bytes[4] = {0, (unsigned char)(number >> 16), (unsigned char)(number >> 8),
                              (unsigned char)number};
    sqlite3_file *data = file_of(file.db);
    assert_int_equal(data->pMethods->xWrite(data, bytes, 4, list_offset + at), SQLITE_OK);
    assert_true(log_file_execute(&file, "PRAGMA user_version = 2"));
    alarm(600);
    int64_t wait_ms = wipe_some(&wipe, 1, 0);
    alarm(0);
    return wait_ms;
}

static void test_a_damaged_list(void **state) {
    (void)state;
    begin_wipe();
    find_list();
    assert_true(wipe_with(4, 100000) > 0); /* so many pages do not fit into it */
    assert_int_equal(wipe.next_page, 1);
    close_wipe();
    unlink(path);
    begin_wipe();
    assert_int_equal(wipe_with(0, find_list()), 0); /* it goes on with itself */
    close_wipe();
}

static int read_counting(sqlite3_file *from, void *out, int bytes, sqlite3_int64 offset) {
    list_reads += offset == list_offset && bytes == file.page_bytes;
    return methods->xRead(from, out, bytes, offset);
}

static void wipe_slices(int count) {
    while (count--)
        assert_int_equal(wipe_some(&wipe, 1, 0), 0);
}

/* The list of free pages may be long. */
static void test_the_list_is_read_again_after_a_commit_only(void **state) {
    (void)state;
    begin_wipe();
    static sqlite3_io_methods counting;
    sqlite3_file *data = file_of(file.db);
    methods = data->pMethods;
    find_list();
    counting = *methods;
    counting.xRead = read_counting;
    data->pMethods = &counting;
    wipe_slices(3);
    assert_int_equal(list_reads, 0); /* the first slice has read it */
    assert_true(log_file_execute(&file, "PRAGMA user_version = 2"));
    wipe_slices(3);
    assert_int_equal(list_reads, 1);
    assert_true(log_file_execute(&file, "PRAGMA user_version = 1"));
    assert_true(wal_copy(&wal, 2));
    wipe_slices(3);
    assert_int_equal(list_reads, 2);
    run_other("PRAGMA user_version = 2");
    wipe_slices(3);
    assert_int_equal(list_reads, 3);
    data->pMethods = methods;
    assert_true(log_file_execute(&file, ROWS_FROM_TO(1001, 1078)));
    end_wipe();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_pages_that_make_no_sense),
        cmocka_unit_test(test_large_files),
        LOG_TEST(test_another_commits_between_two_slices),
        LOG_TEST(test_another_copies_between_two_slices),
        LOG_TEST(test_another_commits_before_a_slice),
        LOG_TEST(test_a_damaged_list),
        LOG_TEST(test_the_list_is_read_again_after_a_commit_only),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
