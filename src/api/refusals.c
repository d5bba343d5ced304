#include "api/refusals.h"
#include "base/log.h"
#include "base/wheel.h"

#include <ctype.h>
#include <inttypes.h>

#define REASON(name, status, text) [name] = #name,
static const char *const names[] = {HTTP_ERRORS(REASON)};
enum { REASONS = sizeof names / sizeof *names };

static uint64_t counts[REASONS];

struct reason {
    char text[48];
};

/* The error's name without its prefix: ERROR_BODY_SIZE is `body_size`. */
static struct reason reason_of(enum http_error error) {
    struct reason reason = {""};
    const char *name = names[error] + strlen("ERROR_");
    for (size_t i = 0; name[i] && i < sizeof reason.text - 1; i++)
        reason.text[i] = (char)tolower((unsigned char)name[i]);
    return reason;
}

void refusals_note(struct slice channel, enum http_error error) {
    static uint64_t second, lines, unsaid;
    counts[error]++;
    if (!log_enabled(LOG_LEVEL_INFO))
        return;
    uint64_t now = wheel_now_ms() / 1000;
    if (now != second)
        lines = 0;
    second = now;
    if (lines++ >= REFUSALS_LINES_PER_S) {
        unsaid++;
        return;
    }
    log_info("push refused", "channel", log_secret(channel).text, "reason", reason_of(error).text,
             unsaid ? "unsaid" : NULL, log_number(unsaid).text, NULL);
    unsaid = 0;
}

void refusals_write(struct buf *out, const char *name) {
    for (int i = 1; i < REASONS; i++)
        if (counts[i])
            buf_printf(out, "%s{reason=\"%s\"} %" PRIu64 "\n", name, reason_of(i).text, counts[i]);
}
