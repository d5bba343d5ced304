/* The command line: picks the command, and wires the parts of a server for `serve`. */
#include "api/api.h"
#include "api/body.h"
#include "api/report.h"
#include "base/clock.h"
#include "base/config.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/loop_memory.h"
#include "base/turn.h"
#include "base/worker.h"
#include "cli/completion.h"
#include "cli/curl.h"
#include "cli/doctor.h"
#include "cli/exec.h"
#include "cli/forward.h"
#include "cli/health.h"
#include "cli/help.h"
#include "cli/new.h"
#include "cli/options.h"
#include "cli/send.h"
#include "cli/tail.h"
#include "http/budget.h"
#include "http/server.h"
#include "redis/options.h"
#include "redis/store.h"
#include "sqlite/backup.h"
#include "sqlite/check.h"
#include "sqlite/store.h"
#include "version.h"

#include <fcntl.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

enum { EXIT_CANNOT_START = 1, EXIT_USAGE = 2 };
enum { OWN_BYTES = 12 << 20 };

#define OUT_OF_MEMORY "out of memory" /* as every room says it */

static struct {
    struct config config;
    struct conn_shared connections;
    struct redis_options redis;
    struct store *store;
    bool is_serving;
} app;

static void on_store_closed(void *context) {
    struct store **store = context;
    *store = NULL;
    if (app.is_serving)
        log_info("stopped", NULL);
}

static void on_drain(void) {
    api.is_draining = true;
}

static void on_inbox_stopped(void) {
    store_close(app.store, on_store_closed, &app.store);
}

static void on_drained(void) {
    conn_shared_deinit(&app.connections);
    inbox_stop(api.inbox, on_inbox_stopped);
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
    };
    return config->data_provider == PROVIDER_REDIS
               ? store_redis_open(loop, &options, &app.redis, error, error_size)
               : store_sqlite_open(loop, &options, error, error_size);
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
    log_info("starting", "version", LONGLINE_VERSION, "provider", provider_name(), NULL);
    for (size_t at = 0; config_next_idle(&app.config, &at, &idle);)
        log_warn("setting without effect", "setting", idle.env, "needs", idle.needs, NULL);
}

/* Builds the parts from the store upwards; false on failure, with one line in `error`. */
static bool start(uv_loop_t *loop, char *error, size_t error_size) {
    const struct config *config = &app.config;
    server_raise_limits();
    app.store = open_store(loop, config, error, error_size);
    if (!app.store)
        return false;
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
    budget_init(buffer_bytes(config));
    app.connections = (struct conn_shared){
        .handler = &api_handler,
        .request_timeout_ms = (uint64_t)config->request_timeout * 1000,
        .idle_timeout_ms = (uint64_t)config->idle_timeout * 1000,
        .body_max_bytes = (uint32_t)config->max_body,
        .uses_io_uring = config->io_uring,
    };
    if (!api.inbox || (config->rate_limit_limit && !api.limiter) ||
        !conn_shared_init(&app.connections, loop)) {
        snprintf(error, error_size, OUT_OF_MEMORY);
        return false;
    }
    wait_for_store(loop);
    struct server_options options = {
        .listen = config->listen,
        .max_connections = (uint64_t)config->max_connections,
        .spare_descriptors =
            config->data_provider == PROVIDER_REDIS ? store_redis_descriptors(&app.redis) : 0,
        .connections = &app.connections,
        .on_listening = on_listening,
        .on_drain = on_drain,
        .on_drained = on_drained,
    };
    return server_start(loop, &options, error, error_size);
}

/* A lack of memory is nobody's mistake in the settings. */
static int complain(int status, const char *error) {
    bool is_out_of_memory = strcmp(error, OUT_OF_MEMORY) == 0;
    fprintf(stderr, "longline: %s\n", error);
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
    if (app.config.data_provider == PROVIDER_REDIS &&
        !redis_options_init(&app.redis, &app.config, error, error_size))
        return false;
    api.trust = proxy_trust_new(app.config.trust_proxy, error, error_size);
    return api.trust && server_check_listen(app.config.listen, error, error_size);
}

/* For the commands whose flags are settings. */
static bool wants_help(enum command command, int argc, char **argv) {
    bool wants = argc && (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0);
    if (wants)
        options_help(command);
    return wants;
}

static int serve(int argc, char **argv) {
    char error[512] = "";
    if (wants_help(COMMAND_SERVE, argc, argv))
        return EXIT_SUCCESS;
    /* Until the loop hears them they wait: process 1 of a container would not get them at all. */
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    pthread_sigmask(SIG_BLOCK, &ends, NULL);
    if (!load_settings(argc, argv, error, sizeof error))
        return complain(EXIT_USAGE, error);
    umask(077); /* the data file holds secrets */
    signal(SIGPIPE, SIG_IGN);
    log_init(app.config.log_level, app.config.log_json);
    report_init();
    body_is_json_strict = app.config.strict_json;
    loop_memory_init();
    uv_loop_t *loop = uv_default_loop();
    if (!loop)
        return complain(EXIT_CANNOT_START, OUT_OF_MEMORY);
    turn_init(loop);
    if (worker_init(loop) != 0)
        return complain(EXIT_CANNOT_START, OUT_OF_MEMORY);
    if (!start(loop, error, sizeof error))
        return give_up(loop, error);
    loop_memory_started();
    pthread_sigmask(SIG_UNBLOCK, &ends, NULL);
    uv_run(loop, UV_RUN_DEFAULT);
    inbox_free(api.inbox);
    limiter_free(api.limiter);
    proxy_trust_free(api.trust);
    redis_options_deinit(&app.redis);
    worker_deinit();
    turn_deinit();
    uv_run(loop, UV_RUN_DEFAULT);
    uv_loop_close(loop);
    return EXIT_SUCCESS;
}

static int ask_health(int argc, char **argv) {
    char line[4096];
    if (wants_help(COMMAND_HEALTH, argc, argv))
        return EXIT_SUCCESS;
    if (!config_load(&app.config, argc, argv, line, sizeof line) ||
        !server_check_listen(app.config.listen, line, sizeof line))
        return complain(EXIT_USAGE, line);
    bool is_serving = health_ask(app.config.listen, line, sizeof line);
    puts(line);
    return is_serving ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int check(int argc, char **argv) {
    struct options options;
    char error[256];
    if (!options_parse(&options, COMMAND_CHECK, argc, argv, error, sizeof error))
        return complain(EXIT_USAGE, error);
    if (options.help) {
        options_help(COMMAND_CHECK);
        return EXIT_SUCCESS;
    }
    if (options.word_count != 1)
        return complain(EXIT_USAGE, "usage: longline check FILE");
    log_init(LOG_LEVEL_ERROR, false);
    enum check_result result =
        check_file(options.words[0], stdout, isatty(STDERR_FILENO) ? stderr : NULL);
    return result == CHECK_WHOLE     ? EXIT_SUCCESS
           : result == CHECK_DAMAGED ? EXIT_FAILURE
                                     : EXIT_USAGE;
}

static int backup(int argc, char **argv) {
    char error[512];
    if (wants_help(COMMAND_BACKUP, argc, argv))
        return EXIT_SUCCESS;
    if (!argc || strncmp(argv[0], "--", 2) == 0)
        return complain(EXIT_USAGE, "usage: longline backup FILE [--SETTING VALUE]...");
    if (!config_load(&app.config, argc - 1, argv + 1, error, sizeof error))
        return complain(EXIT_USAGE, error);
    if (app.config.data_provider != PROVIDER_SQLITE)
        return complain(EXIT_USAGE, "the data is not in a file: DATA_PROVIDER is not sqlite");
    log_init(LOG_LEVEL_ERROR, false);
    enum backup_result result = backup_file(app.config.data_path, argv[0], stdout, stderr,
                                            isatty(STDERR_FILENO) ? stderr : NULL);
    return result == BACKUP_DONE ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* The commands that need nothing of a server's parts. */
static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    bool needs_curl;
} clients[] = {{"new", new_run, false},
               {"send", send_run, true},
               {"tail", tail_run, true},
               {"forward", forward_run, true},
               {"exec", exec_run, true},
               {"doctor", doctor_run, true},
               {"completion", completion_run, false},
               {"help", help_run, false}};

static int run_client(size_t i, int argc, char **argv) {
    const char *error;
    if (clients[i].needs_curl && wants_help(command_find(clients[i].name), argc, argv))
        return EXIT_SUCCESS;
    if (clients[i].needs_curl && !curl_load(&error))
        return options_complain(EX_UNAVAILABLE, "%s", error);
    return clients[i].run(argc, argv);
}

/* What we open must not become standard input, output or error. */
static void keep_standard_files(void) {
    int fd;
    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

int main(int argc, char **argv) {
    keep_standard_files();
    const char *command = argc > 1 ? argv[1] : "";
    if (sodium_init() < 0)
        return complain(EXIT_CANNOT_START, "no random numbers from the system");
    hash_init();
    if (strcmp(command, "serve") == 0)
        return serve(argc - 2, argv + 2);
    if (strcmp(command, "health") == 0)
        return ask_health(argc - 2, argv + 2);
    if (strcmp(command, "check") == 0)
        return check(argc - 2, argv + 2);
    if (strcmp(command, "backup") == 0)
        return backup(argc - 2, argv + 2);
    for (size_t i = 0; i < sizeof clients / sizeof *clients; i++)
        if (strcmp(command, clients[i].name) == 0)
            return run_client(i, argc - 2, argv + 2);
    if (strcmp(command, "--version") == 0 || strcmp(command, "version") == 0) {
        puts("longline " LONGLINE_VERSION);
        return EXIT_SUCCESS;
    }
    if (strcmp(command, "--help") == 0 || strcmp(command, "-h") == 0) {
        help_print();
        return EXIT_SUCCESS;
    }
    return complain(EXIT_USAGE, *command ? "unknown command; see longline --help"
                                         : "no command; see longline --help");
}
