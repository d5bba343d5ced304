#include "http/server.h"
#include "base/address.h"
#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    BACKLOG = 4096,
    SPARE_DESCRIPTORS = 48, /* for the loop, the store, the log; connections get the rest */
};

struct listener {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    };
    struct server *server;
    bool is_unix;
    bool is_waiting; /* libuv has accepted a connection that we have not */
};

struct server {
    uv_loop_t *loop;
    struct server_options options;
    struct listener listeners[SERVER_LISTENERS_MAX];
    int listener_count;
    uint64_t max_connections;
    uv_signal_t terminate, interrupt;
    uv_timer_t drain_timer;
    bool is_draining, is_drained, is_full;
};

void server_raise_limits(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* --- Accepting -------------------------------------------------------------------------------- */

static bool has_room(const struct server *server) {
    return server->options.connections->open < server->max_connections;
}

/* When there are too many connections, libuv holds one that it has accepted and stops looking
 * for more; the others wait in the kernel. */
static void accept_if_room(struct listener *listener) {
    struct server *server = listener->server;
    struct conn_shared *connections = server->options.connections;
    if (has_room(server)) {
        listener->is_waiting = !conn_accept(connections, &listener->stream, listener->is_unix);
        return;
    }
    listener->is_waiting = true;
    if (!server->is_full)
        log_warn("connection limit reached", "connections", log_number(connections->open).text,
                 NULL);
    server->is_full = true;
}

static void on_connection(uv_stream_t *stream, int status) {
    struct listener *listener = container_of(stream, struct listener, stream);
    if (status < 0)
        log_warn("cannot accept", "error", uv_strerror(status), NULL);
    else if (!listener->server->is_draining)
        accept_if_room(listener);
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
    for (int i = 0; i < server->listener_count && !server->is_draining; i++)
        if (server->listeners[i].is_waiting && has_room(server))
            accept_if_room(&server->listeners[i]);
    if (has_room(server))
        server->is_full = false;
    check_drained(server);
}

/* --- Stopping --------------------------------------------------------------------------------- */

static void on_drain_over(uv_timer_t *timer) {
    struct server *server = container_of(timer, struct server, drain_timer);
    conn_close_all(server->options.connections);
}

static void on_signal(uv_signal_t *handle, int number) {
    struct server *server = handle->data;
    struct conn_shared *connections = server->options.connections;
    if (server->is_draining)
        return;
    log_info("stopping", "signal", number == SIGTERM ? "SIGTERM" : "SIGINT", "connections",
             log_number(connections->open).text, NULL);
    server->is_draining = true;
    for (int i = 0; i < server->listener_count; i++)
        uv_close(&server->listeners[i].handle, NULL);
    server->options.on_drain();
    uv_timer_start(&server->drain_timer, on_drain_over, SERVER_DRAIN_MS, 0);
    conn_drain_all(connections);
    check_drained(server);
}

/* --- Listening -------------------------------------------------------------------------------- */

/* A socket file that nobody listens on is left over from a crash. */
static void remove_stale_socket(const char *path, const struct sockaddr_storage *address,
                                socklen_t len) {
    struct stat status;
    if (stat(path, &status) != 0 || !S_ISSOCK(status.st_mode))
        return;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (connect(fd, (const struct sockaddr *)address, len) != 0 && errno == ECONNREFUSED)
        unlink(path);
    close(fd);
}

static int bind_unix(struct listener *listener, const struct sockaddr_storage *address,
                     socklen_t len) {
    const char *path = ((const struct sockaddr_un *)address)->sun_path;
    listener->is_unix = true;
    uv_pipe_init(listener->server->loop, &listener->pipe, 0);
    remove_stale_socket(path, address, len);
    int status = uv_pipe_bind(&listener->pipe, path);
    return status ? status : uv_pipe_chmod(&listener->pipe, UV_READABLE | UV_WRITABLE);
}

static int bind_tcp(struct listener *listener, const struct sockaddr_storage *address) {
    uv_tcp_init(listener->server->loop, &listener->tcp);
    return uv_tcp_bind(&listener->tcp, (const struct sockaddr *)address, 0);
}

static void log_listening(const struct listener *listener, struct slice address) {
    struct sockaddr_storage bound;
    int len = sizeof bound;
    char ip[64] = "", text[512];
    if (listener->is_unix) {
        snprintf(text, sizeof text, "%.*s", (int)address.len, address.data);
    } else {
        uv_tcp_getsockname(&listener->tcp, (struct sockaddr *)&bound, &len);
        uv_ip_name((struct sockaddr *)&bound, ip, sizeof ip);
        bool is_v6 = bound.ss_family == AF_INET6;
        unsigned port = ntohs(is_v6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                    : ((struct sockaddr_in *)&bound)->sin_port);
        snprintf(text, sizeof text, is_v6 ? "[%s]:%u" : "%s:%u", ip, port);
    }
    log_info("listening", "address", text, NULL);
}

/* NULL on success, else what is wrong. */
static const char *listen_on(struct server *server, struct slice text) {
    if (server->listener_count == SERVER_LISTENERS_MAX)
        return "too many addresses";
    struct sockaddr_storage address;
    socklen_t len;
    const char *error = address_resolve(text, &address, &len);
    if (error)
        return error;
    struct listener *listener = &server->listeners[server->listener_count++];
    listener->server = server;
    int status = address.ss_family == AF_UNIX ? bind_unix(listener, &address, len)
                                              : bind_tcp(listener, &address);
    if (status == 0)
        status = uv_listen(&listener->stream, BACKLOG, on_connection);
    if (status != 0)
        return uv_strerror(status);
    log_listening(listener, text);
    return NULL;
}

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

static uint64_t connections_allowed(uint64_t wanted) {
    struct rlimit limit = {.rlim_cur = 1024};
    getrlimit(RLIMIT_NOFILE, &limit);
    uint64_t allowed = limit.rlim_cur > 2 * SPARE_DESCRIPTORS ? limit.rlim_cur - SPARE_DESCRIPTORS
                                                              : limit.rlim_cur / 2;
    return wanted && wanted < allowed ? wanted : allowed;
}

bool server_start(uv_loop_t *loop, const struct server_options *options, char *error,
                  size_t error_size) {
    static struct server the_server; /* lives as long as the process */
    struct server *server = &the_server;
    server->loop = loop;
    server->options = *options;
    server->max_connections = connections_allowed(options->max_connections);
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
        const char *why = listen_on(server, address);
        if (why) {
            snprintf(error, error_size, "cannot listen on %.*s: %s", (int)address.len, address.data,
                     why);
            return false;
        }
    }
    return true;
}
