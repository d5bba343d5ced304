#include "api/poll.h"
#include "api/api.h"
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

enum { MEMO_CLOSE = 1, MEMO_FULL = 2 };

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

/* Writes an answer's JSON up to its updates. */
static void write_opening(struct buf *out, const struct answer *answer) {
    buf_puts(out, "{\"ok\":true,\"ts\":");
    buf_put_number(out, answer->ts);
    if (answer->missed) {
        buf_puts(out, ",\"missed\":");
        buf_put_number(out, answer->missed);
    }
    if (answer->reset)
        buf_puts(out, ",\"reset\":true");
    buf_puts(out, ",\"updates\":[");
}

static struct reply *build_plain(const struct answer *answer, unsigned flags,
                                 struct slice headers) {
    char text[128]; /* enough for every opening */
    struct buf opening = {.data = text, .cap = sizeof text, .is_borrowed = true};
    write_opening(&opening, answer);
    size_t len = opening.len + 2 + (answer->count ? answer->count - 1 : 0);
    for (uint32_t i = 0; i < answer->count; i++)
        len += answer->updates[i]->body_len;
    char *at;
    struct reply *reply = reply_new_uninitialized(HTTP_OK, flags, REPLY_JSON, headers, len, &at);
    if (!reply || !at)
        return reply;
    at = (char *)memcpy(at, text, opening.len) + opening.len;
    for (uint32_t i = 0; i < answer->count; i++) {
        if (i)
            *at++ = ',';
        struct slice body = update_body(answer->updates[i]);
        at = (char *)memcpy(at, body.data, body.len) + body.len;
    }
    memcpy(at, "]}", 2);
    return reply;
}

static void write_known(struct buf *out, const char *name, struct slice value) {
    if (!value.len)
        return;
    buf_puts(out, name);
    json_write_string(out, value);
}

static void write_full(struct buf *out, const struct update *update) {
    struct slice headers = update_headers(update), body = update_body(update),
                 raw = update_raw(update);
    buf_puts(out, "{\"ts\":");
    buf_put_number(out, update->ts);
    buf_printf(out, ",\"at\":%" PRId64 ",\"method\":", update->at_ms);
    struct origin origin = update_origin(update);
    json_write_string(out, origin.method);
    write_known(out, ",\"path\":", origin.path);
    write_known(out, ",\"from\":", origin.from);
    buf_puts(out, ",\"query\":");
    json_write_string(out, update_query(update));
    buf_puts(out, ",\"headers\":");
    if (headers.len)
        buf_append(out, headers.data, headers.len);
    else
        buf_puts(out, "{}");
    buf_puts(out, ",\"body\":");
    buf_append(out, body.data, body.len);
    if (utf8_is_valid(raw)) {
        buf_puts(out, ",\"raw\":");
        json_write_string(out, raw);
    } else {
        buf_puts(out, ",\"raw_base64\":");
        json_write_base64(out, raw);
    }
    buf_putc(out, '}');
}

static struct reply *build_full(const struct answer *answer, unsigned flags, struct slice headers) {
    struct buf body = {0};
    write_opening(&body, answer);
    for (uint32_t i = 0; i < answer->count; i++) {
        if (i)
            buf_putc(&body, ',');
        write_full(&body, answer->updates[i]);
    }
    buf_puts(&body, "]}");
    struct reply *reply = NULL;
    if (!body.failed)
        reply = reply_new(HTTP_OK, flags, REPLY_JSON, headers, (struct slice){body.data, body.len});
    buf_deinit(&body);
    return reply;
}

static struct reply *build_reply(struct exchange *exchange, const struct answer *answer) {
    struct lines lines = {.len = 0};
    lines_add(&lines, "X-Total-Updates", answer->total);
    lines_add_limit(&lines, exchange);
    unsigned flags = exchange_flags(exchange);
    return ask_of(exchange)->is_full ? build_full(answer, flags, lines_slice(&lines))
                                     : build_plain(answer, flags, lines_slice(&lines));
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

/* NULL when memory is out. With a rate limit, each client's headers are its own. */
static struct reply *find_reply(struct exchange *exchange, struct answer *answer) {
    unsigned flags = exchange_flags(exchange);
    if (api.limiter || flags & REPLY_HEAD)
        return build_reply(exchange, answer);
    unsigned kind =
        (flags & REPLY_CLOSE ? MEMO_CLOSE : 0) | (ask_of(exchange)->is_full ? MEMO_FULL : 0);
    if (!answer->count && !answer->missed && !answer->reset)
        return empty_reply(exchange, answer, kind);
    if (!answer->memos[kind])
        answer->memos[kind] = build_reply(exchange, answer);
    return answer->memos[kind] ? reply_ref(answer->memos[kind]) : NULL;
}

void poll_done(struct poll *poll, struct answer *answer) {
    struct exchange *exchange = ask_exchange(container_of(poll, struct ask, poll));
    if (answer->error) {
        reply_store_error(exchange, answer->error);
        return;
    }
    struct reply *reply = find_reply(exchange, answer);
    /* What the socket does not take must fit. */
    if (!reply || (!reply->pending && !budget_has(reply->len + CONN_SENDING_MAX_BYTES))) {
        if (reply)
            reply_unref(reply);
        reply_error(exchange, ERROR_BUSY);
        return;
    }
    counters.polls++;
    counters.updates_delivered += answer->count;
    exchange_reply(exchange, reply);
}

void poll_answer_end(struct answer *answer) {
    for (int i = 0; i < ANSWER_MEMOS; i++)
        if (answer->memos[i])
            reply_unref(answer->memos[i]);
}
