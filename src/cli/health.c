#include "cli/health.h"
#include "base/address.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* HTTP/1.0: the server closes after its reply. */
static const char request[] = "GET /-/health HTTP/1.0\r\n\r\n";

static int64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* What is sent and received next ends by then. */
static void limit(int fd, int64_t end_us) {
    int64_t left_us = end_us - now_us();
    if (left_us < 1)
        left_us = 1; /* 0 would be: no limit */
    struct timeval timeout = {.tv_sec = left_us / 1000000, .tv_usec = left_us % 1000000};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
}

/* The descriptor of a connection; -1 and errno when there is none. */
static int connect_to(const struct sockaddr_storage *address, socklen_t len, int64_t end_us) {
    int fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    limit(fd, end_us);
    if (connect(fd, (const struct sockaddr *)address, len) == 0)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* The whole reply as text; false and errno when it did not come. */
static bool exchange(int fd, char *reply, size_t reply_size, int64_t end_us) {
    size_t len = 0;
    ssize_t got = send(fd, request, sizeof request - 1, MSG_NOSIGNAL);
    while (got > 0 && len < reply_size - 1) {
        limit(fd, end_us);
        got = recv(fd, reply + len, reply_size - 1 - len, 0);
        len += got > 0 ? (size_t)got : 0;
    }
    reply[len] = '\0';
    return got >= 0;
}

bool health_ask(const char *listen, char *line, size_t line_size) {
    struct sockaddr_storage address;
    socklen_t address_len;
    char reply[4096];
    struct slice rest = slice_of(listen), first;
    slice_cut(&rest, ',', &first);
    if (address_resolve(first, &address, &address_len)) {
        snprintf(line, line_size, "no such host: %s", listen);
        return false;
    }
    int64_t end_us = now_us() + (int64_t)HEALTH_TIMEOUT_S * 1000000;
    int fd = connect_to(&address, address_len, end_us);
    bool has_reply = fd >= 0 && exchange(fd, reply, sizeof reply, end_us);
    int error = errno;
    if (fd >= 0)
        close(fd);
    if (!has_reply) {
        bool is_late = error == EAGAIN || error == EINPROGRESS;
        snprintf(line, line_size, "no answer from %s: %s", listen,
                 is_late ? "timed out" : strerror(error));
        return false;
    }
    const char *body = strstr(reply, "\r\n\r\n");
    bool is_longline = body && strncmp(reply, "HTTP/1.", 7) == 0 && strstr(body, "\"status\":");
    snprintf(line, line_size, "%s", is_longline ? body + 4 : "the answer is not longline's");
    return is_longline && strncmp(reply + strlen("HTTP/1.1 "), "200 ", 4) == 0;
}
