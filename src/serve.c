#include "serve.h"
#include "api/api.h"
#include "api/body.h"
#include "api/report.h"
#include "base/address.h"
#include "base/clock.h"
#include "base/config.h"
#include "base/log.h"
#include "base/loop_memory.h"
#include "base/turn.h"
#include "base/worker.h"
#include "http/budget.h"
#include "http/server.h"
#include "process/activation.h"
#include "process/notify.h"
#include "process/sandbox.h"
#include "process/successor.h"
#include "redis/options.h"
#include "redis/store.h"
#include "sqlite/store.h"
#include "upgrade.h"
#include "version.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

enum {
    OWN_BYTES = 12 << 20,
    WAY_BACK_MS = 10000, /* for which the way back from an upgrade is tried */
    WAY_BACK_PAUSE_MS = 100,
};

#define OUT_OF_MEMORY "out of memory" /* as every room says it */

static struct {
    struct config config;
    struct conn_shared connections;
    struct redis_options redis;
    struct store *store;
    bool is_serving;
    int sockets[ACTIVATION_MAX], socket_count; /* that listen already */
    int state_fd;                              /* what another program handed over; -1: nothing */
    struct upgrade_state state;
    struct buf *left;     /* upgrade_parts.leave_store() */
    void (*closed)(void); /* the same */
    char error[512];      /* why it does not start */
} app = {.state_fd = -1};

static void on_store_closed(void *context) {
    struct store **store = context;
    *store = NULL;
    if (app.is_serving)
        log_info("stopped", NULL);
}

static void on_drain(void) {
    upgrade_cancel();
    notify("STOPPING=1");
    api.is_draining = true;
}

static void on_inbox_stopped(void) {
    store_close(app.store, on_store_closed, &app.store);
}

static void on_drained(void) {
    conn_shared_deinit(&app.connections);
    inbox_stop(api.inbox, on_inbox_stopped);
}

static void on_closed_for_upgrade(void *context) {
    struct store **store = context;
    *store = NULL;
    app.closed();
}

static void on_stopped_for_upgrade(void) {
    store_leave(app.store, app.left, on_closed_for_upgrade, &app.store);
}

/* upgrade_parts.settle_store */
static void settle_store(void (*settled)(void)) {
    store_settle(app.store, settled);
}

/* upgrade_parts.leave_store */
static void leave_store(struct buf *left, void (*closed)(void)) {
    app.left = left;
    app.closed = closed;
    inbox_stop(api.inbox, on_stopped_for_upgrade);
}

static const char *provider_name(void) {
    static const char *const names[] = {
        [PROVIDER_SQLITE] = "sqlite", [PROVIDER_MEMORY] = "memory", [PROVIDER_REDIS] = "redis"};
    return names[app.config.data_provider];
}

static struct store *open_store(uv_loop_t *loop, const struct config *config, char *error,
                                size_t error_size) {
    struct store_options options = {
        .path = config->data_provider == PROVIDER_SQLITE ? config->data_path : NULL,
        .sync = config->sync,
        .channel_max_updates = (uint64_t)config->channel_storage_maxsize,
        .ttl_ms = config->data_ttl * 1000,
        .max_bytes = (uint64_t)config->data_max_bytes,
        .wall_ms = clock_wall_ms,
        .steady_ms = clock_steady_ms,
        .at_work = notify_at_work,
        .left = app.state.left,
    };
    return config->data_provider == PROVIDER_REDIS
               ? store_redis_open(loop, &options, &app.redis, error, error_size)
               : store_sqlite_open(loop, &options, error, error_size);
}

/* The program that an upgrade has gone back to has nobody behind it, and clients wait for it: what
 * keeps it from its data file may be over in a moment. */
static struct store *open_store_again(uv_loop_t *loop, const struct config *config, char *error,
                                      size_t error_size) {
    uint64_t end_ns = uv_hrtime() + (uint64_t)WAY_BACK_MS * 1000000;
    struct store *store = open_store(loop, config, error, error_size);
    while (!store && successor_failure() && uv_hrtime() < end_ns) {
        uv_sleep(WAY_BACK_PAUSE_MS);
        store = open_store(loop, config, error, error_size);
    }
    return store;
}

/* Gives a Redis the time of one operation to be there; without it longline serves all the same. */
static void wait_for_store(uv_loop_t *loop) {
    uint64_t end_ms = uv_now(loop) + (uint64_t)app.config.redis_timeout;
    while (store_is_shared(app.store) && store_health(app.store, NULL) != STORE_OK &&
           uv_now(loop) < end_ms)
        uv_run(loop, UV_RUN_ONCE);
}

/* BUFFER_SIZE without its share for the program itself and what is on its way from the store. */
static uint64_t buffer_bytes(const struct config *config) {
    uint64_t bytes = (uint64_t)config->buffer_size << 20, share = bytes / 16 * 3;
    return bytes - (share < OWN_BYTES ? share : OWN_BYTES);
}

static struct inbox *make_inbox(uv_loop_t *loop, const struct config *config) {
    struct inbox_options options = {
        .channel_max_updates = (uint64_t)config->channel_storage_maxsize,
        .ttl_ms = config->data_ttl * 1000,
        .cache_max_bytes = (uint64_t)config->cache_size << 20,
        .load_max_ms = (uint64_t)config->redis_timeout,
    };
    return inbox_new(loop, app.store, &options, &api_inbox_events);
}

/* A start that fails is one line, so this one comes when nothing can fail any more. */
static void on_listening(void) {
    struct idle_setting idle;
    app.is_serving = true;
    if (app.state_fd >= 0)
        return;
    log_info("starting", "version", LONGLINE_VERSION, "provider", provider_name(), NULL);
    for (size_t at = 0; config_next_idle(&app.config, &at, &idle);)
        log_warn("setting without effect", "setting", idle.env, "needs", idle.needs, NULL);
    if (app.socket_count && config_is_listen_given(&app.config) &&
        !server_listens_at(app.config.listen))
        log_warn("setting without effect", "setting", "LISTEN", "needs", "no LISTEN_FDS", NULL);
}

/* What answers requests; false when memory is out. */
static bool make_api(uv_loop_t *loop, const struct config *config) {
    api = (struct api){
        .inbox = make_inbox(loop, config),
        .store = app.store,
        .connections = &app.connections,
        .trust = api.trust,
        .provider = provider_name(),
        .capture_headers = config->capture_headers,
        .may_purge = config->purge,
        .keep_updates = (uint64_t)config->channel_storage_maxsize,
        .keep_seconds = (uint64_t)config->data_ttl,
        .poll_max_ms = (uint64_t)config->poll_max * 1000,
    };
    if (config->rate_limit_limit)
        api.limiter = limiter_new((uint64_t)config->rate_limit_limit,
                                  (uint64_t)config->rate_limit_frame * 1000);
    return api.inbox && (api.limiter || !config->rate_limit_limit);
}

/* What requests come by; false when memory is out. */
static bool make_connections(uv_loop_t *loop, const struct config *config) {
    budget_init(buffer_bytes(config));
    app.connections = (struct conn_shared){
        .handler = &api_handler,
        .request_timeout_ms = (uint64_t)config->request_timeout * 1000,
        .idle_timeout_ms = (uint64_t)config->idle_timeout * 1000,
        .body_max_bytes = (uint32_t)config->max_body,
        .uses_io_uring = config->io_uring,
    };
    return conn_shared_init(&app.connections, loop);
}

/* upgrade_parts.refusal. A data file that cannot be written could not be closed and opened either.
 */
static const char *upgrade_refusal(void) {
    static char text[256];
    struct buf line = {0};
    if (app.config.data_provider == PROVIDER_MEMORY)
        return "DATA_PROVIDER=memory would lose all updates";
    if (store_is_shared(app.store) || store_health(app.store, &line) == STORE_OK) {
        buf_deinit(&line);
        return NULL;
    }
    snprintf(text, sizeof text, "the data file cannot be written: %.*s", (int)line.len,
             line.len ? line.data : "");
    buf_deinit(&line);
    return text;
}

static void prepare_upgrades(uv_loop_t *loop) {
    upgrade_init(&(struct upgrade_parts){.loop = loop,
                                         .connections = &app.connections,
                                         .refusal = upgrade_refusal,
                                         .settle_store = settle_store,
                                         .leave_store = leave_store});
}

/* Builds the parts from the store upwards; false on failure, with one line in `error`. */
static bool start(uv_loop_t *loop, char *error, size_t error_size) {
    const struct config *config = &app.config;
    server_raise_limits();
    app.store = open_store_again(loop, config, error, error_size);
    if (!app.store)
        return false;
    bool ok = make_api(loop, config);
    if (!make_connections(loop, config) || !ok) {
        snprintf(error, error_size, OUT_OF_MEMORY);
        return false;
    }
    prepare_upgrades(loop);
    if (app.state_fd < 0)
        wait_for_store(loop);
    else /* requests wait for it, as they do when it goes away for a moment */
        api.store_due_ms = wheel_now_ms() + (uint64_t)config->redis_timeout;
    struct server_options options = {
        .listen = config->listen,
        .sockets = app.sockets,
        .socket_count = app.socket_count,
        .saved = app.state_fd >= 0 ? &app.state.sockets : NULL,
        .max_connections = (uint64_t)config->max_connections,
        .spare_descriptors =
            config->data_provider == PROVIDER_REDIS ? store_redis_descriptors(&app.redis) : 0,
        .connections = &app.connections,
        .on_listening = on_listening,
        .on_drain = on_drain,
        .on_drained = on_drained,
        .on_upgrade = upgrade_begin,
    };
    return server_start(loop, &options, error, error_size);
}

/* A lack of memory is nobody's mistake in the settings. */
static int complain(int status, const char *error) {
    bool is_out_of_memory = strcmp(error, OUT_OF_MEMORY) == 0;
    fprintf(stderr, "longline: %s\n", error);
    snprintf(app.error, sizeof app.error, "%s", error);
    return is_out_of_memory ? EXIT_CANNOT_START : status;
}

/* After a start that failed. The store ends as it always does: to the next start, it must not look
 * as if this one had crashed. */
static int give_up(uv_loop_t *loop, const char *error) {
    int status = complain(EXIT_CANNOT_START, error);
    if (app.store && api.inbox)
        inbox_stop(api.inbox, on_inbox_stopped);
    else if (app.store)
        on_inbox_stopped();
    while (app.store)
        uv_run(loop, UV_RUN_ONCE);
    return status;
}

/* Reads the settings, and what can be said of them without a loop. */
static bool load_settings(int argc, char **argv, char *error, size_t error_size) {
    if (!config_load(&app.config, argc, argv, error, error_size))
        return false;
    if (app.config.max_body > (app.config.buffer_size << 20) / 4) {
        snprintf(error, error_size, "BUFFER_SIZE must be at least four times MAX_BODY");
        return false;
    }
    /* Whatever the provider is: a mistake must not wait for the day on which it changes. */
    if (!redis_options_init(&app.redis, &app.config, error, error_size))
        return false;
    api.trust = proxy_trust_new(app.config.trust_proxy, error, error_size);
    return api.trust && server_check_listen(app.config.listen, error, error_size);
}

/* Whether this program would take over from the one that asks, which runs: it changes nothing. */
static int check_upgrade(const char *version, int argc, char **argv) {
    char error[512] = "";
    bool ok = load_settings(argc, argv, error, sizeof error);
    if (ok && strcmp(version, UPGRADE_STATE_VERSION) != 0) {
        snprintf(error, sizeof error, "it cannot take over from a version so different");
        ok = false;
    }
    if (ok && app.config.data_provider == PROVIDER_SQLITE)
        ok = store_sqlite_knows(app.config.data_path, error, sizeof error);
    if (!ok)
        return complain(EXIT_CANNOT_START, error);
    puts("longline " LONGLINE_VERSION " would start");
    return EXIT_SUCCESS;
}

/* Where the sockets come from, if not from LISTEN. */
static bool find_sockets(char *error, size_t error_size) {
    if (app.state_fd >= 0)
        return upgrade_open(&app.state, app.state_fd, error, error_size);
    return activation_take(app.sockets, &app.socket_count, error, error_size);
}

/* What it uses from here on, in folders where files come and go. */
static void restrict_files(const struct config *config) {
    struct slice list = slice_of(config->listen), address;
    char path[sizeof((struct sockaddr_un *)NULL)->sun_path];
    sandbox_begin(app.state_fd >= 0, config->data_provider == PROVIDER_REDIS);
    sandbox_allow_folder_of(successor_path(), SANDBOX_RUN);
    if (config->data_provider == PROVIDER_SQLITE)
        sandbox_allow_folder_of(config->data_path, SANDBOX_WRITE);
    sandbox_allow_folder_of(config->redis_tls_ca, SANDBOX_READ);
    while (slice_cut(&list, ',', &address)) {
        struct slice unix_path = address_unix_path(address); /* empty for any other */
        snprintf(path, sizeof path, "%.*s", (int)unix_path.len, unix_path.data);
        sandbox_allow_folder_of(path, SANDBOX_BIND);
    }
    sandbox_restrict_files();
}

/* Runs it until it has stopped. */
static int serve(uv_loop_t *loop) {
    loop_memory_started();
    if (app.config.sandbox)
        sandbox_restrict_calls();
    if (app.state_fd < 0)
        sandbox_log();
    if (app.state_fd >= 0)
        upgrade_finish(&app.state, app.state_fd);
    successor_settle();
    if (successor_failure())
        notify_status("READY=1", "Upgrade failed: %s", successor_failure());
    else
        notify("READY=1\nSTATUS=");
    notify_watchdog_start(loop);
    server_block_signals(false);
    uv_run(loop, UV_RUN_DEFAULT);
    inbox_free(api.inbox);
    limiter_free(api.limiter);
    proxy_trust_free(api.trust);
    redis_options_deinit(&app.redis);
    notify_watchdog_stop();
    worker_deinit();
    turn_deinit();
    uv_run(loop, UV_RUN_DEFAULT);
    uv_loop_close(loop);
    return EXIT_SUCCESS;
}

/* libuv had no memory while it started. The store is left as by a crash: at worst the program that
 * was there before begins a new epoch. */
static void go_back_without_memory(void) {
    if (app.state_fd >= 0)
        successor_go_back(app.state_fd, OUT_OF_MEMORY);
}

static int start_and_serve(int argc, char **argv) {
    char error[512] = "";
    if (!load_settings(argc, argv, error, sizeof error))
        return complain(EXIT_USAGE, error);
    if (!find_sockets(error, sizeof error))
        return complain(app.state_fd >= 0 ? EXIT_CANNOT_START : EXIT_USAGE, error);
    umask(077); /* the data file holds secrets */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL); /* ignored, as whoever starts us may, it tells no child's end */
    log_init(app.config.log_level, app.config.log_json);
    report_init();
    body_is_json_strict = app.config.strict_json;
    if (!app.config.core_dumps)
        sandbox_forbid_core_dumps();
    if (app.config.sandbox)
        restrict_files(&app.config);
    loop_memory_init(go_back_without_memory);
    uv_loop_t *loop = uv_default_loop();
    if (!loop)
        return complain(EXIT_CANNOT_START, OUT_OF_MEMORY);
    turn_init(loop);
    if (worker_init(loop) != 0)
        return complain(EXIT_CANNOT_START, OUT_OF_MEMORY);
    return start(loop, error, sizeof error) ? serve(loop) : give_up(loop, error);
}

int serve_run(int argc, char **argv) {
    if (argc > 3 && strcmp(argv[2], SUCCESSOR_CHECK_FLAG) == 0)
        return check_upgrade(argv[3], argc - 4, argv + 4);
    /* Until the loop hears them they wait: process 1 of a container would not get them at all. */
    server_block_signals(true);
    successor_init(argc, argv, &app.state_fd);
    int status = start_and_serve(argc - 2, argv + 2);
    if (status != EXIT_SUCCESS && app.state_fd >= 0)
        successor_go_back(app.state_fd, app.error);
    return status;
}
