#include "http/server.h"
#include "base/address.h"
#include "base/log.h"
#include "http/listeners.h"

#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>

enum { SPARE_DESCRIPTORS = 48 }; /* for the loop, the log, a file or two; see spare_descriptors */

struct server {
    uv_loop_t *loop;
    struct server_options options;
    struct listeners listeners;
    uv_signal_t terminate, interrupt;
    uv_timer_t drain_timer;
    bool is_draining, is_drained;
};

void server_raise_limits(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void check_drained(struct server *server) {
    if (!server->is_draining || server->is_drained || server->options.connections->open)
        return;
    server->is_drained = true;
    uv_close((uv_handle_t *)&server->drain_timer, NULL);
    uv_close((uv_handle_t *)&server->terminate, NULL);
    uv_close((uv_handle_t *)&server->interrupt, NULL);
    server->options.on_drained();
}

static void on_conn_closed(void *context) {
    struct server *server = context;
    if (!server->is_draining)
        listeners_check_room(&server->listeners);
    check_drained(server);
}

/* --- Stopping --------------------------------------------------------------------------------- */

static void on_store_late(uv_timer_t *timer) {
    struct server *server = container_of(timer, struct server, drain_timer);
    conn_close_all(server->options.connections);
}

/* A push that came at the last moment is in the store: its reply comes as soon as the disk has
 * it. */
static void on_drain_over(uv_timer_t *timer) {
    struct server *server = container_of(timer, struct server, drain_timer);
    uv_timer_start(timer, on_store_late, SERVER_STORE_MS, 0);
    conn_close_readers(server->options.connections);
}

static void on_signal(uv_signal_t *handle, int number) {
    struct server *server = handle->data;
    struct conn_shared *connections = server->options.connections;
    if (server->is_draining)
        return;
    log_info("stopping", "signal", number == SIGTERM ? "SIGTERM" : "SIGINT", "connections",
             log_number(connections->open).text, NULL);
    server->is_draining = true;
    listeners_close(&server->listeners);
    server->options.on_drain();
    uv_timer_start(&server->drain_timer, on_drain_over, SERVER_DRAIN_MS, 0);
    conn_drain_all(connections);
    check_drained(server);
}

/* --- Starting --------------------------------------------------------------------------------- */

bool server_check_listen(const char *listen, char *error, size_t error_size) {
    struct slice rest = slice_of(listen), address;
    while (slice_cut(&rest, ',', &address))
        if (!address_is_sound(address)) {
            snprintf(error, error_size,
                     "LISTEN takes host:port, [::]:port or unix:/path, separated by commas; not "
                     "\"%.*s\"",
                     (int)address.len, address.data);
            return false;
        }
    return true;
}

/* Where there are few descriptors, the store may keep a quarter of them, and connections get half
 * at least. */
static uint64_t connections_allowed(const struct server_options *options) {
    struct rlimit limit = {.rlim_cur = 1024};
    getrlimit(RLIMIT_NOFILE, &limit);
    uint64_t of_store = options->spare_descriptors, quarter = limit.rlim_cur / 4;
    uint64_t spare = SPARE_DESCRIPTORS + (of_store < quarter ? of_store : quarter);
    uint64_t allowed = limit.rlim_cur - (spare < 2 * quarter ? spare : 2 * quarter);
    uint64_t wanted = options->max_connections;
    return wanted && wanted < allowed ? wanted : allowed;
}

bool server_start(uv_loop_t *loop, const struct server_options *options, char *error,
                  size_t error_size) {
    static struct server the_server; /* lives as long as the process */
    struct server *server = &the_server;
    server->loop = loop;
    server->options = *options;
    listeners_init(&server->listeners, loop, options->connections, connections_allowed(options));
    options->connections->on_closed = on_conn_closed;
    options->connections->on_closed_context = server;
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is a full disk, not the end */
    uv_timer_init(loop, &server->drain_timer);
    uv_signal_init(loop, &server->terminate);
    uv_signal_init(loop, &server->interrupt);
    server->terminate.data = server->interrupt.data = server;
    uv_signal_start(&server->terminate, on_signal, SIGTERM);
    uv_signal_start(&server->interrupt, on_signal, SIGINT);
    struct slice rest = slice_of(options->listen), address;
    while (slice_cut(&rest, ',', &address)) {
        char why[256];
        if (!listeners_add(&server->listeners, address, why, sizeof why)) {
            snprintf(error, error_size, "cannot listen on %.*s: %s", (int)address.len, address.data,
                     why);
            listeners_close(&server->listeners);
            return false;
        }
    }
    options->on_listening();
    listeners_log(&server->listeners);
    return true;
}
