/* Rows with a wrong seal are never believed: they are left out, made again, or stop the start. */
#include "fixture.h"

#include "base/hash.h"
#include "sqlite/update_log_parts.h"

#include <unistd.h>

/* A log of two channels, whose updates come in turns: channel 1 has the seqs 1, 3 to 9. */
static int set_up_channels(void **state) {
    if (set_up(state))
        return -1;
    open_log();
    for (uint64_t ts = 1; ts <= 5; ts++)
        if (!push_many("a", ts, 1) || !push_many("b", ts, 1))
            return -1;
    settle();
    return 0;
}

static struct store_read *look(const char *channel, int64_t after) {
    struct slice name = slice_of(channel);
    struct store_read *read = calloc(1, sizeof *read + name.len);
    read->position = after;
    read->limit = READ_MAX_UPDATES;
    read->hash = hash_of(name);
    read->name_len = (uint16_t)name.len;
    memcpy(read->name, name.data, name.len);
    update_log_read(the_log, read);
    return read;
}

/* What reads return, one behind the other: "1 2 | 4 5", with no gap within one. */
static void check_seen(const char *channel, const char *wanted) {
    char seen[256] = "", body[32];
    uint64_t after = 0, total = 1;
    while (after < total) {
        struct store_read *read = look(channel, (int64_t)after);
        assert_false(read->error);
        snprintf(seen + strlen(seen), sizeof seen - strlen(seen), "%s", *seen ? "| " : "");
        for (uint32_t i = 0; i < read->count; i++) {
            uint64_t ts = read->updates[i]->ts;
            snprintf(body, sizeof body, "[%llu]", (unsigned long long)ts);
            assert_text(update_body(read->updates[i]), body);
            assert_int_equal(ts, read->updates[0]->ts + i);
            snprintf(seen + strlen(seen), sizeof seen - strlen(seen), "%s ", body);
        }
        assert_true(read->end > after);
        after = read->end;
        total = read->total;
        read_free(read);
    }
    seen[strlen(seen) - 1] = '\0';
    assert_string_equal(seen, wanted);
}

static void execute(const char *sql) {
    assert_true(log_file_execute(&the_log->file, sql));
}

/* Opens the log anew with what `sql` makes of its file. */
static void reopen_with(const char *sql) {
    close_log();
    run_sql(sql);
    open_log();
}

static void check_no_start(void) {
    char error[512] = "";
    assert_null(update_log_open(&options, false, error, sizeof error));
    assert_non_null(strstr(error, "is damaged"));
}

static void test_content(void **state) {
    (void)state;
    reopen_with("UPDATE update_log SET body = '[9]' WHERE seq = 5");
    check_seen("a", "[1] [2] | [4] [5]");
    check_seen("b", "[1] [2] [3] [4] [5]");
    assert_int_equal(stats().damaged, 1);
}

static void test_numbers(void **state) {
    (void)state;
    reopen_with("UPDATE update_log SET at = at + 1 WHERE seq = 5");
    check_seen("a", "[1] [2] | [4] [5]");
    assert_int_equal(stats().damaged, 1);
}

/* The row is whole, but not the one that the link means. */
static void test_links(void **state) {
    (void)state;
    static const char change[] =
        "UPDATE update_log SET %s, seal = make_seal(seq, %s, prev, skip, at, born, size,"
        " name, body, raw, method, query, headers) WHERE seq = 5";
    char sql[512];
    snprintf(sql, sizeof sql, change, "channel = 2", "2, ts");
    execute(sql);
    check_seen("a", "[1] [2] | [4] [5]");
    snprintf(sql, sizeof sql, change, "channel = 1, ts = 2", "1, 2");
    reopen_with("SELECT 1");
    execute(sql);
    check_seen("a", "[1] [2] | [4] [5]");
}

/* Of the pushes that are stored together, and of consumers. */
static void check_only_one_fails(void) {
    struct store_append *a = append_new(SLICE("a"), SLICE("[6]"));
    struct store_append *b = append_new(SLICE("b"), SLICE("[7]"));
    struct store_cursors *cursors = calloc(1, sizeof *cursors + 1);
    struct list batch;
    list_init(&batch);
    list_append(&batch, &a->op.link);
    list_append(&batch, &b->op.link);
    update_log_append(the_log, &batch);
    assert_true(a->error && !b->error && b->only->ts == 7);
    append_free(a);
    append_free(b);
    cursors->action = CURSORS_LOAD;
    cursors->hash = hash_of(SLICE("a"));
    cursors->name_len = 1;
    cursors->name[0] = 'a';
    update_log_cursors(the_log, cursors);
    assert_true(cursors->error);
    free(cursors);
}

static void test_channel(void **state) {
    (void)state;
    reopen_with("UPDATE channel SET total = 9 WHERE id = 1");
    assert_int_equal(total_of("a"), 5); /* it was made again */
    reopen();
    run_sql("UPDATE channel SET total = 9 WHERE id = 1");
    struct store_read *read = look("a", 0);
    assert_true(read->error);
    read_free(read);
    assert_int_equal(push("a"), 0);
    assert_int_equal(push("b"), 6);
    check_only_one_fails();
    reopen();
    assert_int_equal(push("a"), 6);
}

static int64_t root_of(const char *name) {
    char sql[128];
    int64_t page = 0;
    snprintf(sql, sizeof sql, "SELECT rootpage FROM sqlite_schema WHERE name = '%s'", name);
    assert_true(log_file_query(&the_log->file, sql, 0, 0, &page) && page);
    return page;
}

static void move_index(int64_t root) {
    char sql[256];
    snprintf(sql, sizeof sql,
             "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = %lld"
             " WHERE name = 'sqlite_autoindex_channel_1'; PRAGMA writable_schema = RESET",
             (long long)root);
    execute(sql);
}

/* Damage in the way of a checkpoint is noticed by pushes that have nothing to do with it: they go
 * on, and nothing is lost. */
static void test_index_at_run_time(void **state) {
    (void)state;
    int64_t root = root_of("sqlite_autoindex_channel_1");
    move_index(root_of("update_log"));
    assert_int_equal(push("new"), 1);
    now_ms += HOUR_MS; /* a checkpoint is due */
    assert_int_equal(push("a"), 6);
    assert_true(the_log->checkpoint.is_stuck);
    assert_int_equal(push("b"), 6);
    now_ms += options.ttl_ms + DAY_MS; /* all is too old, also what cannot be deleted yet */
    assert_int_equal(push("b"), 7);
    for (int slices = 0; update_log_maintain(the_log, true); slices++)
        assert_true(slices < 100);
    move_index(root);
    reopen();
    assert_int_equal(total_of("new"), 1);
    assert_int_equal(total_of("a"), 6);
    assert_int_equal(push("b"), 8);
}

/* Nothing is left of it: its counter would begin at 1 again. */
static void test_lost_channel(void **state) {
    (void)state;
    close_log();
    run_sql("DELETE FROM update_log WHERE channel = 1;"
            "UPDATE channel SET total = 9 WHERE id = 1");
    check_no_start();
    char error[512] = "";
    assert_null(update_log_open(&options, false, error, sizeof error));
    assert_non_null(strstr(error, "restore a backup"));
}

/* Where the index has it, and nowhere else: what nobody finds would begin at 1 again. */
static void spoil_name_in_index(const char *name) {
    enum { INDEX_LEAF = 0x0a, PAGE_BYTES = 8192 };
    unsigned char page[PAGE_BYTES];
    int count = 0;
    FILE *file = fopen(path, "r+b");
    for (long at = 0; fread(page, 1, sizeof page, file) == sizeof page; at += PAGE_BYTES) {
        unsigned char *found = memmem(page, sizeof page, name, strlen(name));
        if (page[0] == INDEX_LEAF && found) {
            fseek(file, at + (found - page), SEEK_SET);
            fputc(*found ^ 1, file);
            fseek(file, at + PAGE_BYTES, SEEK_SET);
            count++;
        }
    }
    fclose(file);
    assert_int_equal(count, 1);
}

static void test_a_name_in_the_index(void **state) {
    (void)state;
    assert_int_equal(push("known by its name"), 1);
    settle();
    close_log();
    spoil_name_in_index("known by its name");
    open_log();
    assert_int_equal(push("known by its name"), 2);
}

static void test_meta(void **state) {
    (void)state;
    reopen_with("UPDATE meta SET value = 1000 WHERE key = 'checkpoint'");
    assert_int_equal(push("a"), 6);
    reopen_with("SELECT 1");
    check_seen("b", "[1] [2] [3] [4] [5]");
    int64_t seq = 0;
    assert_true(log_file_query(&the_log->file, "SELECT max(seq) FROM update_log", 0, 0, &seq));
    assert_int_equal(seq, 11);
}

/* A crash whose log has an update of the last seconds that `sql` damages. */
static void crash_with(const char *sql) {
    char copy[64];
    run_sql(sql);
    keep_backup();
    snprintf(copy, sizeof copy, "%s/backup.db", dir);
    close_log();
    memcpy(path, copy, sizeof copy);
    is_clean = false;
}

static void test_an_update_of_the_last_seconds(void **state) {
    (void)state;
    push("a");
    crash_with("UPDATE update_log SET channel = 77, ts = 55, prev = 66 WHERE seq = 11");
    check_no_start();
}

/* Breaks the chains of pages that are full of `fill`. */
static void break_chains(char fill) {
    enum { PAGE_BYTES = 8192, NEXT_BYTES = 4 };
    char page[PAGE_BYTES], filled[PAGE_BYTES - NEXT_BYTES];
    int count = 0;
    memset(filled, fill, sizeof filled);
    FILE *file = fopen(path, "r+b");
    for (long at = 0; fread(page, 1, sizeof page, file) == sizeof page; at += PAGE_BYTES) {
        if (memcmp(page + NEXT_BYTES, filled, sizeof filled) == 0) {
            fseek(file, at, SEEK_SET);
            fwrite("\0\0\0", 1, NEXT_BYTES, file);
            count++;
        }
        fseek(file, at + PAGE_BYTES, SEEK_SET);
    }
    fclose(file);
    assert_true(count > 1);
}

/* Also where SQLite finds the damage. */
static void test_a_long_one_of_a_new_channel(void **state) {
    (void)state;
    push("c");
    crash_with("UPDATE update_log SET channel = 77, body = printf('%.*c', 40000, 'x')"
               " WHERE seq = 11;"
               "PRAGMA wal_checkpoint(TRUNCATE)");
    break_chains('x');
    check_no_start();
}

/* By two of its three numbers it is known whose it is. */
static void test_one_that_is_recognized(void **state) {
    (void)state;
    push("a");
    crash_with("UPDATE update_log SET channel = 77 WHERE seq = 11");
    open_log();
    assert_int_equal(total_of("a"), 6);
    assert_int_equal(push("a"), 7);
}

static void test_the_name_of_a_new_channel(void **state) {
    (void)state;
    push("c");
    crash_with("UPDATE update_log SET name = NULL WHERE seq = 11");
    check_no_start();
}

static void test_a_purge(void **state) {
    (void)state;
    struct store_purge *purge = calloc(1, sizeof *purge + 1);
    purge->upto = 2;
    purge->hash = hash_of(SLICE("a"));
    purge->name_len = 1;
    purge->name[0] = 'a';
    update_log_purge(the_log, purge);
    assert_false(purge->error);
    free(purge);
    run_sql("UPDATE purge_job SET upto = 4, seq = 7");
    settle();
    check_seen("a", "[3] [4] [5]");
    reopen_with("UPDATE purge SET upto = 4");
    struct store_read *read = look("a", 0);
    assert_true(read->gone < 4);
    read_free(read);
}

#define SEAL_TEST(test) cmocka_unit_test_setup_teardown(test, set_up_channels, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        SEAL_TEST(test_content),
        SEAL_TEST(test_numbers),
        SEAL_TEST(test_links),
        SEAL_TEST(test_channel),
        SEAL_TEST(test_index_at_run_time),
        SEAL_TEST(test_lost_channel),
        SEAL_TEST(test_a_name_in_the_index),
        SEAL_TEST(test_meta),
        SEAL_TEST(test_an_update_of_the_last_seconds),
        SEAL_TEST(test_a_long_one_of_a_new_channel),
        SEAL_TEST(test_one_that_is_recognized),
        SEAL_TEST(test_the_name_of_a_new_channel),
        SEAL_TEST(test_a_purge),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
