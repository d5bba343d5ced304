#include "cli/pace.h"

#include <sodium.h>

enum {
    CUT_AFTER_MS = 500, /* a poll that ends earlier has not waited: that is a failure */
    CUT_LATE_MS = 5000, /* whatever is alive has answered this long after the poll's own time */
    CUT_SLEEP_MIN_MS = 1000,
    CUT_PAUSE_MS = 500,
};

static int64_t min(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/* From `least` to `most`: those that failed together must not come back together. */
static int64_t between(int64_t least, int64_t most) {
    return least + (int64_t)randombytes_uniform((uint32_t)(most - least) + 1);
}

static int64_t jitter(int64_t ms) {
    return between(ms / 2, ms);
}

void pace_init(struct pace *pace, int64_t sleep_ms, int64_t first_ms) {
    *pace = (struct pace){
        .sleep_ms = sleep_ms, .sleep_max_ms = sleep_ms, .first_ms = first_ms, .step_ms = first_ms};
}

int64_t pace_replied(struct pace *pace, bool is_idle, int64_t waited_ms) {
    pace->step_ms = pace->first_ms;
    pace->cuts = 0;
    if (is_idle && waited_ms < pace->first_ms)
        return jitter(pace->first_ms);
    if (waited_ms >= pace->sleep_ms * 3 / 4)
        pace->sleep_ms = min(pace->sleep_ms * 5 / 4, pace->sleep_max_ms);
    return 0;
}

static void shorten(struct pace *pace, int64_t reached_ms) {
    int64_t shorter_ms = reached_ms * 3 / 4;
    if (shorter_ms < CUT_SLEEP_MIN_MS)
        shorter_ms = CUT_SLEEP_MIN_MS;
    pace->sleep_ms = min(pace->sleep_ms, shorter_ms);
}

int64_t pace_retry_after(int64_t seconds) {
    int64_t ms = min(seconds, PACE_RETRY_AFTER_MAX_S) * 1000;
    return between(ms, ms * 3 / 2);
}

int64_t pace_step(struct pace *pace) {
    int64_t ms = pace->step_ms;
    pace->step_ms = min(ms * 2, ms > PACE_LAST_MS ? ms : PACE_LAST_MS);
    return jitter(ms);
}

int64_t pace_failed(struct pace *pace, const struct pace_failure *failure, bool *is_told) {
    int64_t waited_ms = failure->waited_ms;
    if (failure->is_cut && failure->retry_after_s <= 0 && waited_ms >= CUT_AFTER_MS &&
        waited_ms <= pace->sleep_ms + CUT_LATE_MS) {
        shorten(pace, waited_ms);
        pace->step_ms = pace->first_ms; /* it was heard: the next error is a first one */
        pace->cuts++;
        *is_told = pace->cuts == 2;
        return pace->cuts > 2 ? jitter(CUT_PAUSE_MS) : 0;
    }
    *is_told = true;
    if (failure->is_silent && waited_ms)
        shorten(pace, pace->sleep_ms);
    return failure->retry_after_s > 0 ? pace_retry_after(failure->retry_after_s) : pace_step(pace);
}
