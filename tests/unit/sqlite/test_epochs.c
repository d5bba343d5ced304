/* Epochs: who has lost something learns it, and nobody else. */
#include "fixture.h"

#include "sqlite/epochs.h"
#include "sqlite/seal.h"
#include "sqlite/update_log_parts.h"

#include <sys/stat.h>
#include <unistd.h>

/* What a reader of `channel` at `position` is told, who has seen `epoch`. Free with read_free(). */
static struct store_read *ask(const char *channel, int64_t position, uint64_t epoch) {
    return read_new_seen(slice_of(channel), position, 10, epoch);
}

static uint64_t epoch_of(const char *channel) {
    struct store_read *read = ask(channel, 0, 0);
    uint64_t epoch = read->epoch;
    read_free(read);
    return epoch;
}

static void check_goes_on_at(const char *channel, int64_t position, uint64_t epoch, int line) {
    struct store_read *read = ask(channel, position, epoch);
    if (read->error || read->is_reset || read->epoch == 0)
        _fail(__FILE__, line);
    if (position >= 0 && read->after != (uint64_t)position)
        _fail(__FILE__, line);
    read_free(read);
}

static void check_reset_at(const char *channel, int64_t position, uint64_t epoch, uint64_t ts,
                           int line) {
    struct store_read *read = ask(channel, position, epoch);
    if (read->error || !read->is_reset || read->count || read->after != ts)
        _fail(__FILE__, line);
    read_free(read);
}

#define check_goes_on(channel, position, epoch) check_goes_on_at(channel, position, epoch, __LINE__)
#define check_reset(channel, position, epoch, ts)                                                  \
    check_reset_at(channel, position, epoch, ts, __LINE__)

static void push_some(const char *channel, int count) {
    while (count--)
        assert_true(push(channel) > 0);
}

static void test_stable(void **state) {
    (void)state;
    open_log();
    push_some("a", 3);
    push_some("b", 1);
    uint64_t a = epoch_of("a"), b = epoch_of("b");
    assert_true(a && b && a != b);
    for (int i = 0; i < 3; i++) {
        reopen();
        assert_int_equal(epoch_of("a"), a);
        assert_int_equal(epoch_of("b"), b);
        push_some("a", 1);
        assert_int_equal(epoch_of("a"), a);
    }
    struct store_append *append = append_new(SLICE("a"), SLICE("{}"));
    struct list batch;
    list_init(&batch);
    list_append(&batch, &append->op.link);
    update_log_append(the_log, &batch);
    assert_int_equal(append->epoch, a);
    append_free(append);
    assert_int_equal(epoch_of("c"), 0);
}

static void test_in_memory(void **state) {
    (void)state;
    options.path = NULL;
    open_log();
    push_some("a", 3);
    uint64_t before = epoch_of("a");
    assert_true(before);
    reopen();
    check_reset("a", 3, before, 0);
    push_some("a", 5);
    assert_true(epoch_of("a") && epoch_of("a") != before);
    check_reset("a", 3, before, 0);
}

static off_t synced_bytes; /* of the write-ahead log */

static void note_size(const char *synced) {
    struct stat status;
    if (strstr(synced, "-wal") && stat(synced, &status) == 0)
        synced_bytes = status.st_size;
}

/* A new epoch is on the disk before anything else, whatever SYNC says: more than the header of the
 * write-ahead log, which SQLite syncs anyway. One that goes on costs nothing. */
static void test_synced(void **state) {
    (void)state;
    options.sync = SYNC_NEVER;
    open_log();
    push_some("a", 1);
    int before = syncs;
    reopen();
    assert_int_equal(syncs, before);
    on_sync = note_size;
    synced_bytes = 0;
    crash();
    assert_true(synced_bytes > 4096);
    before = syncs;
    push_some("a", 1);
    assert_int_equal(syncs, before);
}

/* A process that was killed has lost nothing. */
static void test_killed(void **state) {
    (void)state;
    open_log();
    push_some("a", 3);
    uint64_t before = epoch_of("a");
    for (int i = 0; i < 5; i++) {
        crash();
        uint64_t now = epoch_of("a");
        assert_true(now && now != before);
        check_goes_on("a", 3, before);
        check_goes_on("a", 2, before);
        push_some("a", 2);
        check_goes_on("a", 3, before);
        check_reset("a", 4, before, 3);
        check_reset("a", 1000, before, 3);
        check_goes_on("a", 5 + 2 * i, now);
    }
    reopen();
    check_goes_on("a", 3, before);
}

/* Only a cursor can have seen what is gone, and only of an epoch that is known. */
static void test_others_are_not_judged(void **state) {
    (void)state;
    open_log();
    push_some("a", 3);
    check_reset("a", 1, 12345, 0);
    check_goes_on("a", 1, 0);
    check_goes_on("a", 0, 12345);
    check_goes_on("a", -1, 12345);
    check_goes_on("a", POSITION_NOW, 12345);
    check_goes_on("a", position_since(now_ms), 12345);
    check_reset("unknown", 1, 12345, 0);
    struct store_read *read = ask("unknown", 0, 12345);
    assert_false(read->is_reset);
    assert_int_equal(read->epoch, 0);
    read_free(read);
}

/* A channel that came after the backup begins anew, though it gets the id of another one. */
static void test_new_channel_after_a_backup(void **state) {
    (void)state;
    open_log();
    push_some("a", 1);
    keep_backup();
    push_some("b", 2);
    push_some("c", 2);
    uint64_t b = epoch_of("b"), c = epoch_of("c");
    restore_backup();
    check_reset("b", 2, b, 0);
    push_some("c", 3);
    push_some("b", 3);
    check_reset("b", 1, b, 0);
    check_reset("c", 1, c, 0);
    check_reset("b", 1, c, 0);
    check_goes_on("b", 1, epoch_of("b"));
}

static void test_forgotten_channel(void **state) {
    (void)state;
    open_log();
    push_some("a", 2);
    uint64_t before = epoch_of("a");
    settle();
    now_ms += (int64_t)400 * DAY_MS;
    settle();
    check_reset("a", 1, before, 0);
    push_some("a", 3);
    assert_true(epoch_of("a") != before);
    check_reset("a", 1, before, 0);
}

/* What was deleted since tells nobody where the old epoch ended; its head may. */
static void test_after_retention(void **state) {
    (void)state;
    options.channel_max_updates = 10;
    open_log();
    push_some("a", 100);
    push_some("quiet", 5);
    uint64_t a = epoch_of("a"), quiet = epoch_of("quiet");
    crash();
    settle();
    check_goes_on("a", 50, a);
    check_goes_on("quiet", 5, quiet);
    push_some("a", 10);
    settle();
    check_goes_on("a", 100, a);
    check_reset("a", 101, a, 100);
    push_some("a", 100);
    settle();
    check_reset("a", 100, a, 0);
    check_goes_on("quiet", 5, quiet);
}

/* --- Any history ------------------------------------------------------------------------------ */

enum { CHANNELS = 3, UPDATES_MAX = 2000, READERS = 60 };

/* What the channels hold, update by update. */
static int held[CHANNELS][UPDATES_MAX], kept[CHANNELS][UPDATES_MAX];
static int totals[CHANNELS], kept_totals[CHANNELS];

struct seen {
    int channel, total;
    uint64_t epoch;
    int updates[UPDATES_MAX];
};
static struct seen readers[READERS];

static const char *name_of(int channel) {
    static const char *const names[CHANNELS] = {"a", "b", "c"};
    return names[channel];
}

static void push_somewhere(void) {
    static int number;
    int channel = rand() % CHANNELS;
    for (int count = rand() % 3 ? 1 : rand() % 200; count > 0; count--) {
        if (totals[channel] == UPDATES_MAX)
            return;
        push_some(name_of(channel), 1);
        held[channel][totals[channel]++] = ++number;
    }
}

static void look(struct seen *reader) {
    reader->channel = rand() % CHANNELS;
    int total = totals[reader->channel];
    reader->epoch = epoch_of(name_of(reader->channel));
    reader->total = total ? 1 + rand() % total : 0;
    memcpy(reader->updates, held[reader->channel], sizeof reader->updates);
}

/* How much of what the reader has seen is there. */
static int common(const struct seen *reader) {
    int ts = 0;
    while (ts < reader->total && ts < totals[reader->channel] &&
           reader->updates[ts] == held[reader->channel][ts])
        ts++;
    return ts;
}

static void check_reader(const struct seen *reader, bool is_exact) {
    struct store_read *read = ask(name_of(reader->channel), reader->total, reader->epoch);
    assert_false(read->error);
    int there = common(reader);
    if (!reader->epoch || !reader->total)
        assert_false(read->is_reset);
    else if (there < reader->total)
        assert_true(read->is_reset && read->after <= (uint64_t)there);
    else if (is_exact)
        assert_false(read->is_reset);
    if (is_exact && read->is_reset)
        assert_int_equal(read->after, there);
    read_free(read);
}

static void note_backup(void) {
    keep_backup();
    memcpy(kept, held, sizeof held);
    memcpy(kept_totals, totals, sizeof totals);
}

/* Updates, kills, stops, and a backup that is restored again and again. `is_exact`: it is renewed
 * whenever there is a new epoch, so that it knows all of them. */
static void run_history(bool is_exact) {
    memset(totals, 0, sizeof totals);
    memset(readers, 0, sizeof readers);
    open_log();
    note_backup();
    for (int step = 0; step < 600; step++) {
        int dice = rand() % 40;
        if (dice == 0)
            crash();
        if (dice == 1)
            reopen();
        if (dice == 2)
            settle();
        if (dice == 3)
            note_backup();
        if (dice == 4) {
            restore_backup();
            memcpy(held, kept, sizeof held);
            memcpy(totals, kept_totals, sizeof totals);
        }
        if (is_exact && (dice == 0 || dice == 4))
            note_backup();
        if (dice > 4)
            push_somewhere();
        check_reader(&readers[rand() % READERS], is_exact);
        look(&readers[rand() % READERS]);
    }
    close_log();
}

static void test_any_history(void **state) {
    (void)state;
    srand(3);
    run_history(false);
    unlink(path);
    run_history(true);
}

/* --- Failures --------------------------------------------------------------------------------- */

static void spoil(const char *sql) {
    close_log();
    run_sql(sql);
    open_log();
}

static void test_damaged(void **state) {
    (void)state;
    static const char *const damages[] = {
        "UPDATE epoch SET name = name + 1",
        "UPDATE epoch SET seq = 0 WHERE id = 1",
        "DROP TABLE epoch; CREATE TABLE epoch (x)",
        "DROP TABLE epoch",
    };
    open_log();
    push_some("a", 3);
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        uint64_t before = epoch_of("a");
        spoil(damages[i]);
        push_some("a", 1);
        check_reset("a", 3, before, 0);
        before = epoch_of("a");
        reopen();
        assert_int_equal(epoch_of("a"), before);
        crash();
        check_goes_on("a", 4 + (int)i, before);
    }
}

/* Where nothing can be written at the start, the first append brings the epoch with it. */
static void test_no_room(void **state) {
    (void)state;
    struct log_file file;
    struct epochs epochs;
    char error[512];
    int64_t rows = -1;
    options.path = NULL;
    assert_true(log_file_open(&file, &options, error, sizeof error));
    assert_true(log_file_execute(&file, "PRAGMA query_only = ON"));
    assert_true(epochs_open(&epochs, &file, 7, false));
    uint64_t epoch = epochs_of(&epochs, 1);
    assert_true(epochs.is_unsaved);
    assert_false(log_file_begin(&file) && epochs_save(&epochs));
    log_file_roll_back(&file);
    assert_true(log_file_execute(&file, "PRAGMA query_only = OFF"));
    assert_true(log_file_begin(&file) && epochs_save(&epochs) && log_file_commit(&file));
    epochs_committed(&epochs);
    assert_int_equal(epochs_of(&epochs, 1), epoch);
    assert_true(log_file_query(&file, "SELECT count(*) FROM epoch WHERE seq = 7", 0, 0, &rows));
    assert_int_equal(rows, 1);
    epochs_deinit(&epochs);
    log_file_close(&file);
}

/* It is stored with the next push, and is still the one that consumers were told. */
static void test_room_comes(void **state) {
    (void)state;
    options.sync = SYNC_ALWAYS; /* which makes up for a sync that failed */
    open_log();
    push_some("a", 1);
    uint64_t before = epoch_of("a");
    close_log();
    is_clean = false;
    failing_sync = "-wal";
    open_log();
    failing_sync = NULL;
    uint64_t epoch = epoch_of("a");
    assert_int_not_equal(epoch, before);
    push_some("a", 1);
    close_log();
    assert_true(is_clean);
    open_log();
    assert_int_equal(epoch_of("a"), epoch);
}

/* Something of it may not be on the disk, or not as it should be. */
static void test_not_every_close_is_clean(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        open_log();
        push_some("a", 1);
        if (i == 1)
            the_log->file.sync_trouble = "a sync failed";
        if (i == 2)
            the_log->epochs.is_unsaved = true;
        if (i == 3) {
            the_log->file.trouble = "damage";
            the_log->file.is_append_corrupt = true;
        }
        close_log();
        assert_int_equal(is_clean, i == 0);
    }
    open_log();
}

/* What was lost since counts, too, for whoever has seen an epoch before that. */
static void test_lowest_counts(void **state) {
    (void)state;
    struct epoch list[] = {{1, 11, 0}, {2, 12, 100}, {3, 13, 90}, {4, 14, 120}};
    struct epochs epochs;
    uint64_t seen[4];
    for (size_t i = 0; i < 4; i++) {
        epochs = (struct epochs){.list = list, .count = i + 1};
        seen[i] = epochs_of(&epochs, 7);
    }
    int64_t seq;
    assert_true(epochs_find(&epochs, 7, seen[2], &seq));
    assert_int_equal(seq, 120);
    assert_true(epochs_find(&epochs, 7, seen[1], &seq));
    assert_int_equal(seq, 90);
    assert_true(epochs_find(&epochs, 7, seen[0], &seq));
    assert_int_equal(seq, 90);
    assert_false(epochs_find(&epochs, 8, seen[0], &seq));
}

/* On the closed file: sound ones, `first` to `last`. */
static void add_epochs(int first, int last) {
    struct buf sql = {0};
    buf_puts(&sql, "BEGIN;");
    for (int id = first; id <= last; id++)
        buf_printf(&sql, "INSERT INTO epoch VALUES (%d, %d, 1, %lld);", id, id,
                   (long long)seal_epoch(id, id, 1));
    buf_append(&sql, "COMMIT", sizeof "COMMIT");
    run_sql(sql.data);
    buf_deinit(&sql);
    is_clean = false;
}

static void test_more_than_there_is_room_for(void **state) {
    (void)state;
    open_log();
    push_some("a", 1);
    close_log();
    add_epochs(2, EPOCHS_MAX + 1);
    open_log();
    check_goes_on("a", 1, epoch_of("a"));
}

/* The newest EPOCHS_MAX are kept. */
static void test_bound(void **state) {
    (void)state;
    open_log();
    push_some("a", 1);
    uint64_t first = epoch_of("a");
    crash();
    uint64_t second = epoch_of("a");
    crash();
    close_log();
    add_epochs(4, EPOCHS_MAX);
    open_log(); /* one more */
    check_reset("a", 1, first, 0);
    check_goes_on("a", 1, second);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_stable),
        LOG_TEST(test_in_memory),
        LOG_TEST(test_synced),
        LOG_TEST(test_killed),
        LOG_TEST(test_others_are_not_judged),
        LOG_TEST(test_new_channel_after_a_backup),
        LOG_TEST(test_forgotten_channel),
        LOG_TEST(test_after_retention),
        LOG_TEST(test_any_history),
        LOG_TEST(test_damaged),
        LOG_TEST(test_no_room),
        LOG_TEST(test_room_comes),
        LOG_TEST(test_not_every_close_is_clean),
        LOG_TEST(test_lowest_counts),
        LOG_TEST(test_more_than_there_is_room_for),
        LOG_TEST(test_bound),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
