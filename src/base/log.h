/*
 * The log: one line per event on standard error, as text or as JSON.
 *
 *     2026-11-24T06:25:19.123Z info  listening address=127.0.0.1:3000
 *
 * A secret, such as a channel's name, never comes here: log_secret() stands for it. A value is
 * quoted where it holds a space or anything that could forge a line. Safe from both threads.
 */
#pragma once

#include "base/slice.h"
#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };

void log_init(enum log_level level, bool json);

bool log_enabled(enum log_level level);

/*
 * Writes a line. `event` is a short phrase, always the same for one kind of event. Pairs of a key
 * and a value follow, all `const char *`, ended by NULL:
 *
 *     log_write(LOG_LEVEL_INFO, "listening", "address", address, NULL);
 */
__attribute__((sentinel)) void log_write(enum log_level level, const char *event, ...);

#define log_debug(...)                                                                             \
    (log_enabled(LOG_LEVEL_DEBUG) ? log_write(LOG_LEVEL_DEBUG, __VA_ARGS__) : (void)0)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_warn(...) log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)

/* Lines of a kind that anybody can cause, as often as they like: one of these for each kind. */
struct log_limit {
    uint64_t second, lines;
    uint64_t unsaid; /* what was left out since the last line */
};

enum { LOG_LIMIT_PER_S = 10 };

/* Whether a line may be written in this second. Whoever writes it sets `unsaid` to 0. */
bool log_may_say(struct log_limit *limit, uint64_t now_s);

struct log_text {
    char text[24];
};

/* A number as text, for a log value. */
struct log_text log_number(uint64_t number);

/* Eight hex digits that stand for a secret in this process's log; keyed, so that they neither
 * reveal it nor match those of another process. */
struct log_text log_secret(struct slice secret);
