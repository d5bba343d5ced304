#include "http/listeners.h"
#include "base/address.h"
#include "base/counters.h"
#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    BACKLOG = 4096,
    ACCEPTS_A_TURN = 64, /* of one listener, before the loop looks at its other sockets */
};

/* --- Accepting -------------------------------------------------------------------------------- */

static void on_waiting(uv_poll_t *poll, int status, int events);

static void listen_again(struct listeners *listeners) {
    if (listeners->is_held)
        return;
    for (int i = 0; i < listeners->count; i++)
        uv_poll_start(&listeners->list[i].poll, UV_READABLE, on_waiting);
}

static void look_away(struct listeners *listeners) {
    for (int i = 0; i < listeners->count; i++)
        uv_poll_stop(&listeners->list[i].poll);
}

static bool has_room(const struct listeners *listeners) {
    const struct conn_shared *connections = listeners->connections;
    return connections->open + connections->to_come < listeners->max_connections;
}

/* Whether it is time for another line in the log; then notes that it is written. */
static bool may_tell(uint64_t *told_ms) {
    uint64_t now_ms = wheel_now_ms();
    if (*told_ms && now_ms - *told_ms < LISTENERS_COMPLAIN_MS)
        return false;
    *told_ms = now_ms;
    return true;
}

static void wait_for_room(struct listeners *listeners) {
    listeners->is_full = true;
    look_away(listeners);
    if (may_tell(&listeners->full_told_ms))
        log_warn("connection limit reached", "connections",
                 log_number(listeners->connections->open).text, NULL);
}

static void on_pause_over(uv_timer_t *timer) {
    listen_again(container_of(timer, struct listeners, resume));
}

static void pause_after(struct listeners *listeners, int error) {
    uint64_t pause_ms = 2 * listeners->pause_ms;
    if (pause_ms < LISTENERS_PAUSE_MIN_MS)
        pause_ms = LISTENERS_PAUSE_MIN_MS;
    if (pause_ms > LISTENERS_PAUSE_MAX_MS)
        pause_ms = LISTENERS_PAUSE_MAX_MS;
    listeners->pause_ms = pause_ms;
    look_away(listeners);
    uv_timer_start(&listeners->resume, on_pause_over, pause_ms, 0);
    counters.accept_failures++;
    if (may_tell(&listeners->failure_told_ms))
        log_warn("cannot accept", "error", uv_strerror(error), "failures",
                 log_number(counters.accept_failures).text, NULL);
}

static void on_waiting(uv_poll_t *poll, int status, int events) {
    struct listener *listener = container_of(poll, struct listener, poll);
    struct listeners *listeners = listener->all;
    int error = status < 0 ? status : events & UV_READABLE ? 0 : UV_EAGAIN;
    for (int i = 0; i < ACCEPTS_A_TURN && !error; i++) {
        if (!has_room(listeners)) {
            wait_for_room(listeners);
            return;
        }
        error = conn_accept(listeners->connections, listener->fd);
        if (!error)
            listeners->pause_ms = 0;
    }
    if (error && error != UV_EAGAIN)
        pause_after(listeners, error);
}

void listeners_check_room(struct listeners *listeners) {
    if (!listeners->is_full || !has_room(listeners))
        return;
    listeners->is_full = false;
    if (!uv_is_active((uv_handle_t *)&listeners->resume))
        listen_again(listeners);
}

/* --- Opening ---------------------------------------------------------------------------------- */

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

/* Binds `fd` and listens. 0, or a negative errno. */
static int bind_and_listen(struct listener *listener, const struct sockaddr_storage *address,
                           socklen_t len) {
    bool is_unix = address->ss_family == AF_UNIX;
    int on = 1;
    if (!is_unix && setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0)
        return -errno;
    if (bind(listener->fd, (const struct sockaddr *)address, len) != 0)
        return -errno;
    if (is_unix) {
        const char *path = ((const struct sockaddr_un *)address)->sun_path;
        listener->unix_path = strdup(path);
        listener->owns_path = true;
        if (!listener->unix_path)
            unlink(path);
        if (!listener->unix_path || chmod(path, 0666) != 0)
            return -errno;
    }
    return listen(listener->fd, BACKLOG) == 0 ? 0 : -errno;
}

/* 0, or a negative errno; then nothing is left of it. */
static int open_listener(struct listener *listener, const struct sockaddr_storage *address,
                         socklen_t len) {
    if (address->ss_family == AF_UNIX)
        remove_stale_socket(((const struct sockaddr_un *)address)->sun_path, address, len);
    listener->fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener->fd < 0)
        return -errno;
    int error = bind_and_listen(listener, address, len);
    if (!error)
        error = uv_poll_init(listener->all->loop, &listener->poll, listener->fd);
    if (!error)
        uv_poll_start(&listener->poll, UV_READABLE, on_waiting);
    if (error) {
        close(listener->fd);
        if (listener->unix_path)
            unlink(listener->unix_path);
        free(listener->unix_path);
        listener->unix_path = NULL;
    }
    return error;
}

static void log_listening(const struct listener *listener) {
    struct sockaddr_storage bound = {0};
    socklen_t len = sizeof bound;
    char ip[64] = "", text[512];
    if (listener->unix_path) {
        snprintf(text, sizeof text, "unix:%s", listener->unix_path);
    } else {
        getsockname(listener->fd, (struct sockaddr *)&bound, &len);
        uv_ip_name((struct sockaddr *)&bound, ip, sizeof ip);
        bool is_v6 = bound.ss_family == AF_INET6;
        unsigned port = ntohs(is_v6 ? ((struct sockaddr_in6 *)&bound)->sin6_port
                                    : ((struct sockaddr_in *)&bound)->sin_port);
        snprintf(text, sizeof text, is_v6 ? "[%s]:%u" : "%s:%u", ip, port);
    }
    log_info("listening", "address", text, NULL);
}

void listeners_log(const struct listeners *listeners) {
    for (int i = 0; i < listeners->count; i++)
        log_listening(&listeners->list[i]);
}

/* Writes why an address cannot be listened on. */
static void write_reason(struct slice text, int error, char *why, size_t why_size) {
    struct slice folder = address_unix_path(text);
    while (folder.len > 1 && folder.data[folder.len - 1] != '/')
        folder.len--;
    if (error == UV_ENOENT && folder.len)
        snprintf(why, why_size, "there is no folder %.*s", (int)folder.len, folder.data);
    else if (error == UV_ENOMEM)
        snprintf(why, why_size, "out of memory");
    else
        snprintf(why, why_size, "%s", uv_strerror(error));
}

bool listeners_add(struct listeners *listeners, struct slice text, char *why, size_t why_size) {
    struct sockaddr_storage address;
    socklen_t len;
    const char *wrong = listeners->count == LISTENERS_MAX ? "too many addresses"
                                                          : address_resolve(text, &address, &len);
    if (wrong) {
        snprintf(why, why_size, "%s", wrong);
        return false;
    }
    struct listener *listener = &listeners->list[listeners->count];
    *listener = (struct listener){.all = listeners};
    int error = open_listener(listener, &address, len);
    if (error) {
        write_reason(text, error, why, why_size);
        return false;
    }
    listeners->count++;
    return true;
}

void listeners_init(struct listeners *listeners, uv_loop_t *loop, struct conn_shared *connections,
                    uint64_t max_connections) {
    *listeners = (struct listeners){
        .loop = loop, .connections = connections, .max_connections = max_connections};
    uv_timer_init(loop, &listeners->resume);
}

/* --- Taking over ------------------------------------------------------------------------------ */

void listeners_hold(struct listeners *listeners) {
    listeners->is_held = true;
    look_away(listeners);
}

void listeners_release(struct listeners *listeners) {
    listeners->is_held = false;
    if (!listeners->is_full && !uv_is_active((uv_handle_t *)&listeners->resume))
        listen_again(listeners);
}

/* Listens on a socket that listens already; `unix_path` is the listener's, NULL for TCP. */
static int take_over(struct listeners *listeners, int fd, char *unix_path, bool owns_path) {
    struct listener *listener = &listeners->list[listeners->count];
    *listener = (struct listener){
        .all = listeners, .fd = fd, .unix_path = unix_path, .owns_path = owns_path};
    int error = uv_poll_init(listeners->loop, &listener->poll, fd);
    if (error) {
        free(unix_path);
        return error;
    }
    uv_poll_start(&listener->poll, UV_READABLE, on_waiting);
    listeners->count++;
    return 0;
}

int listeners_adopt(struct listeners *listeners, int fd) {
    struct sockaddr_un address = {0};
    socklen_t len = sizeof address;
    char *path = NULL;
    if (getsockname(fd, (struct sockaddr *)&address, &len) == 0 && address.sun_family == AF_UNIX) {
        if (!*address.sun_path)
            *address.sun_path = '@'; /* an abstract name */
        path = strndup(address.sun_path, sizeof address.sun_path);
        if (!path)
            return UV_ENOMEM;
    }
    return take_over(listeners, fd, path, false);
}

/* The bytes of the address beside its port. */
static struct slice ip_of(const struct sockaddr_storage *address) {
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
    return address->ss_family == AF_INET6
               ? (struct slice){(const char *)&v6->sin6_addr, sizeof v6->sin6_addr}
               : (struct slice){(const char *)&v4->sin_addr, sizeof v4->sin_addr};
}

/* Whether who connects to `wanted` comes to a socket that is bound there. */
static bool is_reached_at(const struct sockaddr_storage *bound,
                          const struct sockaddr_storage *wanted) {
    static const char any[16];
    struct slice bound_ip = ip_of(bound), wanted_ip = ip_of(wanted);
    if (bound->ss_family == AF_UNIX || wanted->ss_family == AF_UNIX)
        return bound->ss_family == wanted->ss_family &&
               strcmp(((const struct sockaddr_un *)bound)->sun_path,
                      ((const struct sockaddr_un *)wanted)->sun_path) == 0;
    if (((const struct sockaddr_in *)bound)->sin_port !=
        ((const struct sockaddr_in *)wanted)->sin_port) /* IPv6 has it in the same place */
        return false;
    bool is_any = memcmp(bound_ip.data, any, bound_ip.len) == 0; /* [::] takes IPv4 as well */
    return slice_equal(bound_ip, wanted_ip) || (is_any && bound_ip.len >= wanted_ip.len);
}

bool listeners_are_at(const struct listeners *listeners, struct slice text) {
    struct sockaddr_storage wanted = {0};
    socklen_t wanted_len;
    bool is_at = false;
    if (address_resolve(text, &wanted, &wanted_len))
        return false;
    for (int i = 0; i < listeners->count && !is_at; i++) {
        struct sockaddr_storage bound = {0};
        socklen_t len = sizeof bound;
        is_at = getsockname(listeners->list[i].fd, (struct sockaddr *)&bound, &len) == 0 &&
                is_reached_at(&bound, &wanted);
    }
    return is_at;
}

void listeners_save(const struct listeners *listeners, struct pack *out) {
    pack_number(out, (uint64_t)listeners->count);
    for (int i = 0; i < listeners->count; i++) {
        const struct listener *listener = &listeners->list[i];
        fcntl(listener->fd, F_SETFD, 0);
        pack_number(out, (uint64_t)listener->fd);
        pack_number(out, listener->owns_path);
        pack_bytes(out, slice_of(listener->unix_path ? listener->unix_path : ""));
    }
}

bool listeners_restore(struct listeners *listeners, struct unpack *in, char *why, size_t why_size) {
    uint64_t count = unpack_up_to(in, LISTENERS_MAX);
    int error = 0;
    for (uint64_t i = 0; i < count && !error; i++) {
        int fd = (int)unpack_up_to(in, INT32_MAX);
        bool owns_path = unpack_up_to(in, 1);
        struct slice path = unpack_bytes(in);
        if (in->failed)
            break;
        char *copy = path.len ? strndup(path.data, path.len) : NULL;
        error = path.len && !copy ? UV_ENOMEM : take_over(listeners, fd, copy, owns_path);
    }
    if (error || in->failed || !count) {
        snprintf(why, why_size, "%s", error ? uv_strerror(error) : "they make no sense");
        return false;
    }
    for (int i = 0; i < listeners->count; i++)
        fcntl(listeners->list[i].fd, F_SETFD, FD_CLOEXEC);
    return true;
}

/* --- Closing ---------------------------------------------------------------------------------- */

void listeners_close(struct listeners *listeners) {
    for (int i = 0; i < listeners->count; i++) {
        struct listener *listener = &listeners->list[i];
        uv_close((uv_handle_t *)&listener->poll, NULL);
        close(listener->fd);
        if (listener->unix_path && listener->owns_path)
            unlink(listener->unix_path);
        free(listener->unix_path);
    }
    uv_close((uv_handle_t *)&listeners->resume, NULL);
}
