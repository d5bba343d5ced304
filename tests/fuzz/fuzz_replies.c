/*
 * Fuzzes what a Redis replies to the store: a single one, a cluster's nodes, and Sentinels. The
 * input is a line with settings (s: Sentinels, w: REDIS_WAIT, p: a password, d: a database), and
 * then, behind a `~` each, what is replied: a letter that says to which command (see name_of()),
 * and the bytes. Each is sent once, in the order in which they come; then, and to all others, what
 * a sound Redis would say. `!` closes the connection instead, and nothing is silence. An `m` is a
 * message on a connection that is subscribed.
 *
 * Whatever is replied, every operation is answered once; what is read is in order, without a gap,
 * and JSON; and nothing is left behind. No byte leaves this process: connections are pairs of
 * sockets, names are never resolved.
 */
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/loop_memory.h"
#include "base/turn.h"
#include "clock.h"
#include "redis/parts.h"
#include "redis/rights.h"
#include "redis/store.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LINES_MAX = 256, PIECES_MAX = 200, WORDS_MAX = 64, ROUNDS = 60, TICK_MS = 51 };

/* A connection of the store; our end of it. */
struct line {
    int fd;
    struct buf got;
    bool has_news; /* it is subscribed */
};

static struct line lines[LINES_MAX];
static int line_count;

/* What the input has to say. */
static struct piece {
    struct slice text;
    char name;
    bool is_used;
} pieces[PIECES_MAX];
static int piece_count;

static uv_loop_t *loop;
static struct store *store;
static int started, answered;

/* --- Instead of the network ------------------------------------------------------------------- */

static uv_connect_t *connecting[LINES_MAX];
static int connecting_count;

/* These stand in front of libuv's and libsodium's. */
int uv_tcp_connect(uv_connect_t *connect, uv_tcp_t *tcp, const struct sockaddr *address,
                   uv_connect_cb done) {
    int ends[2];
    (void)address;
    if (line_count == LINES_MAX || connecting_count == LINES_MAX)
        return UV_ECONNREFUSED;
    assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    assert(uv_tcp_open(tcp, ends[0]) == 0);
    lines[line_count++] = (struct line){.fd = ends[1]};
    connect->handle = (uv_stream_t *)tcp;
    connect->cb = done;
    connecting[connecting_count++] = connect;
    return 0;
}

int uv_tcp_nodelay(uv_tcp_t *tcp, int enable) {
    (void)tcp, (void)enable; /* they are no sockets of TCP */
    return 0;
}

int uv_getaddrinfo(uv_loop_t *of, uv_getaddrinfo_t *request, uv_getaddrinfo_cb done,
                   const char *node, const char *service, const struct addrinfo *hints) {
    (void)of, (void)request, (void)done, (void)node, (void)service, (void)hints;
    return UV_EAI_NONAME;
}

uint32_t randombytes_uniform(uint32_t bound) {
    return bound / 2;
}

static void connect_all(void) {
    uv_connect_t *now[LINES_MAX];
    int count = connecting_count;
    memcpy(now, connecting, sizeof now);
    connecting_count = 0;
    for (int i = 0; i < count; i++)
        now[i]->cb(now[i], uv_is_closing((uv_handle_t *)now[i]->handle) ? UV_ECANCELED : 0);
}

/* --- A Redis ---------------------------------------------------------------------------------- */

static struct slice words[WORDS_MAX]; /* of a command; more are read over */
static int word_count;

/* Reads a number behind `mark`; false when it is not all there. */
static bool take_number(struct slice *rest, char mark, size_t *number) {
    const char *end = memmem(rest->data, rest->len, "\r\n", 2);
    if (!end)
        return false;
    assert(*rest->data == mark);
    *number = strtoul(rest->data + 1, NULL, 10);
    *rest = slice_after(*rest, (size_t)(end - rest->data) + 2);
    return true;
}

/* Takes a command into `words`: it must be one. False when it is not all there. */
static bool take_command(struct slice *rest) {
    struct slice at = *rest;
    size_t count, len;
    if (!at.len || !take_number(&at, '*', &count))
        return false;
    word_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (!at.len || !take_number(&at, '$', &len) || at.len < len + 2)
            return false;
        if (word_count < WORDS_MAX)
            words[word_count++] = (struct slice){at.data, len};
        assert(memcmp(at.data + len, "\r\n", 2) == 0);
        at = slice_after(at, len + 2);
    }
    *rest = at;
    return count;
}

static bool is_word(int index, const char *word) {
    return index < word_count && slice_equal(words[index], slice_of(word));
}

static bool is_script(const struct redis_script *script) {
    return is_word(1, script->sha) || is_word(1, script->text);
}

/* The letter of the command. */
static char name_of(void) {
    static const struct {
        const char *word;
        char name;
    } names[] = {{"PING", 'P'},        {"AUTH", 'A'},        {"SELECT", 'L'},
                 {"INFO", 'I'},        {"CONFIG", 'C'},      {"ASKING", 'K'},
                 {"WAIT", 'W'},        {"SUBSCRIBE", 'U'},   {"SSUBSCRIBE", 'U'},
                 {"UNSUBSCRIBE", 'u'}, {"SUNSUBSCRIBE", 'u'}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (is_word(0, names[i].word))
            return names[i].name;
    if (is_word(0, "CLUSTER"))
        return is_word(1, "SLOTS") ? 'S' : 'N';
    if (is_word(0, "SENTINEL"))
        return is_word(1, "MASTER") ? 'M' : 'G';
    return is_script(&redis_script_append)         ? 'a'
           : is_script(&redis_script_append_known) ? 'k'
           : is_script(&redis_script_read)         ? 'r'
           : is_script(&redis_script_cursors)      ? 'c'
           : is_script(&redis_script_purge)        ? 'p'
                                                   : 'R';
}

/* As an append is answered: each channel gets one total, or a list. */
static void write_append(struct buf *out, bool is_known) {
    size_t keys = strtoul(words[2].data, NULL, 10), arg = 3 + keys + 5;
    buf_printf(out, "*%zu\r\n:1700000000000\r\n$0\r\n\r\n$0\r\n\r\n", 3 + keys / 3);
    for (size_t i = 0; i < keys / 3; i++) {
        size_t count = arg + 1 < (size_t)word_count ? strtoul(words[arg + 1].data, NULL, 10) : 1;
        if (is_known)
            buf_printf(out, "*%zu\r\n", 1 + count);
        buf_printf(out, ":%zu\r\n", 10 + count);
        for (size_t j = 0; is_known && j < count; j++)
            buf_puts(out, ":0\r\n");
        arg += (is_known ? 4 : 2) + 2 * count;
    }
}

static void write_subscribed(struct buf *out) {
    for (int i = 1; i < word_count; i++) {
        buf_printf(out, "*3\r\n$9\r\nsubscribe\r\n$%zu\r\n", words[i].len);
        buf_append(out, words[i].data, words[i].len);
        buf_printf(out, "\r\n:%d\r\n", i);
    }
}

/* What a sound Redis says. */
static void write_sound(struct buf *out, char name, bool has_news) {
    static const char info[] = "redis_version:7.2.0\r\naof_enabled:1\r\nconnected_slaves:1\r\n"
                               "cluster_enabled:0\r\nserver_time_usec:1700000000000000\r\n";
    switch (name) {
    case 'P': buf_puts(out, has_news ? "*2\r\n$4\r\npong\r\n$0\r\n\r\n" : "+PONG\r\n"); break;
    case 'I': buf_printf(out, "$%zu\r\n%s\r\n", sizeof info - 1, info); break;
    case 'C': buf_puts(out, "*2\r\n$11\r\nappendfsync\r\n$6\r\nalways\r\n"); break;
    case 'S': buf_puts(out, "-ERR This instance has cluster support disabled\r\n"); break;
    case 'N': buf_puts(out, "$7\r\nmyself,\r\n"); break;
    case 'M':
        buf_puts(out, "*8\r\n$2\r\nip\r\n$9\r\n127.0.0.1\r\n$4\r\nport\r\n$4\r\n6379\r\n$5\r\nflags"
                      "\r\n$6\r\nmaster\r\n$12\r\nconfig-epoch\r\n$1\r\n1\r\n");
        break;
    case 'G': buf_puts(out, "*2\r\n$9\r\n127.0.0.1\r\n$4\r\n6379\r\n"); break;
    case 'W': buf_puts(out, ":1\r\n"); break;
    case 'U': write_subscribed(out); break;
    case 'u': break;
    case 'a': write_append(out, false); break;
    case 'k': write_append(out, true); break;
    case 'r':
        buf_puts(out, "*9\r\n:2\r\n:0\r\n:1\r\n*2\r\n$2\r\n{}\r\n$3\r\n[1]\r\n*0\r\n:0\r\n"
                      "$16\r\n00000000000000aa\r\n:0\r\n:0\r\n");
        break;
    case 'p': buf_puts(out, "*2\r\n:2\r\n$0\r\n\r\n"); break;
    case 'c':
    case 'R': buf_puts(out, "*0\r\n"); break;
    default: buf_puts(out, "+OK\r\n"); break;
    }
}

static struct piece *next_piece(char name) {
    for (int i = 0; i < piece_count; i++)
        if (pieces[i].name == name && !pieces[i].is_used)
            return &pieces[i];
    return NULL;
}

static void hang_up(struct line *line) {
    close(line->fd);
    line->fd = -1;
    buf_deinit(&line->got);
}

static void say(struct line *line, struct slice text) {
    if (line->fd < 0)
        return;
    if (slice_equal(text, SLICE("!")))
        hang_up(line);
    else if (text.len && send(line->fd, text.data, text.len, MSG_NOSIGNAL) < 0)
        hang_up(line);
}

/* Replies to the command in `words`. */
static void reply(struct line *line) {
    char name = name_of();
    struct piece *piece = next_piece(name);
    struct buf out = {0};
    line->has_news |= name == 'U';
    if (piece) {
        piece->is_used = true;
        say(line, piece->text);
    } else {
        write_sound(&out, name, line->has_news);
        say(line, (struct slice){out.data ? out.data : "", out.len});
        buf_deinit(&out);
    }
}

static void serve(struct line *line) {
    char bytes[65536];
    ssize_t len = 1;
    while (line->fd >= 0 && (len = recv(line->fd, bytes, sizeof bytes, 0)) > 0)
        buf_append(&line->got, bytes, (size_t)len);
    bool is_over = line->fd >= 0 && (!len || errno != EAGAIN);
    struct slice rest = {line->got.data ? line->got.data : "", line->got.len};
    struct buf kept = {0};
    while (line->fd >= 0 && take_command(&rest))
        reply(line);
    if (line->fd >= 0) {
        buf_append(&kept, rest.data, rest.len);
        buf_deinit(&line->got);
        line->got = kept;
    }
    struct piece *message = line->has_news ? next_piece('m') : NULL;
    if (message) {
        message->is_used = true;
        say(line, message->text);
    }
    if (is_over && line->fd >= 0)
        hang_up(line);
}

static void turn(void) {
    connect_all();
    uv_run(loop, UV_RUN_NOWAIT);
    for (int i = 0; i < line_count; i++)
        serve(&lines[i]);
}

/* --- Operations ------------------------------------------------------------------------------- */

/* Other servers may have pushed any JSON. */
static bool is_json(const struct update *update) {
    enum json_kind kind = json_check(update_body(update));
    return kind != JSON_INVALID && kind != JSON_TOO_DEEP;
}

static void check_read(const struct store_read *read) {
    if (read->error) {
        assert(!read->count);
        return;
    }
    uint64_t before = 0;
    for (uint32_t i = 0; i < read->count; i++) {
        struct update *update = read->updates[i];
        assert(is_json(update));
        assert(update->ts && (!before || update->ts == before + 1) && update->ts <= read->end);
        before = update->ts;
        update_unref(update);
    }
    assert(!read->count || read->updates);
    assert(!read->count || read->end >= read->count);
    free(read->updates);
}

static void on_append(struct store_op *op) {
    struct store_append *append = container_of(op, struct store_append, op);
    for (uint32_t i = 0; i < append->count; i++) {
        assert(append->error || append->updates[i]->ts || append->deliveries);
        update_unref(append->updates[i]);
    }
    if (store_append_is_batch(append))
        free(append->updates);
    free(append->deliveries);
    free(append);
    answered++;
}

static void on_read(struct store_op *op) {
    struct store_read *read = container_of(op, struct store_read, op);
    check_read(read);
    free(read);
    answered++;
}

static void on_cursors(struct store_op *op) {
    struct store_cursors *cursors = container_of(op, struct store_cursors, op);
    assert(cursors->count <= CONSUMERS_MAX && (!cursors->count || cursors->list));
    for (uint32_t i = 0; !cursors->error && i < cursors->count; i++)
        assert(is_consumer_name((struct slice){cursors->list[i].name, cursors->list[i].name_len}));
    free(cursors->list);
    free(cursors);
    answered++;
}

static void on_purge(struct store_op *op) {
    free(container_of(op, struct store_purge, op));
    answered++;
}

/* A zeroed operation with the channel's name behind it. */
#define NEW(type, channel, on_done)                                                                \
    ({                                                                                             \
        struct type *it = calloc(1, sizeof *it + strlen(channel));                                 \
        assert(it);                                                                                \
        it->op.done = on_done;                                                                     \
        it->name_len = (uint16_t)strlen(channel);                                                  \
        memcpy(it->name, channel, it->name_len);                                                   \
        it->hash = hash_of(slice_of(channel));                                                     \
        started++;                                                                                 \
        it;                                                                                        \
    })

static struct update *make_update(void) {
    return update_new(&(struct update_parts){.body = SLICE("{\"n\":1}"), .method = SLICE("POST")});
}

static void push(const char *channel, uint32_t count, bool has_id) {
    struct store_append *append = NEW(store_append, channel, on_append);
    append->count = count;
    append->updates = &append->only;
    if (count > 1)
        append->updates = calloc(count, sizeof *append->updates);
    for (uint32_t i = 0; i < count; i++)
        append->updates[i] = make_update();
    if (has_id) {
        append->deliveries = calloc(count, sizeof *append->deliveries);
        append->deliveries[0] = (struct delivery){.has_id = true, .is_once = true};
    }
    store_append(store, append);
}

static void read_from(const char *channel, int64_t position, uint64_t epoch) {
    struct store_read *read = NEW(store_read, channel, on_read);
    read->position = position;
    read->limit = 100;
    read->seen_epoch = epoch;
    read->wants_epoch = true;
    store_read(store, read);
}

static void ask_cursors(const char *channel, enum cursors_action action) {
    struct store_cursors *cursors = NEW(store_cursors, channel, on_cursors);
    cursors->action = action;
    if (action != CURSORS_LOAD) {
        cursors->count = 1;
        cursors->list = calloc(1, sizeof *cursors->list);
        cursors->list[0] = (struct store_cursor){.ts = 1, .name_len = 2, .name = "me"};
    }
    store_cursors(store, cursors);
}

static void purge(const char *channel) {
    struct store_purge *purge = NEW(store_purge, channel, on_purge);
    purge->upto = UINT64_MAX;
    store_purge(store, purge);
}

/* --- News ------------------------------------------------------------------------------------- */

static struct store_watch watches[] = {{.name = "a", .name_len = 1}, {.name = "b{", .name_len = 2}};

static struct store_watch *find_watch(void *context, struct slice channel) {
    (void)context;
    for (size_t i = 0; i < sizeof watches / sizeof *watches; i++)
        if (slice_equal(channel, (struct slice){watches[i].name, watches[i].name_len}))
            return &watches[i];
    return NULL;
}

static void on_watch(struct store_watch *watch) {
    (void)watch;
}

static void on_news(struct store_watch *watch, struct update *update) {
    assert(watch->state == WATCH_ON && update->ts && is_json(update));
}

static void on_purged(struct store_watch *watch, uint64_t gone) {
    assert(watch->state == WATCH_ON && gone <= INT64_MAX);
}

static const struct store_events events = {.find = find_watch,
                                           .watched = on_watch,
                                           .lost = on_watch,
                                           .news = on_news,
                                           .purged = on_purged};

/* --- The store -------------------------------------------------------------------------------- */

static int64_t wall_ms(void) {
    return 1700000000000;
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    signal(SIGPIPE, SIG_IGN);
    hash_init();
    log_init(LOG_LEVEL_ERROR + 1, false);
    loop_memory_init(NULL);
    loop = uv_default_loop();
    turn_init(loop);
    redis_layout_init();
    return 0;
}

static void open_store(struct slice settings) {
    static struct redis_options redis;
    char error[256];
    redis = (struct redis_options){.address = {.host = "127.0.0.1", .port = 6379},
                                   .prefix = "l:",
                                   .tls_ca = "",
                                   .master = "m",
                                   .sentinel_pass = "",
                                   .timeout_ms = 1000};
    if (memchr(settings.data, 's', settings.len)) {
        redis.sentinel_count = 2;
        redis.sentinels[0] = (struct redis_address){"127.0.0.2", 26379};
        redis.sentinels[1] = (struct redis_address){"127.0.0.3", 26379};
    }
    if (memchr(settings.data, 'w', settings.len))
        redis.wait_replicas = 1, redis.wait_ms = 500;
    if (memchr(settings.data, 'p', settings.len))
        redis.pass = (char *)"secret";
    if (memchr(settings.data, 'd', settings.len))
        redis.db = 3;
    struct store_options options = {
        .channel_max_updates = 1000, .ttl_ms = 3600 * 1000, .wall_ms = wall_ms};
    store = store_redis_open(loop, &options, &redis, error, sizeof error);
    assert(store);
    store_listen(store, &events);
}

static void take_pieces(struct slice input) {
    struct slice piece;
    piece_count = 0;
    while (input.data && input.len && piece_count < PIECES_MAX) {
        if (!slice_cut(&input, '~', &piece))
            break;
        if (piece.len)
            pieces[piece_count++] = (struct piece){slice_after(piece, 1), *piece.data, false};
    }
}

static void work(int round) {
    const char *channel = round % 3 ? "a" : "b{";
    if (round == 1)
        for (size_t i = 0; i < sizeof watches / sizeof *watches; i++)
            list_init(&watches[i].link), store_watch(store, &watches[i]);
    switch (round) {
    case 2: push(channel, 1, false), push("b{", 2, false), push(channel, 1, false); break;
    case 3: read_from(channel, 0, 0), read_from(channel, POSITION_NOW, 0xaa); break;
    case 8: push(channel, 3, true), push("b{", 1, true), push(channel, 1, false); break;
    case 9: ask_cursors(channel, CURSORS_LOAD), ask_cursors(channel, CURSORS_SAVE); break;
    case 10: ask_cursors(channel, CURSORS_FORGET), purge(channel); break;
    case 20: push(channel, 1, false), read_from(channel, 1, 0xaa), purge("b{"); break;
    case 30: read_from(channel, -1, 0), push("b{", 1, false); break;
    default: break;
    }
}

static void on_closed(void *context) {
    *(bool *)context = true;
}

static void close_store(void) {
    bool is_closed = false;
    for (size_t i = 0; i < sizeof watches / sizeof *watches; i++)
        store_unwatch(store, &watches[i]);
    store_close(store, on_closed, &is_closed);
    for (int i = 0; i < 100 && (!is_closed || connecting_count || uv_loop_alive(loop)); i++)
        turn();
    assert(is_closed && answered == started);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct slice input = {size ? (const char *)data : "", size}, settings = SLICE("");
    struct buf line = {0};
    if (!slice_cut(&input, '~', &settings))
        settings = SLICE("");
    take_pieces(input.data ? input : SLICE(""));
    started = answered = line_count = connecting_count = 0;
    open_store(settings);
    for (int round = 0; round < ROUNDS; round++) {
        work(round);
        turn();
        turn();
        time_passes(TICK_MS);
    }
    store_health(store, &line);
    buf_deinit(&line);
    close_store();
    for (int i = 0; i < line_count; i++)
        if (lines[i].fd >= 0)
            hang_up(&lines[i]);
    return 0;
}
