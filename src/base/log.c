#include "base/log.h"
#include "base/buf.h"
#include "base/json.h"

#include <inttypes.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static const char *const level_names[] = {"debug", "info", "warn", "error"};

static enum log_level minimum = LOG_LEVEL_INFO;
static bool as_json;
static unsigned char secret_key[crypto_shorthash_KEYBYTES];

void log_init(enum log_level level, bool json) {
    minimum = level;
    as_json = json;
    randombytes_buf(secret_key, sizeof secret_key);
}

bool log_enabled(enum log_level level) {
    return level >= minimum;
}

static bool is_plain(const char *value) {
    if (!*value)
        return false;
    for (; *value; value++)
        if (*value <= ' ' || *value == '"' || *value == '=' || *value == 0x7f)
            return false;
    return true;
}

void log_write(enum log_level level, const char *event, ...) {
    if (!log_enabled(level))
        return;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct tm tm;
    gmtime_r(&now.tv_sec, &tm);
    char time[32];
    strftime(time, sizeof time, "%Y-%m-%dT%H:%M:%S", &tm);

    char room[1024]; /* most lines need no memory, and so say that there is none */
    struct buf line = {.data = room, .cap = sizeof room, .is_borrowed = true};
    buf_printf(&line,
               as_json ? "{\"time\":\"%s.%03ldZ\",\"level\":\"%s\",\"event\":\"%s\""
                       : "%s.%03ldZ %-5s %s",
               time, now.tv_nsec / 1000000, level_names[level], event);
    va_list args;
    va_start(args, event);
    for (const char *key; (key = va_arg(args, const char *));) {
        const char *value = va_arg(args, const char *);
        buf_printf(&line, as_json ? ",\"%s\":" : " %s=", key);
        if (!as_json && is_plain(value))
            buf_puts(&line, value);
        else
            json_write_string(&line, (struct slice){value, strlen(value)});
    }
    va_end(args);
    buf_puts(&line, as_json ? "}\n" : "\n");
    if (!line.failed && write(STDERR_FILENO, line.data, line.len) < 0) {
        /* Nobody reads the log: there is nowhere to say so. */
    }
    buf_deinit(&line);
}

struct log_text log_number(uint64_t number) {
    struct log_text text;
    snprintf(text.text, sizeof text.text, "%" PRIu64, number);
    return text;
}

struct log_text log_secret(struct slice secret) {
    unsigned char hash[crypto_shorthash_BYTES];
    crypto_shorthash(hash, (const unsigned char *)secret.data, secret.len, secret_key);
    struct log_text text;
    snprintf(text.text, sizeof text.text, "%02x%02x%02x%02x", hash[0], hash[1], hash[2], hash[3]);
    return text;
}

bool log_may_say(struct log_limit *limit, uint64_t now_s) {
    if (now_s != limit->second)
        *limit = (struct log_limit){.second = now_s, .unsaid = limit->unsaid};
    if (limit->lines++ < LOG_LIMIT_PER_S)
        return true;
    limit->unsaid++;
    return false;
}
