/* Operations of which each call fails in turn: what was answered is there after a kill, what was
 * refused is not, and the log goes on. */
#include "failures.h"

#include "base/hash.h"

#include <errno.h>
#include <unistd.h>

/* Each `step`th call fails, for time's sake; of long operations fewer. */
static const struct {
    struct failure failure;
    int step;
} failures[] = {
    {{FAIL_SQLITE, SQLITE_IOERR, .rolls_back = true}, 1},
    {{.kind = FAIL_SQLITE, .code = SQLITE_NOMEM}, 7},
    {{FAIL_SQLITE, SQLITE_FULL, .goes_on = true}, 5},
    {{.kind = FAIL_SQLITE, .code = SQLITE_CORRUPT}, 2},
    {{FAIL_SQLITE, SQLITE_CORRUPT, .rolls_back = true}, 5},
    {{.kind = FAIL_MEMORY}, 1},
    {{.kind = FAIL_SYSTEM, .code = ETIMEDOUT}, 3}, /* SQLite takes EIO for damage */
    {{FAIL_SYSTEM, ENOSPC, .goes_on = true}, 4},
};

static bool is_damage; /* the failure says that the file is damaged: some may be lost */
static bool has_failed;

/* What is done: true when it was answered so, and then check() finds it, else not. */
struct operation {
    void (*prepare)(void); /* on the backup, just opened; or NULL */
    bool (*run)(void);
    void (*check_alive)(bool ok); /* before the kill; or NULL */
    void (*check)(bool ok);
    bool is_long, is_synced;
};

/* On the backup, with the n-th call failing. False when it makes fewer. */
static bool try_operation(const struct operation *operation, const struct failure *failure, int n) {
    bool is_synced = failure->kind == FAIL_SYSTEM || operation->is_synced;
    options.sync = is_synced ? SYNC_ALWAYS : SYNC_NEVER;
    now_ms = 1700000100000;
    put_backup_back();
    open_log();
    if (operation->prepare)
        operation->prepare();
    fail_at(failure, n);
    bool ok = operation->run();
    has_failed = fail_end();
    assert_true(ok || has_failed);
    if (operation->check_alive)
        operation->check_alive(ok);
    if (the_log && failure->goes_on) /* what could not be undone is, as soon as that is possible */
        assert_int_equal(push("other"), 1);
    if (the_log)
        crash();
    else
        open_log();
    operation->check(ok);
    close_log();
    unlink(path);
    snprintf(path, sizeof path, "%s/log.db", dir);
    return has_failed;
}

static void check_operation(const struct operation *operation) {
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) {
        const struct failure *failure = &failures[i].failure;
        is_damage = failure_is_damage(failure);
        for (int n = 1; try_operation(operation, failure, n);)
            n += failures[i].step * (operation->is_long ? 3 : 1);
    }
}

/* --- Pushes ----------------------------------------------------------------------------------- */

static void make_few(void) {
    open_log();
    assert_true(push_many("a", 1, 5));
    settle();
    keep_backup();
    close_log();
}

static bool push_new_channel(void) {
    struct store_append *append = append_new_batch(SLICE("new"), 200);
    struct list batch;
    list_init(&batch);
    list_append(&batch, &append->op.link);
    update_log_append(the_log, &batch);
    bool ok = !append->error;
    append_free(append);
    return ok;
}

static void check_new_channel(bool ok) {
    check_read("a", 0, 1000, 5, 1, 5);
    check_read("new", 0, 1000, ok ? 200 : 0, 1, ok ? 200 : 0);
    assert_int_equal(push("new"), ok ? 201 : 1);
}

static void test_pushes(void **state) {
    (void)state;
    make_few();
    check_operation(&(struct operation){.run = push_new_channel, .check = check_new_channel});
}

static bool push_first_id(void) {
    uint64_t same, ts = push_id_to("a", 1, true, &same);
    assert_true(ts == 6 || !ts);
    return ts;
}

static void check_first_id(bool ok) {
    uint64_t same, ts = push_id_to("a", 1, true, &same);
    if (is_damage && ok && ts == 7) /* stored without its id */
        return;
    assert_int_equal(ts, 6);
    assert_int_equal(same, ok ? 6 : 0);
}

static void test_the_first_id(void **state) {
    (void)state;
    make_few();
    check_operation(&(struct operation){.run = push_first_id, .check = check_first_id});
}

/* A bound leaves room for so few ids that each pushes out another. */
static void make_ids(void) {
    options.max_bytes = 8 * 128 * 20;
    open_log();
    for (int i = 0; i < 30; i++) {
        uint64_t same;
        assert_true(push_id_to(i % 2 ? "a" : "b", i, true, &same));
    }
    keep_backup();
    close_log();
}

static bool push_next_id(void) {
    uint64_t same;
    return push_id_to("a", 100, true, &same);
}

static void check_next_id(bool ok) {
    uint64_t same, ts = push_id_to("a", 100, true, &same);
    if (!is_damage)
        assert_int_equal(same, ok ? ts : 0);
    assert_true(ts >= 16);
}

static void test_ids_that_push_others_out(void **state) {
    (void)state;
    make_ids();
    check_operation(&(struct operation){.run = push_next_id, .check = check_next_id});
}

/* --- Reads ------------------------------------------------------------------------------------ */

static void make_many(void) {
    open_log();
    assert_true(push_many("a", 1, 300));
    settle();
    keep_backup();
    close_log();
}

static uint64_t first_epoch;

/* A read that says that it has not failed is right. */
static bool read_right(int64_t position, uint64_t first, uint64_t last) {
    struct store_read *read =
        read_new_seen(SLICE("a"), position, (uint32_t)(last - first + 1), first_epoch);
    bool ok = !read->error;
    if (ok) {
        assert_false(read->is_reset);
        assert_int_equal(read->total, 300);
        assert_int_equal(read->gone, 0);
        assert_int_equal(read->count, last - first + 1);
        for (uint32_t i = 0; i < read->count; i++)
            assert_int_equal(read->updates[i]->ts, first + i);
    }
    read_free(read);
    return ok;
}

static void test_reads(void **state) {
    (void)state;
    make_many();
    open_log();
    struct store_read *read = read_channel("a", 0);
    first_epoch = read->epoch;
    read_free(read);
    for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) {
        bool has_read = false;
        const struct failure *failure = &failures[i].failure;
        for (int n = 1; !failure_is_damage(failure) && !has_read; n += failures[i].step) {
            close_log();
            is_clean = false; /* another epoch begins */
            open_log();
            fail_at(failure, n);
            bool ok = read_right(20, 21, 40) && read_right(-10, 291, 300);
            has_read = !fail_end();
            assert_true(ok || !has_read);
            assert_true(read_right(20, 21, 40));
        }
    }
}

/* As it is, or has failed. */
static struct store_read *read_damaged(void) {
    struct store_read *read = calloc(1, sizeof *read + 1);
    read->limit = READ_MAX_UPDATES;
    read->hash = hash_of(SLICE("a"));
    read->name_len = 1;
    read->name[0] = 'a';
    update_log_read(the_log, read);
    return read;
}

/* Nobody says that what is damaged was deleted because it could not be looked up. Damage alone lets
 * no read fail, but that of the channel's row, which is looked for first. */
static void test_reads_of_a_damaged_file(void **state) {
    (void)state;
    const struct failure damage = {.kind = FAIL_SQLITE, .code = SQLITE_CORRUPT};
    make_many();
    run_sql("DELETE FROM update_log WHERE seq = 50");
    open_log();
    struct store_read *wanted = read_damaged();
    assert_false(wanted->error);
    bool has_read = false;
    for (int n = 1; !has_read; n++) {
        reopen();
        fail_at(&failures[0].failure, n);
        struct store_read *read = read_damaged();
        has_read = !fail_end();
        assert_true(read->error ? !has_read
                                : read->gone == wanted->gone && read->count == wanted->count &&
                                      read->end == wanted->end);
        read_free(read);
    }
    has_read = false;
    for (int n = 2; !has_read; n++) {
        reopen();
        fail_at(&damage, n);
        struct store_read *read = read_damaged();
        has_read = !fail_end();
        assert_false(read->error);
        read_free(read);
    }
    read_free(wanted);
}

/* --- Purges ----------------------------------------------------------------------------------- */

static bool purge_most(void) {
    uint64_t gone;
    return try_purge("a", 250, &gone) == STORE_OK;
}

static void check_purged(bool ok) {
    check_read("a", 0, 1000, 300, ok ? 251 : 1, 300);
    assert_int_equal(push("a"), 301);
}

static void test_purges(void **state) {
    (void)state;
    make_many();
    check_operation(&(struct operation){.run = purge_most, .check = check_purged});
}

static void make_purged(void) {
    uint64_t gone;
    open_log();
    assert_true(push_body("a", SLICE("\"secret\"")));
    assert_true(push_many("a", 2, 20));
    assert_true(push_many("b", 1, 20));
    settle();
    assert_int_equal(try_purge("a", 19, &gone), STORE_OK);
    keep_backup();
    close_log();
}

static bool finish_purges(void) {
    for (int i = 0; i < 5; i++) {
        now_ms += 6000;
        maintain();
    }
    return true;
}

static bool file_has(const char *file, const char *text) {
    static char bytes[1 << 20];
    FILE *in = fopen(file, "rb");
    size_t len = in ? fread(bytes, 1, sizeof bytes, in) : 0;
    assert_true(len < sizeof bytes);
    if (in)
        fclose(in);
    return memmem(bytes, len, text, strlen(text));
}

static bool is_wiped(void) {
    char wal[sizeof path + 8];
    snprintf(wal, sizeof wal, "%s-wal", path);
    return stats().updates == 22 + total_of("other") && !file_has(path, "secret") &&
           !file_has(wal, "secret");
}

/* A turn has a bound in time: a slow machine does less in each. */
static void check_wiped(bool ok) {
    assert_true(ok);
    check_read("a", 0, 100, 21, 20, 21);
    check_read("b", 0, 100, 20, 1, 20);
    finish_purges();
    for (int i = 0; i < 100 && !is_wiped(); i++)
        finish_purges();
    assert_true(is_wiped());
}

/* Some of the rows that are to go lead nowhere. */
static void make_damaged_purged(void) {
    make_purged();
    sqlite3 *db;
    assert_int_equal(sqlite3_open(backup_path(), &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "UPDATE update_log SET at = at + 1 WHERE seq IN (5, 10)",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_close(db);
}

static void check_damaged_wiped(bool ok) {
    assert_true(ok);
    check_read("a", 0, 100, 21, 20, 21);
    check_read("b", 0, 100, 20, 1, 20);
    finish_purges();
    assert_int_equal(push("a"), 22);
}

static void test_purges_of_damaged_rows(void **state) {
    (void)state;
    make_damaged_purged();
    check_operation(
        &(struct operation){.run = finish_purges, .check = check_damaged_wiped, .is_long = true});
}

static void test_what_purges_leave_to_be_done(void **state) {
    (void)state;
    make_purged();
    check_operation(&(struct operation){.run = finish_purges, .check = check_wiped});
}

/* --- Cursors ---------------------------------------------------------------------------------- */

static void make_cursors(void) {
    open_log();
    assert_true(push_many("a", 1, 5));
    assert_true(do_cursor(CURSORS_SAVE, "a", "old", 1));
    assert_true(do_cursor(CURSORS_SAVE, "a", "gone", 1));
    settle();
    keep_backup();
    close_log();
}

static bool save_and_forget(void) {
    bool ok = do_cursor(CURSORS_SAVE, "a", "old", 4) && do_cursor(CURSORS_SAVE, "a", "new", 3) &&
              do_cursor(CURSORS_FORGET, "a", "gone", 0);
    now_ms += 1000;
    maintain();
    return ok;
}

static void check_cursors_alive(bool ok) {
    if (is_damage || !ok)
        return;
    assert_int_equal(cursor_of("a", "old"), 4);
    assert_int_equal(cursor_of("a", "new"), 3);
    assert_int_equal(cursor_of("a", "gone"), -1);
}

/* What could not be written is lost by a kill. */
static void check_cursors(bool ok) {
    int64_t old = cursor_of("a", "old"), new = cursor_of("a", "new");
    if (ok && !has_failed) {
        assert_int_equal(old, 4);
        assert_int_equal(new, 3);
        assert_int_equal(cursor_of("a", "gone"), -1);
    }
    assert_true(old == 4 || old == 1 || (is_damage && old == -1));
    assert_true(new == 3 || new == -1);
    assert_true(do_cursor(CURSORS_SAVE, "a", "old", 5));
    reopen();
    assert_int_equal(cursor_of("a", "old"), 5);
    assert_int_equal(push("a"), 6);
}

static void test_cursors(void **state) {
    (void)state;
    make_cursors();
    check_operation(&(struct operation){
        .run = save_and_forget, .check_alive = check_cursors_alive, .check = check_cursors});
}

static bool save_first(void) {
    bool ok = do_cursor(CURSORS_SAVE, "a", "new", 3);
    now_ms += 1000;
    maintain();
    return ok;
}

static void check_first_cursor(bool ok) {
    int64_t new = cursor_of("a", "new");
    assert_true(new == 3 || (new == -1 && (!ok || has_failed)));
    assert_true(do_cursor(CURSORS_SAVE, "a", "new", 4));
    reopen();
    assert_int_equal(cursor_of("a", "new"), 4);
}

static void test_the_first_cursor(void **state) {
    (void)state;
    make_few();
    check_operation(&(struct operation){.run = save_first, .check = check_first_cursor});
}

static bool load_cursors(void) {
    struct store_cursors *cursors = cursors_new("a", CURSORS_LOAD, 0);
    update_log_cursors(the_log, cursors);
    bool ok = !cursors->error;
    if (ok && !is_damage)
        assert_int_equal(cursors->count, 3);
    free(cursors->list);
    free(cursors);
    return ok;
}

static void save_waiting(void) {
    assert_true(do_cursor(CURSORS_SAVE, "a", "old", 4));
    assert_true(do_cursor(CURSORS_SAVE, "a", "new", 3));
}

static void check_loaded(bool ok) {
    (void)ok;
    assert_int_equal(cursor_of("a", "gone"), 1);
}

static void test_loading_cursors(void **state) {
    (void)state;
    make_cursors();
    check_operation(
        &(struct operation){.prepare = save_waiting, .run = load_cursors, .check = check_loaded});
}

/* --- Maintenance, leaving and closing --------------------------------------------------------- */

/* Of all that becomes old. */
static void make_old(void) {
    uint64_t same, gone;
    options.channel_max_updates = 20;
    open_log();
    assert_true(push_many("a", 1, 60));
    assert_true(push_many("old", 1, 3));
    assert_true(push_id_to("a", 1, true, &same));
    assert_true(do_cursor(CURSORS_SAVE, "a", "bot", 1));
    assert_int_equal(try_purge("old", 2, &gone), STORE_OK);
    finish_purges();
    keep_backup();
    close_log();
}

static void push_after_a_year(void) {
    now_ms += (int64_t)400 * DAY_MS;
    assert_int_equal(push("a"), 62);
}

static bool maintain_long(void) {
    for (int i = 0; i < 3; i++) {
        settle();
        now_ms += 2 * HOUR_MS;
    }
    return true;
}

static void check_maintained(bool ok) {
    assert_true(ok);
    check_read("a", 0, 100, 62, 62, 62);
    maintain_long();
    assert_int_equal(stats().updates, 1 + total_of("other"));
    assert_int_equal(total_of("old"), 0);
    assert_int_equal(cursor_of("a", "bot"), -1);
    assert_int_equal(push("a"), 63);
}

static void test_maintenance(void **state) {
    (void)state;
    make_old();
    check_operation(&(struct operation){.prepare = push_after_a_year,
                                        .run = maintain_long,
                                        .check = check_maintained,
                                        .is_long = true});
}

static void push_before_the_end(void) {
    assert_true(push_many("a", 301, 10));
    assert_true(push_many("b", 1, 10));
    assert_true(do_cursor(CURSORS_SAVE, "a", "bot", 7));
}

static bool close_it(void) {
    close_log();
    return true;
}

static bool leave_it(void) {
    while (update_log_settle(the_log))
        ;
    leave_log();
    return true;
}

static void check_ended(bool ok) {
    assert_true(ok);
    if (!has_failed)
        assert_int_equal(cursor_of("a", "bot"), 7);
    check_read("a", 0, 1000, 310, 1, 310);
    check_read("b", 0, 1000, 10, 1, 10);
    assert_int_equal(push("b"), 11);
}

static void test_closing(void **state) {
    (void)state;
    make_many();
    check_operation(&(struct operation){
        .prepare = push_before_the_end, .run = close_it, .check = check_ended, .is_long = true});
}

static void test_leaving(void **state) {
    (void)state;
    make_many();
    check_operation(&(struct operation){
        .prepare = push_before_the_end, .run = leave_it, .check = check_ended, .is_long = true});
}

/* A file of an older longline has no table for the marks of commits that are not synced. */
static void test_leaving_an_older_file(void **state) {
    (void)state;
    open_log();
    assert_true(push_many("a", 1, 300));
    close_log();
    run_sql("DROP TABLE lax");
    keep_backup();
    check_operation(&(struct operation){.prepare = push_before_the_end,
                                        .run = leave_it,
                                        .check = check_ended,
                                        .is_long = true,
                                        .is_synced = true});
}

int main(void) {
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_pushes),
        LOG_TEST(test_the_first_id),
        LOG_TEST(test_ids_that_push_others_out),
        LOG_TEST(test_reads),
        LOG_TEST(test_reads_of_a_damaged_file),
        LOG_TEST(test_purges),
        LOG_TEST(test_what_purges_leave_to_be_done),
        LOG_TEST(test_purges_of_damaged_rows),
        LOG_TEST(test_cursors),
        LOG_TEST(test_the_first_cursor),
        LOG_TEST(test_loading_cursors),
        LOG_TEST(test_maintenance),
        LOG_TEST(test_closing),
        LOG_TEST(test_leaving),
        LOG_TEST(test_leaving_an_older_file),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
