#include "fixture.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/loop_memory.h"
#include "base/turn.h"
#include "redis/store.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct server servers[SERVERS];
struct store *store;
struct store_options store_options;
struct redis_options redis_options;

static uv_loop_t loop;

/* --- Servers ---------------------------------------------------------------------------------- */

bool has_redis(void) {
    return system("command -v redis-server >/dev/null") == 0;
}

static int free_port(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    assert_int_equal(bind(fd, (struct sockaddr *)&address, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    close(fd);
    return ntohs(address.sin_port);
}

static void exec_server(const struct server *server, bool is_cluster) {
    char port[8], bus[8];
    snprintf(port, sizeof port, "%d", server->port);
    snprintf(bus, sizeof bus, "%d", free_port());
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || chdir(server->dir) != 0 || dup2(null, 1) < 0)
        _exit(1);
    if (is_cluster)
        execlp("redis-server", "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "",
               "--cluster-enabled", "yes", "--cluster-port", bus, NULL);
    else
        execlp("redis-server", "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "",
               NULL);
    _exit(1);
}

static void connect_to(struct server *server) {
    for (int i = 0; i < 10000; i++) {
        server->client = redisConnect("127.0.0.1", server->port);
        assert_non_null(server->client);
        if (!server->client->err && strcmp(ask_text(server, "PING"), "PONG") == 0)
            return;
        redisFree(server->client);
        usleep(10000);
    }
    fail_msg("no redis-server came up");
}

static void start_server(struct server *server, bool is_cluster) {
    strcpy(server->dir, "/tmp/longline-test-XXXXXX");
    assert_non_null(mkdtemp(server->dir));
    server->port = free_port();
    server->pid = fork();
    if (!server->pid)
        exec_server(server, is_cluster);
    assert_true(server->pid > 0);
    connect_to(server);
}

static void stop_server(struct server *server) {
    char command[128];
    if (!server->pid)
        return;
    redisFree(server->client);
    kill(server->pid, SIGKILL);
    waitpid(server->pid, NULL, 0);
    snprintf(command, sizeof command, "rm -rf '%s'", server->dir);
    assert_int_equal(system(command), 0);
    server->pid = 0;
}

static const redisReply *keep(redisReply *reply) {
    static redisReply *last;
    if (last)
        freeReplyObject(last);
    last = reply;
    return reply;
}

static const redisReply *ask_list(struct server *server, const char *format, va_list list) {
    return keep(redisvCommand(server->client, format, list));
}

const redisReply *ask(struct server *server, const char *format, ...) {
    va_list list;
    va_start(list, format);
    const redisReply *reply = ask_list(server, format, list);
    va_end(list);
    assert_non_null(reply);
    return reply;
}

const char *ask_text(struct server *server, const char *format, ...) {
    static char number[24];
    va_list list;
    va_start(list, format);
    const redisReply *reply = ask_list(server, format, list);
    va_end(list);
    if (!reply || reply->type == REDIS_REPLY_NIL)
        return "";
    snprintf(number, sizeof number, "%lld", reply->integer);
    return reply->type == REDIS_REPLY_INTEGER ? number : reply->str;
}

/* --- The store -------------------------------------------------------------------------------- */

void run_until(const bool *is_done) {
    while (!*is_done)
        uv_run(&loop, UV_RUN_ONCE);
}

static void on_closed(void *context) {
    *(bool *)context = true;
}

void open_store(void) {
    char error[512] = "";
    redis_options.address.port = (uint16_t)servers[0].port;
    store = store_redis_open(&loop, &store_options, &redis_options, error, sizeof error);
    if (!store)
        fail_msg("%s", error);
    while (store_health(store, NULL) != STORE_OK)
        uv_run(&loop, UV_RUN_ONCE);
}

void close_store(void) {
    bool is_closed = false;
    store_close(store, on_closed, &is_closed);
    run_until(&is_closed);
}

static int64_t wall_clock(void) {
    return (int64_t)time(NULL) * 1000;
}

static void open_loop(void) {
    signal(SIGPIPE, SIG_IGN); /* as longline has it: tests cut connections */
    hash_init();
    log_init(LOG_LEVEL_ERROR + 1, false);
    loop_memory_init(NULL);
    assert_int_equal(uv_loop_init(&loop), 0);
    turn_init(&loop);
    loop_memory_started();
    store_options = (struct store_options){
        .channel_max_updates = 1000, .ttl_ms = (int64_t)7 * 86400 * 1000, .wall_ms = wall_clock};
    redis_options = (struct redis_options){
        .address.host = "127.0.0.1", .prefix = "total:", .tls_ca = "", .timeout_ms = 20000};
    open_store();
}

int start_one(void **state) {
    (void)state;
    start_server(&servers[0], false);
    open_loop();
    return 0;
}

int start_cluster(void **state) {
    (void)state;
    for (int i = 0; i < SERVERS; i++)
        start_server(&servers[i], true);
    for (int i = 0; i < SERVERS; i++)
        ask(&servers[i], "CLUSTER SET-CONFIG-EPOCH %d", i + 1);
    ask(&servers[0], "CLUSTER ADDSLOTSRANGE 0 8191");
    ask(&servers[1], "CLUSTER ADDSLOTSRANGE 8192 16383");
    ask(&servers[1], "CONFIG SET cluster-announce-ip 127.0.0.1");
    const char *port = strstr(ask_text(&servers[1], "CLUSTER NODES"), "@");
    assert_non_null(port);
    ask(&servers[0], "CLUSTER MEET 127.0.0.1 %d %d", servers[1].port, atoi(port + 1));
    for (int i = 0; i < SERVERS; i++)
        while (!strstr(ask_text(&servers[i], "CLUSTER INFO"), "cluster_state:ok") ||
               !strstr(ask_text(&servers[i], "CLUSTER INFO"), "cluster_size:2"))
            usleep(10000);
    open_loop();
    return 0;
}

int stop_all(void **state) {
    (void)state;
    close_store();
    turn_deinit();
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
    keep(NULL);
    for (int i = 0; i < SERVERS; i++)
        stop_server(&servers[i]);
    return 0;
}

/* --- Operations ------------------------------------------------------------------------------- */

static void on_done(struct store_op *op) {
    *(bool *)op->context = true;
}

uint64_t push(const char *channel) {
    bool is_done = false;
    size_t len = strlen(channel);
    struct store_append *append = calloc(1, sizeof *append + len);
    struct update_parts parts = {.body = SLICE("{\"n\":1}"), .method = SLICE("POST")};
    append->only = update_new(&parts);
    append->updates = &append->only;
    append->count = 1;
    append->op = (struct store_op){.done = on_done, .context = &is_done};
    append->name_len = (uint16_t)len;
    memcpy(append->name, channel, len);
    store_append(store, append);
    run_until(&is_done);
    assert_int_equal(append->epoch, 0);
    uint64_t ts = append->error ? 0 : append->only->ts;
    update_unref(append->only);
    free(append);
    return ts;
}

struct store_read *read_from(const char *channel, int64_t position, uint64_t seen_epoch,
                             bool wants_epoch) {
    static struct {
        struct store_read read;
        char name[64];
    } it;
    bool is_done = false;
    struct store_read *read = &it.read;
    *read = (struct store_read){.op = {.done = on_done, .context = &is_done},
                                .position = position,
                                .seen_epoch = seen_epoch,
                                .wants_epoch = wants_epoch,
                                .limit = READ_MAX_UPDATES,
                                .name_len = (uint16_t)strlen(channel)};
    memcpy(read->name, channel, read->name_len);
    store_read(store, read);
    run_until(&is_done);
    for (uint32_t i = 0; i < read->count; i++)
        update_unref(read->updates[i]); /* only how many there are is looked at */
    free(read->updates);
    read->updates = NULL;
    return read;
}
