/*
 * Fuzzes the opening of damaged data files. The input is a byte that says which file is damaged
 * (one that was closed, or one with a write-ahead log that was left behind) and how it is synced;
 * then follow damages of six bytes each: what is done and to which file, where, and a value.
 *
 * Whatever is damaged: an update is served as it was pushed, or not at all; a consumer gets past
 * what is damaged, and what is pushed afterwards comes; and where `longline check` finds all of it
 * whole, it is.
 */
#include "base/buf.h"
#include "base/config.h"
#include "base/hash.h"
#include "base/log.h"
#include "sqlite/check.h"
#include "sqlite/update_log.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PUSHED_MAX = 512, /* of a channel */
    READS_MAX = 2000,
    DAMAGES_MAX = 64,
    LARGE_BYTES = 9000,
    FAILURES_MAX = 3,
};

#define UNKNOWN UINT64_MAX

static const char *const channels[] = {"few", "large", "many", "purged"};
enum { CHANNELS = sizeof channels / sizeof *channels };

/* A data file as it was before it is damaged: with the write-ahead log, or closed. */
static struct files {
    struct buf file, wal;
} left, closed;

static char dir[64], path[96], wal_path[104];
static struct update_log *the_log;
static int64_t now_ms = 1700000000000;
/* The life in which an update was pushed: 1, or 2 behind the damage. */
static int lives[CHANNELS][PUSHED_MAX];
static FILE *nowhere;

static int64_t clock_ms(void) {
    return now_ms;
}

static struct store_options options = {.path = path,
                                       .channel_max_updates = 1000,
                                       .ttl_ms = 3600 * 1000,
                                       .wall_ms = clock_ms,
                                       .steady_ms = clock_ms};

/* --- Pushing ---------------------------------------------------------------------------------- */

/* What the update `ts` of a channel is. */
static void write_update(struct buf *body, int channel, uint64_t ts, int life) {
    buf_printf(body, "{\"channel\":\"%s\",\"ts\":%d,\"life\":%d,\"text\":\"", channels[channel],
               (int)ts, life);
    static char text[LARGE_BYTES + 26];
    for (size_t i = 0; !text[sizeof text - 1] && i < sizeof text; i++)
        text[i] = (char)('a' + i * 7 % 26);
    buf_append(body, text + ts % 26, channel == 1 ? LARGE_BYTES : ts % 40);
    buf_puts(body, "\"}");
}

static struct store_append *append_new(int channel, uint64_t ts, int life) {
    struct slice name = slice_of(channels[channel]);
    struct store_append *append = calloc(1, sizeof *append + name.len);
    struct buf body = {0};
    assert(append);
    write_update(&body, channel, ts, life);
    append->only = update_new(&(struct update_parts){.body = {body.data, body.len},
                                                     .raw = slice_of("raw"),
                                                     .has_raw = ts % 2,
                                                     .query = slice_of("a=b"),
                                                     .method = slice_of("POST")});
    buf_deinit(&body);
    append->updates = &append->only;
    append->count = 1;
    append->hash = hash_of(name);
    append->name_len = (uint16_t)name.len;
    memcpy(append->name, name.data, name.len);
    return append;
}

/* Pushes the update that must become `ts`; false when it is refused. */
static bool push(int channel, uint64_t ts, int life) {
    struct store_append *append = append_new(channel, ts, life);
    struct list batch;
    list_init(&batch);
    list_append(&batch, &append->op.link);
    update_log_append(the_log, &batch);
    bool ok = !append->error;
    assert(!ok || append->only->ts == ts);
    if (ok && ts < PUSHED_MAX)
        lives[channel][ts] = life;
    update_unref(append->only);
    free(append);
    return ok;
}

static void purge(int channel, uint64_t upto) {
    struct slice name = slice_of(channels[channel]);
    struct store_purge *purge = calloc(1, sizeof *purge + name.len);
    assert(purge);
    purge->upto = upto;
    purge->hash = hash_of(name);
    purge->name_len = (uint16_t)name.len;
    memcpy(purge->name, name.data, name.len);
    update_log_purge(the_log, purge);
    assert(!purge->error);
    free(purge);
}

/* --- Reading ---------------------------------------------------------------------------------- */

static struct store_read *read_new(int channel, uint64_t after) {
    struct slice name = slice_of(channels[channel]);
    struct store_read *read = calloc(1, sizeof *read + name.len);
    assert(read);
    read->position = (int64_t)after;
    read->limit = 100;
    read->hash = hash_of(name);
    read->name_len = (uint16_t)name.len;
    memcpy(read->name, name.data, name.len);
    update_log_read(the_log, read);
    return read;
}

static void read_free(struct store_read *read) {
    for (uint32_t i = 0; i < read->count; i++)
        update_unref(read->updates[i]);
    free(read->updates);
    free(read);
}

static void check_update(int channel, const struct update *update) {
    struct buf body = {0};
    assert(update->ts && update->ts < PUSHED_MAX && lives[channel][update->ts]);
    write_update(&body, channel, update->ts, lives[channel][update->ts]);
    assert(slice_equal(update_body(update), (struct slice){body.data, body.len}));
    assert(slice_equal(update_raw(update),
                       update->ts % 2 ? slice_of("raw") : (struct slice){body.data, body.len}));
    assert(slice_equal(update_query(update), slice_of("a=b")));
    assert(slice_equal(update_method(update), slice_of("POST")));
    buf_deinit(&body);
}

/* Reads a channel to its end; its total, UNKNOWN where it cannot be read. */
static uint64_t read_channel(int channel, uint64_t *count) {
    uint64_t after = 0;
    int failures = 0;
    for (int reads = 0;; reads++) {
        struct store_read *read = read_new(channel, after);
        uint64_t total = read->error ? UNKNOWN : read->total;
        assert(reads < READS_MAX);
        for (uint32_t i = 0; i < read->count; i++) {
            assert(read->updates[i]->ts == read->updates[0]->ts + i &&
                   read->updates[i]->ts > after);
            check_update(channel, read->updates[i]);
        }
        if (read->error && ++failures < FAILURES_MAX) { /* a consumer asks again */
            read_free(read);
            continue;
        }
        bool is_end = read->error || read->end >= read->total;
        assert(!read->error);
        assert(is_end || read->end > after); /* it gets past */
        assert(!read->count || read->end >= read->updates[read->count - 1]->ts);
        *count += read->count;
        after = read->end;
        read_free(read);
        if (is_end)
            return total;
    }
}

/* --- The files -------------------------------------------------------------------------------- */

static void load(struct buf *out, const char *from) {
    FILE *file = fopen(from, "rb");
    char bytes[65536];
    for (size_t len; file && (len = fread(bytes, 1, sizeof bytes, file));)
        buf_append(out, bytes, len);
    if (file)
        fclose(file);
}

static void save(const char *bytes, size_t len, const char *to) {
    FILE *file = fopen(to, "wb");
    assert(file && fwrite(bytes, 1, len, file) == len && fclose(file) == 0);
}

static void remove_files(void) {
    char other[112];
    unlink(path);
    unlink(wal_path);
    snprintf(other, sizeof other, "%s-shm", path);
    unlink(other);
}

static void end(void) {
    remove_files();
    rmdir(dir);
}

static void open_log(void) {
    char error[512];
    the_log = update_log_open(&options, false, error, sizeof error);
    assert(the_log);
}

static void maintain(void) {
    for (int i = 0; i < 1000 && update_log_maintain(the_log, true); i++)
        now_ms++;
}

/* Everything that a file may hold, and behind its checkpoint some of it in the write-ahead log. */
static void make_files(void) {
    open_log();
    for (uint64_t ts = 1; ts <= 6; ts++)
        push(0, ts, 1), push(1, ts, 1), push(3, ts, 1);
    for (uint64_t ts = 1; ts <= 140; ts++) /* beyond LOG_SKIP */
        push(2, ts, 1);
    purge(3, 4);
    maintain();
    now_ms += 10000;
    maintain();
    update_log_close(the_log, false);
    load(&closed.file, path);
    open_log();
    for (uint64_t ts = 7; ts <= 9; ts++)
        push(0, ts, 1), push(1, ts, 1), push(3, ts, 1);
    purge(3, 8);
    load(&left.file, path);
    load(&left.wal, wal_path);
    update_log_close(the_log, false);
    assert(closed.file.len && left.file.len && left.wal.len);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    hash_init();
    log_init(LOG_LEVEL_ERROR + 1, false);
    bool has_memory = access("/dev/shm", W_OK) == 0;
    snprintf(dir, sizeof dir, "%s/longline-fuzz-XXXXXX", has_memory ? "/dev/shm" : "/tmp");
    assert(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/log.db", dir);
    snprintf(wal_path, sizeof wal_path, "%s-wal", path);
    nowhere = fopen("/dev/null", "w");
    make_files();
    atexit(end);
    return 0;
}

/* --- Damage ----------------------------------------------------------------------------------- */

static void damage(const struct files *of, char *file, size_t *file_len, char *wal, size_t *wal_len,
                   const uint8_t *how) {
    bool is_wal = how[0] & 1 && of->wal.len;
    char *bytes = is_wal ? wal : file;
    size_t *len = is_wal ? wal_len : file_len;
    if (!*len)
        return;
    size_t at = (how[1] | (size_t)how[2] << 8 | (size_t)how[3] << 16) % *len;
    size_t block = at / 512 * 512, rest = *len - block < 512 ? *len - block : 512;
    size_t from = (how[4] | (size_t)how[5] << 8) * 512 % *len;
    switch (how[0] >> 1 & 7) {
    case 0: bytes[at] = (char)(bytes[at] ^ 1 << (how[4] & 7)); break;
    case 1: bytes[at] = (char)how[4]; break;
    case 2: memset(bytes + block, 0, rest); break;
    case 3: *len = at; break;
    case 4:
        if (*len - from < rest)
            rest = *len - from;
        memmove(bytes + block, bytes + from, rest);
        break;
    case 5: memset(bytes + at, how[4], how[5] < *len - at ? how[5] : *len - at); break;
    case 6: bytes[at] = (char)(bytes[at] + how[4]); break;
    case 7: *len = 0; break;
    }
}

static void make_damaged(const struct files *of, const uint8_t *data, size_t size) {
    size_t file_len = of->file.len, wal_len = of->wal.len;
    char *file = malloc(file_len), *wal = malloc(wal_len + 1);
    assert(file && wal);
    memcpy(file, of->file.data, file_len);
    if (wal_len)
        memcpy(wal, of->wal.data, wal_len);
    for (size_t i = 0; i + 6 <= size && i < (size_t)6 * DAMAGES_MAX; i += 6)
        damage(of, file, &file_len, wal, &wal_len, data + i);
    remove_files();
    save(file, file_len, path);
    if (wal_len)
        save(wal, wal_len, wal_path);
    free(file);
    free(wal);
}

static void set_lives(const struct files *of) {
    bool is_left = of == &left;
    memset(lives, 0, sizeof lives);
    for (int channel = 0; channel < CHANNELS; channel++)
        for (int ts = 1; ts <= (channel == 2 ? 140 : is_left ? 9 : 6); ts++)
            lives[channel][ts] = 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char error[512] = "";
    if (!size)
        return 0;
    const struct files *of = data[0] & 1 ? &left : &closed;
    options.sync = (data[0] >> 1) % 3;
    set_lives(of);
    make_damaged(of, data + 1, size - 1);
    enum check_result found = check_file(path, nowhere, NULL);
    the_log = update_log_open(&options, false, error, sizeof error);
    assert(!the_log == (*error != '\0'));
    if (!the_log)
        return 0;
    uint64_t totals[CHANNELS], count = 0;
    for (int channel = 0; channel < CHANNELS; channel++)
        totals[channel] = read_channel(channel, &count);
    struct store_stats stats = {0};
    update_log_stats(the_log, &stats);
    assert(found != CHECK_WHOLE || !stats.damaged);
    for (int channel = 0; channel < CHANNELS; channel++) {
        bool is_readable = totals[channel] < PUSHED_MAX - 1;
        if (is_readable && push(channel, totals[channel] + 1, 2))
            read_channel(channel, &count);
    }
    maintain();
    for (int channel = 0; channel < CHANNELS; channel++)
        read_channel(channel, &count);
    update_log_close(the_log, false);
    return 0;
}
