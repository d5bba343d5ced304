/*
 * The store's log alone, on a file in a temporary directory and in memory, with a clock that the test
 * moves. A crash is a copy of the files, taken while the log is open.
 */
#include "base/config.h"
#include "base/hash.h"
#include "base/log.h"
#include "sqlite/log_file.h"
#include "sqlite/update_log.h"
#include "support.h"

#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HOUR_MS = 3600 * 1000, DAY_MS = 24 * HOUR_MS };

static int64_t now_ms;
static char dir[32], path[128];
static struct store_options options;
static struct update_log *the_log;

static int64_t test_clock(void) {
    return now_ms;
}

static void open_log(void) {
    char error[512] = "";
    the_log = update_log_open(&options, error, sizeof error);
    if (!the_log)
        fail_msg("%s", error);
}

static void reopen(void) {
    update_log_close(the_log);
    open_log();
}

static int set_up(void **state) {
    (void)state;
    strcpy(dir, "/tmp/longline-test-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/log.db", dir);
    now_ms = 1700000000000;
    options = (struct store_options){.path = path,
                                     .sync = SYNC_NEVER,
                                     .channel_max_updates = 1000000,
                                     .ttl_ms = (int64_t)7 * DAY_MS,
                                     .clock_ms = test_clock};
    the_log = NULL;
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    if (the_log)
        update_log_close(the_log);
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}

/* --- Pushing and reading ---------------------------------------------------------------------- */

static struct store_append *append_new(struct slice channel, struct slice body) {
    struct store_append *append = calloc(1, sizeof *append + channel.len);
    struct update_parts parts = {.body = body, .method = SLICE("POST")};
    append->update = update_new(&parts);
    append->hash = hash_of(channel);
    append->name_len = (uint16_t)channel.len;
    memcpy(append->name, channel.data, channel.len);
    return append;
}

static void append_free(struct store_append *append) {
    update_unref(append->update);
    free(append);
}

/* Pushes one update; its ts, 0 when it failed. */
static uint64_t push_body(const char *channel, struct slice body) {
    struct store_append *append = append_new(slice_of(channel), body);
    struct list batch;
    list_init(&batch);
    list_append(&batch, &append->op.link);
    update_log_append(the_log, &batch);
    assert_false(list_empty(&batch));
    uint64_t ts = !append->error ? append->update->ts : 0;
    append_free(append);
    return ts;
}

static uint64_t push(const char *channel) {
    return push_body(channel, SLICE("{}"));
}

/* Pushes `count` updates in one transaction; the body of each is its expected ts, from `first_ts`. */
static bool push_many(const char *channel, uint64_t first_ts, int count) {
    struct store_append **appends = malloc((size_t)count * sizeof *appends);
    struct list batch;
    list_init(&batch);
    for (int i = 0; i < count; i++) {
        char body[32];
        snprintf(body, sizeof body, "[%llu]", (unsigned long long)first_ts + (unsigned)i);
        appends[i] = append_new(slice_of(channel), slice_of(body));
        list_append(&batch, &appends[i]->op.link);
    }
    update_log_append(the_log, &batch);
    bool ok = !appends[0]->error;
    for (int i = 0; i < count; i++) {
        assert_int_equal(!appends[i]->error, ok);
        if (ok)
            assert_int_equal(appends[i]->update->ts, first_ts + (unsigned)i);
        append_free(appends[i]);
    }
    free(appends);
    return ok;
}

static struct store_read *read_new(struct slice channel, int64_t after_ts, uint32_t limit) {
    struct store_read *read = calloc(1, sizeof *read + channel.len);
    read->after_ts = after_ts;
    read->limit = limit;
    read->hash = hash_of(channel);
    read->name_len = (uint16_t)channel.len;
    memcpy(read->name, channel.data, channel.len);
    update_log_read(the_log, read);
    return read;
}

static void read_free(struct store_read *read) {
    for (uint32_t i = 0; i < read->count; i++)
        update_unref(read->updates[i]);
    free(read->updates);
    free(read);
}

static struct store_read *read_channel(const char *channel, int64_t after_ts) {
    return read_new(slice_of(channel), after_ts, READ_MAX_UPDATES);
}

static uint64_t total_of(const char *channel) {
    struct store_read *read = read_channel(channel, INT64_MAX);
    assert_false(read->error);
    assert_int_equal(read->count, 0);
    uint64_t total = read->total;
    read_free(read);
    return total;
}

/* A read gives exactly the updates `first` to `last` (none when last < first), without a gap. */
static void check_read_at(const char *channel, int64_t after_ts, uint32_t limit, uint64_t total,
                          uint64_t first, uint64_t last, int line) {
    struct store_read *read = read_new(slice_of(channel), after_ts, limit);
    uint64_t count = last < first ? 0 : last - first + 1;
    if (read->error || read->total != total || read->count != count) {
        print_error(
            "after %lld, limit %u: ok %d, total %llu, %u updates; wanted %llu, %llu updates\n",
            (long long)after_ts, limit, !read->error, (unsigned long long)read->total, read->count,
            (unsigned long long)total, (unsigned long long)count);
        _fail(__FILE__, line);
    }
    for (uint32_t i = 0; i < read->count; i++)
        if (read->updates[i]->ts != first + i || read->updates[i]->refs != 1) {
            print_error("update %u has ts %llu\n", i, (unsigned long long)read->updates[i]->ts);
            _fail(__FILE__, line);
        }
    if (count && read->gone >= first)
        _fail(__FILE__, line);
    if (read->gone > total)
        _fail(__FILE__, line);
    read_free(read);
}

#define check_read(channel, after, limit, total, first, last)                                      \
    check_read_at(channel, after, limit, total, first, last, __LINE__)

static void maintain(void) {
    for (int i = 0; update_log_maintain(the_log, true); i++)
        assert_true(i < 100000);
}

/* Enough time and turns for a checkpoint and for whatever the sweeper wants to do behind it. */
static void settle(void) {
    maintain();
    now_ms += 10000;
    maintain();
    now_ms += 10000;
    maintain();
}

static struct store_stats stats(void) {
    struct store_stats stats = {0};
    update_log_stats(the_log, &stats);
    update_log_count_bytes(the_log, &stats);
    return stats;
}

static void copy_file(const char *from, const char *to) {
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    assert_non_null(out);
    char block[65536];
    for (size_t len; in && (len = fread(block, 1, sizeof block, in));)
        assert_int_equal(fwrite(block, 1, len, out), len);
    if (in)
        fclose(in);
    fclose(out);
}

/* As if the process had been killed: goes on with a copy of the files as they are now. */
static void crash(void) {
    char copy[sizeof path], wal[160], copy_wal[160];
    static int number;
    snprintf(copy, sizeof copy, "%s/crash-%d.db", dir, ++number);
    snprintf(wal, sizeof wal, "%s-wal", path);
    snprintf(copy_wal, sizeof copy_wal, "%s-wal", copy);
    copy_file(path, copy);
    copy_file(wal, copy_wal);
    update_log_close(the_log);
    unlink(path);
    unlink(wal);
    memcpy(path, copy, sizeof path);
    open_log();
}

/* --- Reading ---------------------------------------------------------------------------------- */

static void test_unknown_channel(void **state) {
    (void)state;
    open_log();
    check_read("a", 0, 10, 0, 1, 0);
    check_read("a", 5, 10, 0, 1, 0);
    check_read("a", -5, 10, 0, 1, 0);
    assert_int_equal(push("b"), 1);
    check_read("a", 0, 10, 0, 1, 0);
    reopen();
    check_read("a", 0, 10, 0, 1, 0);
}

/* Whether a cursor this far is worth looking at: near the ends, near the multiples of LOG_SKIP, some others. */
static bool is_of_interest(uint64_t cursor, uint64_t total) {
    uint64_t in_round = cursor % LOG_SKIP;
    return cursor < 4 || cursor + 4 > total || in_round < 2 || in_round == LOG_SKIP - 1 ||
           cursor % 41 == 0;
}

static void check_every_cursor(const char *channel, uint64_t total) {
    static const uint32_t limits[] = {1, 2, 127, 128, 129, READ_MAX_UPDATES};
    for (size_t l = 0; l < sizeof limits / sizeof *limits; l++) {
        uint32_t limit = limits[l];
        for (uint64_t after = 0; after <= total + 2; after++) {
            uint64_t last = after + limit < total ? after + limit : total;
            if (is_of_interest(after, total))
                check_read(channel, (int64_t)after, limit, total, after + 1, last);
            if (is_of_interest(after, total) && after < total)
                check_read(channel, (int64_t)after - (int64_t)total, limit, total, after + 1, last);
        }
        uint64_t last = limit < total ? limit : total;
        check_read(channel, -(int64_t)total - 1, limit, total, 1, last);
        check_read(channel, INT64_MIN, limit, total, 1, last);
        check_read(channel, INT64_MAX, limit, total, 1, 0);
    }
}

/* Every cursor and limit, at totals around the multiples of LOG_SKIP; another channel lies in between. */
static void test_every_cursor(void **state) {
    (void)state;
    static const uint64_t stops[] = {1, 2, 3, 127, 128, 129, 255, 256, 257, 500, 1281};
    open_log();
    uint64_t total = 0;
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        while (total < stops[i]) {
            assert_int_equal(push("a"), ++total);
            if (total % 3 == 0)
                assert_int_equal(push("b"), total / 3);
        }
        check_every_cursor("a", total);
        if (i % 4 == 3) {
            reopen();
            check_every_cursor("a", total);
        }
    }
    check_every_cursor("b", total / 3);
}

static void test_all_parts_come_back(void **state) {
    (void)state;
    open_log();
    static const struct update_parts parts[] = {
        {SLICE("{\"a\":\"\\u0000 \xC3\xA9\"}"), SLICE("\xFF\0\xFE"), SLICE("a=%FF&b=\xFF"),
         SLICE("{\"h\":\"v\"}"), SLICE("PUT"), true},
        {SLICE("{}"), SLICE(""), SLICE(""), SLICE(""), SLICE("POST"), true},
        {SLICE("[]"), SLICE(""), SLICE("q"), SLICE("{}"), SLICE("POST"), false},
    };
    /* Names of any bytes; one that begins as another. */
    static const struct slice names[] = {SLICE("a"), SLICE("ab"),  SLICE("\xFF\xFE"),
                                         SLICE("A"), SLICE("a\0"), SLICE("a'b\"c%")};
    for (int round = 0; round < 2; round++) {
        for (size_t n = 0; n < 6; n++)
            for (size_t i = 0; i < 3 && round == 0; i++) {
                struct store_append *append = append_new(names[n], SLICE(""));
                update_unref(append->update);
                append->update = update_new(&parts[i]);
                struct list batch;
                list_init(&batch);
                list_append(&batch, &append->op.link);
                now_ms++;
                update_log_append(the_log, &batch);
                assert_false(append->error);
                assert_int_equal(append->update->ts, i + 1);
                assert_int_equal(append->update->at_ms, now_ms);
                append_free(append);
            }
        for (size_t n = 0; n < 6; n++) {
            struct store_read *read = read_new(names[n], 0, 10);
            assert_false(read->error);
            assert_int_equal(read->count, 3);
            for (size_t i = 0; i < 3; i++) {
                struct update *update = read->updates[i];
                assert_slices(update_body(update), parts[i].body);
                assert_slices(update_raw(update), parts[i].has_raw ? parts[i].raw : parts[i].body);
                assert_slices(update_query(update), parts[i].query);
                assert_slices(update_headers(update), parts[i].headers);
                assert_slices(update_method(update), parts[i].method);
                assert_int_equal(update->has_raw, parts[i].has_raw);
                assert_int_equal(update->at_ms, 1700000000000 + (int64_t)(n * 3 + i) + 1);
            }
            read_free(read);
        }
        reopen();
    }
}

static void test_byte_bound(void **state) {
    (void)state;
    open_log();
    enum { LEN = 300000 };
    char *body = malloc(3 << 20);
    memset(body, ' ', 3 << 20);
    memcpy(body, "[]", 2);
    for (int i = 0; i < 8; i++)
        assert_int_equal(push_body("a", (struct slice){body, LEN}), i + 1);
    check_read("a", 0, 100, 8, 1, READ_MAX_BYTES / LEN);
    check_read("a", 3, 100, 8, 4, 3 + READ_MAX_BYTES / LEN);
    check_read("a", 6, 100, 8, 7, 8);
    check_read("a", 0, 2, 8, 1, 2);
    /* One larger than the bound is read, alone. */
    assert_int_equal(push_body("b", SLICE("{}")), 1);
    assert_int_equal(push_body("b", (struct slice){body, 3 << 20}), 2);
    assert_int_equal(push_body("b", SLICE("{}")), 3);
    check_read("b", 0, 100, 3, 1, 1);
    check_read("b", 1, 100, 3, 2, 2);
    check_read("b", 2, 100, 3, 3, 3);
    /* To the byte. */
    assert_int_equal(push_body("c", (struct slice){body, READ_MAX_BYTES / 2}), 1);
    assert_int_equal(push_body("c", (struct slice){body, READ_MAX_BYTES / 2}), 2);
    assert_int_equal(push_body("c", SLICE("{}")), 3);
    check_read("c", 0, 100, 3, 1, 2);
    free(body);
}

/* --- Retention -------------------------------------------------------------------------------- */

static void test_count_bound(void **state) {
    (void)state;
    options.channel_max_updates = 10;
    open_log();
    for (uint64_t total = 1; total <= 400; total++) {
        assert_int_equal(push("a"), total);
        uint64_t first = total > 10 ? total - 9 : 1;
        check_read("a", 0, 100, total, first, total);
        check_read("a", -3, 100, total, total > 3 ? total - 2 : 1, total);
        check_read("a", -100, 100, total, first, total);
        struct store_read *read = read_channel("a", 0);
        assert_int_equal(read->gone, first - 1);
        read_free(read);
    }
    /* A smaller bound after a new start holds at once, a larger one brings nothing back that is gone. */
    options.channel_max_updates = 5;
    reopen();
    check_read("a", 0, 100, 400, 396, 400);
}

static void test_count_is_swept(void **state) {
    (void)state;
    options.channel_max_updates = 10;
    open_log();
    uint64_t total = 0;
    for (int i = 0; i < 60; i++, total += 100) {
        assert_true(push_many("a", total + 1, 100));
        assert_int_equal(push("rare"), i + 1);
        now_ms += 500;
        update_log_maintain(the_log, true);
    }
    settle();
    assert_true(stats().updates >= 20);
    assert_true(stats().updates < 4000);
    assert_true(stats().swept > 2000);
    assert_int_equal(stats().updates + stats().swept, 6060);
    check_read("a", 0, 100, total, total - 9, total);
    check_read("rare", 0, 100, 60, 51, 60);
    reopen();
    check_read("a", 0, 100, total, total - 9, total);
    check_read("rare", 0, 100, 60, 51, 60);
    assert_int_equal(push("a"), total + 1);
}

static void test_age_bound(void **state) {
    (void)state;
    options.ttl_ms = 1000;
    open_log();
    for (int i = 1; i <= 300; i++, now_ms += 10)
        assert_int_equal(push("a"), i);
    /* The update i was stored at 10 i; it is now 3,000, less than 1,000 ago are those from 2,000 on. */
    check_read("a", 0, READ_MAX_UPDATES, 300, 201, 300);
    check_read("a", 250, READ_MAX_UPDATES, 300, 251, 300);
    check_read("a", -200, READ_MAX_UPDATES, 300, 201, 300);
    check_read("a", 0, 5, 300, 201, 205);
    struct store_read *read = read_channel("a", 0);
    assert_int_equal(read->gone, 200);
    read_free(read);
    now_ms += 985;
    check_read("a", 0, READ_MAX_UPDATES, 300, 300, 300);
    now_ms += 1000;
    check_read("a", 0, READ_MAX_UPDATES, 300, 301, 300);
    read = read_channel("a", 0);
    assert_int_equal(read->gone, 300);
    read_free(read);
    assert_int_equal(push("a"), 301);
    check_read("a", 0, READ_MAX_UPDATES, 301, 301, 301);
}

/* Everything is swept; ids go on where they were, also after a new start and after a crash. */
static void test_ids_are_never_reused(void **state) {
    (void)state;
    open_log();
    uint64_t total = 0;
    for (int round = 0; round < 6; round++) {
        for (int i = 0; i < 200; i++) {
            assert_int_equal(push("a"), ++total);
            if (i % 50 == 0)
                assert_true(push("b") > 0);
        }
        settle();
        now_ms += (int64_t)8 * DAY_MS;
        maintain();
        if (round % 3 == 1)
            reopen();
        if (round % 3 == 2)
            crash();
        assert_int_equal(total_of("a"), total);
        check_read("a", 0, READ_MAX_UPDATES, total, 1, 0);
    }
    assert_int_equal(stats().updates, 0);
    assert_int_equal(push("a"), total + 1);
    assert_int_equal(push("b"), 25);
    reopen();
    check_read("a", 0, READ_MAX_UPDATES, total + 1, total + 1, total + 1);
}

/* A channel whose updates are all swept does not find those of others in their place, after a new start or a crash. */
static void test_seqs_are_never_reused(void **state) {
    (void)state;
    for (int round = 0; round < 2; round++) {
        set_up(NULL);
        open_log();
        assert_true(push_many("a", 1, 200));
        settle();
        now_ms += (int64_t)8 * DAY_MS;
        settle();
        assert_int_equal(stats().updates, 0);
        if (round == 0)
            reopen();
        else
            crash();
        assert_true(push_many("b", 1, 300));
        check_read("a", 0, READ_MAX_UPDATES, 200, 1, 0);
        check_read("a", -5, READ_MAX_UPDATES, 200, 1, 0);
        assert_true(push_many("a", 201, 200));
        check_read("a", 0, READ_MAX_UPDATES, 400, 201, 400);
        check_read("b", 0, READ_MAX_UPDATES, 300, 1, 300);
        if (round == 0)
            tear_down(NULL);
    }
}

/* Nothing past its age stays on the disk of a server that has nothing else to do. */
static void test_expired_updates_are_deleted_when_idle(void **state) {
    (void)state;
    open_log();
    assert_int_equal(push("a"), 1);
    now_ms += 6000; /* a checkpoint is due when the next update comes, and takes it along */
    assert_int_equal(push("a"), 2);
    settle();
    now_ms += (int64_t)8 * DAY_MS;
    settle();
    assert_int_equal(stats().updates, 0);
}

static int64_t file_bytes(void) {
    struct stat file, wal = {0};
    char name[160];
    snprintf(name, sizeof name, "%s-wal", path);
    stat(name, &wal);
    assert_int_equal(stat(path, &file), 0);
    return file.st_size + wal.st_size;
}

static void test_bytes_bound(void **state) {
    (void)state;
    options.max_bytes = 2 << 20;
    open_log();
    char *body = malloc(10000);
    memset(body, ' ', 10000);
    memcpy(body, "[]", 2);
    int64_t bytes_half_way = 0;
    uint64_t total = 0;
    for (int i = 0; i < 4000; i++) { /* 40 MB */
        assert_int_equal(push_body("a", (struct slice){body, 10000}), ++total);
        if (i % 4 == 0)
            update_log_maintain(the_log, true);
        now_ms += 20;
        if (i == 2000)
            bytes_half_way = file_bytes();
    }
    assert_true(file_bytes() < 16 << 20);
    assert_true(file_bytes() < bytes_half_way + (4 << 20));
    settle();
    assert_true(stats().bytes <= options.max_bytes);
    assert_true(stats().bytes > options.max_bytes / 2); /* not more than needed goes */
    struct store_read *read = read_new(SLICE("a"), -50, 100);
    assert_int_equal(read->count, 50);
    assert_int_equal(read->updates[49]->ts, total);
    read_free(read);
    /* The oldest went first. */
    read = read_channel("a", 0);
    assert_true(read->count > 0);
    assert_true(read->updates[0]->ts > total - 300);
    assert_int_equal(read->gone, read->updates[0]->ts - 1);
    read_free(read);
    free(body);
}

/* A clock that is set back neither reorders nor revives. */
static void test_clock_set_back(void **state) {
    (void)state;
    open_log();
    assert_int_equal(push("a"), 1);
    now_ms -= (int64_t)3 * DAY_MS;
    assert_int_equal(push("a"), 2);
    struct store_read *read = read_channel("a", 0);
    assert_int_equal(read->count, 2);
    assert_true(read->updates[1]->at_ms >= read->updates[0]->at_ms);
    read_free(read);
    reopen();
    assert_int_equal(push("a"), 3);
    read = read_channel("a", 0);
    assert_int_equal(read->count, 3);
    assert_true(read->updates[2]->at_ms >= read->updates[0]->at_ms);
    read_free(read);
}

/* --- Forgetting ------------------------------------------------------------------------------- */

static void test_forgotten_after_a_year(void **state) {
    (void)state;
    open_log();
    for (int i = 1; i <= 5; i++)
        assert_int_equal(push("a"), i);
    settle();
    for (int day = 1; day < 365; day += 13) {
        now_ms += (int64_t)13 * DAY_MS;
        if (day + 13 < 365) {
            maintain();
            assert_int_equal(total_of("a"), 5);
        }
    }
    now_ms += (int64_t)3 * DAY_MS; /* more than 365 days */
    settle();
    assert_int_equal(total_of("a"), 0);
    assert_int_equal(push("a"), 1);
    reopen();
    check_read("a", 0, 10, 1, 1, 1);
}

static void test_not_forgotten_before(void **state) {
    (void)state;
    open_log();
    assert_int_equal(push("a"), 1);
    settle();
    now_ms += (int64_t)364 * DAY_MS + 23 * HOUR_MS;
    settle();
    assert_int_equal(total_of("a"), 1);
    assert_int_equal(push("a"), 2);
    settle();
    now_ms += (int64_t)364 * DAY_MS;
    reopen();
    settle();
    assert_int_equal(total_of("a"), 2);
    assert_int_equal(push("a"), 3);
}

/* A year without an update counts from the newest one, even while only the log knows of it. */
static void test_not_forgotten_while_its_row_lags(void **state) {
    (void)state;
    open_log();
    for (int i = 1; i <= 5; i++)
        assert_int_equal(push("a"), i);
    settle();
    now_ms += (int64_t)400 * DAY_MS;
    reopen();
    assert_int_equal(push("a"), 6);
    update_log_maintain(the_log, true);
    assert_int_equal(total_of("a"), 6);
    crash();
    settle();
    assert_int_equal(total_of("a"), 6);
    now_ms += 2 * HOUR_MS;
    settle();
    check_read("a", 0, 10, 6, 6, 6);
    assert_int_equal(push("a"), 7);
}

static void test_kept_updates_keep_their_channel(void **state) {
    (void)state;
    options.ttl_ms = (int64_t)800 * DAY_MS;
    open_log();
    assert_int_equal(push("a"), 1);
    settle();
    now_ms += (int64_t)500 * DAY_MS;
    settle();
    check_read("a", 0, 10, 1, 1, 1);
    assert_int_equal(push("a"), 2);
}

/* Invariant 1: an id given to a channel is not given to another one. */
static void test_channel_ids_are_never_reused(void **state) {
    (void)state;
    options.ttl_ms = (int64_t)365 * DAY_MS;
    open_log();
    assert_int_equal(push("a"), 1);
    settle();
    now_ms += (int64_t)366 * DAY_MS;
    settle();
    assert_int_equal(total_of("a"), 0);
    reopen();
    assert_int_equal(push("b"), 1);
    update_log_close(the_log);
    the_log = NULL;
    sqlite3 *db;
    sqlite3_stmt *statement;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT id FROM channel", -1, &statement, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    int64_t id = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    sqlite3_close(db);
    assert_true(id > 1);
}

/* --- Crashes and failures --------------------------------------------------------------------- */

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

/* A batch that fails leaves no trace: not of new channels, not of new ids, whatever was under way. */
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

/* --- Files that are not ours ------------------------------------------------------------------ */

static void execute(const char *sql) {
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void check_does_not_open(const char *reason) {
    char error[512] = "";
    struct update_log *log = update_log_open(&options, error, sizeof error);
    if (log)
        update_log_close(log);
    assert_null(log);
    if (!strstr(error, reason) || !strstr(error, path) || strchr(error, '\n'))
        fail_msg("\"%s\" does not say \"%s\"", error, reason);
}

static void test_unknown_version(void **state) {
    (void)state;
    open_log();
    assert_int_equal(push("a"), 1);
    update_log_close(the_log);
    the_log = NULL;
    execute("PRAGMA user_version = 2");
    check_does_not_open("schema version 2");
    execute("PRAGMA user_version = 0");
    check_does_not_open("schema version 0");
    execute("PRAGMA user_version = 1");
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

/* --- In memory -------------------------------------------------------------------------------- */

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

static int set_up_all(void **state) {
    (void)state;
    hash_init();
    log_init(LOG_LEVEL_ERROR + 1, false); /* failures are what some tests are about */
    return 0;
}

#define LOG_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_unknown_channel),
        LOG_TEST(test_every_cursor),
        LOG_TEST(test_all_parts_come_back),
        LOG_TEST(test_byte_bound),
        LOG_TEST(test_count_bound),
        LOG_TEST(test_count_is_swept),
        LOG_TEST(test_age_bound),
        LOG_TEST(test_ids_are_never_reused),
        cmocka_unit_test_teardown(test_seqs_are_never_reused, tear_down),
        LOG_TEST(test_expired_updates_are_deleted_when_idle),
        LOG_TEST(test_bytes_bound),
        LOG_TEST(test_clock_set_back),
        LOG_TEST(test_forgotten_after_a_year),
        LOG_TEST(test_not_forgotten_before),
        LOG_TEST(test_not_forgotten_while_its_row_lags),
        LOG_TEST(test_kept_updates_keep_their_channel),
        LOG_TEST(test_channel_ids_are_never_reused),
        LOG_TEST(test_crashes),
        LOG_TEST(test_failed_transactions),
        LOG_TEST(test_failed_batch_of_new_channels),
        LOG_TEST(test_unknown_version),
        LOG_TEST(test_foreign_files),
        LOG_TEST(test_in_memory),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
