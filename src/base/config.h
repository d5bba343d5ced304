/*
 * The settings. One table in config.c names each of them once: environment variable, default,
 * bounds and help. The parser, `--help`, the man page and the completions are made from it.
 *
 * A flag beats the environment. The flag of an environment variable is its name in lower case with
 * dashes: CACHE_SIZE is --cache-size.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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
    int sandbox;              /* bool */
    int core_dumps;           /* bool */
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
    uint64_t given;         /* which of them were given: the order is config_next()'s */
};

/*
 * Fills `config` from defaults, environment and `argv` (the flags only, without program and
 * subcommand). Strings point into argv, the environment or static memory. On a mistake it returns
 * false and `error` holds one line that names the setting and what it takes.
 */
bool config_load(struct config *config, int argc, char **argv, char *error, size_t error_size);

/* Whether LISTEN was given. */
bool config_is_listen_given(const struct config *config);

/* A setting that was given and has no effect beside the others. */
struct idle_setting {
    const char *env, *needs; /* what would give it one, as NAME=value */
};

/* Goes through those, from `*at` 0 on; false at the end. */
bool config_next_idle(const struct config *config, size_t *at, struct idle_setting *idle);

/* A setting as --help tells it. */
struct setting_told {
    const char *env, *default_value, *help; /* default_value: "" for none */
    char flag[32];                          /* without its dashes */
    char value[32];                         /* TEXT, FILE, NUMBER, or the choices: on|off */
};

/* Goes through the settings, from `*at` 0 on; false at the end. */
bool config_next(size_t *at, struct setting_told *told);
