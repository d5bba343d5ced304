/*
 * What systemd wants to hear of a service (sd_notify(3)), without its library: a datagram to
 * NOTIFY_SOCKET. Without a NOTIFY_SOCKET, all of it does nothing.
 */
#pragma once

#include <uv.h>

/* Sends lines such as `READY=1`, with line breaks between them. Nothing waits for a socket that is
 * full: once the watchdog runs, they are sent when there is room, if no others came since. */
void notify(const char *state);

/* What it is doing, as STATUS=, with `state` in front. */
__attribute__((format(printf, 2, 3))) void notify_status(const char *state, const char *format,
                                                         ...);

/* RELOADING=1, with the time that systemd wants beside it. READY=1 ends it. */
void notify_reloading(void);

/* Something takes long that holds up the loop, and gets on: WATCHDOG=1, and EXTEND_TIMEOUT_USEC for
 * the start or the reload that waits for it. */
void notify_at_work(void);

/* From now on the loop says WATCHDOG=1, twice in the time that WATCHDOG_USEC allows, unless that is
 * meant for another process (WATCHDOG_PID). A loop that hangs does not. */
void notify_watchdog_start(uv_loop_t *loop);
void notify_watchdog_stop(void);
