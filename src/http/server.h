/*
 * The server: listens, and accepts as many connections as there is room for. On SIGTERM and SIGINT
 * it drains: it stops accepting, lets every request end, and closes. On SIGUSR2 its owner may hand
 * it over to another program, with its sockets and connections (handover.h).
 */
#pragma once

#include "http/conn.h"

enum {
    SERVER_DRAIN_MS = 3000, /* then whatever is not under way in the store is closed */
    SERVER_STORE_MS = 1000, /* then everything is */
    SERVER_HOLD_MS = 10000, /* how long server_hold() waits for requests under way */
};

struct server_options {
    const char *listen; /* addresses, separated by commas; unless */
    const int *sockets; /* it has these, which listen already: `socket_count` of them, */
    int socket_count;
    struct unpack *saved;       /* or those that server_save() wrote; else NULL */
    uint64_t max_connections;   /* 0: as many as descriptors allow */
    uint64_t spare_descriptors; /* more of them that others need, beside 48 for the process */
    struct conn_shared *connections;
    void (*on_listening)(void); /* it listens; before the log says where */
    void (*on_drain)(void);     /* the drain has begun */
    void (*on_drained)(void);   /* no connection is left; called once */
    void (*on_upgrade)(void);   /* SIGUSR2 */
};

/* Blocks the signals that it hears, in this thread; or lets them come, with those that came
 * meanwhile. */
void server_block_signals(bool are_blocked);

/* Raises the soft limit on descriptors to the hard one. */
void server_raise_limits(void);

/* Whether `listen` is well-formed; else `error` holds one line. */
bool server_check_listen(const char *listen, char *error, size_t error_size);

/* Whether it listens on each address of `listen`, wherever its sockets come from. */
bool server_listens_at(const char *listen);

/* Accepts and reads nothing more, until server_release(). Calls quiet(true) when every request is
 * answered, or waits for something that may take long; quiet(false) when that takes more than
 * SERVER_HOLD_MS. A drain that begins meanwhile ends it; quiet() is not called then. */
void server_hold(void (*quiet)(bool is_quiet));
void server_release(void);

/* When it is quiet: saves the requests that wait. From then on signals wait, too. */
void server_take_out(struct pack *out);
/* Saves the sockets that it listens on. */
void server_save(struct pack *out);
/* The signal that came since then; 0: none. */
int server_late_signal(void);

/* Listens and takes signals. False on failure, with one line in `error`: then nothing listens. */
bool server_start(uv_loop_t *loop, const struct server_options *options, char *error,
                  size_t error_size);
