#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    EVENTS_MAX = 1024,
    READ_SIZE = 1 << 20, // longline's longest reply fits
    PARTIAL_MAX = 4 << 20,
};

struct client {
    int epoll;
    struct epoll_event events[EVENTS_MAX];
    char buffer[READ_SIZE];
};

uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("polls: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

void *allocate(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (!memory)
        die("out of memory");
    return memory;
}

struct client *client_new(void) {
    struct client *client = allocate(1, sizeof *client);
    client->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (client->epoll < 0)
        die("epoll_create1: %s", strerror(errno));
    return client;
}

void client_open(struct client *client, struct client_conn *conn,
                 const struct sockaddr_in *server) {
    conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (conn->fd < 0)
        die("socket: %s", strerror(errno));
    if (connect(conn->fd, (const struct sockaddr *)server, sizeof *server) < 0)
        die("connect: %s", strerror(errno));
    const int on = 1;
    setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    // Reset on close: thousands of sockets in TIME_WAIT would disturb the next run.
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (fcntl(conn->fd, F_SETFL, O_NONBLOCK) < 0)
        die("fcntl: %s", strerror(errno));
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.ptr = conn};
    if (epoll_ctl(client->epoll, EPOLL_CTL_ADD, conn->fd, &event) < 0)
        die("epoll_ctl: %s", strerror(errno));
}

void client_send(struct client_conn *conn, const char *request, size_t size) {
    if (conn->busy)
        die("a request is already out on this connection");
    conn->busy = true;
    ssize_t sent = send(conn->fd, request, size, MSG_NOSIGNAL);
    if (sent < 0)
        die("send: %s", strerror(errno));
    if ((size_t)sent != size)
        die("send: the socket took %zd of %zu bytes", sent, size);
}

bool reply_header(const struct reply *reply, const char *name, char *out, size_t size) {
    size_t name_size = strlen(name);
    const char *end = reply->head + reply->head_size;
    for (const char *line = reply->head; line < end;) {
        const char *line_end = memchr(line, '\r', (size_t)(end - line));
        if (!line_end)
            break;
        size_t line_size = (size_t)(line_end - line);
        if (line_size > name_size && line[name_size] == ':' &&
            !strncasecmp(line, name, name_size)) {
            const char *value = line + name_size + 1;
            while (value < line_end && *value == ' ')
                value++;
            snprintf(out, size, "%.*s", (int)(line_end - value), value);
            return true;
        }
        line = line_end + 2;
    }
    return false;
}

// Parses the reply at the start of bytes. Returns its size, or 0 if it is incomplete.
static size_t parse_reply(const char *bytes, size_t size, struct reply *reply) {
    const char *head_end = memmem(bytes, size, "\r\n\r\n", 4);
    if (!head_end)
        return 0;
    if (memcmp(bytes, "HTTP/1.1 ", 9) || head_end < bytes + 12)
        die("not a reply: %.*s", (int)(size < 80 ? size : 80), bytes);
    reply->status = atoi(bytes + 9);
    reply->head = bytes;
    reply->head_size = (size_t)(head_end - bytes) + 2;
    reply->body = head_end + 4;
    reply->body_size = 0;
    char value[32];
    if (reply_header(reply, "Content-Length", value, sizeof value))
        reply->body_size = strtoul(value, NULL, 10);
    else if (reply_header(reply, "Transfer-Encoding", value, sizeof value))
        die("a reply with Transfer-Encoding: %s", value);
    size_t whole = (size_t)(reply->body - bytes) + reply->body_size;
    return whole <= size ? whole : 0;
}

static void keep_partial(struct client_conn *conn, const char *bytes, size_t size) {
    if (conn->partial_size + size > PARTIAL_MAX)
        die("a reply over %d bytes", PARTIAL_MAX);
    conn->partial = realloc(conn->partial, conn->partial_size + size);
    if (!conn->partial)
        die("out of memory");
    memcpy(conn->partial + conn->partial_size, bytes, size);
    conn->partial_size += size;
}

// Takes what was read. Returns true if that completed a reply.
static bool take(struct client_conn *conn, const char *bytes, size_t size) {
    if (!conn->busy)
        die("bytes without a request: %.*s", (int)(size < 80 ? size : 80), bytes);
    if (conn->partial) {
        keep_partial(conn, bytes, size);
        bytes = conn->partial;
        size = conn->partial_size;
    }
    struct reply reply = {.at_ns = now_ns()};
    size_t used = parse_reply(bytes, size, &reply);
    if (used == 0) {
        if (!conn->partial)
            keep_partial(conn, bytes, size);
        return false;
    }
    if (used != size)
        die("%zu bytes after a reply", size - used);
    char *partial = conn->partial;
    conn->partial = NULL;
    conn->partial_size = 0;
    conn->busy = false;
    conn->on_reply(conn, &reply);
    free(partial);
    return true;
}

// The sockets are edge-triggered: read until a short read or EAGAIN.
static size_t read_conn(struct client *client, struct client_conn *conn) {
    size_t replies = 0;
    for (;;) {
        ssize_t size = recv(conn->fd, client->buffer, sizeof client->buffer, 0);
        if (size < 0 && (errno == EAGAIN || errno == EINTR))
            return replies;
        if (size < 0)
            die("recv: %s", strerror(errno));
        if (size == 0)
            die("the server closed a connection%s", conn->busy ? " with a request on it" : "");
        replies += take(conn, client->buffer, (size_t)size);
        if ((size_t)size < sizeof client->buffer)
            return replies;
    }
}

size_t client_turn(struct client *client, int timeout_ms) {
    int count = epoll_wait(client->epoll, client->events, EVENTS_MAX, timeout_ms);
    if (count < 0 && errno != EINTR)
        die("epoll_wait: %s", strerror(errno));
    size_t replies = 0;
    for (int i = 0; i < count; i++)
        replies += read_conn(client, client->events[i].data.ptr);
    return replies;
}
