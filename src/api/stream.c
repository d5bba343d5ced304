#include "api/stream.h"
#include "api/api.h"
#include "api/feed.h"
#include "api/page.h"
#include "api/poll.h"
#include "base/counters.h"
#include "http/budget.h"

/* --- The end ---------------------------------------------------------------------------------- */

static void forget(struct ask *ask) {
    counters.streams -= ask->has_begun;
    ask->has_begun = false;
    poll_forget(ask);
}

static void end(struct exchange *exchange) {
    forget(ask_of(exchange));
    exchange_end(exchange);
}

void stream_cancel(struct exchange *exchange) {
    forget(ask_of(exchange));
}

/* One that has not begun gets the error, any other ends: its client asks again. */
static void fail(struct exchange *exchange, enum http_error error) {
    if (ask_of(exchange)->has_begun) {
        end(exchange);
        return;
    }
    forget(ask_of(exchange));
    reply_error(exchange, error);
}

/* --- The beginning ---------------------------------------------------------------------------- */

static struct page_form form_of(const struct ask *ask) {
    return (struct page_form){
        .is_full = ask->is_full, .has_epoch = ask->poll.wants_epoch, .feed = ask->feed};
}

static unsigned part_flags(const struct exchange *exchange) {
    return exchange->is_1_1 ? REPLY_CHUNKED : 0;
}

static struct reply *build_head(struct exchange *exchange, const struct answer *answer) {
    struct ask *ask = ask_of(exchange);
    struct page_form form = form_of(ask);
    struct lines lines = {.len = 0};
    lines_add(&lines, "X-Total-Updates", answer->total);
    lines_add_limit(&lines, exchange);
    char text[256];
    struct buf opening = {.data = text, .cap = sizeof text, .is_borrowed = true};
    feed_write_opening(&opening, answer, &form);
    struct reply *head = NULL;
    if (!opening.failed)
        head = reply_new_stream(exchange_flags(exchange) | part_flags(exchange),
                                feed_content_type(ask->feed), lines_slice(&lines),
                                (struct slice){opening.data, opening.len});
    buf_deinit(&opening);
    return head;
}

/* False when it ends with that. */
static bool begin(struct exchange *exchange, const struct answer *answer) {
    struct ask *ask = ask_of(exchange);
    struct reply *head = build_head(exchange, answer);
    if (!head || !budget_has_for_one(head->len + CONN_SENDING_MAX_BYTES)) {
        if (head)
            reply_unref(head);
        fail(exchange, ERROR_BUSY);
        return false;
    }
    counters.polls++;
    if (exchange->is_head) {
        forget(ask);
        exchange_reply(exchange, head);
        return false;
    }
    ask->has_begun = true;
    ask->beats = 0;
    counters.streams++;
    exchange_wait(exchange, STREAM_BEAT_MS);
    return exchange_begin(exchange, head);
}

/* --- Parts ------------------------------------------------------------------------------------ */

/* Which memo of an answer: streams that want the same share it. */
static unsigned memo_of(const struct exchange *exchange, bool is_large) {
    const struct ask *ask = ask_of((struct exchange *)exchange);
    return (is_large ? MEMO_STREAM_PAGES : MEMO_STREAMS) | (ask->is_full ? 1 : 0) |
           (ask->poll.wants_epoch ? 2 : 0) | (ask->feed == FEED_LINES ? 4 : 0) |
           (exchange->is_1_1 ? 8 : 0);
}

/* NULL when memory is out. */
static struct reply *find_part(struct exchange *exchange, struct answer *answer) {
    unsigned kind = memo_of(exchange, false);
    struct page_form form = form_of(ask_of(exchange));
    if (!answer->memos[kind])
        answer->memos[kind] = page_part(answer, &form, part_flags(exchange));
    return answer->memos[kind] ? reply_ref(answer->memos[kind]) : NULL;
}

static struct large_page *find_page(struct exchange *exchange, struct answer *answer) {
    unsigned kind = memo_of(exchange, true);
    struct page_form form = form_of(ask_of(exchange));
    struct lines none = {.len = 0};
    if (!answer->memos[kind])
        answer->memos[kind] = large_page_begin(answer, &form, part_flags(exchange), &none);
    return answer->memos[kind];
}

/* Sends a part, and lets the stream go on. */
static void put_part(struct exchange *exchange, struct reply *part) {
    if (!part)
        end(exchange);
    else if (exchange_part(exchange, part, false))
        stream_sent(exchange);
}

/* Sends the answer, and lets the stream go on. */
static void put_answer(struct exchange *exchange, struct answer *answer) {
    struct ask *ask = ask_of(exchange);
    bool is_large = page_is_large(answer, ask->is_full) && !answer->memos[memo_of(exchange, false)];
    struct large_page *page = is_large ? find_page(exchange, answer) : NULL;
    struct reply *part = is_large ? NULL : find_part(exchange, answer);
    if (page || part) {
        inbox_confirm_answer(api.inbox, &ask->poll, answer);
        counters.updates_delivered += answer->count;
    }
    if (page)
        large_page_await(page, exchange);
    else
        put_part(exchange, part);
}

void stream_page_written(struct exchange *exchange, struct reply *part) {
    ask_of(exchange)->kind = ASK_STREAM;
    put_part(exchange, part);
}

void stream_done(struct ask *ask, struct answer *answer) {
    struct exchange *exchange = ask_exchange(ask);
    if (answer->error) {
        fail(exchange, store_http_error(answer->error));
        return;
    }
    bool is_first = !ask->has_begun, is_beat = ask->is_beat;
    ask->is_beat = false;
    if (is_first && !begin(exchange, answer))
        return;
    ask->poll.ts = (int64_t)answer->ts;
    ask->poll.epoch = ask->poll.wants_epoch ? answer->epoch : 0;
    bool says_more = answer->count || answer->missed || answer->reset;
    if (says_more || is_beat || (answer->skipped && !is_first))
        put_answer(exchange, answer);
    else
        stream_sent(exchange); /* the head has said it; or the store is away */
}

/* --- Going on --------------------------------------------------------------------------------- */

/* Whether it must wait until the socket has taken what there is. */
static bool is_full_up(const struct exchange *exchange, const struct poll *poll) {
    uint32_t unsent = exchange_unsent(exchange);
    return unsent > CONN_STREAM_MAX_BYTES || (unsent && inbox_is_behind(poll));
}

void stream_sent(struct exchange *exchange) {
    struct ask *ask = ask_of(exchange);
    if (ask->kind != ASK_STREAM || ask->poll.state != POLL_HELD)
        return;
    if (api.is_draining) {
        end(exchange);
    } else if (!is_full_up(exchange, &ask->poll)) {
        ask->poll.may_wait = true;
        inbox_poll_again(api.inbox, &ask->poll); /* which may end it */
    }
}

/* A heartbeat of a stream whose poll is at work. */
static void beat(struct exchange *exchange) {
    char text[8];
    struct buf out = {.data = text, .cap = sizeof text, .is_borrowed = true};
    feed_write_heartbeat(&out, ask_of(exchange)->feed);
    struct reply *part = reply_new_part((struct slice){out.data, out.len}, part_flags(exchange));
    if (part)
        exchange_part(exchange, part, true);
}

void stream_expire(struct exchange *exchange) {
    struct ask *ask = ask_of(exchange);
    if (api.is_draining || ++ask->beats == STREAM_BEATS) {
        end(exchange);
        return;
    }
    exchange_wait(exchange, STREAM_BEAT_MS);
    if (exchange_unsent(exchange) || exchange_is_busy(exchange))
        return; /* it is not silent */
    if (ask->poll.state == POLL_PARKED) {
        ask->is_beat = true;
        inbox_expire(api.inbox, &ask->poll, false);
    } else {
        beat(exchange);
    }
}
