/*
 * How the Redis of DATA_PROVIDER=redis is reached: the REDIS_* settings, checked and taken apart.
 *
 * REDIS_URL beats REDIS_HOST, REDIS_PORT, REDIS_USER, REDIS_PASS, REDIS_DB and REDIS_TLS where it
 * says them.
 */
#pragma once

#include "base/config.h"
#include "base/list.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { REDIS_HOST_MAX_BYTES = 255, REDIS_SENTINELS_MAX = 16 };

/* Where a Redis listens. A host that begins with `/` is the path of a unix socket. */
struct redis_address {
    char host[REDIS_HOST_MAX_BYTES + 1];
    uint16_t port;
};

/* "host:port", or the path. */
struct redis_address_text {
    char text[REDIS_HOST_MAX_BYTES + 16];
};
struct redis_address_text redis_address_text(const struct redis_address *address);

bool redis_address_equal(const struct redis_address *a, const struct redis_address *b);

struct redis_options {
    struct redis_address address;
    char *user, *pass; /* NULL: none */
    int64_t db;
    bool tls;
    const char *tls_ca; /* a file; "" for the system's */
    const char *prefix;
    struct redis_address sentinels[REDIS_SENTINELS_MAX];
    size_t sentinel_count; /* 0: no Sentinel */
    const char *master, *sentinel_pass;
    int64_t wait_replicas; /* 0: do not wait */
    int64_t wait_ms, timeout_ms;
};

/* False on a mistake, with one line in `error`. */
bool redis_options_init(struct redis_options *options, const struct config *config, char *error,
                        size_t error_size);
void redis_options_deinit(struct redis_options *options);
