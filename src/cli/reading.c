#include "cli/reading.h"
#include "base/json.h"
#include "cli/link.h"
#include "cli/screen.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

enum { SLEEP_MAX_S = 60 };

static const char *read_start(const struct options *options, struct feed_options *feed) {
    if (!!options->since + !!options->ts + !!options->count > 1)
        return "--since, --ts and -n do not go together";
    if (options->since) {
        feed->start = FEED_SINCE;
        feed->since = options->since;
    } else if (options->ts) {
        feed->start = FEED_BEHIND;
        if (strcmp(options->ts, "now") == 0)
            feed->start = FEED_NOW;
        else if (!slice_number(slice_of(options->ts), INT64_MAX / 10, &feed->place.ts))
            return "--ts is the id of an update, or now";
    } else if (options->count) {
        if (!slice_number(slice_of(options->count), FEED_COUNT_MAX, &feed->count))
            return "-n is a number up to 10000";
        feed->start = feed->count ? FEED_LAST : FEED_NOW;
    } else if (options->as) {
        feed->start = FEED_SERVER;
    }
    return NULL;
}

bool reading_options(const struct options *options, struct feed_options *feed, char *error,
                     size_t error_size) {
    feed->url = options->words[0];
    feed->as = options->as;
    feed->where = options->where.items;
    feed->where_count = options->where.count;
    feed->asks_first = screen_is_terminal(stderr); /* somebody waits for a word */
    const char *wrong = link_read_channel(options->words[0]);
    if (!wrong)
        wrong = read_start(options, feed);
    if (!wrong && options->sleep && !options_seconds(options->sleep, SLEEP_MAX_S, &feed->sleep_ms))
        wrong = "--sleep is a number of seconds up to 60";
    if (!wrong && options->backoff &&
        !options_seconds(options->backoff, SLEEP_MAX_S, &feed->backoff_ms))
        wrong = "--backoff is a number of seconds up to 60";
    if (wrong)
        snprintf(error, error_size, "%s", wrong);
    return !wrong;
}

void reading_tell(const struct feed_event *event) {
    if (event->kind == FEED_MISSED)
        options_complain(0, "%" PRIu64 " update%s missed: no longer kept", event->count,
                         event->count == 1 ? " is" : "s are");
    else if (event->kind == FEED_RESET)
        options_complain(0, "the server's data is not what it was; going on behind update %" PRIu64,
                         event->to.ts);
    else if (event->kind == FEED_READY && event->is_again)
        options_complain(0, "connected again");
    else if (event->kind == FEED_READY && screen_is_terminal(stderr))
        options_complain(0, "connected");
    else if (event->kind == FEED_TROUBLE)
        options_complain(0, "%s; again in %.1f s", event->error, (double)event->pause_ms / 1000);
}

int reading_refused(const struct feed_event *event) {
    return options_complain(event->status == 403 ? EX_NOPERM : EX_USAGE,
                            "the server refuses: %d %s", event->status, event->error);
}

void reading_write_json(struct buf *out, const struct feed_event *event) {
    if (event->kind == FEED_MISSED) {
        buf_printf(out, "{\"missed\":%" PRIu64 "}\n", event->count);
    } else if (event->kind == FEED_RESET) {
        buf_printf(out, "{\"reset\":%" PRIu64 "}\n", event->to.ts);
    } else if (event->kind == FEED_REFUSED) {
        buf_puts(out, "{\"error\":");
        json_write_string(out, slice_of(event->error));
        buf_printf(out, ",\"status\":%d}\n", event->status);
    }
}
