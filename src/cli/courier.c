#include "cli/courier.h"
#include "base/clock.h"
#include "base/json.h"
#include "cli/link.h"
#include "cli/pace.h"
#include "cli/reading.h"
#include "cli/screen.h"
#include "cli/state.h"
#include "cli/stop.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

struct round {
    const struct courier *courier;
    struct state *state;
    struct webhook webhook;
    struct buf line, event;
    bool is_json, skips, has_colours;
    int64_t backoff_ms;
};

/* --- A line for each attempt ------------------------------------------------------------------ */

/* What an attempt came to. */
struct outcome {
    const struct courier_result *result;
    int64_t took_ms, pause_ms; /* pause_ms: before the next attempt */
    uint64_t waiting;
    bool is_skipped;
};

static void put_json_text(struct buf *out, const char *name, const struct buf *text) {
    buf_printf(out, ",\"%s\":", name);
    json_write_string(out, (struct slice){text->data, text->len});
}

static void put_json(struct round *round, const struct outcome *outcome) {
    static const char *const results[] = {
        [COURIER_CONFIRMED] = "confirmed", [COURIER_REJECTED] = "rejected",
        [COURIER_FAILED] = "failed",       [COURIER_STOPPED] = "stopped",
        [COURIER_IMPOSSIBLE] = "failed",
    };
    struct buf *out = &round->line;
    const struct courier_result *result = outcome->result;
    buf_printf(out, "{\"ts\":%" PRIu64 ",\"at\":%" PRIu64, round->webhook.ts, round->webhook.at);
    put_json_text(out, "event", &round->event);
    put_json_text(out, "method", &round->webhook.method);
    put_json_text(out, "path", &round->webhook.path);
    buf_printf(out, ",\"result\":\"%s\"",
               outcome->is_skipped ? "skipped" : results[result->verdict]);
    if (result->code >= 0)
        buf_printf(out, ",\"%s\":%d", round->courier->code_name, result->code);
    if (*result->text) {
        buf_puts(out, ",\"error\":");
        json_write_string(out, slice_of(result->text));
    }
    buf_printf(out, ",\"ms\":%" PRId64 ",\"waiting\":%" PRIu64, outcome->took_ms, outcome->waiting);
    if (outcome->pause_ms)
        buf_printf(out, ",\"again_in_ms\":%" PRId64, outcome->pause_ms);
    buf_puts(out, "}\n");
}

static void put_result(struct round *round, const struct outcome *outcome) {
    static const enum screen_colour colours[] = {
        [COURIER_CONFIRMED] = SCREEN_GREEN, [COURIER_REJECTED] = SCREEN_RED,
        [COURIER_FAILED] = SCREEN_YELLOW,   [COURIER_STOPPED] = SCREEN_DIM,
        [COURIER_IMPOSSIBLE] = SCREEN_RED,
    };
    struct buf *out = &round->line;
    const struct courier_result *result = outcome->result;
    if (round->has_colours)
        screen_set_colour(out, colours[result->verdict]);
    if (*result->text)
        screen_put_text(out, slice_of(result->text));
    else
        buf_printf(out, "%s %d", round->courier->code_name, result->code);
    if (round->has_colours)
        screen_set_colour(out, SCREEN_PLAIN);
}

/* 12:30:15  #7  push  POST /v1  status 200  12 ms  3 waiting */
static void put_line(struct round *round, const struct outcome *outcome) {
    struct buf *out = &round->line;
    screen_put_time(out, clock_wall_ms());
    buf_printf(out, "  #%" PRIu64 "  ", round->webhook.ts);
    if (round->event.len) {
        screen_put_text(out, (struct slice){round->event.data, round->event.len});
        buf_puts(out, "  ");
    }
    buf_printf(out, "%s ", round->webhook.method.data);
    screen_put_text(out, (struct slice){round->webhook.path.data, round->webhook.path.len});
    buf_puts(out, round->webhook.path.len ? "  " : " ");
    put_result(round, outcome);
    buf_printf(out, "  %" PRId64 " ms", outcome->took_ms);
    if (outcome->is_skipped)
        buf_puts(out, "  skipped");
    if (outcome->waiting)
        buf_printf(out, "  %" PRIu64 " waiting", outcome->waiting);
    if (outcome->pause_ms)
        buf_printf(out, "  again in %.1f s", (double)outcome->pause_ms / 1000);
    buf_putc(out, '\n');
}

/* Nothing is lost when nobody can read it. */
static void tell(struct round *round, const struct outcome *outcome) {
    bool is_written;
    buf_reset(&round->line, SIZE_MAX);
    if (round->is_json) {
        put_json(round, outcome);
        is_written = screen_write_json(round->courier->out, &round->line);
    } else {
        put_line(round, outcome);
        is_written = screen_write(round->courier->out, &round->line);
    }
    if (!is_written && errno == ENOMEM)
        fputs("longline: out of memory\n", stderr);
}

/* --- Delivering ------------------------------------------------------------------------------- */

static int save(struct round *round, const struct feed_place *place) {
    if (state_save(round->state, place))
        return EX_OK;
    return options_complain(EX_CANTCREAT, "%s: %s", state_path(round->state), strerror(errno));
}

/* What follows from a result that is told: an exit code, or -1 for another attempt. */
static int conclude(struct round *round, const struct courier_result *result,
                    const struct feed_event *event) {
    switch (result->verdict) {
    case COURIER_CONFIRMED: return save(round, &event->to);
    case COURIER_STOPPED: return EX_OK;
    case COURIER_IMPOSSIBLE: return options_complain(result->code, "%s", result->text);
    case COURIER_FAILED: return -1;
    case COURIER_REJECTED: break;
    }
    if (round->skips)
        return save(round, &event->to);
    return options_complain(EX_DATAERR,
                            "update %" PRIu64 " is refused; --on-reject=skip goes on without it",
                            event->ts);
}

/* Tries until it is taken. Returns an exit code: EX_OK also when the command must end. */
static int deliver(struct round *round, const struct feed_event *event) {
    struct pace pace;
    int code = -1;
    pace_init(&pace, PACE_SLEEP_MS, round->backoff_ms ? round->backoff_ms : PACE_FIRST_MS);
    if (!webhook_read(&round->webhook, event->item))
        return options_complain(EX_OSERR, "out of memory");
    round->webhook.ts = event->ts;
    webhook_write_event(&round->webhook, &round->event);
    while (code < 0 && !stop_is_asked()) {
        struct courier_result result = {.verdict = COURIER_FAILED, .code = -1, .retry_after_s = -1};
        int64_t began_ms = clock_steady_ms();
        round->courier->attempt(round->courier->context, &round->webhook, &result);
        struct outcome outcome = {
            .result = &result,
            .took_ms = clock_steady_ms() - began_ms,
            .waiting = event->newest > event->ts ? event->newest - event->ts : 0,
            .is_skipped = result.verdict == COURIER_REJECTED && round->skips,
        };
        if (result.verdict == COURIER_FAILED)
            outcome.pause_ms = result.retry_after_s > 0 ? pace_retry_after(result.retry_after_s)
                                                        : pace_step(&pace);
        tell(round, &outcome);
        code = conclude(round, &result, event);
        stop_sleep(outcome.pause_ms);
    }
    return code < 0 ? EX_OK : code;
}

/* Says what concerns no single update. */
static void tell_event(struct round *round, const struct feed_event *event) {
    buf_reset(&round->line, SIZE_MAX);
    if (round->is_json)
        reading_write_json(&round->line, event);
    if (round->line.len)
        screen_write_json(round->courier->out, &round->line);
    else
        reading_tell(event);
}

static int follow(struct round *round, struct feed *feed) {
    int code = EX_OK;
    while (code == EX_OK) {
        struct feed_event event;
        feed_next(feed, &event);
        tell_event(round, &event);
        switch (event.kind) {
        case FEED_UPDATE: code = deliver(round, &event); break;
        case FEED_RESET:
        case FEED_MOVED: code = save(round, &event.to); break;
        case FEED_READY:
        case FEED_MISSED:
        case FEED_TROUBLE: break;
        case FEED_REFUSED: return reading_refused(&event);
        case FEED_STOPPED: return EX_OK;
        }
    }
    return code;
}

/* --- Beginning -------------------------------------------------------------------------------- */

static int compare_texts(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Names what is delivered where. */
static void write_identity(const struct courier *courier, const struct options *options,
                           struct buf *out) {
    link_write_identity(options->words[0], out);
    buf_putc(out, '\0');
    buf_append(out, courier->identity.data, courier->identity.len);
    buf_putc(out, '\0');
    buf_puts(out, options->as ? options->as : "");
    const char *where[OPTION_LIST_MAX];
    memcpy(where, options->where.items, sizeof where);
    qsort(where, options->where.count, sizeof *where, compare_texts);
    for (size_t i = 0; i < options->where.count; i++) {
        buf_putc(out, '\0');
        buf_puts(out, where[i]);
    }
}

static int open_state(struct round *round, const struct options *options) {
    struct buf identity = {0};
    char error[512];
    write_identity(round->courier, options, &identity);
    if (identity.failed) {
        buf_deinit(&identity);
        return options_complain(EX_OSERR, "out of memory");
    }
    enum state_opened opened =
        state_open(&round->state, options->state, round->courier->name,
                   (struct slice){identity.data, identity.len}, error, sizeof error);
    buf_deinit(&identity);
    if (opened == STATE_OPEN)
        return EX_OK;
    return options_complain(opened == STATE_LOCKED ? EX_TEMPFAIL : EX_CANTCREAT, "%s", error);
}

/* A place that is kept wins over where the command was told to begin. */
static int choose_start(struct round *round, const struct options *options,
                        struct feed_options *feed) {
    struct feed_place place;
    bool is_bad = false;
    if (options->restart)
        return EX_OK;
    if (state_load(round->state, &place, &is_bad)) {
        feed->place = place;
        feed->start = options->as ? FEED_SERVER : FEED_BEHIND;
    }
    return is_bad ? options_complain(EX_CANTCREAT, "%s holds no place; --restart begins anew",
                                     state_path(round->state))
                  : EX_OK;
}

static bool read_options(struct round *round, const struct options *options,
                         struct feed_options *feed, char *error, size_t error_size) {
    const char *on_reject = options->on_reject ? options->on_reject : "stop";
    round->is_json = options->json;
    round->skips = strcmp(on_reject, "skip") == 0;
    round->has_colours = screen_has_colours(round->courier->out);
    if (!round->skips && strcmp(on_reject, "stop") != 0) {
        snprintf(error, error_size, "--on-reject is stop or skip");
        return false;
    }
    return reading_options(options, feed, error, error_size);
}

int courier_run(const struct courier *courier, const struct options *options) {
    struct round round = {.courier = courier};
    struct feed_options feed_options = {.start = FEED_NOW, .is_full = true};
    char error[256];
    if (!read_options(&round, options, &feed_options, error, sizeof error))
        return link_complain(error);
    int code = open_state(&round, options);
    if (code != EX_OK)
        return code;
    stop_init(false);
    round.backoff_ms = feed_options.backoff_ms;
    code = choose_start(&round, options, &feed_options);
    struct feed *feed = feed_new(&feed_options);
    if (code == EX_OK)
        code = feed ? follow(&round, feed) : options_complain(EX_OSERR, "out of memory");
    feed_free(feed);
    webhook_deinit(&round.webhook);
    buf_deinit(&round.line);
    buf_deinit(&round.event);
    state_close(round.state);
    return code;
}
