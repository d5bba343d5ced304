/* The entries of the channels: undoing a transaction, what is dirty, how many stay. And when a
 * checkpoint of them is due. On a database in memory. */
#include "support.h"

#include "base/config.h"
#include "base/hash.h"
#include "sqlite/checkpoint.h"

static struct log_file file;
static struct rows rows;
static struct log_state log_state;
static struct entries entries;
static struct checkpoint checkpoint;

static int set_up(void **state) {
    (void)state;
    char error[512] = "";
    struct store_options options = {.sync = SYNC_NEVER};
    hash_init();
    if (!log_file_open(&file, &options, error, sizeof error) || !rows_init(&rows, &file) ||
        !entries_init(&entries, &rows))
        return -1;
    log_state = (struct log_state){0};
    checkpoint_init(&checkpoint, &file, &entries, &log_state);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    entries_deinit(&entries);
    log_file_close(&file);
    return 0;
}

static struct entry *find(const char *name, bool create) {
    struct entry *entry;
    assert_true(entries_find(&entries, hash_of(slice_of(name)), slice_of(name), create, &entry));
    return entry;
}

static void undo(const char *name) {
    entries_undo(&entries, hash_of(slice_of(name)), slice_of(name));
}

static bool forget(const char *name) {
    return entries_forget(&entries, hash_of(slice_of(name)), slice_of(name));
}

/* As an append does it. */
static struct entry *change(const char *name, uint64_t total, int64_t now_ms) {
    struct entry *entry = find(name, true);
    entries_touch(&entries, entry, now_ms);
    if (!entry->now.id)
        entry->now.id = ++log_state.last_channel_id;
    entry->now.total = total;
    return entry;
}

static bool write_checkpoint(size_t max_rows, bool commit) {
    struct checkpoint_slice slice;
    checkpoint_slice_init(&slice);
    assert_true(log_file_begin(&file));
    assert_true(checkpoint_write(&checkpoint, max_rows, &slice));
    bool is_last = slice.is_last;
    if (commit) {
        assert_true(log_file_commit(&file));
        checkpoint_committed(&checkpoint, &slice);
    } else {
        log_file_roll_back(&file);
        checkpoint_failed(&checkpoint, &slice);
    }
    return is_last;
}

/* --- Entries ---------------------------------------------------------------------------------- */

static void test_unknown(void **state) {
    (void)state;
    assert_null(find("a", false));
    assert_int_equal(entries.clean_count, 0);
    assert_int_equal(find("a", true)->now.id, 0);
}

/* A channel that the transaction brought is gone; one from before is as it was, and as clean. */
static void test_undo(void **state) {
    (void)state;
    entries_begin(&entries);
    change("dirty", 5, 1);
    entries_begin(&entries);
    change("dirty", 6, 2);
    change("dirty", 7, 2);
    change("new", 1, 2);
    undo("dirty");
    undo("new");
    undo("new"); /* a batch names a channel as often as it appends to it */
    undo("unknown");
    assert_null(find("new", false));
    assert_int_equal(find("dirty", false)->now.total, 5);
    assert_true(find("dirty", false)->is_dirty);
    assert_int_equal(entries.dirty_count, 1);
    assert_int_equal(entries.clean_count, 0);
}

static void test_undo_makes_clean_again(void **state) {
    (void)state;
    entries_begin(&entries);
    change("a", 5, 1);
    checkpoint_open(&checkpoint);
    assert_true(write_checkpoint(10, true));
    assert_false(find("a", false)->is_dirty);
    entries_begin(&entries);
    change("a", 6, 2);
    undo("a");
    assert_false(find("a", false)->is_dirty);
    assert_int_equal(find("a", false)->now.total, 5);
    assert_int_equal(entries.clean_count, 1);
    assert_int_equal(entries.dirty_count, 0);
}

/* Only what this transaction has touched is undone. */
static void test_undo_leaves_others(void **state) {
    (void)state;
    entries_begin(&entries);
    change("a", 5, 1);
    entries_begin(&entries);
    undo("a");
    assert_int_equal(find("a", false)->now.total, 5);
}

/* Clean entries are a bounded cache, of those used last; dirty ones stay. */
static void test_trim(void **state) {
    (void)state;
    enum { COUNT = 17000, KEPT = 16384 };
    char name[32];
    entries_begin(&entries);
    change("dirty", 1, 1);
    for (int i = 0; i < COUNT; i++) {
        snprintf(name, sizeof name, "%d", i);
        find(name, true);
    }
    find("0", false);
    entries_trim(&entries);
    assert_int_equal(entries.clean_count, KEPT);
    assert_non_null(find("dirty", false));
    assert_non_null(find("0", false));
    assert_null(find("1", false));
    assert_true(forget("0"));
    assert_int_equal(entries.clean_count, KEPT - 1);
    assert_null(find("0", false));
    assert_true(forget("0"));
    assert_false(forget("dirty")); /* its row lags behind */
    assert_non_null(find("dirty", false));
}

/* A channel whose entry has gone is found by its row. One without a row is not looked for. */
static void test_names_are_known(void **state) {
    (void)state;
    known_names_complete(&entries.names);
    entries_begin(&entries);
    uint64_t id = (uint64_t)change("a", 5, 1)->now.id;
    checkpoint_open(&checkpoint);
    assert_true(write_checkpoint(10, true));
    assert_true(forget("a"));
    assert_int_equal(find("a", true)->now.id, id);
    assert_true(log_file_execute(&file, "DROP TABLE channel"));
    assert_null(find("b", false));
}

/* --- The checkpoint --------------------------------------------------------------------------- */

/* It writes rows in slices. One that fails is written again; what changes meanwhile is not lost. */
static void test_slices(void **state) {
    (void)state;
    log_state.last_seq = 30;
    log_state.excess.fresh = 4;
    entries_begin(&entries);
    change("a", 1, 1);
    change("b", 2, 1);
    change("c", 3, 1);
    checkpoint_open(&checkpoint);
    assert_false(write_checkpoint(2, true));
    assert_int_equal(entries.dirty_count, 1);
    assert_true(checkpoint.is_open);
    assert_int_equal(log_state.checkpoint_seq, 0);

    entries_begin(&entries);
    log_state.last_seq = 32;
    change("a", 10, 2); /* written: waits for the next checkpoint */
    change("c", 11, 2); /* not yet written: goes along */
    assert_true(write_checkpoint(2, false));
    assert_true(checkpoint.is_open);
    assert_int_equal(entries.dirty_count, 2);
    assert_true(write_checkpoint(2, true));
    assert_false(checkpoint.is_open);
    assert_int_equal(log_state.checkpoint_seq, 30);
    assert_int_equal(log_state.excess.ready, 4);
    assert_true(find("a", false)->is_dirty);
    assert_false(find("c", false)->is_dirty);

    assert_true(forget("b") && forget("c")); /* from their rows again */
    assert_int_equal(find("b", false)->now.total, 2);
    assert_int_equal(find("c", false)->now.total, 11);
}

static void test_due_by_age(void **state) {
    (void)state;
    assert_false(checkpoint_is_due(&checkpoint, INT64_MAX));
    entries_begin(&entries);
    change("a", 1, 1000);
    change("b", 1, 3000);
    assert_false(checkpoint_is_due(&checkpoint, 5999));
    assert_true(checkpoint_is_due(&checkpoint, 6000));
    checkpoint_open(&checkpoint);
    assert_false(checkpoint_is_due(&checkpoint, 60000));
}

static void test_due_by_number(void **state) {
    (void)state;
    checkpoint.appends = 199999;
    assert_false(checkpoint_is_due(&checkpoint, 0));
    checkpoint.appends = 200000;
    assert_true(checkpoint_is_due(&checkpoint, 0));
    checkpoint.appends = 0;
    entries.dirty_count = 65535;
    assert_false(checkpoint_is_due(&checkpoint, 0));
    entries.dirty_count = 65536;
    assert_true(checkpoint_is_due(&checkpoint, 0));
}

#define ENTRIES_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

/* A rollback can be out of memory, and leave its transaction: the next one begins all the same. */
static void test_a_transaction_that_was_left(void **state) {
    (void)state;
    assert_true(log_file_begin(&file));
    assert_true(log_file_begin(&file));
    assert_true(log_file_commit(&file));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        ENTRIES_TEST(test_unknown),
        ENTRIES_TEST(test_undo),
        ENTRIES_TEST(test_undo_makes_clean_again),
        ENTRIES_TEST(test_undo_leaves_others),
        ENTRIES_TEST(test_trim),
        ENTRIES_TEST(test_names_are_known),
        ENTRIES_TEST(test_slices),
        ENTRIES_TEST(test_due_by_age),
        ENTRIES_TEST(test_due_by_number),
        ENTRIES_TEST(test_a_transaction_that_was_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
