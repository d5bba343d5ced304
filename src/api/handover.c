#include "api/handover.h"
#include "api/api.h"
#include "api/feed.h"
#include "api/many.h"
#include "api/poll.h"
#include "api/replies.h"
#include "api/stream.h"
#include "base/counters.h"
#include "base/turn.h"

#include <stdlib.h>

/* What is saved; a number in the file. */
enum saved { SAVED_POLL, SAVED_STREAM, SAVED_MANY, SAVED_LATE_STREAM };

/* What is true of a poll; the order is that of the file. */
enum flag {
    FLAG_FULL = 1,
    FLAG_BEGUN = 2,
    FLAG_WAIT = 4,
    FLAG_EPOCH = 8,
    FLAG_POSITION = 16,
    FLAG_CONFIRMS = 32,
    FLAG_CONFIRMS_NOW = 64,
    FLAG_PARKED = 128,
    FLAG_ALL = 255,
};

/* A stream that goes on later: what was saved of it, behind the number that says what it is. Until
 * then its channel goes on without it, so what was known of that says nothing any more. */
struct later {
    struct turn_task task;
    struct exchange *exchange;
    size_t len;
    char saved[];
};

/* --- Saving ----------------------------------------------------------------------------------- */

bool handover_is_quiet(void) {
    return !inbox_is_writing(api.inbox);
}

bool handover_can_save(const struct exchange *exchange) {
    const struct ask *ask = ask_of((struct exchange *)exchange);
    switch (ask->kind) {
    case ASK_UPDATES: return inbox_can_take_out(api.inbox, &ask->poll);
    case ASK_STREAM:
        return inbox_can_take_out(api.inbox, &ask->poll) && !exchange_is_busy(exchange);
    case ASK_STREAM_LATER: return !turn_is_due(&ask->later->task);
    case ASK_MANY: return many_can_save(ask->many);
    default: return false;
    }
}

static unsigned flags_of(const struct ask *ask) {
    const struct poll *poll = &ask->poll;
    return (ask->is_full ? FLAG_FULL : 0) | (ask->has_begun ? FLAG_BEGUN : 0) |
           (poll->may_wait ? FLAG_WAIT : 0) | (poll->wants_epoch ? FLAG_EPOCH : 0) |
           (poll->has_position ? FLAG_POSITION : 0) | (poll->confirms ? FLAG_CONFIRMS : 0) |
           (poll->confirms_now ? FLAG_CONFIRMS_NOW : 0) | (poll->was_parked ? FLAG_PARKED : 0);
}

void handover_save_place(const struct poll_place *place, struct pack *out) {
    pack_bytes(out, (struct slice){place->channel, place->channel_len});
    pack_bytes(out, (struct slice){place->consumer, place->consumer_len});
    pack_number(out, place->is_gone);
    pack_number(out, place->confirmed);
    pack_number(out, place->is_known);
    pack_number(out, place->total);
    pack_number(out, place->epoch);
}

static void save_poll(struct ask *ask, struct pack *out) {
    struct poll *poll = &ask->poll;
    struct poll_place place;
    inbox_take_out(api.inbox, poll, &place);
    pack_number(out, flags_of(ask));
    pack_number(out, ask->feed);
    pack_number(out, ask->beats);
    pack_number(out, pack_signed(poll->ts));
    pack_number(out, poll->epoch);
    pack_number(out, poll->limit);
    pack_number(out, poll->skipped);
    pack_bytes(out, poll->filter ? filter_text(poll->filter) : SLICE(""));
    handover_save_place(&place, out);
}

void handover_save(struct exchange *exchange, struct pack *out) {
    struct ask *ask = ask_of(exchange);
    if (ask->kind == ASK_STREAM_LATER) {
        pack_number(out, SAVED_LATE_STREAM);
        pack_raw(out, ask->later->saved, ask->later->len);
        handover_cancel(exchange);
        return;
    }
    pack_number(out, ask->kind == ASK_MANY     ? SAVED_MANY
                     : ask->kind == ASK_STREAM ? SAVED_STREAM
                                               : SAVED_POLL);
    pack_number(out, pack_signed(ask->quota));
    if (ask->kind == ASK_MANY) {
        many_save(ask->many, out);
    } else if (ask->kind == ASK_STREAM) {
        save_poll(ask, out);
        stream_cancel(exchange);
    } else {
        save_poll(ask, out);
        poll_forget(ask);
    }
}

/* --- Restoring -------------------------------------------------------------------------------- */

void handover_read_place(struct unpack *in, struct poll_place *place) {
    struct slice channel = unpack_bytes(in), consumer = unpack_bytes(in);
    in->failed |= !channel.len || channel.len > sizeof place->channel ||
                  consumer.len > sizeof place->consumer;
    if (in->failed)
        return;
    place->is_gone = unpack_up_to(in, 1);
    place->confirmed = unpack_number(in);
    place->is_known = unpack_up_to(in, 1);
    place->total = unpack_number(in);
    place->epoch = unpack_number(in);
    place->channel_len = (uint16_t)channel.len;
    place->consumer_len = (uint8_t)consumer.len;
    memcpy(place->channel, channel.data, channel.len);
    memcpy(place->consumer, consumer.data, consumer.len);
}

/* Sets what the exchange asks; an error when there is no room for its filter. */
static enum http_error read_poll(struct ask *ask, bool is_stream, struct unpack *in,
                                 struct poll_place *place) {
    uint64_t flags = unpack_up_to(in, FLAG_ALL);
    ask->feed = unpack_up_to(in, FEED_LINES) & 3;
    ask->beats = (uint8_t)unpack_up_to(in, STREAM_BEATS);
    ask->is_full = flags & FLAG_FULL;
    ask->has_begun = flags & FLAG_BEGUN;
    ask->is_beat = false;
    ask->kind = is_stream ? ASK_STREAM : ASK_UPDATES;
    struct poll *poll = &ask->poll;
    *poll = (struct poll){0};
    poll->ts = unpack_signed(unpack_number(in));
    poll->epoch = unpack_number(in);
    poll->limit = (uint16_t)unpack_up_to(in, READ_MAX_UPDATES);
    poll->skipped = (uint32_t)unpack_up_to(in, UINT32_MAX);
    poll->may_wait = flags & FLAG_WAIT || (is_stream && ask->has_begun);
    poll->wants_epoch = flags & FLAG_EPOCH;
    poll->has_position = flags & FLAG_POSITION;
    poll->confirms = flags & FLAG_CONFIRMS;
    poll->confirms_now = flags & FLAG_CONFIRMS_NOW;
    poll->was_parked = flags & FLAG_PARKED;
    poll->is_stream = is_stream;
    struct slice where = unpack_bytes(in);
    handover_read_place(in, place);
    in->failed |= !poll->limit || ask->has_begun != exchange_has_begun(ask_exchange(ask)) ||
                  (ask->has_begun && !is_stream);
    struct buf text = {.data = (char *)where.data, .len = where.len, .is_borrowed = true};
    return in->failed ? HTTP_NO_ERROR : poll_filter(&text, &poll->filter);
}

/* One that has begun ends: its client asks again. */
static void fail(struct exchange *exchange, enum http_error error) {
    struct ask *ask = ask_of(exchange);
    bool has_begun = ask->has_begun;
    if (ask->kind == ASK_STREAM)
        stream_cancel(exchange);
    else
        poll_forget(ask);
    if (has_begun)
        exchange_end(exchange);
    else
        reply_error(exchange, error);
}

static bool restore_poll(struct exchange *exchange, enum saved kind, struct unpack *in) {
    struct ask *ask = ask_of(exchange);
    struct poll_place place;
    enum http_error error = read_poll(ask, kind != SAVED_POLL, in, &place);
    if (in->failed) {
        ask->kind = ASK_NOTHING;
        return false;
    }
    place.is_known &= kind != SAVED_LATE_STREAM;
    counters.streams += ask->has_begun;
    if (error || !inbox_put_back(api.inbox, &ask->poll, &place))
        fail(exchange, error ? error : ERROR_BUSY);
    return true;
}

static bool restore_now(struct exchange *exchange, enum saved kind, struct unpack *in) {
    ask_of(exchange)->quota = (int32_t)unpack_signed(unpack_number(in));
    if (kind == SAVED_MANY)
        return !exchange_has_begun(exchange) && many_restore(exchange, in);
    return restore_poll(exchange, kind, in);
}

/* --- Streams that go on later ----------------------------------------------------------------- */

static void free_later(struct ask *ask) {
    turn_cancel(&ask->later->task);
    free(ask->later);
    ask->kind = ASK_NOTHING;
    counters.streams--;
}

/* turn_task */
static void on_turn_end(struct turn_task *task) {
    struct later *later = container_of(task, struct later, task);
    struct exchange *exchange = later->exchange;
    ask_of(exchange)->kind = ASK_NOTHING;
    counters.streams--; /* restore_now() counts it */
    uint8_t beats = ask_of(exchange)->beats;
    struct unpack in = unpack_of((struct slice){later->saved, later->len});
    if (!restore_now(exchange, SAVED_LATE_STREAM, &in))
        exchange_end(exchange);
    else if (ask_of(exchange)->beats < beats)
        ask_of(exchange)->beats = beats;
    free(later);
}

static bool restore_later(struct exchange *exchange, struct slice saved) {
    struct ask *ask = ask_of(exchange);
    struct later *later = malloc(sizeof *later + saved.len);
    if (!later)
        return false;
    *later = (struct later){.exchange = exchange, .len = saved.len};
    turn_task_init(&later->task, on_turn_end);
    memcpy(later->saved, saved.data, saved.len);
    ask->later = later;
    ask->kind = ASK_STREAM_LATER;
    counters.streams++;
    return true;
}

bool handover_restore(struct exchange *exchange, struct slice saved) {
    struct unpack in = unpack_of(saved);
    enum saved kind = unpack_up_to(&in, SAVED_LATE_STREAM) & 3;
    if (!exchange_unsent(exchange))
        return restore_now(exchange, kind, &in);
    bool is_stream = kind == SAVED_STREAM || kind == SAVED_LATE_STREAM;
    return is_stream && restore_later(exchange, (struct slice){in.at, (size_t)(in.end - in.at)});
}

void handover_sent(struct exchange *exchange) {
    struct later *later = ask_of(exchange)->later;
    turn_end(&later->task); /* not here: it may have something to send */
}

void handover_expire(struct exchange *exchange) {
    struct ask *ask = ask_of(exchange);
    if (!api.is_draining && ++ask->beats < STREAM_BEATS) {
        exchange_wait(exchange, STREAM_BEAT_MS);
        return;
    }
    free_later(ask);
    exchange_end(exchange);
}

void handover_cancel(struct exchange *exchange) {
    free_later(ask_of(exchange));
}
