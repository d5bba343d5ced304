#include "http/server.h"
#include "base/log.h"

#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
    bool is_unix;
    bool is_waiting; /* a connection is accepted by libuv, not by us yet */
};

static struct {
    uv_loop_t *loop;
    struct server_options options;
    struct listener listeners[SERVER_LISTENERS_MAX];
    int listener_count;
    uint64_t max_connections;
    uv_signal_t terminate, interrupt;
    uv_timer_t drain_timer;
    bool is_draining, is_drained, is_full;
} server;

void server_raise_limits(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* --- Accepting -------------------------------------------------------------------------------- */

/* While there are too many connections, libuv holds one that it has accepted and stops looking for
 * more; the others wait in the kernel. */
static void accept_if_room(struct listener *listener) {
    if (server.options.connections->open < server.max_connections) {
        listener->is_waiting =
            !conn_accept(server.options.connections, &listener->stream, listener->is_unix);
        return;
    }
    listener->is_waiting = true;
    if (!server.is_full)
        log_warn("connection limit reached", "connections",
                 log_number(server.options.connections->open).text, NULL);
    server.is_full = true;
}

static void on_connection(uv_stream_t *stream, int status) {
    if (status < 0)
        log_warn("cannot accept", "error", uv_strerror(status), NULL);
    else if (!server.is_draining)
        accept_if_room(container_of(stream, struct listener, stream));
}

static void check_drained(void) {
    if (!server.is_draining || server.is_drained || server.options.connections->open)
        return;
    server.is_drained = true;
    uv_close((uv_handle_t *)&server.drain_timer, NULL);
    uv_close((uv_handle_t *)&server.terminate, NULL);
    uv_close((uv_handle_t *)&server.interrupt, NULL);
    server.options.on_drained();
}

static void on_conn_closed(void) {
    for (int i = 0; i < server.listener_count && !server.is_draining; i++)
        if (server.listeners[i].is_waiting &&
            server.options.connections->open < server.max_connections)
            accept_if_room(&server.listeners[i]);
    if (server.options.connections->open < server.max_connections)
        server.is_full = false;
    check_drained();
}

/* --- Stopping --------------------------------------------------------------------------------- */

static void on_drain_over(uv_timer_t *timer) {
    (void)timer;
    conn_close_all(server.options.connections);
}

static void on_signal(uv_signal_t *handle, int number) {
    (void)handle;
    if (server.is_draining)
        return;
    log_info("stopping", "signal", number == SIGTERM ? "SIGTERM" : "SIGINT", "connections",
             log_number(server.options.connections->open).text, NULL);
    server.is_draining = true;
    for (int i = 0; i < server.listener_count; i++)
        uv_close(&server.listeners[i].handle, NULL);
    server.options.on_drain();
    uv_timer_start(&server.drain_timer, on_drain_over, SERVER_DRAIN_MS, 0);
    conn_drain_all(server.options.connections);
    check_drained();
}

/* --- Listening -------------------------------------------------------------------------------- */

static bool fail(char *error, size_t error_size, const char *address, const char *why) {
    snprintf(error, error_size, "cannot listen on %s: %s", address, why);
    return false;
}

/* A socket file that nobody listens on is left over from a crash. */
static void remove_stale_socket(const char *path) {
    struct stat status;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path || stat(path, &status) != 0 ||
        !S_ISSOCK(status.st_mode))
        return;
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) != 0 &&
        errno == ECONNREFUSED)
        unlink(path);
    if (fd >= 0)
        close(fd);
}

static bool listen_unix(struct listener *listener, const char *address, char *error,
                        size_t error_size) {
    const char *path = address + strlen("unix:");
    listener->is_unix = true;
    uv_pipe_init(server.loop, &listener->pipe, 0);
    remove_stale_socket(path);
    int status = uv_pipe_bind(&listener->pipe, path);
    if (status == 0)
        status = uv_pipe_chmod(&listener->pipe, UV_READABLE | UV_WRITABLE);
    if (status == 0)
        status = uv_listen(&listener->stream, BACKLOG, on_connection);
    if (status != 0)
        return fail(error, error_size, address, uv_strerror(status));
    log_info("listening", "address", address, NULL);
    return true;
}

static void log_tcp_address(const uv_tcp_t *tcp) {
    struct sockaddr_storage bound;
    int len = sizeof bound;
    char ip[64] = "", text[96];
    uv_tcp_getsockname(tcp, (struct sockaddr *)&bound, &len);
    uv_ip_name((struct sockaddr *)&bound, ip, sizeof ip);
    bool is_v6 = bound.ss_family == AF_INET6;
    unsigned port = ntohs(is_v6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                : ((struct sockaddr_in *)&bound)->sin_port);
    snprintf(text, sizeof text, is_v6 ? "[%s]:%u" : "%s:%u", ip, port);
    log_info("listening", "address", text, NULL);
}

/* Splits host:port; an IPv6 host is in brackets. False when it is not so. */
static bool split_address(const char *address, char host[256], const char **port) {
    const char *colon = strrchr(address, ':');
    if (!colon)
        return false;
    size_t len = (size_t)(colon - address), digits = strspn(colon + 1, "0123456789");
    bool is_bracketed = len > 2 && address[0] == '[' && address[len - 1] == ']';
    if (len >= 256 || !digits || digits > 5 || colon[1 + digits] || atoi(colon + 1) > 65535 ||
        (!is_bracketed && strcspn(address, ":[]") < len))
        return false;
    snprintf(host, 256, "%.*s", (int)(is_bracketed ? len - 2 : len), address + is_bracketed);
    *port = colon + 1;
    return true;
}

/* Resolves host:port; the caller frees *found. 0, or getaddrinfo's status. */
static int resolve(const char *address, struct addrinfo **found) {
    char host[256];
    const char *port;
    if (!split_address(address, host, &port))
        return EAI_NONAME;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    return getaddrinfo(*host ? host : NULL, port, &hints, found);
}

static bool listen_tcp(struct listener *listener, const char *address, char *error,
                       size_t error_size) {
    struct addrinfo *found;
    int status = resolve(address, &found);
    if (status != 0)
        return fail(error, error_size, address, gai_strerror(status));
    uv_tcp_init(server.loop, &listener->tcp);
    status = uv_tcp_bind(&listener->tcp, found->ai_addr, 0);
    freeaddrinfo(found);
    if (status == 0)
        status = uv_listen(&listener->stream, BACKLOG, on_connection);
    if (status != 0)
        return fail(error, error_size, address, uv_strerror(status));
    log_tcp_address(&listener->tcp);
    return true;
}

static bool is_unix_address(const char *address) {
    return strncmp(address, "unix:", 5) == 0;
}

/* Calls `visit` for each address until it returns false; false too when memory is out. */
static bool for_each_address(const char *list, bool (*visit)(const char *, char *, size_t),
                             char *error, size_t error_size) {
    char *copy = strdup(list), *rest = copy, *address;
    bool ok = copy != NULL;
    while (ok && (address = strsep(&rest, ",")))
        ok = visit(address, error, error_size);
    free(copy);
    return ok;
}

static bool check_address(const char *address, char *error, size_t error_size) {
    char host[256];
    const char *port;
    size_t path_len = is_unix_address(address) ? strlen(address) - 5 : 0;
    bool is_path = path_len && path_len < sizeof((struct sockaddr_un *)0)->sun_path;
    if (is_path || (!is_unix_address(address) && split_address(address, host, &port)))
        return true;
    snprintf(error, error_size,
             "LISTEN takes host:port, [::]:port or unix:/path, separated by commas; not \"%s\"",
             address);
    return false;
}

bool server_check_listen(const char *listen, char *error, size_t error_size) {
    return for_each_address(listen, check_address, error, error_size);
}

bool server_first_address(const char *listen, struct sockaddr_storage *address, socklen_t *len) {
    char text[512];
    snprintf(text, sizeof text, "%.*s", (int)strcspn(listen, ","), listen);
    if (is_unix_address(text)) {
        struct sockaddr_un *un = (struct sockaddr_un *)address;
        *un = (struct sockaddr_un){.sun_family = AF_UNIX};
        memccpy(un->sun_path, text + 5, '\0', sizeof un->sun_path - 1);
        *len = sizeof *un;
        return true;
    }
    struct addrinfo *found;
    if (resolve(text, &found) != 0)
        return false;
    memcpy(address, found->ai_addr, found->ai_addrlen);
    *len = found->ai_addrlen;
    freeaddrinfo(found);
    return true;
}

static bool listen_on(const char *address, char *error, size_t error_size) {
    if (server.listener_count == SERVER_LISTENERS_MAX)
        return fail(error, error_size, address, "too many addresses");
    struct listener *listener = &server.listeners[server.listener_count++];
    return is_unix_address(address) ? listen_unix(listener, address, error, error_size)
                                    : listen_tcp(listener, address, error, error_size);
}

static uint64_t connections_allowed(void) {
    struct rlimit limit = {.rlim_cur = 1024};
    getrlimit(RLIMIT_NOFILE, &limit);
    uint64_t allowed = limit.rlim_cur > 2 * SPARE_DESCRIPTORS ? limit.rlim_cur - SPARE_DESCRIPTORS
                                                              : limit.rlim_cur / 2;
    uint64_t wanted = server.options.max_connections;
    return wanted && wanted < allowed ? wanted : allowed;
}

bool server_start(uv_loop_t *loop, const struct server_options *options, char *error,
                  size_t error_size) {
    server.loop = loop;
    server.options = *options;
    server.max_connections = connections_allowed();
    options->connections->on_closed = on_conn_closed;
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is a full disk, not the end */
    uv_timer_init(loop, &server.drain_timer);
    uv_signal_init(loop, &server.terminate);
    uv_signal_init(loop, &server.interrupt);
    uv_signal_start(&server.terminate, on_signal, SIGTERM);
    uv_signal_start(&server.interrupt, on_signal, SIGINT);
    return for_each_address(options->listen, listen_on, error, error_size);
}
