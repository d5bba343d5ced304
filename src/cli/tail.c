#include "cli/tail.h"
#include "base/json.h"
#include "cli/link.h"
#include "cli/options.h"
#include "cli/page.h"
#include "cli/reading.h"
#include "cli/screen.h"
#include "cli/stop.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sysexits.h>

enum { LAST_COUNT = 10 };

struct tail {
    bool is_json, is_full; /* as the options say */
    bool is_terminal, has_colours;
    struct buf text;
};

static void colour(struct tail *tail, enum screen_colour colour) {
    if (tail->has_colours)
        screen_set_colour(&tail->text, colour);
}

static void put_member(struct tail *tail, struct slice item, struct slice name,
                       const char *before) {
    struct buf text = {0};
    if (page_string(page_member(item, name), &text) && text.len) {
        buf_puts(&tail->text, before);
        screen_put_text(&tail->text, (struct slice){text.data, text.len});
    }
    buf_deinit(&text);
}

/* #7 12:30:15 POST /v1?app=shop from 192.0.2.1 */
static void put_heading(struct tail *tail, const struct feed_event *event) {
    uint64_t at = 0;
    colour(tail, SCREEN_DIM);
    buf_printf(&tail->text, "#%" PRIu64 " ", event->ts);
    if (slice_number(page_member(event->item, SLICE("at")), INT64_MAX, &at) && at)
        screen_put_time(&tail->text, (int64_t)at);
    put_member(tail, event->item, SLICE("method"), " ");
    put_member(tail, event->item, SLICE("path"), " ");
    put_member(tail, event->item, SLICE("query"), " ?");
    put_member(tail, event->item, SLICE("from"), " from ");
    colour(tail, SCREEN_PLAIN);
    buf_putc(&tail->text, '\n');
}

static void put_update(struct tail *tail, const struct feed_event *event) {
    struct slice json = tail->is_full ? event->item : event->update;
    if (tail->is_json) {
        buf_printf(&tail->text, "{\"ts\":%" PRIu64 ",\"update\":", event->ts);
        screen_put_line(&tail->text, json);
        buf_puts(&tail->text, "}\n");
    } else if (tail->is_terminal) {
        put_heading(tail, event);
        screen_put_pretty(&tail->text, json, tail->has_colours);
    } else {
        screen_put_line(&tail->text, json);
        buf_putc(&tail->text, '\n');
    }
}

/* Writes what there is to say on standard output, or says it on standard error. */
static void put(struct tail *tail, const struct feed_event *event) {
    if (event->kind == FEED_UPDATE)
        put_update(tail, event);
    else if (tail->is_json && event->kind == FEED_STOPPED)
        buf_printf(&tail->text, "{\"stopped\":true,\"ts\":%" PRIu64 "}\n", event->to.ts);
    else if (tail->is_json)
        reading_write_json(&tail->text, event);
    if (!tail->text.len)
        reading_tell(event);
}

static bool write_out(const struct tail *tail) {
    return tail->is_json ? screen_write_json(stdout, &tail->text)
                         : screen_write(stdout, &tail->text);
}

/* Returns the exit code. A reader that has gone wanted no more. */
static int follow(struct tail *tail, struct feed *feed) {
    struct feed_event event;
    do {
        feed_next(feed, &event);
        buf_reset(&tail->text, SIZE_MAX);
        put(tail, &event);
        if (!write_out(tail))
            return errno == EPIPE
                       ? EX_OK
                       : options_complain(EX_IOERR, "standard output: %s", strerror(errno));
    } while (event.kind != FEED_STOPPED && event.kind != FEED_REFUSED);
    return event.kind == FEED_REFUSED ? reading_refused(&event) : EX_OK;
}

int tail_run(int argc, char **argv) {
    struct options options;
    struct feed_options feed_options = {.start = FEED_LAST, .count = LAST_COUNT};
    char error[256];
    if (!options_parse(&options, COMMAND_TAIL, argc, argv, error, sizeof error))
        return options_complain(EX_USAGE, "%s", error);
    if (options.help) {
        options_help(COMMAND_TAIL);
        return EX_OK;
    }
    if (options.word_count != 1)
        return options_complain(EX_USAGE, "usage: longline tail [OPTION]... URL");
    if (!reading_options(&options, &feed_options, error, sizeof error))
        return link_complain(error);
    struct tail tail = {
        .is_json = options.json,
        .is_full = options.full,
        .is_terminal = screen_is_terminal(stdout) && !options.json,
        .has_colours = screen_has_colours(stdout) && !options.json,
    };
    feed_options.is_full = options.full || tail.is_terminal;
    stop_init(true);
    struct feed *feed = feed_new(&feed_options);
    int code = feed ? follow(&tail, feed) : options_complain(EX_OSERR, "out of memory");
    feed_free(feed);
    buf_deinit(&tail.text);
    return code;
}
