#include "api/poll.h"
#include "api/api.h"
#include "api/consumers.h"
#include "api/many.h"
#include "api/page.h"
#include "api/poll_query.h"
#include "api/replies.h"
#include "api/stream.h"
#include "base/clock.h"
#include "base/counters.h"
#include "base/log.h"
#include "http/budget.h"

#include <time.h>

/* Which memo of an answer. */
enum { MEMO_CLOSE = 1, MEMO_FULL = 2, MEMO_EPOCH = 4 };

/* --- Asking ----------------------------------------------------------------------------------- */

/* What a time that is given as an age counts from: the clock by which updates are stamped. */
static int64_t stamp_now_ms(void) {
    return store_is_shared(api.store) ? store_now_ms(api.store) : clock_wall_ms();
}

enum http_error poll_filter(const struct buf *where, struct filter **filter) {
    *filter = NULL;
    if (!where->len)
        return HTTP_NO_ERROR;
    switch (inbox_filter(api.inbox, (struct slice){where->data, where->len}, filter)) {
    case FILTER_OK: return HTTP_NO_ERROR;
    case FILTER_MALFORMED: return ERROR_WHERE;
    case FILTER_TOO_LARGE: return ERROR_WHERE_SIZE;
    case FILTER_NO_ROOM: break;
    }
    return ERROR_BUSY;
}

/* Begins the poll that the query asks for; an error when it does not. */
static enum http_error begin(struct exchange *exchange, struct slice channel,
                             const struct poll_query *query) {
    struct ask *ask = ask_of(exchange);
    enum http_error error = poll_filter(&query->where, &ask->poll.filter);
    if (error)
        return error;
    uint64_t sleep_ms = query->sleep_ms < api.poll_max_ms ? query->sleep_ms : api.poll_max_ms;
    struct poll *poll = &ask->poll;
    poll->ts = query->position;
    poll->has_position = query->has_position;
    poll->confirms = query->position >= 0 || query->position == POSITION_NOW;
    poll->confirms_now = query->confirms_now && !exchange->is_head; /* which carries nothing */
    poll->limit = (uint16_t)query->limit;
    poll->epoch = query->epoch;
    poll->wants_epoch = query->has_epoch;
    poll->may_wait = sleep_ms && !exchange->is_head && !api.is_draining && !query->feed;
    poll->is_stream = query->feed;
    ask->is_full = query->is_full;
    if (poll->may_wait)
        exchange_wait(exchange, sleep_ms);
    log_debug("poll", "channel", log_secret(channel).text, "sleep_ms", log_number(sleep_ms).text,
              NULL);
    struct slice name = {query->name, query->name_len};
    bool ok = name.len ? inbox_poll_as(api.inbox, channel, poll, name)
                       : inbox_poll(api.inbox, channel, poll);
    return ok ? HTTP_NO_ERROR : ERROR_BUSY;
}

/* A header's value; empty when there is none. */
static struct slice header_of(const struct request *request, struct slice name) {
    for (uint32_t i = request->header_count; i-- > 0;)
        if (slice_equal_nocase(request_slice(request, request->headers[i].name), name))
            return slice_trim(request_slice(request, request->headers[i].value));
    return SLICE("");
}

/* Whether one of the request's `Accept` headers asks for events. */
static bool accepts_events(const struct request *request) {
    for (uint32_t i = 0; i < request->header_count; i++)
        if (slice_equal_nocase(request_slice(request, request->headers[i].name), SLICE("accept")) &&
            feed_is_accepted(request_slice(request, request->headers[i].value)))
            return true;
    return false;
}

/* What the request's headers say of a stream. */
static enum http_error read_headers(const struct request *request, struct poll_query *query) {
    if (!query->feed && accepts_events(request))
        query->feed = FEED_EVENTS;
    if (!query->feed)
        return HTTP_NO_ERROR;
    query->limit = READ_MAX_UPDATES;
    struct slice id = header_of(request, SLICE("last-event-id"));
    if (id.len) {
        query->has_position = feed_parse_id(id, &query->position, &query->epoch);
        query->has_epoch |= query->epoch;
        return query->has_position ? HTTP_NO_ERROR : ERROR_EVENT_ID;
    }
    if (!query->has_position && !query->name_len)
        query->position = POSITION_NOW;
    return HTTP_NO_ERROR;
}

void poll_handle(struct exchange *exchange, const struct request *request, struct slice channel,
                 struct slice query) {
    struct ask *ask = ask_of(exchange);
    ask->poll = (struct poll){0};
    struct poll_query asked;
    enum http_error error = poll_query_parse(&asked, query, stamp_now_ms);
    if (!error)
        error = read_headers(request, &asked);
    ask->kind = asked.feed ? ASK_STREAM : ASK_UPDATES;
    ask->feed = asked.feed;
    ask->has_begun = false;
    if (!error)
        error = begin(exchange, channel, &asked);
    poll_query_deinit(&asked);
    if (error) {
        poll_forget(ask);
        reply_error(exchange, error);
    }
}

void poll_forget(struct ask *ask) {
    inbox_cancel(api.inbox, &ask->poll);
    if (ask->poll.filter)
        inbox_filter_unref(api.inbox, ask->poll.filter);
    ask->kind = ASK_NOTHING;
}

void poll_expire(struct exchange *exchange) {
    struct poll *poll = &ask_of(exchange)->poll;
    poll->may_wait = false;
    if (poll->state == POLL_PARKED)
        inbox_expire(api.inbox, poll, !api.is_draining);
}

/* --- Answers ---------------------------------------------------------------------------------- */

static struct lines header_lines(struct exchange *exchange, const struct answer *answer) {
    struct lines lines = {.len = 0};
    lines_add(&lines, "X-Total-Updates", answer->total);
    lines_add_limit(&lines, exchange);
    return lines;
}

static struct page_form form_of(struct exchange *exchange, const struct answer *answer) {
    const struct ask *ask = ask_of(exchange);
    struct page_form form = {
        .is_full = ask->is_full, .has_epoch = ask->poll.wants_epoch, .has_lag = ask->poll.is_named};
    if (form.has_lag)
        form.lag = inbox_lag(&ask->poll, answer);
    return form;
}

static struct reply *build_reply(struct exchange *exchange, const struct answer *answer) {
    struct lines lines = header_lines(exchange, answer);
    struct page_form form = form_of(exchange, answer);
    return page_reply(answer, &form, exchange_flags(exchange), lines_slice(&lines));
}

/* The reply to an answer without updates. Polls whose time is over together often get the same
 * bytes, whatever their channel; for a second, as they tell the date. */
static struct reply *empty_reply(struct exchange *exchange, const struct answer *answer,
                                 unsigned kind) {
    static struct reply *last;
    static uint64_t last_ts, last_total, last_epoch;
    static unsigned last_kind;
    static time_t made_at;
    time_t now = time(NULL);
    if (last && last_ts == answer->ts && last_total == answer->total &&
        last_epoch == answer->epoch && last_kind == kind && made_at == now)
        return reply_ref(last);
    struct reply *reply = build_reply(exchange, answer);
    if (!reply)
        return NULL;
    if (last)
        reply_unref(last);
    last = reply_ref(reply);
    last_ts = answer->ts;
    last_total = answer->total;
    last_epoch = answer->epoch;
    last_kind = kind;
    made_at = now;
    return reply;
}

/* Whether polls that get the same answer get the same reply. With a rate limit, each client's
 * headers are its own; so is a consumer's lag. */
static bool is_shareable(struct exchange *exchange, unsigned flags) {
    return !api.limiter && !(flags & REPLY_HEAD) && !ask_of(exchange)->poll.is_named;
}

static unsigned memo_of(struct exchange *exchange, unsigned flags) {
    struct ask *ask = ask_of(exchange);
    return (flags & REPLY_CLOSE ? MEMO_CLOSE : 0) | (ask->is_full ? MEMO_FULL : 0) |
           (ask->poll.wants_epoch ? MEMO_EPOCH : 0);
}

/* NULL when memory is out. */
static struct reply *find_reply(struct exchange *exchange, struct answer *answer) {
    unsigned flags = exchange_flags(exchange), kind = memo_of(exchange, flags);
    if (!is_shareable(exchange, flags))
        return build_reply(exchange, answer);
    if (!answer->count && !answer->missed && !answer->reset && !answer->skipped)
        return empty_reply(exchange, answer, kind);
    if (!answer->memos[kind])
        answer->memos[kind] = build_reply(exchange, answer);
    return answer->memos[kind] ? reply_ref(answer->memos[kind]) : NULL;
}

/* The same for a large page, which is being written. */
static struct large_page *find_page(struct exchange *exchange, struct answer *answer) {
    unsigned flags = exchange_flags(exchange), kind = MEMO_PAGES | memo_of(exchange, flags);
    bool is_shared = is_shareable(exchange, flags);
    if (is_shared && answer->memos[kind])
        return answer->memos[kind];
    struct lines lines = header_lines(exchange, answer);
    struct page_form form = form_of(exchange, answer);
    struct large_page *page = large_page_begin(answer, &form, flags, &lines);
    if (is_shared)
        answer->memos[kind] = page;
    return page;
}

/* Whether there is a reply, and what the socket does not take of it fits. */
static bool can_reply(const struct reply *reply) {
    return reply && (reply->pending || budget_has_for_one(reply->len + CONN_SENDING_MAX_BYTES));
}

void poll_reply(struct exchange *exchange, struct reply *reply, uint32_t count) {
    if (!can_reply(reply)) {
        if (reply)
            reply_unref(reply);
        reply_error(exchange, ERROR_BUSY);
        return;
    }
    counters.polls++;
    counters.updates_delivered += count;
    exchange_reply(exchange, reply);
}

static bool is_large(struct exchange *exchange, const struct answer *answer) {
    return !answer->memos[memo_of(exchange, exchange_flags(exchange))] &&
           page_is_large(answer, ask_of(exchange)->is_full);
}

void poll_done(struct poll *poll, struct answer *answer) {
    if (poll->is_one_of_many) {
        many_poll_done(poll, answer);
        return;
    }
    struct ask *ask = container_of(poll, struct ask, poll);
    if (ask->kind == ASK_STREAM) {
        stream_done(ask, answer);
        return;
    }
    struct exchange *exchange = ask_exchange(ask);
    if (answer->error) {
        poll_forget(ask);
        reply_store_error(exchange, answer->error);
        return;
    }
    struct reply *reply = NULL;
    struct large_page *page = NULL;
    if (ask->kind != ASK_UPDATES)
        reply = consumers_reply(exchange, answer);
    else if (is_large(exchange, answer))
        page = find_page(exchange, answer);
    else
        reply = find_reply(exchange, answer);
    if (page || can_reply(reply))
        inbox_confirm_answer(api.inbox, poll, answer);
    poll_forget(ask);
    if (page)
        large_page_await(page, exchange);
    else
        poll_reply(exchange, reply, answer->count);
}

void poll_answer_end(struct answer *answer) {
    for (int i = 0; i < MEMO_STREAM_PAGES; i++)
        if (answer->memos[i] && (i < MEMO_PAGES || i >= MEMO_STREAMS))
            reply_unref(answer->memos[i]);
}
