#include "redis/options.h"
#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { UNIX_PATH_MAX_BYTES = 107, PREFIX_MAX_BYTES = 1000 };

struct redis_address_text redis_address_text(const struct redis_address *address) {
    struct redis_address_text text;
    if (*address->host == '/')
        snprintf(text.text, sizeof text.text, "%s", address->host);
    else
        snprintf(text.text, sizeof text.text, strchr(address->host, ':') ? "[%s]:%u" : "%s:%u",
                 address->host, address->port);
    return text;
}

bool redis_address_equal(const struct redis_address *a, const struct redis_address *b) {
    return a->port == b->port && strcmp(a->host, b->host) == 0;
}

static bool set_host(struct redis_address *address, const char *host, size_t len) {
    if (len > 2 && host[0] == '[' && host[len - 1] == ']')
        host++, len -= 2;
    if (!len || len > REDIS_HOST_MAX_BYTES)
        return false;
    memcpy(address->host, host, len);
    address->host[len] = '\0';
    return true;
}

static bool parse_digits(const char *text, size_t len, int64_t min, int64_t max, int64_t *number) {
    *number = 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9' || *number > max)
            return false;
        *number = *number * 10 + (text[i] - '0');
    }
    return len && *number >= min && *number <= max;
}

/* Reads `host`, `host:port` or `[v6]:port`; the port stays as it is where there is none. */
static bool parse_address(struct redis_address *address, const char *text, size_t len) {
    const char *bracket = memchr(text, ']', len);
    size_t after = bracket ? (size_t)(bracket - text) : 0;
    const char *colon = memchr(text + after, ':', len - after);
    size_t host_len = colon ? (size_t)(colon - text) : len;
    int64_t port = address->port;
    if (colon && !parse_digits(colon + 1, len - host_len - 1, 1, 65535, &port))
        return false;
    address->port = (uint16_t)port;
    return set_host(address, text, host_len);
}

/* A percent-encoded part of an address, decoded; NULL when it is not sound or memory is out. */
static char *decode(const char *text, size_t len) {
    char *out = malloc(len + 1);
    long decoded = out ? text_decode_percent((struct slice){text, len}, out) : -1;
    if (decoded < 0) {
        free(out);
        return NULL;
    }
    out[decoded] = '\0';
    return out;
}

static void set_text(char **member, char *value) {
    free(*member);
    *member = value;
}

/* user, user:pass or :pass */
static bool parse_user(struct redis_options *options, const char *text, size_t len) {
    const char *colon = memchr(text, ':', len);
    size_t user_len = colon ? (size_t)(colon - text) : len;
    if (user_len)
        set_text(&options->user, decode(text, user_len));
    if (colon)
        set_text(&options->pass, decode(colon + 1, len - user_len - 1));
    return (!user_len || options->user) && (!colon || options->pass);
}

static bool parse_unix_url(struct redis_options *options, const char *path) {
    size_t len = strcspn(path, "?");
    options->tls = false;
    if (path[len] &&
        (strncmp(path + len, "?db=", 4) != 0 ||
         !parse_digits(path + len + 4, strlen(path + len + 4), 0, INT32_MAX, &options->db)))
        return false;
    return *path == '/' && set_host(&options->address, path, len);
}

static bool parse_url(struct redis_options *options, const char *url) {
    static const char plain[] = "redis://", secure[] = "rediss://", local[] = "unix://";
    if (strncmp(url, local, strlen(local)) == 0)
        return parse_unix_url(options, url + strlen(local));
    options->tls = strncmp(url, secure, strlen(secure)) == 0;
    if (!options->tls && strncmp(url, plain, strlen(plain)) != 0)
        return false;
    url += options->tls ? strlen(secure) : strlen(plain);
    size_t len = strcspn(url, "/?#");
    const char *path = url + len;
    for (size_t i = len; i--;)
        if (url[i] == '@') {
            if (!parse_user(options, url, i))
                return false;
            url += i + 1;
            len -= i + 1;
            break;
        }
    if (path[0] == '/' && path[1] &&
        !parse_digits(path + 1, strlen(path + 1), 0, INT32_MAX, &options->db))
        return false;
    if (*path && *path != '/')
        return false;
    return !len || parse_address(&options->address, url, len);
}

static bool parse_sentinels(struct redis_options *options, const char *text) {
    while (*text) {
        size_t len = strcspn(text, ",");
        if (options->sentinel_count == REDIS_SENTINELS_MAX)
            return false;
        struct redis_address *address = &options->sentinels[options->sentinel_count++];
        address->port = 26379;
        if (!parse_address(address, text, len))
            return false;
        text += len + (text[len] == ',');
    }
    return true;
}

/* N:MS */
static bool parse_wait(struct redis_options *options, const char *text) {
    size_t len = strcspn(text, ":");
    return text[len] == ':' && parse_digits(text, len, 1, 1000, &options->wait_replicas) &&
           parse_digits(text + len + 1, strlen(text + len + 1), 1, 60000, &options->wait_ms);
}

/* What is wrong with the settings, NULL when nothing is. */
static const char *read_settings(struct redis_options *options, const struct config *config) {
    options->address.port = (uint16_t)config->redis_port;
    if (!set_host(&options->address, config->redis_host, strlen(config->redis_host)))
        return "REDIS_HOST must have 1 to 255 bytes";
    if (*config->redis_user)
        options->user = strdup(config->redis_user);
    if (*config->redis_pass)
        options->pass = strdup(config->redis_pass);
    if ((*config->redis_user && !options->user) || (*config->redis_pass && !options->pass))
        return "out of memory";
    if (*config->redis_url && !parse_url(options, config->redis_url))
        return "REDIS_URL is redis://[user[:pass]@]host[:port][/db], rediss://... or "
               "unix:///path[?db=N]";
    if (options->user && !options->pass)
        return "REDIS_USER needs REDIS_PASS";
    if (!parse_sentinels(options, config->redis_sentinel))
        return "REDIS_SENTINEL is up to 16 host:port, separated by commas";
    if (options->sentinel_count && !*config->redis_master)
        return "REDIS_SENTINEL needs REDIS_MASTER, the name that the sentinels know the master by";
    if (*config->redis_wait && !parse_wait(options, config->redis_wait))
        return "REDIS_WAIT is N:MS, the number of replicas (1 to 1000) and the milliseconds (1 to "
               "60000)";
    if (config->redis_tls && !options->tls)
        return "REDIS_TLS=on does not go with the redis:// or unix:// of REDIS_URL; it is "
               "rediss:// then";
    if (*options->address.host == '/' && options->tls)
        return "REDIS_TLS is not for a unix socket";
    if (*options->address.host == '/' && strlen(options->address.host) > UNIX_PATH_MAX_BYTES)
        return "the path of Redis' unix socket is longer than 107 bytes";
    if (strlen(config->redis_prefix) > PREFIX_MAX_BYTES)
        return "REDIS_PREFIX must have at most 1000 bytes";
    return NULL;
}

bool redis_options_init(struct redis_options *options, const struct config *config, char *error,
                        size_t error_size) {
    *options = (struct redis_options){
        .db = config->redis_db,
        .tls = config->redis_tls,
        .tls_ca = config->redis_tls_ca,
        .prefix = config->redis_prefix,
        .master = config->redis_master,
        .sentinel_pass = config->redis_sentinel_pass,
        .timeout_ms = config->redis_timeout,
    };
    const char *mistake = read_settings(options, config);
    if (mistake)
        snprintf(error, error_size, "%s", mistake);
    return !mistake;
}

void redis_options_deinit(struct redis_options *options) {
    free(options->user);
    free(options->pass);
}
