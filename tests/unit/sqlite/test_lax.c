/* Commits that are not synced: what a power cut leaves of them is no damage. */
#include "fixture.h"

#include "sqlite/lax.h"
#include "sqlite/log_file.h"
#include "sqlite/wal_repair.h"

#include <sys/stat.h>
#include <unistd.h>

enum { FRAME_BYTES = WAL_FRAME_HEADER_BYTES + 8192 };

static struct log_file file;
static char wal_path[160], error[512];

static int64_t count_frames(void) {
    struct stat status;
    assert_int_equal(stat(wal_path, &status), 0);
    return (status.st_size - WAL_HEADER_BYTES) / FRAME_BYTES;
}

static void open_file(void) {
    options.sync = SYNC_ALWAYS;
    snprintf(wal_path, sizeof wal_path, "%s-wal", path);
    if (!log_file_open(&file, &options, error, sizeof error))
        fail_msg("%s", error);
}

/* Returns its first frame. */
static int64_t commit(bool (*begin)(struct log_file *)) {
    static int number;
    char sql[96];
    int64_t frames = count_frames();
    snprintf(sql, sizeof sql, "INSERT OR REPLACE INTO meta (key, value) VALUES ('x', %d)",
             ++number);
    assert_true(begin(&file) && log_file_execute(&file, sql) && log_file_commit(&file));
    return frames;
}

#define STRICT commit(log_file_begin)
#define LAX commit(log_file_begin_lax)

/* Turns some bits, as a torn write does. */
static void damage(int64_t frame, int64_t at) {
    unsigned char byte;
    FILE *wal = fopen(wal_path, "r+b");
    for (int i = 0; i < 3; i++) {
        fseek(wal, (long)(WAL_HEADER_BYTES + frame * FRAME_BYTES + at + i), SEEK_SET);
        assert_int_equal(fread(&byte, 1, 1, wal), 1);
        byte ^= 0x55;
        fseek(wal, -1, SEEK_CUR);
        assert_int_equal(fwrite(&byte, 1, 1, wal), 1);
    }
    fclose(wal);
}

/* What a start says when the frame is damaged. */
static enum wal_state look(int64_t frame, int64_t at) {
    struct wal_end end;
    damage(frame, at);
    enum wal_state state = wal_repair(path, false, true, &end, error, sizeof error);
    damage(frame, at);
    assert_true(end.is_there && end.frames <= frame);
    return state;
}

/* All frames from `from` on, in their pages and in their headers. */
static void look_at_each(int64_t from, int64_t to, enum wal_state state) {
    for (int64_t frame = from; frame < to; frame++)
        for (int64_t at = WAL_FRAME_HEADER_BYTES + 7; at < FRAME_BYTES; at += 1400)
            assert_int_equal(look(frame, at), state);
}

static void test_a_commit_has_the_mark_if_it_is_not_synced(void **state) {
    (void)state;
    open_file();
    for (int i = 0; i < 4; i++) {
        int before = syncs;
        STRICT;
        assert_true(syncs > before);
        before = syncs;
        int64_t frame = LAX;
        assert_int_equal(syncs, before);
        unsigned char page[FRAME_BYTES];
        FILE *wal = fopen(wal_path, "rb");
        int marks = 0;
        fseek(wal, (long)(WAL_HEADER_BYTES + frame * FRAME_BYTES), SEEK_SET);
        while (fread(page, sizeof page, 1, wal) == 1)
            marks += lax_is_mark(page + WAL_FRAME_HEADER_BYTES, 8192);
        fclose(wal);
        assert_int_equal(marks, 1);
    }
    log_file_close(&file);
}

/* Behind a new log as well: then the database knows which page has the mark. */
static void check_all(void) {
    int64_t strict = STRICT, first = LAX, second = LAX;
    look_at_each(first, count_frames(), WAL_WHOLE);
    look_at_each(strict, first, WAL_DAMAGED);
    int64_t next = STRICT;
    look_at_each(first, second, WAL_WHOLE); /* its sync may not have come to an end */
    int64_t last = LAX;
    look_at_each(strict, next, WAL_DAMAGED);
    look_at_each(next, last, WAL_DAMAGED);
    look_at_each(last, count_frames(), WAL_WHOLE);
    last = STRICT;
    look_at_each(last, count_frames(), WAL_WHOLE);
}

static void test_only_what_was_synced_is_damaged(void **state) {
    (void)state;
    open_file();
    check_all();
    assert_int_equal(
        sqlite3_wal_checkpoint_v2(file.db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL),
        SQLITE_OK);
    int64_t first = LAX; /* the first frames of a log that begins anew */
    LAX;
    look_at_each(first < 0 ? 0 : first, count_frames(), WAL_WHOLE);
    check_all();
    log_file_close(&file);
}

/* A file of an older longline has no table for the mark. */
static void test_an_old_file_gets_the_table(void **state) {
    (void)state;
    open_file();
    log_file_close(&file);
    run_sql("DROP TABLE lax");
    open_file();
    LAX;
    int before = syncs;
    LAX;
    assert_int_equal(syncs, before);
    log_file_close(&file);
}

/* What cannot be marked is synced. */
static void test_without_the_mark_it_is_synced(void **state) {
    (void)state;
    open_file();
    log_file_close(&file);
    run_sql("CREATE TRIGGER broken BEFORE INSERT ON lax BEGIN SELECT raise(ABORT, 'no'); END");
    open_file();
    STRICT;
    int before = syncs;
    LAX;
    assert_true(syncs > before);
    log_file_close(&file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        LOG_TEST(test_a_commit_has_the_mark_if_it_is_not_synced),
        LOG_TEST(test_only_what_was_synced_is_damaged),
        LOG_TEST(test_an_old_file_gets_the_table),
        LOG_TEST(test_without_the_mark_it_is_synced),
    };
    return cmocka_run_group_tests(tests, set_up_all, NULL);
}
