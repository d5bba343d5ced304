#include "process/notify.h"
#include "base/slice.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { AGAIN_MS = 100, TEXT_BYTES = 640 };

static uv_timer_t watchdog, again;
static uint64_t every_ms;
static bool has_timers;
static char unsent[TEXT_BYTES]; /* the newest that the socket had no room for; "": none */

/* The address of NOTIFY_SOCKET; its length is 0 when there is none. */
static socklen_t find_socket(struct sockaddr_un *address) {
    const char *path = getenv("NOTIFY_SOCKET");
    size_t len = path ? strlen(path) : 0;
    if (len < 2 || (*path != '/' && *path != '@') || len >= sizeof address->sun_path)
        return 0;
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(address->sun_path, path, len);
    if (*path == '@')
        address->sun_path[0] = '\0'; /* an abstract name has no end but its length */
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (*path == '/'));
}

/* False when the socket has no room now. */
static bool send_now(const char *state) {
    struct sockaddr_un address;
    socklen_t len = find_socket(&address);
    int fd = len ? socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;
    if (fd < 0)
        return true;
    ssize_t sent = sendto(fd, state, strlen(state), MSG_NOSIGNAL | MSG_DONTWAIT,
                          (struct sockaddr *)&address, len);
    bool is_full = sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    close(fd);
    return !is_full;
}

static void on_again(uv_timer_t *timer) {
    if (*unsent && !send_now(unsent))
        uv_timer_start(timer, on_again, AGAIN_MS, 0);
    else
        *unsent = '\0';
}

void notify(const char *state) {
    *unsent = '\0';
    if (send_now(state))
        return;
    snprintf(unsent, sizeof unsent, "%s", state);
    if (has_timers)
        uv_timer_start(&again, on_again, AGAIN_MS, 0);
}

void notify_status(const char *state, const char *format, ...) {
    char status[512], text[TEXT_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(status, sizeof status, format, args);
    va_end(args);
    for (char *at = status; *at; at++)
        if (*at == '\n')
            *at = ' ';
    snprintf(text, sizeof text, "%s%sSTATUS=%s", state, *state ? "\n" : "", status);
    notify(text);
}

void notify_reloading(void) {
    struct timespec now;
    char text[96];
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t us = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
    snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, us);
    notify(text);
}

void notify_at_work(void) {
    send_now("WATCHDOG=1\nEXTEND_TIMEOUT_USEC=60000000");
}

/* --- The watchdog ----------------------------------------------------------------------------- */

/* How long it may be silent, in microseconds; 0: for ever. */
static uint64_t allowed_us(void) {
    const char *us = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    uint64_t number = 0, owner = 0;
    if (!us || !slice_number(slice_of(us), UINT64_MAX, &number))
        return 0;
    bool is_ours = !pid || !*pid ||
                   (slice_number(slice_of(pid), INT32_MAX, &owner) && owner == (uint64_t)getpid());
    return is_ours ? number : 0;
}

static void on_watchdog(uv_timer_t *timer) {
    send_now("WATCHDOG=1");
    uv_timer_start(timer, on_watchdog, every_ms, 0);
}

void notify_watchdog_start(uv_loop_t *loop) {
    uint64_t us = getenv("NOTIFY_SOCKET") ? allowed_us() : 0;
    every_ms = us / 2000 ? us / 2000 : 1;
    uv_timer_init(loop, &watchdog);
    uv_timer_init(loop, &again);
    uv_unref((uv_handle_t *)&watchdog);
    uv_unref((uv_handle_t *)&again);
    has_timers = true;
    if (*unsent)
        uv_timer_start(&again, on_again, 0, 0);
    if (us)
        uv_timer_start(&watchdog, on_watchdog, 0, 0);
}

void notify_watchdog_stop(void) {
    uv_close((uv_handle_t *)&watchdog, NULL);
    uv_close((uv_handle_t *)&again, NULL);
    has_timers = false;
}
