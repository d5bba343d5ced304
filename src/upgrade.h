/*
 * Upgrades without downtime: SIGUSR2 makes this process another program, in which its sockets, its
 * connections and the requests that wait go on (docs/upgrade.md).
 *
 *   serving → checking   the program is run as a child: would it start? It serves meanwhile
 *   checking → settling  the store writes what it can, so that closing it takes less time
 *   settling → held      nothing more is accepted or read; what is under way is answered
 *   held → closing       the requests that wait are saved, and the store is closed
 *   closing → exec(2)    sockets and connections are saved; the program takes them over
 *
 * Whatever fails before `closing` lets it serve on, as it was. What fails later makes it the
 * present program once more, with the same state.
 *
 * The state is a file in memory. What its beginning and its sockets look like stays for ever; the
 * rest has a version. A program that does not know it closes the connections, and keeps the
 * sockets that it listens on.
 */
#pragma once

#include "base/buf.h"
#include "base/pack.h"
#include "http/conn.h"

#define UPGRADE_STATE_VERSION "1"

struct upgrade_parts {
    uv_loop_t *loop;
    struct conn_shared *connections;
    const char *(*refusal)(void); /* why there can be no upgrade now; NULL: there can */
    void (*settle_store)(void (*settled)(void)); /* makes closing quick */
    /* `left` gets what the next program's store wants to hear (store_leave). */
    void (*leave_store)(struct buf *left, void (*closed)(void));
};

void upgrade_init(const struct upgrade_parts *parts);

/* SIGUSR2 */
void upgrade_begin(void);
/* The server stops instead. Harmless when there is no upgrade under way. */
void upgrade_cancel(void);

/* Of the pause: when it began, when all requests were answered, when the store was closed, and when
 * the next program was ready. */
struct upgrade_times {
    uint64_t held_ns, quiet_ns, closed_ns, started_ns;
};

/* What another program left. */
struct upgrade_state {
    struct slice file;
    struct slice left;     /* upgrade_parts.leave_store() */
    struct unpack sockets; /* server_options.saved; behind that, the connections' */
    struct unpack rest;
    bool is_known; /* the version of the rest */
    struct upgrade_times times;
    char from[32]; /* the version of the other program */
};

/* Reads its beginning. False, with one line in `error`, if it is none. */
bool upgrade_open(struct upgrade_state *state, int fd, char *error, size_t error_size);
/* The server has started: goes on with the rest. `state` stays for that. */
void upgrade_finish(struct upgrade_state *state, int fd);
