/*
 * A feed whose events the test has written; what a command says of them goes to `out`. The test is
 * linked with `events` of meson.build, and only one of its files includes this.
 */
#pragma once

#include "base/buf.h"
#include "cli/feed.h"
#include "cli/screen.h"
#include "need.h"

#include <errno.h>

static const struct feed_event *events; /* those to come; behind them it stops */
static size_t events_left;
static bool is_terminal, has_no_feed;
static int write_error; /* of the next write; 0: none */
static struct feed_options asked;
static struct buf out;

struct feed *__wrap_feed_new(const struct feed_options *options);
struct feed *__wrap_feed_new(const struct feed_options *options) {
    asked = *options;
    return has_no_feed ? NULL : (struct feed *)&events;
}

void __wrap_feed_free(struct feed *feed);
void __wrap_feed_free(struct feed *feed) {
    assert_int_equal(!feed, has_no_feed);
}

void __wrap_feed_next(struct feed *feed, struct feed_event *event);
void __wrap_feed_next(struct feed *feed, struct feed_event *event) {
    assert_non_null(feed);
    *event = events_left ? *events : (struct feed_event){.kind = FEED_STOPPED};
    if (!events_left)
        return;
    events++;
    events_left--;
}

bool __wrap_screen_is_terminal(FILE *stream);
bool __wrap_screen_is_terminal(FILE *stream) {
    (void)stream;
    return is_terminal;
}

bool __wrap_screen_has_colours(FILE *stream);
bool __wrap_screen_has_colours(FILE *stream) {
    (void)stream;
    return is_terminal;
}

/* What is said on standard error is not looked at. */
static bool write_text(const FILE *stream, const struct buf *text) {
    bool was_counting = is_counting;
    is_counting = false;
    errno = text->failed ? ENOMEM : stream == stdout ? write_error : 0;
    if (!errno)
        buf_append(&out, text->data, stream == stdout ? text->len : 0);
    is_counting = was_counting;
    return !errno;
}

bool __wrap_screen_write(FILE *stream, const struct buf *text);
bool __wrap_screen_write(FILE *stream, const struct buf *text) {
    return write_text(stream, text);
}

bool __wrap_screen_write_json(FILE *stream, const struct buf *line);
bool __wrap_screen_write_json(FILE *stream, const struct buf *line) {
    return write_text(stream, line);
}

static bool says(const char *text) {
    return out.len && memmem(out.data, out.len, text, strlen(text));
}
