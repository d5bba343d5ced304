/*
 * The settings. One table in config.c names each of them once: environment variable, default,
 * bounds and help. The parser and `--help` are made from it.
 *
 * A flag beats the environment. The flag of an environment variable is its name in lower case with
 * dashes: CACHE_SIZE is --cache-size.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum data_provider { PROVIDER_SQLITE, PROVIDER_MEMORY, PROVIDER_REDIS };
enum sync_mode { SYNC_ALWAYS, SYNC_INTERVAL, SYNC_NEVER };

struct config {
    const char *listen;
    int data_provider; /* enum data_provider */
    const char *data_path;
    int sync; /* enum sync_mode */
    int64_t channel_storage_maxsize;
    int64_t data_ttl;         /* seconds */
    int64_t max_body;         /* bytes */
    int64_t data_max_bytes;   /* 0: no bound */
    int64_t cache_size;       /* MiB */
    int64_t buffer_size;      /* MiB */
    int capture_headers;      /* bool */
    int strict_json;          /* bool */
    int purge;                /* bool */
    int64_t max_connections;  /* 0: from the limit on descriptors */
    int io_uring;             /* bool */
    int64_t request_timeout;  /* seconds */
    int64_t idle_timeout;     /* seconds */
    int64_t poll_max;         /* seconds */
    int64_t rate_limit_frame; /* seconds */
    int64_t rate_limit_limit; /* 0: off */
    const char *trust_proxy;
    const char *redis_url; /* beats the parts that it names */
    const char *redis_host;
    int64_t redis_port;
    const char *redis_user;
    const char *redis_pass;
    int64_t redis_db;
    const char *redis_prefix;
    int redis_tls; /* bool */
    const char *redis_tls_ca;
    const char *redis_sentinel; /* host:port,... */
    const char *redis_master;
    const char *redis_sentinel_pass;
    const char *redis_wait; /* N:MS */
    int64_t redis_timeout;  /* milliseconds */
    int log_level;          /* enum log_level */
    int log_json;           /* bool */
};

/*
 * Fills `config` from defaults, environment and `argv` (the flags only, without program and
 * subcommand). Strings point into argv, the environment or static memory. On a mistake it returns
 * false and `error` holds one line that names the setting and what it takes.
 */
bool config_load(struct config *config, int argc, char **argv, char *error, size_t error_size);

/* Writes the settings as a table for `--help`. */
void config_help(FILE *out);
