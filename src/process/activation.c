#include "process/activation.h"
#include "base/slice.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FIRST_FD = 3 };

/* A number of the environment; 0 when there is none. */
static uint64_t number_of(const char *name) {
    const char *text = getenv(name);
    uint64_t number = 0;
    return text && slice_number(slice_of(text), INT32_MAX, &number) ? number : 0;
}

/* The name of one of them, as LISTEN_FDNAMES has it; empty when it has none. */
static struct slice name_of(int index) {
    const char *names = getenv("LISTEN_FDNAMES");
    struct slice rest = slice_of(names ? names : ""), name = SLICE("");
    for (int i = 0; i <= index; i++)
        if (!slice_cut(&rest, ':', &name))
            return SLICE("");
    return name;
}

static bool has_option(int fd, int option, int wanted) {
    int value = -1;
    socklen_t len = sizeof value;
    return getsockopt(fd, SOL_SOCKET, option, &value, &len) == 0 && value == wanted;
}

static bool is_listening(int fd) {
    bool is_ip_or_unix = has_option(fd, SO_DOMAIN, AF_INET) ||
                         has_option(fd, SO_DOMAIN, AF_INET6) || has_option(fd, SO_DOMAIN, AF_UNIX);
    return is_ip_or_unix && has_option(fd, SO_TYPE, SOCK_STREAM) &&
           has_option(fd, SO_ACCEPTCONN, 1);
}

static bool take(int index, int *fd, char *error, size_t error_size) {
    *fd = FIRST_FD + index;
    if (is_listening(*fd)) {
        fcntl(*fd, F_SETFD, FD_CLOEXEC);
        fcntl(*fd, F_SETFL, fcntl(*fd, F_GETFL) | O_NONBLOCK);
        return true;
    }
    struct slice name = name_of(index);
    snprintf(error, error_size,
             "LISTEN_FDS: descriptor %d%s%.*s%s is no listening stream socket (Accept=no, "
             "ListenStream=)",
             *fd, name.len ? " (" : "", (int)name.len, name.data, name.len ? ")" : "");
    return false;
}

bool activation_take(int fds[ACTIVATION_MAX], int *count, char *error, size_t error_size) {
    uint64_t number = number_of("LISTEN_FDS");
    if (number_of("LISTEN_PID") != (uint64_t)getpid())
        number = 0;
    bool ok = number <= ACTIVATION_MAX;
    if (!ok)
        snprintf(error, error_size, "LISTEN_FDS: at most %d sockets", ACTIVATION_MAX);
    for (*count = 0; ok && (uint64_t)*count < number; ++*count)
        ok = take(*count, &fds[*count], error, error_size);
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDNAMES");
    return ok;
}
