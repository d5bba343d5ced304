#include "api/feed.h"
#include "api/page.h"
#include "api/poll_query.h"

#include <inttypes.h>

enum {
    RETRY_MS = 1000, /* after which a browser connects again */
    /* A text may have so many lines, and one more for so many of its bytes. */
    LINES_MIN = 256,
    LINE_BYTES = 4,
};

const char *feed_content_type(enum feed feed) {
    return feed == FEED_EVENTS ? "text/event-stream; charset=utf-8"
                               : "application/x-ndjson; charset=utf-8";
}

/* --- What clients say ------------------------------------------------------------------------- */

bool feed_is_accepted(struct slice accept) {
    for (struct slice item, type; slice_cut(&accept, ',', &item);)
        if (slice_cut(&item, ';', &type) &&
            slice_equal_nocase(slice_trim(type), SLICE("text/event-stream")))
            return true;
    return false;
}

bool feed_parse_id(struct slice id, int64_t *position, uint64_t *epoch) {
    struct slice digits;
    uint64_t ts;
    if (!slice_cut(&id, '-', &digits) || digits.len > 18 || !slice_number(digits, INT64_MAX, &ts) ||
        (id.data && !id.len))
        return false;
    *position = (int64_t)ts;
    *epoch = id.data ? parse_epoch(id) : 0;
    return true;
}

/* --- Pieces ----------------------------------------------------------------------------------- */

/* What is being written. */
struct feeding {
    struct buf *out;
    const struct answer *answer;
    const struct page_form *form;
    bool is_lines;
};

static struct feeding feeding_of(struct buf *out, const struct answer *answer,
                                 const struct page_form *form) {
    return (struct feeding){out, answer, form, form->feed == FEED_LINES};
}

/* Makes blanks of all `c` behind `at`. */
static void blank_out(struct buf *out, size_t at, char c) {
    if (out->failed)
        return;
    char *found = memchr(out->data + at, c, out->len - at), *end = out->data + out->len;
    for (; found && found < end; found++) /* not by memchr(): there may be nothing else */
        *found = *found == c ? ' ' : *found;
}

/* Makes one line of what stands behind `at`: in JSON, line breaks are blanks. */
static void join_lines(struct buf *out, size_t at) {
    blank_out(out, at, '\n');
    blank_out(out, at, '\r');
}

/* `41`, or with an epoch `41-5c0f9d3e21b8a764`. */
static void put_id(const struct feeding *to, uint64_t ts) {
    const struct answer *answer = to->answer;
    buf_puts(to->out, "id: ");
    buf_put_number(to->out, ts);
    if (to->form->has_epoch && answer->epoch)
        buf_printf(to->out, "-%016" PRIx64, answer->epoch);
    else if (to->form->has_epoch && !answer->total)
        buf_puts(to->out, "-0");
    buf_putc(to->out, '\n');
}

/* The first members of every object. */
static void put_members(const struct feeding *to, uint64_t ts) {
    buf_puts(to->out, "{\"ts\":");
    buf_put_number(to->out, ts);
    if (to->form->has_epoch)
        page_write_epoch(to->out, to->answer);
}

static void put_position(const struct feeding *to, uint64_t ts) {
    if (to->is_lines) {
        put_members(to, ts);
        buf_puts(to->out, "}\n");
    } else {
        put_id(to, ts);
        buf_putc(to->out, '\n');
    }
}

/* An event about a gap: `member` is what its object says. */
static void put_gap(const struct feeding *to, uint64_t ts, const char *event, const char *member) {
    if (!to->is_lines) {
        buf_printf(to->out, "event: %s\n", event);
        put_id(to, ts);
        buf_puts(to->out, "data: ");
    }
    put_members(to, ts);
    buf_puts(to->out, member);
    buf_puts(to->out, to->is_lines ? "}\n" : "}\n\n");
}

/* Whether a text is little but line breaks: with a `data:` for each, it would be several times as
 * long. */
static bool has_too_many_lines(struct slice text) {
    size_t left = LINES_MIN + text.len / LINE_BYTES;
    for (struct slice line; slice_cut(&text, '\n', &line);)
        if (!left--)
            return true;
    return false;
}

static void put_data_line(struct buf *out, struct slice line) {
    size_t at = out->len;
    buf_puts(out, "data: ");
    buf_append(out, line.data, line.len);
    join_lines(out, at); /* a CR would end it, too */
    buf_putc(out, '\n');
}

/* A text as it is, in as many lines as it has; or in one. */
static void put_data(struct buf *out, struct slice text) {
    if (has_too_many_lines(text)) {
        put_data_line(out, text);
        return;
    }
    for (struct slice line; slice_cut(&text, '\n', &line);)
        put_data_line(out, line);
}

/* The object of an update, in one line. */
static void put_object(const struct feeding *to, const struct update *update) {
    size_t at = to->out->len;
    struct slice body = update_body(update);
    put_members(to, update->ts);
    if (to->form->is_full) {
        page_write_request(to->out, update);
    } else {
        buf_puts(to->out, ",\"update\":");
        buf_append(to->out, body.data, body.len);
    }
    buf_putc(to->out, '}');
    join_lines(to->out, at);
    buf_putc(to->out, '\n');
}

static void put_update(const struct feeding *to, const struct update *update) {
    if (to->is_lines) {
        put_object(to, update);
        return;
    }
    put_id(to, update->ts);
    if (to->form->is_full) {
        buf_puts(to->out, "data: ");
        put_object(to, update);
    } else {
        put_data(to->out, update_body(update));
    }
    buf_putc(to->out, '\n');
}

/* --- Answers ---------------------------------------------------------------------------------- */

/* What was seen before the updates of the answer. */
static uint64_t begin_of(const struct answer *answer) {
    return answer->count ? answer->updates[0]->ts - 1 : answer->ts;
}

void feed_write_opening(struct buf *out, const struct answer *answer,
                        const struct page_form *form) {
    struct feeding to = feeding_of(out, answer, form);
    bool tells_gap = answer->missed || answer->reset; /* whose id must not come before it */
    if (!to.is_lines)
        buf_printf(out, "retry: %d\n", RETRY_MS);
    if (tells_gap)
        buf_putc(out, '\n');
    else
        put_position(&to, begin_of(answer));
}

void feed_write_heartbeat(struct buf *out, enum feed feed) {
    buf_puts(out, feed == FEED_LINES ? "\n" : ":\n\n");
}

void feed_write(struct buf *out, const struct answer *answer, const struct page_form *form) {
    struct feeding to = feeding_of(out, answer, form);
    if (!answer->count && !answer->missed && !answer->reset)
        feed_write_heartbeat(out, form->feed);
    if (answer->reset)
        put_gap(&to, answer->ts, "reset", ",\"reset\":true");
    if (answer->missed) {
        char member[48];
        snprintf(member, sizeof member, ",\"missed\":%" PRIu64, answer->missed);
        put_gap(&to, begin_of(answer), "missed", member);
    }
    for (uint32_t i = 0; i < answer->count; i++)
        put_update(&to, answer->updates[i]);
    bool is_passed = answer->count ? answer->updates[answer->count - 1]->ts != answer->ts
                                   : answer->skipped && !answer->missed;
    if (is_passed)
        put_position(&to, answer->ts);
}
