#include "sqlite/log_clock.h"
#include "base/log.h"
#include "inbox/store.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    UNSEEN_MAX_MS = 86400 * 1000, /* that one restart may count */
    JUMP_MS = 60 * 1000, /* below, the wall clock is being adjusted; an upgrade takes less */
};

struct log_time log_time_resume(struct log_time then, int64_t wall_ms, bool is_upgrade) {
    int64_t max_ms = is_upgrade ? JUMP_MS : UNSEEN_MAX_MS;
    struct log_time now = {.log_ms = then.log_ms, .wall_ms = wall_ms, .unseen_ms = then.unseen_ms};
    if (!then.log_ms) {
        now.log_ms = wall_ms;
        return now;
    }
    int64_t passed = wall_ms - then.wall_ms;
    if (passed > max_ms)
        passed = max_ms;
    if (passed < -then.unseen_ms)
        passed = -then.unseen_ms;
    now.log_ms += passed;
    now.unseen_ms += passed;
    return now;
}

static const char while_running[] = "it was set, or the machine slept; `at` of new updates follows "
                                    "it, their age does not: nothing is deleted for it";

/* "+2 d 3 h", "-45 s" */
static void write_span(char *text, size_t size, int64_t ms) {
    long long s = llabs(ms / 1000);
    char sign = ms < 0 ? '-' : '+';
    if (s >= 86400)
        snprintf(text, size, "%c%lld d %lld h", sign, s / 86400, s / 3600 % 24);
    else if (s >= 3600)
        snprintf(text, size, "%c%lld h %lld min", sign, s / 3600, s / 60 % 60);
    else
        snprintf(text, size, "%c%lld s", sign, s);
}

static void tell_jump(int64_t ms, const char *meaning) {
    char span[48];
    write_span(span, sizeof span, ms);
    log_warn("the wall clock jumped", "by", span, "meaning", meaning, NULL);
}

/* Of what the wall clock says has passed since the last process that used the file. */
static void judge(int64_t passed_ms, bool is_upgrade) {
    if (is_upgrade && llabs(passed_ms) > JUMP_MS)
        tell_jump(passed_ms, while_running);
    else if (!is_upgrade && passed_ms > UNSEEN_MAX_MS)
        tell_jump(passed_ms, "longline was stopped that long, or the clock was set; updates age by "
                             "a day for it, not more");
    else if (!is_upgrade && passed_ms < -JUMP_MS)
        tell_jump(passed_ms, "the clock was set back while longline was stopped; updates do not "
                             "age by the time in between");
}

void log_clock_start(struct log_clock *clock, const struct store_options *options,
                     struct log_time then) {
    int64_t wall_ms = options->wall_ms(), steady_ms = options->steady_ms();
    bool is_upgrade = options->left.len;
    struct log_time now = log_time_resume(then, wall_ms, is_upgrade);
    *clock = (struct log_clock){
        .options = options,
        .base_ms = now.log_ms - steady_ms,
        .start_base_ms = wall_ms - steady_ms,
        .wall_base_ms = wall_ms - steady_ms,
        .unseen_ms = now.unseen_ms,
    };
    if (then.log_ms)
        judge(wall_ms - then.wall_ms, is_upgrade);
}

int64_t log_clock_now(const struct log_clock *clock) {
    return clock->base_ms + clock->options->steady_ms();
}

struct log_time log_clock_time(const struct log_clock *clock) {
    return (struct log_time){
        .log_ms = log_clock_now(clock),
        .wall_ms = clock->start_base_ms + clock->options->steady_ms(),
        .unseen_ms = clock->unseen_ms,
    };
}

void log_clock_watch(struct log_clock *clock) {
    int64_t base_ms = clock->options->wall_ms() - clock->options->steady_ms();
    int64_t jump_ms = base_ms - clock->wall_base_ms;
    if (jump_ms > JUMP_MS || jump_ms < -JUMP_MS)
        tell_jump(jump_ms, while_running);
    clock->wall_base_ms = base_ms;
}
