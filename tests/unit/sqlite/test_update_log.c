/* The log as a whole: crashes and failures against a model; in memory. */
#include "fixture.h"

#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { CHANNELS = 40 };

static uint64_t totals[CHANNELS];
static uint64_t seed;

static uint32_t random_below(uint32_t bound) {
    seed = seed * 6364136223846793005 + 1442695040888963407;
    return (uint32_t)(seed >> 33) % bound;
}

static char *channel_name(int i) {
    static char name[32];
    snprintf(name, sizeof name, "channel-%d", i);
    return name;
}

/* All channels hold what was acknowledged, as far as the bound on their count allows. */
static void check_channels(void) {
    for (int i = 0; i < CHANNELS; i++) {
        struct store_read *read = read_channel(channel_name(i), 0);
        assert_false(read->error);
        if (read->total != totals[i])
            fail_msg("channel %d: %llu, not %llu", i, (unsigned long long)read->total,
                     (unsigned long long)totals[i]);
        uint64_t kept =
            totals[i] < options.channel_max_updates ? totals[i] : options.channel_max_updates;
        assert_int_equal(read->count, kept);
        for (uint32_t j = 0; j < read->count; j++) {
            char body[32];
            uint64_t ts = totals[i] - kept + j + 1;
            snprintf(body, sizeof body, "[%llu]", (unsigned long long)ts);
            assert_int_equal(read->updates[j]->ts, ts);
            assert_text(update_body(read->updates[j]), body);
        }
        read_free(read);
    }
}

/* Random pushes, pauses, maintenance, new starts and crashes against a model. */
static void test_crashes(void **state) {
    (void)state;
    options.channel_max_updates = 200;
    memset(totals, 0, sizeof totals);
    seed = 42;
    open_log();
    for (int step = 0; step < 1200; step++) {
        int channel = (int)random_below(random_below(2) ? CHANNELS : 3),
            count = (int)random_below(20) + 1;
        assert_true(push_many(channel_name(channel), totals[channel] + 1, count));
        totals[channel] += (uint64_t)count;
        now_ms += random_below(400);
        if (random_below(3) == 0)
            update_log_maintain(the_log, true);
        uint32_t what = random_below(100);
        if (what < 2)
            crash();
        else if (what == 2)
            reopen();
        else if (what == 3)
            settle();
        if (what < 4)
            check_channels();
    }
    check_channels();
    settle();
    check_channels();
}

/* No file may grow beyond `bytes`: as a full disk. */
static void limit_file_size(rlim_t bytes) {
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static rlim_t wal_bytes(void) {
    struct stat wal;
    char name[160];
    snprintf(name, sizeof name, "%s-wal", path);
    assert_int_equal(stat(name, &wal), 0);
    return (rlim_t)wal.st_size;
}

/* A batch that fails leaves no trace: no new channels, no new ids, whatever was under way. */
static void test_failed_transactions(void **state) {
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    options.channel_max_updates = 50;
    memset(totals, 0, sizeof totals);
    seed = 7;
    open_log();
    int failures = 0;
    for (int step = 0; step < 800; step++) {
        bool is_full = random_below(3) == 0;
        if (is_full)
            limit_file_size(wal_bytes() > 8192 ? wal_bytes() - random_below(4096) : 4096);
        int channel = (int)random_below(1 + (uint32_t)step / 20 < CHANNELS ? 1 + (uint32_t)step / 20
                                                                           : CHANNELS);
        int count = (int)random_below(30) + 1;
        if (push_many(channel_name(channel), totals[channel] + 1, count))
            totals[channel] += (uint64_t)count;
        else
            failures++;
        now_ms += random_below(1500);
        if (random_below(2))
            update_log_maintain(the_log, true);
        if (is_full && random_below(2))
            check_channels(); /* what is there can be read while the disk is full */
        limit_file_size(RLIM_INFINITY);
        if (random_below(40) == 0)
            crash();
        if (random_below(40) == 0)
            settle();
        if (step % 20 == 0)
            check_channels();
    }
    assert_true(failures > 20);
    assert_true(stats().errors > 0 || failures);
    check_channels();
    reopen();
    check_channels();
    for (int i = 0; i < CHANNELS; i++)
        assert_int_equal(push(channel_name(i)), totals[i] + 1);
}

/* Many channels in one failed batch, none of them known before. */
static void test_failed_batch_of_new_channels(void **state) {
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    open_log();
    assert_int_equal(push("known"), 1);
    limit_file_size(wal_bytes());
    enum { COUNT = 300 };
    struct store_append *appends[COUNT];
    struct list batch;
    list_init(&batch);
    for (int i = 0; i < COUNT; i++) {
        char name[32];
        snprintf(name, sizeof name, i % 3 ? "new-%d" : "known", i % 7);
        appends[i] = append_new(slice_of(name), SLICE("{}"));
        list_append(&batch, &appends[i]->op.link);
    }
    update_log_append(the_log, &batch);
    for (int i = 0; i < COUNT; i++) {
        assert_true(appends[i]->error);
        append_free(appends[i]);
    }
    limit_file_size(RLIM_INFINITY);
    assert_int_equal(total_of("new-1"), 0);
    assert_int_equal(total_of("known"), 1);
    assert_int_equal(stats().updates, 1);
    assert_int_equal(push("new-1"), 1);
    assert_int_equal(push("known"), 2);
    crash();
    check_read("new-1", 0, 10, 1, 1, 1);
    check_read("known", 0, 10, 2, 1, 2);
}

/* Appends all, and frees them; returns how many were stored. */
static int append_all(struct store_append **appends, int count) {
    struct list batch;
    list_init(&batch);
    for (int i = 0; i < count; i++)
        list_append(&batch, &appends[i]->op.link);
    update_log_append(the_log, &batch);
    int stored = 0;
    for (int i = 0; i < count; i++)
        stored += !appends[i]->error;
    return stored;
}

static void free_all(struct store_append **appends, int count) {
    for (int i = 0; i < count; i++)
        append_free(appends[i]);
}

/* Appends of one update and of many, in one transaction. */
static void test_batches_among_others(void **state) {
    (void)state;
    open_log();
    struct slice a = SLICE("a"), b = SLICE("b");
    struct store_append *appends[] = {append_new(a, SLICE("{}")), append_new_batch(a, 300),
                                      append_new_batch(b, 2),     append_new(a, SLICE("{}")),
                                      append_new_batch(a, 1),     append_new(b, SLICE("{}"))};
    enum { COUNT = sizeof appends / sizeof *appends };
    assert_int_equal(append_all(appends, COUNT), COUNT);
    static const uint64_t first[COUNT] = {1, 2, 1, 302, 303, 3};
    for (int i = 0; i < COUNT; i++)
        for (uint32_t n = 0; n < appends[i]->count; n++)
            assert_int_equal(appends[i]->updates[n]->ts, first[i] + n);
    free_all(appends, COUNT);
    assert_int_equal(stats().updates, 306);
    check_read("a", 0, READ_MAX_UPDATES, 303, 1, 303);
    check_read("a", 250, 10, 303, 251, 260);
    crash();
    check_read("a", 0, READ_MAX_UPDATES, 303, 1, 303);
    check_read("b", 0, READ_MAX_UPDATES, 3, 1, 3);
    assert_int_equal(push("a"), 304);
}

/* A row in the middle of a batch finds no room: none of its updates is there, nor of the others. */
static void test_failed_batch(void **state) {
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    open_log();
    assert_int_equal(push("a"), 1);
    struct slice a = SLICE("a"), b = SLICE("b");
    int failures = 0;
    for (uint32_t room = 0; room < 400000; room += 50000) {
        struct store_append *appends[] = {append_new(a, SLICE("{}")), append_new_batch(b, 5000),
                                          append_new_batch(a, 10)};
        limit_file_size(wal_bytes() + room);
        int stored = append_all(appends, 3);
        limit_file_size(RLIM_INFINITY);
        free_all(appends, 3);
        if (stored) {
            assert_int_equal(stored, 3);
            break;
        }
        failures++;
        assert_int_equal(total_of("a"), 1);
        assert_int_equal(total_of("b"), 0);
        assert_int_equal(stats().updates, 1);
    }
    assert_true(failures > 2);
    crash();
    uint64_t total = total_of("b");
    assert_true(total == 0 || total == 5000);
    assert_int_equal(total_of("a"), total ? 12 : 1);
    assert_int_equal(push("b"), total + 1);
}

static void test_in_memory(void **state) {
    (void)state;
    options.path = NULL;
    options.channel_max_updates = 100;
    options.ttl_ms = DAY_MS;
    open_log();
    uint64_t total = 0;
    for (int i = 0; i < 100; i++, total += 50) {
        assert_true(push_many("a", total + 1, 50));
        assert_int_equal(push("b"), i + 1);
        now_ms += 1000;
        update_log_maintain(the_log, true);
    }
    settle();
    check_read("a", 0, READ_MAX_UPDATES, total, total - 99, total);
    check_read("b", 10, READ_MAX_UPDATES, 100, 11, 100);
    assert_true(stats().swept > 0);
    now_ms += 2 * DAY_MS;
    settle();
    assert_int_equal(stats().updates, 0);
    assert_int_equal(push("a"), total + 1);
}

static int64_t checkpoint_on_disk(void) {
    sqlite3 *db;
    sqlite3_stmt *statement;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT value FROM meta WHERE key = 'checkpoint'", -1,
                                        &statement, NULL),
                     SQLITE_OK);
    int64_t seq = sqlite3_step(statement) == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : -1;
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return seq;
}

/* Killed again and again before a checkpoint is due, each start replays only what came since. */
static void test_a_start_writes_what_it_replayed(void **state) {
    (void)state;
    open_log();
    for (uint64_t round = 0; round < 5; round++) {
        assert_true(push_many("a", round * 10 + 1, 10));
        crash();
        assert_int_equal(checkpoint_on_disk(), round * 10 + 10);
    }
}

/* The write-ahead log is copied, and begins anew: that needs no room. */
static void test_a_full_disk_that_the_write_ahead_log_fills(void **state) {
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    open_log();
    for (uint64_t ts = 1; ts <= 20; ts++)
        assert_int_equal(push("a"), ts);
    limit_file_size(wal_bytes());
    assert_int_equal(push("a"), 0);
    assert_int_equal(push("a"), 21);
    limit_file_size(RLIM_INFINITY);
}

static void test_a_stop_leaves_nothing_to_the_start(void **state) {
    (void)state;
    open_log();
    assert_true(push_many("a", 1, 10));
    close_log();
    assert_int_equal(checkpoint_on_disk(), 10);
    open_log();
}

/* Channels that it has not come to yet are in the log behind the checkpoint before. */
static void test_killed_in_a_checkpoint(void **state) {
    (void)state;
    enum { MANY = 1100 }; /* more than are written at once */
    open_log();
    for (int i = 0; i < MANY; i++)
        assert_int_equal(push(channel_name(i)), 1);
    now_ms += 6000;
    update_log_maintain(the_log, true);
    crash();
    for (int i = 0; i < MANY; i++)
        assert_int_equal(total_of(channel_name(i)), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_crashes),
        LOG_TEST(test_failed_transactions),
        LOG_TEST(test_failed_batch_of_new_channels),
        LOG_TEST(test_batches_among_others),
        LOG_TEST(test_failed_batch),
        LOG_TEST(test_in_memory),
        LOG_TEST(test_a_start_writes_what_it_replayed),
        LOG_TEST(test_a_full_disk_that_the_write_ahead_log_fills),
        LOG_TEST(test_a_stop_leaves_nothing_to_the_start),
        LOG_TEST(test_killed_in_a_checkpoint),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
