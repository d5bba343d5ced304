#include "base/config.h"
#include "base/slice.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum kind { TEXT, FILE_NAME, NUMBER, CHOICE };

struct setting {
    const char *env;
    const char *also_env; /* an older name, for lua-long-polling's users */
    enum kind kind;
    size_t offset;
    const char *default_value;
    int64_t min, max;    /* of a NUMBER */
    const char *choices; /* of a CHOICE: "a b=c": a is 0, b is 1 and so is c */
    const char *help;
};

#define AT(member) offsetof(struct config, member)

static const int64_t TIB = (int64_t)1 << 40;

#define TEXT_SETTING(env, member, value, help)                                                     \
    {env, NULL, TEXT, AT(member), value, 0, 0, NULL, help}
#define FILE_SETTING(env, member, value, help)                                                     \
    {env, NULL, FILE_NAME, AT(member), value, 0, 0, NULL, help}
#define NUMBER_SETTING(env, member, value, min, max, help)                                         \
    {env, NULL, NUMBER, AT(member), value, min, max, NULL, help}
#define CHOICE_SETTING(env, member, value, choices, help)                                          \
    {env, NULL, CHOICE, AT(member), value, 0, 0, choices, help}

static const struct setting settings[] = {
    TEXT_SETTING(
        "LISTEN", listen, "0.0.0.0:3000",
        "Addresses to listen on, comma-separated: host:port, [::]:port, unix:/path; :port is "
        "0.0.0.0:port. Port 0 picks a free port."),
    CHOICE_SETTING("DATA_PROVIDER", data_provider, "sqlite", "sqlite memory=localtable redis",
                   "Where updates are stored: sqlite (a file), memory (lost on exit; localtable is "
                   "another name for it) or redis (shared by any number of servers)."),
    FILE_SETTING("DATA_PATH", data_path, "./longline.db", "The data file of the sqlite provider."),
    CHOICE_SETTING("SYNC", sync, "always", "always interval never",
                   "When updates are flushed to disk: always (before each 200), interval (once a "
                   "second) or never (when the system likes)."),
    NUMBER_SETTING("CHANNEL_STORAGE_MAXSIZE", channel_storage_maxsize, "1000", 1, 1000000,
                   "Updates kept per channel; the oldest are dropped first."),
    {"DATA_TTL", "REDIS_DATA_TTL", NUMBER, AT(data_ttl), "604800", 1, (int64_t)100 * 365 * 86400,
     NULL,
     "How long updates are kept, in seconds; 604800 is seven days. If it is not set, "
     "REDIS_DATA_TTL is used."},
    NUMBER_SETTING(
        "MAX_BODY", max_body, "33554432", 1, (int64_t)64 << 20,
        "Largest body of a push, in bytes, also when it is inflated; a larger one gets a 413. "
        "Unless it is set, it is a quarter of BUFFER_SIZE at most; the maximum is 67108864, 64 "
        "MiB."),
    NUMBER_SETTING("DATA_MAX_BYTES", data_max_bytes, "0", 0, 1024 * TIB,
                   "Limit on the bytes stored, 0 for none; the oldest updates are dropped first."),
    NUMBER_SETTING("CACHE_SIZE", cache_size, "64", 1, 1 << 20,
                   "Memory for channels and recent updates, in MiB."),
    NUMBER_SETTING("BUFFER_SIZE", buffer_size, "256", 4, 1 << 20,
                   "Memory for request bodies, pushes in progress and unsent replies, in MiB; at "
                   "least four times MAX_BODY. When it is full, requests get a 503."),
    CHOICE_SETTING("CAPTURE_HEADERS", capture_headers, "on", "off=false=no=0 on=true=yes=1",
                   "Store the headers of a push, for view=full: on or off."),
    CHOICE_SETTING("STRICT_JSON", strict_json, "off", "off=false=no=0 on=true=yes=1",
                   "Refuse what is no JSON object or array, if its type is JSON or it has none: on "
                   "or off. Off keeps it as text."),
    CHOICE_SETTING("PURGE", purge, "on", "off=false=no=0 on=true=yes=1",
                   "Let DELETE purge a channel's updates for good: on or off."),
    NUMBER_SETTING("MAX_CONNECTIONS", max_connections, "0", 0, 10000000,
                   "Connections served at once; more have to wait. 0: as many as the descriptor "
                   "limit allows."),
    CHOICE_SETTING("IO_URING", io_uring, "on", "off=false=no=0 on=true=yes=1",
                   "Send replies with io_uring where the kernel allows it: on or off."),
    CHOICE_SETTING("SANDBOX", sandbox, "on", "off=false=no=0 on=true=yes=1",
                   "Give up what the server does not need, where the kernel allows it: system "
                   "calls (seccomp), files and connections (Landlock): on or off."),
    CHOICE_SETTING("CORE_DUMPS", core_dumps, "off", "off=false=no=0 on=true=yes=1",
                   "Let a crash leave a core dump, which holds addresses and updates: on or off."),
    NUMBER_SETTING("REQUEST_TIMEOUT", request_timeout, "60", 1, 3600,
                   "Seconds for a whole request to arrive (then 408), and for a stalled reply to "
                   "make progress."),
    NUMBER_SETTING("IDLE_TIMEOUT", idle_timeout, "75", 1, 86400,
                   "Seconds before an idle connection is closed."),
    NUMBER_SETTING(
        "POLL_MAX", poll_max, "60", 1, 3600,
        "The longest that a poll waits, in seconds from 1 to 3600, whatever it asks for. Less "
        "than what a proxy in front allows, if that is known."),
    NUMBER_SETTING("RATE_LIMIT_FRAME", rate_limit_frame, "60", 1, 86400,
                   "Length of the rate limit's window, in seconds."),
    NUMBER_SETTING(
        "RATE_LIMIT_LIMIT", rate_limit_limit, "0", 0, 1000000000,
        "Requests per client (an IPv4 address, or the /64 network of an IPv6 address) and "
        "window; 0: no limit."),
    TEXT_SETTING("TRUST_PROXY", trust_proxy, "loopback,private",
                 "Peers whose X-Forwarded-For we trust: none, all, loopback, private, or networks "
                 "such as 203.0.113.0/24, comma-separated."),
    TEXT_SETTING("REDIS_URL", redis_url, "",
                 "The Redis to use: redis://[user[:pass]@]host[:port][/db], rediss:// for TLS, or "
                 "unix:///path[?db=N]. Overrides the settings below for the parts it contains."),
    TEXT_SETTING("REDIS_HOST", redis_host, "127.0.0.1",
                 "Redis host, or the path of its unix socket; for a cluster, any node."),
    NUMBER_SETTING("REDIS_PORT", redis_port, "6379", 1, 65535, "Redis port."),
    TEXT_SETTING("REDIS_USER", redis_user, "", "Redis user, if it has ACLs."),
    TEXT_SETTING("REDIS_PASS", redis_pass, "", "Redis password."),
    NUMBER_SETTING("REDIS_DB", redis_db, "0", 0, INT32_MAX, "Redis database number."),
    TEXT_SETTING("REDIS_PREFIX", redis_prefix, "lpolling:", "Prefix of all keys in Redis."),
    CHOICE_SETTING("REDIS_TLS", redis_tls, "off", "off=false=no=0 on=true=yes=1",
                   "Use TLS to Redis: on or off."),
    FILE_SETTING("REDIS_TLS_CA", redis_tls_ca, "",
                 "CA file for Redis' certificate; none: the system's CAs."),
    TEXT_SETTING("REDIS_SENTINEL", redis_sentinel, "",
                 "The Sentinels: host:port, comma-separated."),
    TEXT_SETTING("REDIS_MASTER", redis_master, "", "The master's name in Sentinel."),
    TEXT_SETTING("REDIS_SENTINEL_PASS", redis_sentinel_pass, "", "The Sentinels' password."),
    TEXT_SETTING("REDIS_WAIT", redis_wait, "",
                 "Replicas that must have a push: N:MS replies 200 only if N have it within MS "
                 "milliseconds."),
    NUMBER_SETTING("REDIS_TIMEOUT", redis_timeout, "900", 50, 60000,
                   "Milliseconds to wait for Redis before an operation gets a 503."),
    CHOICE_SETTING("LOG_LEVEL", log_level, "info", "debug info warn=warning error",
                   "What is logged: debug, info, warn or error."),
    CHOICE_SETTING("LOG_FORMAT", log_json, "text", "text json",
                   "The log goes to standard error, as text or json."),
};

enum { SETTING_COUNT = sizeof settings / sizeof *settings };
static_assert(SETTING_COUNT <= 64, "config.given has a bit for each");

/* The index of `value` in `choices`, -1 when it is none of them. */
static int choose(const char *choices, const char *value) {
    size_t len = strlen(value);
    int index = 0;
    for (const char *at = choices; *at; at++) {
        size_t word = strcspn(at, " =");
        if (word == len && strncasecmp(at, value, len) == 0)
            return index;
        at += word;
        if (*at == ' ')
            index++;
        else if (!*at)
            break;
    }
    return -1;
}

/* The names of a CHOICE, without the other names for the same: "a, b or c". */
static void write_choices(const char *choices, const char *between, const char *last, char *out,
                          size_t out_size) {
    *out = '\0';
    for (const char *at = choices, *next; *at; at = next) {
        size_t len = strcspn(at, " =");
        next = at + strcspn(at, " ");
        next += *next == ' ';
        const char *before = at == choices ? "" : *next ? between : last;
        size_t written = strlen(out);
        snprintf(out + written, out_size - written, "%s%.*s", before, (int)len, at);
    }
}

static bool parse_number(const struct setting *setting, const char *value, int64_t *number) {
    char *end;
    errno = 0;
    *number = strtoll(value, &end, 10);
    return isdigit((unsigned char)*value) && !*end && !errno && *number >= setting->min &&
           *number <= setting->max;
}

static bool apply(struct config *config, const struct setting *setting, const char *name,
                  const char *value, char *error, size_t error_size) {
    void *member = (char *)config + setting->offset;
    switch (setting->kind) {
    case TEXT:
    case FILE_NAME: *(const char **)member = value; return true;
    case NUMBER:
        if (parse_number(setting, value, member))
            return true;
        snprintf(error, error_size, "%s takes a whole number from %lld to %lld, not \"%s\"", name,
                 (long long)setting->min, (long long)setting->max, value);
        return false;
    case CHOICE:
        *(int *)member = choose(setting->choices, value);
        if (*(int *)member >= 0)
            return true;
        char choices[64];
        write_choices(setting->choices, ", ", " or ", choices, sizeof choices);
        snprintf(error, error_size, "%s takes %s, not \"%s\"", name, choices, value);
        return false;
    }
    return false;
}

/* The same for a value that the user gave. */
static bool give(struct config *config, const struct setting *setting, const char *name,
                 const char *value, char *error, size_t error_size) {
    config->given |= (uint64_t)1 << (setting - settings);
    return apply(config, setting, name, value, error, error_size);
}

/* What stands in a flag for a byte of the variable's name. */
static char in_flag(char c) {
    return c == '_' ? '-' : slice_lower(c);
}

/* Whether `flag` of `len` bytes, without its dashes, is the setting's. */
static bool is_flag_of(const struct setting *setting, const char *flag, size_t len) {
    if (strlen(setting->env) != len)
        return false;
    for (size_t i = 0; i < len; i++)
        if (flag[i] != in_flag(setting->env[i]))
            return false;
    return true;
}

static const struct setting *find_flag(const char *flag, size_t len) {
    for (int i = 0; i < SETTING_COUNT; i++)
        if (is_flag_of(&settings[i], flag, len))
            return &settings[i];
    return NULL;
}

/* MAX_BODY, where it is not set, follows a small BUFFER_SIZE. */
static void bound_max_body(struct config *config, int64_t default_max_body) {
    int64_t quarter = (config->buffer_size << 20) / 4;
    if (!config->max_body)
        config->max_body = quarter < default_max_body ? quarter : default_max_body;
}

bool config_load(struct config *config, int argc, char **argv, char *error, size_t error_size) {
    int64_t default_max_body = 0;
    config->given = 0;
    for (int i = 0; i < SETTING_COUNT; i++) {
        const struct setting *setting = &settings[i];
        apply(config, setting, setting->env, setting->default_value, error, error_size);
        if (setting->offset == AT(max_body)) {
            default_max_body = config->max_body;
            config->max_body = 0; /* not set */
        }
        const char *name = setting->env, *value = getenv(name);
        if ((!value || !*value) && setting->also_env) {
            name = setting->also_env;
            value = getenv(name);
        }
        if (value && *value && !give(config, setting, name, value, error, error_size))
            return false;
    }
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "--", 2) != 0) {
            snprintf(error, error_size,
                     "unexpected argument \"%s\"; settings are given as --name value", argv[i]);
            return false;
        }
        const char *flag = argv[i] + 2;
        size_t len = strcspn(flag, "=");
        const struct setting *setting = find_flag(flag, len);
        if (!setting) {
            snprintf(error, error_size, "unknown flag \"--%.*s\"", (int)len, flag);
            return false;
        }
        const char *value = flag[len] ? flag + len + 1 : i + 1 < argc ? argv[++i] : NULL;
        if (!value) {
            snprintf(error, error_size, "--%s needs a value", flag);
            return false;
        }
        char name[64];
        snprintf(name, sizeof name, "--%.*s", (int)len, flag);
        if (!give(config, setting, name, value, error, error_size))
            return false;
    }
    bound_max_body(config, default_max_body);
    return true;
}

/* Which part of REDIS_URL names the server: "host:port" of redis://user:pass@host:port/3, a path of
 * unix://. Empty where that is left to REDIS_HOST. */
static struct slice server_in_url(const char *url) {
    const char *scheme_end = strstr(url, "://");
    if (!scheme_end)
        return (struct slice){0};
    struct slice rest = slice_of(scheme_end + 3);
    if (url[0] == 'u')
        return rest;
    rest.len = strcspn(rest.data, "/?#");
    const char *at = memrchr(rest.data, '@', rest.len);
    return at ? slice_after(rest, (size_t)(at - rest.data) + 1) : rest;
}

/* What REDIS_HOST or REDIS_PORT needs to have an effect; NULL if it has one. */
static const char *address_needs(const struct config *config, bool is_port) {
    if (*config->redis_sentinel)
        return "no REDIS_SENTINEL";
    struct slice server = server_in_url(config->redis_url);
    if (is_port && server.len && server.data[0] != '/') {
        const char *bracket = memchr(server.data, ']', server.len);
        struct slice host = slice_after(server, bracket ? (size_t)(bracket - server.data) : 0);
        return memchr(host.data, ':', host.len) ? "a REDIS_URL without a port" : NULL;
    }
    return server.len ? "no server in REDIS_URL" : NULL;
}

/* What the setting needs to have an effect; NULL if it has one. The container and the service set
 * DATA_PATH, whatever the provider is. */
static const char *needs(const struct config *config, const struct setting *setting) {
    bool is_redis = config->data_provider == PROVIDER_REDIS;
    if (!is_redis && strncmp(setting->env, "REDIS_", 6) == 0)
        return "DATA_PROVIDER=redis";
    switch (setting->offset) {
    case AT(sync): return config->data_provider == PROVIDER_SQLITE ? NULL : "DATA_PROVIDER=sqlite";
    case AT(data_max_bytes): return is_redis ? "DATA_PROVIDER=sqlite" : NULL;
    case AT(rate_limit_frame): return config->rate_limit_limit ? NULL : "RATE_LIMIT_LIMIT";
    case AT(redis_host): return address_needs(config, false);
    case AT(redis_port): return address_needs(config, true);
    case AT(redis_tls_ca):
        return config->redis_tls || strncmp(config->redis_url, "rediss:", 7) == 0 ? NULL
                                                                                  : "REDIS_TLS=on";
    case AT(redis_master):
    case AT(redis_sentinel_pass): return *config->redis_sentinel ? NULL : "REDIS_SENTINEL";
    default: return NULL;
    }
}

/* LISTEN is the first setting. */
bool config_is_listen_given(const struct config *config) {
    return config->given & 1;
}

bool config_next_idle(const struct config *config, size_t *at, struct idle_setting *idle) {
    while (*at < SETTING_COUNT) {
        size_t i = (*at)++;
        if (!(config->given >> i & 1))
            continue;
        *idle = (struct idle_setting){settings[i].env, needs(config, &settings[i])};
        if (idle->needs)
            return true;
    }
    /* Where other servers are told their port. */
    const char *port = getenv("PORT");
    *idle = (struct idle_setting){"PORT", "LISTEN=:PORT"};
    return (*at)++ == SETTING_COUNT && port && *port && !config_is_listen_given(config);
}

bool config_next(size_t *at, struct setting_told *told) {
    static const char *const values[] = {
        [TEXT] = "TEXT", [FILE_NAME] = "FILE", [NUMBER] = "NUMBER", [CHOICE] = ""};
    if (*at == SETTING_COUNT)
        return false;
    const struct setting *setting = &settings[(*at)++];
    *told = (struct setting_told){
        .env = setting->env, .default_value = setting->default_value, .help = setting->help};
    for (size_t i = 0; setting->env[i] && i < sizeof told->flag - 1; i++)
        told->flag[i] = in_flag(setting->env[i]);
    if (setting->kind == CHOICE)
        write_choices(setting->choices, "|", "|", told->value, sizeof told->value);
    else
        snprintf(told->value, sizeof told->value, "%s", values[setting->kind]);
    return true;
}
