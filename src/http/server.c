#include "http/server.h"
#include "base/address.h"
#include "base/log.h"
#include "http/handover.h"
#include "http/listeners.h"

#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>

enum {
    SPARE_DESCRIPTORS = 48, /* for the loop, the log, a file or two; see spare_descriptors */
    HOLD_LOOK_MS = 1,
};

struct server {
    uv_loop_t *loop;
    struct server_options options;
    struct listeners listeners;
    uv_signal_t terminate, interrupt, upgrade;
    uv_timer_t drain_timer, hold_timer;
    uv_check_t hold_look;
    void (*quiet)(bool is_quiet); /* while it is held, and not known to be quiet; else NULL */
    uint64_t held_ms;
    bool is_draining, is_drained, is_taken_out;
    int late_signal;
};

static struct server the_server; /* lives as long as the process */

void server_block_signals(bool are_blocked) {
    sigset_t heard;
    sigemptyset(&heard);
    sigaddset(&heard, SIGTERM);
    sigaddset(&heard, SIGINT);
    sigaddset(&heard, SIGUSR2);
    pthread_sigmask(are_blocked ? SIG_BLOCK : SIG_UNBLOCK, &heard, NULL);
}

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
    uv_close((uv_handle_t *)&server->upgrade, NULL);
    signal(SIGUSR2, SIG_IGN); /* else it would end the process now, before its store is closed */
    uv_close((uv_handle_t *)&server->hold_timer, NULL);
    uv_close((uv_handle_t *)&server->hold_look, NULL);
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
    if (server->is_taken_out) {
        server->late_signal = number;
        return;
    }
    log_info("stopping", "signal", number == SIGTERM ? "SIGTERM" : "SIGINT", "connections",
             log_number(connections->open).text, NULL);
    conn_restore_rest(); /* before it can be drained */
    server->is_draining = true;
    if (connections->is_holding)
        server_release();
    listeners_close(&server->listeners);
    server->options.on_drain();
    uv_timer_start(&server->drain_timer, on_drain_over, SERVER_DRAIN_MS, 0);
    conn_drain_all(connections);
    check_drained(server);
}

static void on_upgrade(uv_signal_t *handle, int number) {
    struct server *server = container_of(handle, struct server, upgrade);
    if (server->is_draining || server->is_taken_out)
        log_info("signal ignored", "signal", log_number((uint64_t)number).text, NULL);
    else
        server->options.on_upgrade();
}

/* --- Handing over ----------------------------------------------------------------------------- */

static void stop_looking(struct server *server) {
    uv_check_stop(&server->hold_look);
    uv_timer_stop(&server->hold_timer);
    server->quiet = NULL;
}

static void look_whether_quiet(struct server *server) {
    void (*quiet)(bool) = server->quiet;
    bool is_quiet = conn_all_quiet(server->options.connections);
    bool is_late = uv_now(server->loop) - server->held_ms >= SERVER_HOLD_MS;
    if (!is_quiet && !is_late)
        return;
    stop_looking(server);
    quiet(is_quiet);
}

/* When the sockets have been looked at. What comes about at the end of the turn is seen in the
 * next, which the timer lets begin: whoever is told that it is quiet must find a turn that has not
 * ended. */
static void on_hold_look(uv_check_t *check) {
    look_whether_quiet(container_of(check, struct server, hold_look));
}

static void on_hold_time(uv_timer_t *timer) {
    look_whether_quiet(container_of(timer, struct server, hold_timer));
}

void server_hold(void (*quiet)(bool is_quiet)) {
    struct server *server = &the_server;
    server->quiet = quiet;
    server->held_ms = uv_now(server->loop);
    listeners_hold(&server->listeners);
    conn_hold_all(server->options.connections);
    uv_check_start(&server->hold_look, on_hold_look);
    uv_timer_start(&server->hold_timer, on_hold_time, HOLD_LOOK_MS, HOLD_LOOK_MS);
}

void server_release(void) {
    struct server *server = &the_server;
    stop_looking(server);
    conn_release_all(server->options.connections);
    listeners_release(&server->listeners);
}

void server_take_out(struct pack *out) {
    the_server.is_taken_out = true;
    conn_take_out_all(the_server.options.connections, out);
}

void server_save(struct pack *out) {
    listeners_save(&the_server.listeners, out);
}

int server_late_signal(void) {
    return the_server.late_signal;
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

bool server_listens_at(const char *listen) {
    struct slice rest = slice_of(listen), address;
    while (slice_cut(&rest, ',', &address))
        if (!listeners_are_at(&the_server.listeners, address))
            return false;
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

static void init_handles(struct server *server) {
    uv_loop_t *loop = server->loop;
    uv_timer_init(loop, &server->drain_timer);
    uv_timer_init(loop, &server->hold_timer);
    uv_check_init(loop, &server->hold_look);
    uv_signal_init(loop, &server->terminate);
    uv_signal_init(loop, &server->interrupt);
    uv_signal_init(loop, &server->upgrade);
    server->terminate.data = server->interrupt.data = server;
    uv_signal_start(&server->terminate, on_signal, SIGTERM);
    uv_signal_start(&server->interrupt, on_signal, SIGINT);
    uv_signal_start(&server->upgrade, on_upgrade, SIGUSR2);
}

static bool listen_on(struct server *server, struct slice address, char *error, size_t error_size) {
    char why[256];
    if (listeners_add(&server->listeners, address, why, sizeof why))
        return true;
    snprintf(error, error_size, "cannot listen on %.*s: %s", (int)address.len, address.data, why);
    return false;
}

static bool adopt(struct server *server, int fd, char *error, size_t error_size) {
    int status = listeners_adopt(&server->listeners, fd);
    if (status)
        snprintf(error, error_size, "cannot listen on descriptor %d: %s", fd, uv_strerror(status));
    return !status;
}

static bool listen_on_all(struct server *server, char *error, size_t error_size) {
    const struct server_options *options = &server->options;
    struct slice rest = slice_of(options->listen), address;
    char why[256];
    bool ok = true;
    if (options->saved) {
        ok = listeners_restore(&server->listeners, options->saved, why, sizeof why);
        if (!ok)
            snprintf(error, error_size, "cannot take over the listening sockets: %s", why);
    } else if (options->socket_count) {
        for (int i = 0; i < options->socket_count && ok; i++)
            ok = adopt(server, options->sockets[i], error, error_size);
    } else {
        while (ok && slice_cut(&rest, ',', &address))
            ok = listen_on(server, address, error, error_size);
    }
    return ok;
}

bool server_start(uv_loop_t *loop, const struct server_options *options, char *error,
                  size_t error_size) {
    struct server *server = &the_server;
    *server = (struct server){.loop = loop, .options = *options};
    listeners_init(&server->listeners, loop, options->connections, connections_allowed(options));
    options->connections->on_closed = on_conn_closed;
    options->connections->on_closed_context = server;
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is a full disk, not the end */
    init_handles(server);
    if (!listen_on_all(server, error, error_size)) {
        if (!options->saved) /* else the program that they came from gets them back */
            listeners_close(&server->listeners);
        return false;
    }
    options->on_listening();
    if (!options->saved)
        listeners_log(&server->listeners);
    return true;
}
