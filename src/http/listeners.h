/*
 * The sockets that the server listens on, and taking connections from them.
 *
 * libuv cannot stop listening for a while, and an accept() that fails keeps its own listeners busy
 * for good. So these sockets are ours, and libuv only says when a connection waits there (uv_poll).
 * Whoever is not accepted waits in the kernel:
 *
 *   accepting → full     at the limit on connections; listeners_check_room() goes on
 *   accepting → paused   no descriptor or no memory for one more; goes on by itself after
 *                        LISTENERS_PAUSE_MIN_MS, doubled up to LISTENERS_PAUSE_MAX_MS
 */
#pragma once

#include "base/pack.h"
#include "base/slice.h"
#include "http/conn.h"

enum {
    LISTENERS_MAX = 16,
    LISTENERS_PAUSE_MIN_MS = 100,
    LISTENERS_PAUSE_MAX_MS = 500,
    LISTENERS_COMPLAIN_MS = 60000, /* from one line in the log to the next of its kind, at least */
};

struct listener {
    uv_poll_t poll;
    struct listeners *all;
    int fd;
    char *unix_path; /* NULL for TCP */
    bool owns_path;  /* the file is removed at the end; not if the socket was given to us */
};

struct listeners {
    uv_loop_t *loop;
    struct conn_shared *connections;
    uint64_t max_connections;
    struct listener list[LISTENERS_MAX];
    int count;
    bool is_full, is_held;
    uv_timer_t resume;
    uint64_t pause_ms;                      /* 0: the last accept() went well */
    uint64_t failure_told_ms, full_told_ms; /* when the log said it last; 0: never */
};

void listeners_init(struct listeners *listeners, uv_loop_t *loop, struct conn_shared *connections,
                    uint64_t max_connections);

/* Listens on one address (base/address.h). On failure it writes what is wrong to `why`. */
bool listeners_add(struct listeners *listeners, struct slice address, char *why, size_t why_size);

/* Takes over a listening socket that somebody else has opened, which passes over; of at most
 * LISTENERS_MAX. 0, or libuv's error. */
int listeners_adopt(struct listeners *listeners, int fd);

/* Whether one of them listens on that address. */
bool listeners_are_at(const struct listeners *listeners, struct slice address);

/* Accepts nobody: they wait in the kernel; and goes on. */
void listeners_hold(struct listeners *listeners);
void listeners_release(struct listeners *listeners);

/* Writes what they are, and lets the sockets pass exec(2); takes them over in another program. */
void listeners_save(const struct listeners *listeners, struct pack *out);
bool listeners_restore(struct listeners *listeners, struct unpack *in, char *why, size_t why_size);

/* Logs where they listen. */
void listeners_log(const struct listeners *listeners);

/* Goes on when there were too many connections, and now there is room. */
void listeners_check_room(struct listeners *listeners);

/* Stops listening; whoever was not accepted is refused. */
void listeners_close(struct listeners *listeners);
