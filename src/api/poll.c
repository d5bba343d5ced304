#include "api/poll.h"
#include "api/api.h"
#include "api/page.h"
#include "api/replies.h"
#include "base/counters.h"
#include "base/json.h"
#include "base/log.h"
#include "base/text.h"
#include "base/utf8.h"
#include "http/budget.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Which memo of an answer: a reply, or a large page that is being written. */
enum { MEMO_CLOSE = 1, MEMO_FULL = 2, MEMO_LARGE = 4 };

/* --- Parameters ------------------------------------------------------------------------------- */

/* Decodes a query's value into `out`; false when it is longer than a number can be. */
static bool decode_value(struct slice value, char out[32]) {
    long len = value.len < 32 ? text_decode_percent(value, out) : -1;
    if (len < 0)
        return false;
    out[len] = '\0';
    return strlen(out) == (size_t)len;
}

/* Reads a whole number, perhaps with a minus. `21.0` is one too: some languages print it like
 * that. */
static bool parse_ts(const char *text, int64_t *ts) {
    bool is_negative = *text == '-';
    struct slice rest = slice_of(text + is_negative), whole;
    slice_cut(&rest, '.', &whole);
    uint64_t number;
    if (whole.len > 18 || !slice_number(whole, INT64_MAX, &number))
        return false;
    for (size_t i = 0; i < rest.len; i++)
        if (rest.data[i] != '0')
            return false;
    *ts = (int64_t)number * (is_negative ? -1 : 1);
    return true;
}

/* Reads seconds with a fraction, as milliseconds rounded up. */
static bool parse_sleep(const char *text, uint64_t *sleep_ms) {
    size_t whole = strspn(text, "0123456789");
    size_t fraction = text[whole] == '.' ? strspn(text + whole + 1, "0123456789") : 0;
    const char *end = text + whole + (text[whole] == '.') + fraction;
    if (*end || (!whole && !fraction))
        return false;
    double ms = strtod(text, NULL) * 1000;
    *sleep_ms = ms < SLEEP_MAX_MS ? (uint64_t)ceil(ms) : SLEEP_MAX_MS;
    return true;
}

static bool parse_limit(const char *text, uint32_t *limit) {
    size_t digits = strspn(text, "0123456789");
    if (!digits || text[digits])
        return false;
    unsigned long long number = strtoull(text, NULL, 10); /* ULLONG_MAX when it is larger still */
    *limit = number < READ_MAX_UPDATES ? (uint32_t)number : READ_MAX_UPDATES;
    return number > 0;
}

/* Reads the parameters of a poll and ignores others. An empty one counts as absent. */
static enum http_error parse(struct slice query, struct ask *ask, uint64_t *sleep_ms) {
    struct poll *poll = &ask->poll;
    poll->ts = 0;
    poll->limit = READ_MAX_UPDATES;
    ask->is_full = false;
    *sleep_ms = 0;
    for (struct text_pair pair; text_next_pair(&query, &pair);) {
        char value[32];
        bool is_text = decode_value(pair.value, value);
        if (is_text && !*value)
            continue;
        if (slice_equal(pair.name, SLICE("ts")) && !(is_text && parse_ts(value, &poll->ts)))
            return ERROR_TS;
        if (slice_equal(pair.name, SLICE("sleep")) && !(is_text && parse_sleep(value, sleep_ms)))
            return ERROR_SLEEP;
        if (slice_equal(pair.name, SLICE("limit")) &&
            !(is_text && parse_limit(value, &poll->limit)))
            return ERROR_LIMIT;
        if (slice_equal(pair.name, SLICE("view"))) {
            if (!is_text || strcmp(value, "full") != 0)
                return ERROR_VIEW;
            ask->is_full = true;
        }
    }
    return HTTP_NO_ERROR;
}

void poll_handle(struct exchange *exchange, struct slice channel, struct slice query) {
    struct ask *ask = ask_of(exchange);
    uint64_t sleep_ms;
    enum http_error error = parse(query, ask, &sleep_ms);
    if (error) {
        reply_error(exchange, error);
        return;
    }
    ask->poll.may_wait = sleep_ms && !exchange->is_head && !api.is_draining;
    if (ask->poll.may_wait)
        exchange_wait(exchange, sleep_ms);
    log_debug("poll", "channel", log_secret(channel).text, "sleep_ms", log_number(sleep_ms).text,
              NULL);
    if (!inbox_poll(api.inbox, channel, &ask->poll))
        reply_error(exchange, ERROR_BUSY);
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

static struct reply *build_reply(struct exchange *exchange, const struct answer *answer) {
    struct lines lines = header_lines(exchange, answer);
    return page_reply(answer, ask_of(exchange)->is_full, exchange_flags(exchange),
                      lines_slice(&lines));
}

/* The reply to an answer without updates. Polls whose time is over together often get the same
 * bytes, whatever their channel; for a second, as they tell the date. */
static struct reply *empty_reply(struct exchange *exchange, const struct answer *answer,
                                 unsigned kind) {
    static struct reply *last;
    static uint64_t last_ts, last_total;
    static unsigned last_kind;
    static time_t made_at;
    time_t now = time(NULL);
    if (last && last_ts == answer->ts && last_total == answer->total && last_kind == kind &&
        made_at == now)
        return reply_ref(last);
    struct reply *reply = build_reply(exchange, answer);
    if (!reply)
        return NULL;
    if (last)
        reply_unref(last);
    last = reply_ref(reply);
    last_ts = answer->ts;
    last_total = answer->total;
    last_kind = kind;
    made_at = now;
    return reply;
}

/* Whether polls that get the same answer get the same reply. With a rate limit, each client's
 * headers are its own. */
static bool is_shareable(unsigned flags) {
    return !api.limiter && !(flags & REPLY_HEAD);
}

static unsigned memo_of(struct exchange *exchange, unsigned flags) {
    return (flags & REPLY_CLOSE ? MEMO_CLOSE : 0) | (ask_of(exchange)->is_full ? MEMO_FULL : 0);
}

/* NULL when memory is out. */
static struct reply *find_reply(struct exchange *exchange, struct answer *answer) {
    unsigned flags = exchange_flags(exchange), kind = memo_of(exchange, flags);
    if (!is_shareable(flags))
        return build_reply(exchange, answer);
    if (!answer->count && !answer->missed && !answer->reset)
        return empty_reply(exchange, answer, kind);
    if (!answer->memos[kind])
        answer->memos[kind] = build_reply(exchange, answer);
    return answer->memos[kind] ? reply_ref(answer->memos[kind]) : NULL;
}

/* The same for a large page, which is being written. */
static struct large_page *find_page(struct exchange *exchange, struct answer *answer) {
    unsigned flags = exchange_flags(exchange), kind = MEMO_LARGE | memo_of(exchange, flags);
    bool is_shared = is_shareable(flags);
    if (is_shared && answer->memos[kind])
        return answer->memos[kind];
    struct lines lines = header_lines(exchange, answer);
    struct large_page *page = large_page_begin(answer, ask_of(exchange)->is_full, flags, &lines);
    if (is_shared)
        answer->memos[kind] = page;
    return page;
}

void poll_reply(struct exchange *exchange, struct reply *reply, uint32_t count) {
    /* What the socket does not take must fit. */
    if (!reply || (!reply->pending && !budget_has_for_one(reply->len + CONN_SENDING_MAX_BYTES))) {
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
    struct exchange *exchange = ask_exchange(container_of(poll, struct ask, poll));
    if (answer->error) {
        reply_store_error(exchange, answer->error);
    } else if (is_large(exchange, answer)) {
        struct large_page *page = find_page(exchange, answer);
        if (page)
            large_page_await(page, exchange);
        else
            reply_error(exchange, ERROR_BUSY);
    } else {
        poll_reply(exchange, find_reply(exchange, answer), answer->count);
    }
}

void poll_answer_end(struct answer *answer) {
    for (int i = 0; i < MEMO_LARGE; i++)
        if (answer->memos[i])
            reply_unref(answer->memos[i]);
}
