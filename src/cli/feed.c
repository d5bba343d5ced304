/*
 * A feed is between two polls, or goes through the page that the last one brought: its reset, its
 * missed ones, then its updates. `place` is behind the last event that was given; it becomes the
 * page's when the page is done.
 */
#include "cli/feed.h"
#include "base/json.h"
#include "cli/clocks.h"
#include "cli/exchange.h"
#include "cli/link.h"
#include "cli/options.h"
#include "cli/pace.h"
#include "cli/page.h"
#include "cli/stop.h"
#include "version.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>

enum {
    ANSWER_MS = 15000, /* beyond what the poll waits */
    PAGE_UPDATES = 100,
    REPLY_MAX_BYTES = 512 << 20, /* an update of 64 MiB, thrice, and escaped */
};

struct feed {
    struct feed_options options;
    struct exchange *exchange;
    struct curl_slist *headers;
    struct pace pace;
    struct feed_place place;
    bool is_known;      /* until the first reply, the place may not be */
    bool is_full;       /* the polls have view=full */
    uint64_t skip_upto; /* FEED_SERVER: what this machine has handled */
    int64_t began_ms;
    struct buf url, query, body, error;
    int64_t pause_ms; /* before the next poll */
    uint64_t newest;
    bool is_ready, was_in_trouble; /* since the last reply nothing has failed; ever */
    /* The page that is gone through. */
    bool has_page, is_reset_told, is_missed_told;
    struct page page;
    struct slice rest;
    uint64_t index, begin_ts; /* begin_ts: where the page begins */
};

/* There is nobody who could go on. */
static void fail_memory(const struct feed *feed) {
    if (feed->query.failed || feed->url.failed || feed->error.failed)
        exit(options_complain(EX_OSERR, "out of memory"));
}

struct feed *feed_new(const struct feed_options *options) {
    struct feed *feed = calloc(1, sizeof *feed);
    if (!feed)
        return NULL;
    feed->options = *options;
    feed->exchange = exchange_new();
    feed->headers = curl_slist_append(NULL, "User-Agent: longline/" LONGLINE_VERSION);
    feed->place = options->place;
    feed->is_known = options->start == FEED_BEHIND;
    feed->is_full = options->is_full || options->where_count;
    if (options->start == FEED_SERVER) {
        feed->skip_upto = options->place.ts;
        feed->place = (struct feed_place){0};
    }
    feed->began_ms = clocks_boot_ms();
    pace_init(&feed->pace, options->sleep_ms ? options->sleep_ms : PACE_SLEEP_MS,
              options->backoff_ms ? options->backoff_ms : PACE_FIRST_MS);
    if (feed->exchange && feed->headers)
        return feed;
    feed_free(feed);
    return NULL;
}

void feed_free(struct feed *feed) {
    if (!feed)
        return;
    exchange_free(feed->exchange);
    curl_slist_free_all(feed->headers);
    buf_deinit(&feed->url);
    buf_deinit(&feed->query);
    buf_deinit(&feed->body);
    buf_deinit(&feed->error);
    free(feed);
}

/* --- Asking ----------------------------------------------------------------------------------- */

/* A span of time up to now grows while nobody answers. */
static void write_since(struct feed *feed) {
    static const struct {
        char unit;
        uint64_t seconds;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
    struct slice text = slice_of(feed->options.since);
    uint64_t number;
    buf_puts(&feed->query, "since=");
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (text.len > 1 && text.data[text.len - 1] == units[i].unit &&
            slice_number((struct slice){text.data, text.len - 1}, UINT32_MAX, &number)) {
            buf_put_number(&feed->query, number * units[i].seconds +
                                             (uint64_t)(clocks_boot_ms() - feed->began_ms) / 1000);
            buf_putc(&feed->query, 's');
            return;
        }
    link_escape(&feed->query, feed->options.since);
}

static void write_start(struct feed *feed) {
    struct buf *out = &feed->query;
    if (feed->is_known)
        buf_printf(out, "ts=%" PRIu64, feed->place.ts);
    else if (feed->options.start == FEED_NOW)
        buf_puts(out, "ts=now");
    else if (feed->options.start == FEED_LAST)
        buf_printf(out, "ts=-%" PRIu64, feed->options.count);
    else if (feed->options.start == FEED_SINCE)
        write_since(feed);
}

/* Not before it is known where "now" or "the last ten" is: what comes between a poll that is cut
 * and the next one would be lost. */
static bool may_wait(const struct feed *feed) {
    return (feed->is_known || feed->options.start == FEED_SERVER) &&
           (feed->is_ready || !feed->options.asks_first);
}

static void write_query(struct feed *feed) {
    struct buf *out = &feed->query;
    buf_reset(out, SIZE_MAX);
    write_start(feed);
    if (may_wait(feed)) {
        int64_t ms = feed->pace.sleep_ms;
        buf_printf(out, "&sleep=%" PRId64, ms / 1000);
        if (ms % 1000)
            buf_printf(out, ".%03" PRId64, ms % 1000);
        while (ms % 1000 && out->len && out->data[out->len - 1] == '0')
            out->len--;
    }
    if (feed->is_full)
        buf_puts(out, "&view=full");
    if (feed->options.as) {
        buf_puts(out, "&as=");
        link_escape(out, feed->options.as);
    }
    for (size_t i = 0; i < feed->options.where_count; i++) {
        buf_puts(out, "&where=");
        link_escape(out, feed->options.where[i]);
    }
    buf_printf(out, "&limit=%d&epoch=%s", PAGE_UPDATES, feed->place.epoch);
}

static bool is_idle(const struct feed *feed, const struct page *page) {
    return feed->is_known && page->ts == feed->place.ts && !page->missed && !page->is_reset &&
           !page->count;
}

static void begin_page(struct feed *feed, const struct page *page) {
    feed->page = *page;
    feed->rest = page->updates;
    feed->index = 0;
    feed->begin_ts = feed->place.ts;
    feed->has_page = true;
    feed->is_reset_told = !page->is_reset;
    feed->is_missed_told = !page->missed;
    if (page->epoch.len && page->epoch.len <= FEED_EPOCH_MAX) {
        memcpy(feed->place.epoch, page->epoch.data, page->epoch.len);
        feed->place.epoch[page->epoch.len] = '\0';
    }
    if (feed->skip_upto && strcmp(feed->place.epoch, feed->options.place.epoch) != 0)
        feed->skip_upto = 0; /* handled, but of other data */
}

/* Takes a failure; false when nobody is to be told. */
static bool fail(struct feed *feed, const struct exchange_reply *reply, bool waited,
                 struct feed_event *event) {
    bool is_reply = reply->end == EXCHANGE_REPLIED, is_told = true;
    struct pace_failure failure = {
        .is_cut = reply->end == EXCHANGE_CUT ||
                  (!feed->error.len && (reply->status == 408 || reply->status >= 500)),
        .is_silent = reply->end == EXCHANGE_SILENT,
        .waited_ms = waited ? reply->waited_ms : 0,
        .retry_after_s =
            is_reply && (reply->status == 429 || reply->status == 503) ? reply->retry_after_s : -1,
    };
    feed->pause_ms =
        reply->end == EXCHANGE_SLEPT ? 0 : pace_failed(&feed->pace, &failure, &is_told);
    if (!is_told)
        return false;
    feed->is_ready = false;
    feed->was_in_trouble = true;
    if (!is_reply)
        buf_printf(&feed->error, "%s", reply->error);
    else if (!feed->error.len)
        buf_printf(&feed->error, "status %d, and not from longline%s", reply->status,
                   link_redirect_hint(feed->options.url, reply->status));
    event->kind = FEED_TROUBLE;
    event->pause_ms = feed->pause_ms;
    return true;
}

/* Asking again cannot help only if longline itself says so. */
static bool is_final(int status) {
    return status >= 400 && status < 500 && status != 408 && status != 425 && status != 429;
}

/* Takes a good reply. True when it is the first one, or the first one after trouble. */
static bool take_reply(struct feed *feed, const struct exchange_reply *reply,
                       const struct page *page, bool waited, struct feed_event *event) {
    bool is_first = !feed->is_ready, is_question = feed->options.asks_first && is_first;
    feed->pause_ms = pace_replied(&feed->pace, is_idle(feed, page) && !is_question,
                                  waited ? reply->waited_ms : 0);
    feed->newest = reply->has_total ? reply->total : page->ts;
    begin_page(feed, page);
    feed->is_ready = true;
    *event = (struct feed_event){.kind = FEED_READY,
                                 .to = feed->place,
                                 .newest = feed->newest,
                                 .is_again = feed->was_in_trouble};
    return is_first;
}

/* Polls once. True when `event` is something to tell; else there may be a page. */
static bool ask(struct feed *feed, struct feed_event *event) {
    bool waits = may_wait(feed);
    write_query(feed);
    link_write_poll(feed->options.url, (struct slice){feed->query.data, feed->query.len},
                    &feed->url);
    fail_memory(feed);
    struct exchange_request request = {
        .method = "GET",
        .url = feed->url.data,
        .headers = feed->headers,
        .notices_sleep = true,
        .limit_ms = ANSWER_MS + (waits ? feed->pace.sleep_ms : 0),
        .reply_max_bytes = REPLY_MAX_BYTES,
    };
    struct exchange_reply reply;
    struct page page;
    exchange_run(feed->exchange, &request, &reply);
    buf_deinit(&feed->body);
    feed->body = reply.body;
    buf_reset(&feed->error, SIZE_MAX);
    if (reply.end == EXCHANGE_STOPPED)
        return false;
    struct slice body = {feed->body.data, feed->body.len};
    if (reply.end == EXCHANGE_REPLIED && reply.status == 200 && page_parse(body, &page))
        return take_reply(feed, &reply, &page, waits, event);
    event->status = reply.status;
    event->to = feed->place;
    if (reply.end == EXCHANGE_REPLIED && page_parse_error(body, reply.status, &feed->error) &&
        is_final(reply.status))
        event->kind = FEED_REFUSED;
    else if (!fail(feed, &reply, waits, event))
        return false;
    buf_putc(&feed->error, '\0');
    fail_memory(feed);
    event->error = feed->error.data;
    return true;
}

/* --- Going through a page --------------------------------------------------------------------- */

/* The place behind the page; the feed may ask again. */
static bool end_page(struct feed *feed, struct feed_event *event) {
    bool is_news = !feed->is_known || feed->place.ts != feed->page.ts;
    feed->has_page = false;
    feed->is_known = true;
    feed->place.ts = feed->page.ts;
    event->kind = FEED_MOVED;
    event->to = feed->place;
    return is_news;
}

/* The number of the update at hand: view=full says it. Else they have no gap up to the page's,
 * unless some were skipped. */
static uint64_t number_of(const struct feed *feed, struct slice item) {
    uint64_t ts = 0;
    if (!feed->is_full || !slice_number(page_member(item, SLICE("ts")), INT64_MAX, &ts))
        ts = feed->page.skipped && feed->index + 1 < feed->page.count
                 ? feed->begin_ts + feed->page.missed + 1 + feed->index
                 : feed->page.ts - (feed->page.count - 1 - feed->index);
    return ts;
}

static bool take_update(struct feed *feed, struct feed_event *event) {
    struct slice item;
    while (json_next_item(&feed->rest, &item)) {
        event->ts = number_of(feed, item);
        bool is_last = ++feed->index == feed->page.count;
        feed->is_known = true;
        feed->place.ts = is_last ? feed->page.ts : event->ts;
        if (event->ts <= feed->skip_upto)
            continue;
        event->kind = FEED_UPDATE;
        event->update = feed->is_full ? page_member(item, SLICE("body")) : item;
        if (!event->update.len) /* it is no item of view=full */
            event->update = SLICE("null");
        event->item = feed->options.is_full ? item : (struct slice){0};
        event->to = feed->place;
        return true;
    }
    return false;
}

/* The next event of the page; false when there is none. */
static bool take(struct feed *feed, struct feed_event *event) {
    event->to = feed->place;
    if (!feed->is_reset_told) {
        feed->is_reset_told = feed->is_known = true;
        feed->skip_upto = 0;
        event->kind = FEED_RESET;
        event->to.ts = feed->place.ts = feed->page.ts;
        return true;
    }
    if (!feed->is_missed_told) {
        feed->is_missed_told = true;
        event->kind = FEED_MISSED;
        event->count = feed->page.missed;
        return true;
    }
    return take_update(feed, event) || end_page(feed, event);
}

void feed_next(struct feed *feed, struct feed_event *event) {
    *event = (struct feed_event){.kind = FEED_STOPPED};
    while (!stop_is_asked()) {
        event->newest = feed->newest;
        if (feed->has_page && take(feed, event))
            return;
        stop_sleep(feed->pause_ms);
        feed->pause_ms = 0;
        if (!stop_is_asked() && ask(feed, event))
            return;
    }
    *event = (struct feed_event){.kind = FEED_STOPPED, .to = feed->place};
}
