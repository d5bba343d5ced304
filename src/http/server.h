/*
 * The server: listens, and accepts as many connections as there is room for. On SIGTERM and SIGINT
 * it drains: it stops accepting, lets every request end, and closes.
 */
#pragma once

#include "http/conn.h"

enum {
    SERVER_DRAIN_MS = 3000, /* then whatever is not under way in the store is closed */
    SERVER_STORE_MS = 1000, /* then everything is */
};

struct server_options {
    const char *listen;         /* addresses, separated by commas */
    uint64_t max_connections;   /* 0: as many as descriptors allow */
    uint64_t spare_descriptors; /* more of them that others need, beside 48 for the process */
    struct conn_shared *connections;
    void (*on_listening)(void); /* it listens; before the log says where */
    void (*on_drain)(void);     /* the drain has begun */
    void (*on_drained)(void);   /* no connection is left; called once */
};

/* Raises the soft limit on descriptors to the hard one. */
void server_raise_limits(void);

/* Whether `listen` is well-formed; else `error` holds one line. */
bool server_check_listen(const char *listen, char *error, size_t error_size);

/* Listens and takes signals. False on failure, with one line in `error`: then nothing listens. */
bool server_start(uv_loop_t *loop, const struct server_options *options, char *error,
                  size_t error_size);
