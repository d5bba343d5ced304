#include "fixture.h"

#include "base/hash.h"
#include "base/log.h"

#include <errno.h>
#include <sqlite3.h>
#include <unistd.h>

int64_t now_ms, wall_jump_ms;
char dir[32], path[128];
struct store_options options;
struct update_log *the_log;
bool is_clean;

/* These stand in front of libc's, for SQLite too. */
int syncs;
const char *failing_sync;
void (*on_sync)(const char *path);
static char synced[SYNCS_KNOWN][sizeof path];

static bool has_end(const char *text, const char *end) {
    size_t len = strlen(text), end_len = strlen(end);
    return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

/* Nothing needs to be on the disk: what a crash leaves is what a copy finds. */
static int sync_fd(int fd) {
    char link[64], *name = synced[syncs++ % SYNCS_KNOWN];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, name, sizeof path - 1);
    name[len < 0 ? 0 : len] = '\0';
    if (on_sync)
        on_sync(name);
    if (!failing_sync || !has_end(name, failing_sync))
        return 0;
    errno = EIO;
    return -1;
}

int fsync(int fd) {
    return sync_fd(fd);
}

int fdatasync(int fd) {
    return sync_fd(fd);
}

bool was_synced(const char *end, int since) {
    for (int i = since > syncs - SYNCS_KNOWN ? since : syncs - SYNCS_KNOWN; i < syncs; i++)
        if (has_end(synced[i % SYNCS_KNOWN], end))
            return true;
    return false;
}

static int64_t steady_clock(void) {
    return now_ms - 1600000000000;
}

static int64_t wall_clock(void) {
    return now_ms + wall_jump_ms;
}

void open_log(void) {
    char error[512] = "";
    the_log = update_log_open(&options, is_clean, error, sizeof error);
    if (!the_log)
        fail_msg("%s", error);
}

void close_log(void) {
    is_clean = update_log_close(the_log, false);
    the_log = NULL;
}

void leave_log(void) {
    is_clean = update_log_close(the_log, true);
    the_log = NULL;
}

void reopen(void) {
    close_log();
    open_log();
}

int set_up_all(void **state) {
    (void)state;
    hash_init();
    log_init(LOG_LEVEL_ERROR + 1, false); /* failures are what some tests are about */
    return 0;
}

int set_up(void **state) {
    (void)state;
    strcpy(dir, "/tmp/longline-test-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/log.db", dir);
    now_ms = 1700000000000;
    wall_jump_ms = 0;
    options = (struct store_options){.path = path,
                                     .sync = SYNC_NEVER,
                                     .channel_max_updates = 1000000,
                                     .ttl_ms = (int64_t)7 * DAY_MS,
                                     .wall_ms = wall_clock,
                                     .steady_ms = steady_clock};
    the_log = NULL;
    is_clean = false;
    failing_sync = NULL;
    on_sync = NULL;
    return 0;
}

int tear_down(void **state) {
    (void)state;
    if (the_log)
        update_log_close(the_log, false);
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}

struct store_append *append_new(struct slice channel, struct slice body) {
    struct store_append *append = calloc(1, sizeof *append + channel.len);
    struct update_parts parts = {.body = body, .method = SLICE("POST")};
    append->only = update_new(&parts);
    append->updates = &append->only;
    append->count = 1;
    append->hash = hash_of(channel);
    append->name_len = (uint16_t)channel.len;
    memcpy(append->name, channel.data, channel.len);
    return append;
}

struct store_append *append_new_batch(struct slice channel, uint32_t count) {
    struct store_append *append = append_new(channel, SLICE("[1]"));
    append->updates = calloc(count, sizeof(struct update *));
    append->updates[0] = append->only;
    for (append->count = 1; append->count < count; append->count++) {
        struct update_parts parts = {.body = SLICE("[2]"), .method = SLICE("POST")};
        append->updates[append->count] = update_new(&parts);
    }
    append->only = NULL;
    return append;
}

void append_free(struct store_append *append) {
    for (uint32_t i = 0; i < append->count; i++)
        update_unref(append->updates[i]);
    if (store_append_is_batch(append))
        free(append->updates);
    free(append);
}

uint64_t push_body(const char *channel, struct slice body) {
    struct store_append *append = append_new(slice_of(channel), body);
    struct list batch;
    list_init(&batch);
    list_append(&batch, &append->op.link);
    update_log_append(the_log, &batch);
    assert_false(list_empty(&batch));
    uint64_t ts = !append->error ? append->only->ts : 0;
    append_free(append);
    return ts;
}

uint64_t push(const char *channel) {
    return push_body(channel, SLICE("{}"));
}

bool push_many(const char *channel, uint64_t first_ts, int count) {
    assert_true(count > 0);
    struct store_append **appends = calloc((size_t)count, sizeof *appends);
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
            assert_int_equal(appends[i]->only->ts, first_ts + (unsigned)i);
        append_free(appends[i]);
    }
    free(appends);
    return ok;
}

enum store_error try_purge(const char *channel, uint64_t upto, uint64_t *gone) {
    size_t len = strlen(channel);
    struct store_purge *op = calloc(1, sizeof *op + len);
    op->upto = upto;
    op->hash = hash_of(slice_of(channel));
    op->name_len = (uint16_t)len;
    memcpy(op->name, channel, len);
    update_log_purge(the_log, op);
    enum store_error error = op->error;
    *gone = op->gone;
    free(op);
    return error;
}

struct store_append *deliver_to(struct slice channel, int id, bool is_once) {
    struct update_parts parts = {.body = SLICE("{}"), .method = SLICE("POST" UPDATE_SAME_AS_NONE)};
    struct store_append *append = append_new(channel, SLICE("{}"));
    update_unref(append->updates[0]);
    append->updates[0] = update_new(&parts);
    append->deliveries = calloc(1, sizeof *append->deliveries);
    append->deliveries->has_id = true;
    append->deliveries->is_once = is_once;
    memcpy(append->deliveries->id, &id, sizeof id);
    struct list batch;
    list_init(&batch);
    list_append(&batch, &append->op.link);
    update_log_append(the_log, &batch);
    return append;
}

uint64_t push_id_to(const char *channel, int id, bool is_once, uint64_t *same_as) {
    struct store_append *append = deliver_to(slice_of(channel), id, is_once);
    uint64_t ts = append->error ? 0 : append->updates[0]->ts;
    *same_as = append->deliveries->same_as;
    if (ts) {
        assert_int_equal(update_origin(append->updates[0]).same_as, *same_as);
        assert_int_equal(store_append_is_stored(append, 0), !is_once || !*same_as);
    }
    free(append->deliveries);
    append->deliveries = NULL;
    append_free(append);
    return ts;
}

struct store_cursors *cursors_new(const char *channel, enum cursors_action action, uint32_t count) {
    size_t len = strlen(channel);
    struct store_cursors *cursors = calloc(1, sizeof *cursors + len);
    cursors->action = action;
    cursors->list = count ? calloc(count, sizeof *cursors->list) : NULL;
    cursors->count = count;
    cursors->hash = hash_of(slice_of(channel));
    cursors->name_len = (uint16_t)len;
    memcpy(cursors->name, channel, len);
    return cursors;
}

void set_cursor(struct store_cursor *cursor, const char *name, uint64_t ts) {
    cursor->ts = ts;
    cursor->used_ms = update_log_now_ms(the_log);
    cursor->name_len = (uint8_t)strlen(name);
    memcpy(cursor->name, name, cursor->name_len);
}

bool finish_cursors(struct store_cursors *cursors) {
    update_log_cursors(the_log, cursors);
    bool ok = !cursors->error;
    free(cursors->list);
    free(cursors);
    return ok;
}

bool do_cursor(enum cursors_action action, const char *channel, const char *name, uint64_t ts) {
    struct store_cursors *cursors = cursors_new(channel, action, 1);
    set_cursor(cursors->list, name, ts);
    return finish_cursors(cursors);
}

int64_t cursor_of(const char *channel, const char *name) {
    struct store_cursors *cursors = cursors_new(channel, CURSORS_LOAD, 0);
    update_log_cursors(the_log, cursors);
    assert_false(cursors->error);
    int64_t ts = -1;
    for (uint32_t i = 0; i < cursors->count; i++) {
        const struct store_cursor *cursor = &cursors->list[i];
        if (!slice_equal((struct slice){cursor->name, cursor->name_len}, slice_of(name)))
            continue;
        assert_int_equal(ts, -1); /* once */
        ts = (int64_t)cursor->ts;
    }
    free(cursors->list);
    free(cursors);
    return ts;
}

struct store_read *read_new(struct slice channel, int64_t position, uint32_t limit) {
    return read_new_seen(channel, position, limit, 0);
}

struct store_read *read_new_seen(struct slice channel, int64_t position, uint32_t limit,
                                 uint64_t seen_epoch) {
    struct store_read *read = calloc(1, sizeof *read + channel.len);
    read->position = position;
    read->seen_epoch = seen_epoch;
    read->limit = limit;
    read->hash = hash_of(channel);
    read->name_len = (uint16_t)channel.len;
    memcpy(read->name, channel.data, channel.len);
    update_log_read(the_log, read);
    /* Whatever was deleted, and why: no healthy file is called damaged. */
    struct store_stats stats = {0};
    update_log_stats(the_log, &stats);
    assert_int_equal(stats.damaged, 0);
    return read;
}

void read_free(struct store_read *read) {
    for (uint32_t i = 0; i < read->count; i++)
        update_unref(read->updates[i]);
    free(read->updates);
    free(read);
}

struct store_read *read_channel(const char *channel, int64_t after_ts) {
    return read_new(slice_of(channel), after_ts, READ_MAX_UPDATES);
}

uint64_t total_of(const char *channel) {
    struct store_read *read = read_channel(channel, INT64_MAX);
    assert_false(read->error);
    assert_int_equal(read->count, 0);
    uint64_t total = read->total;
    read_free(read);
    return total;
}

void check_read_at(const char *channel, int64_t after_ts, uint32_t limit, uint64_t total,
                   uint64_t first, uint64_t last, const char *file, int line) {
    struct store_read *read = read_new(slice_of(channel), after_ts, limit);
    uint64_t count = last < first ? 0 : last - first + 1;
    if (read->error || read->total != total || read->count != count) {
        print_error(
            "after %lld, limit %u: ok %d, total %llu, %u updates; wanted %llu, %llu updates\n",
            (long long)after_ts, limit, !read->error, (unsigned long long)read->total, read->count,
            (unsigned long long)total, (unsigned long long)count);
        _fail(file, line);
    }
    for (uint32_t i = 0; i < read->count; i++)
        if (read->updates[i]->ts != first + i || read->updates[i]->refs != 1) {
            print_error("update %u has ts %llu\n", i, (unsigned long long)read->updates[i]->ts);
            _fail(file, line);
        }
    if (count && read->gone >= first)
        _fail(file, line);
    if (read->gone > total)
        _fail(file, line);
    read_free(read);
}

void maintain(void) {
    for (int i = 0; update_log_maintain(the_log, true); i++)
        assert_true(i < 100000);
}

void settle(void) {
    maintain();
    now_ms += 10000;
    maintain();
    now_ms += 10000;
    maintain();
}

struct store_stats stats(void) {
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

/* With its write-ahead log. */
static void copy_data(const char *from, const char *to) {
    char wal[160], copy_wal[160];
    snprintf(wal, sizeof wal, "%s-wal", from);
    snprintf(copy_wal, sizeof copy_wal, "%s-wal", to);
    copy_file(from, to);
    copy_file(wal, copy_wal);
}

const char *backup_path(void) {
    static char text[64];
    snprintf(text, sizeof text, "%s/backup.db", dir);
    return text;
}

void keep_backup(void) {
    copy_data(path, backup_path());
}

void put_backup_back(void) {
    copy_data(backup_path(), path);
    is_clean = false;
}

void restore_backup(void) {
    update_log_close(the_log, false);
    put_backup_back();
    open_log();
}

void run_sql(const char *sql) {
    sqlite3 *db;
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

void crash(void) {
    char copy[sizeof path], wal[160];
    static int number;
    snprintf(copy, sizeof copy, "%s/crash-%d.db", dir, ++number);
    snprintf(wal, sizeof wal, "%s-wal", path);
    copy_data(path, copy);
    update_log_close(the_log, false);
    unlink(path);
    unlink(wal);
    memcpy(path, copy, sizeof path);
    is_clean = false;
    open_log();
}
