#include "api/push.h"
#include "api/api.h"
#include "api/batch.h"
#include "api/handshake.h"
#include "api/large_push.h"
#include "api/make_update.h"
#include "api/replies.h"
#include "api/wish.h"
#include "base/log.h"
#include "http/budget.h"

#include <stdlib.h>

static size_t wanted_size(const struct wanted *wanted) {
    return sizeof *wanted + wanted->lines.cap + wanted->text.cap;
}

/* Sets what a handshake wants to hear, NULL if it is none. */
static enum http_error read_handshake(const struct request *request, struct slice query,
                                      struct wanted **wanted) {
    struct wanted read = {0};
    *wanted = NULL;
    if (!handshake_read(request, query, &read))
        return HTTP_NO_ERROR;
    if (!wanted_failed(&read))
        *wanted = malloc(sizeof **wanted);
    if (!*wanted) {
        wanted_deinit(&read);
        return ERROR_BUSY;
    }
    **wanted = read;
    budget_take(wanted_size(*wanted));
    return HTTP_NO_ERROR;
}

void push_forget(struct ask *ask) {
    ask->kind = ASK_NOTHING;
    if (!ask->wanted)
        return;
    budget_give(wanted_size(ask->wanted));
    wanted_deinit(ask->wanted);
    free(ask->wanted);
}

bool push_is_handshake(const struct request *request, struct slice query) {
    struct wanted wanted = {0};
    bool found = handshake_read(request, query, &wanted);
    wanted_deinit(&wanted);
    return found;
}

void push_refuse(struct exchange *exchange, const struct refusal *refusal) {
    push_forget(ask_of(exchange));
    refusals_note(refusal);
    reply_error_in(exchange, refusal->line, refusal->error);
}

struct refusal push_refusal(const struct request *request, struct slice channel,
                            const struct sent *sent, enum http_error error) {
    struct slice method = slice_of(llhttp_method_name(request->parser.method));
    return (struct refusal){
        .channel = channel,
        .origin = {.method = method, .from = sent->from, .path = sent->path},
        .error = error,
        .body_bytes = request->body.len,
    };
}

void push_made(struct exchange *exchange, struct slice channel, struct update *update,
               const struct delivery *delivery) {
    size_t size = update_size(update) + PUSH_BYTES + (delivery->has_id ? sizeof *delivery : 0);
    struct ask *ask = ask_of(exchange);
    ask->push = NULL;
    if (budget_has(size))
        ask->push = inbox_push(api.inbox, channel, update_ref(update),
                               delivery->has_id ? delivery : NULL, exchange);
    if (ask->push) {
        budget_take(size);
    } else {
        struct refusal refusal = {channel, update_origin(update), ERROR_BUSY,
                                  .body_bytes = (int64_t)update_raw(update).len};
        push_refuse(exchange, &refusal);
    }
    update_unref(update);
    log_debug("push", "channel", log_secret(channel).text, "bytes", log_number(size).text, NULL);
}

/* Handles one that is neither large nor a batch. */
static void handle_ordinary(struct exchange *exchange, const struct request *request,
                            struct slice channel, const struct sent *sent,
                            const struct payload *payload) {
    struct update *update;
    struct delivery delivery;
    enum http_error error = ERROR_BUSY;
    /* The body is counted already; its update may take twice as much while it is made. */
    if (budget_has(2 * payload->bytes.len))
        error = make_update(request, payload, sent, api.capture_headers, &update, &delivery);
    if (error) {
        struct refusal refusal = push_refusal(request, channel, sent, error);
        push_refuse(exchange, &refusal);
    } else
        push_made(exchange, channel, update, &delivery);
}

/* Inflates the payload, or finds that it is large. */
static enum http_error inflate_small(struct payload *payload, size_t max, bool *is_large) {
    size_t most = max < LARGE_PUSH_BYTES ? max : LARGE_PUSH_BYTES;
    enum http_error error = payload_inflate(payload, most);
    *is_large = error == ERROR_BODY_SIZE && most < max;
    return *is_large ? HTTP_NO_ERROR : error;
}

void push_handle(struct exchange *exchange, const struct request *request, struct slice channel,
                 const struct sent *sent) {
    struct ask *ask = ask_of(exchange);
    ask->kind = ASK_PUSH;
    ask->push = NULL;
    ask->wanted = NULL;
    struct payload payload = payload_of(request);
    bool is_batch = batch_is_type(payload.content_type) && !payload.is_opaque;
    bool is_large = payload.bytes.len > LARGE_PUSH_BYTES && (payload.codings.len || !is_batch);
    enum http_error error = HTTP_NO_ERROR;
    if (!is_large)
        error = inflate_small(&payload, request->body_max_bytes, &is_large);
    is_batch &= !payload.is_opaque;
    if (!error)
        error = read_handshake(request, sent->query, &ask->wanted);
    if (error) {
        struct refusal refusal = push_refusal(request, channel, sent, error);
        push_refuse(exchange, &refusal);
    } else if (is_large)
        large_push_handle(exchange, request, channel, sent, &payload);
    else if (is_batch)
        batch_handle(exchange, request, channel, sent, &payload);
    else
        handle_ordinary(exchange, request, channel, sent, &payload);
    payload_deinit(&payload);
}

/* Replies with what is wanted, and with our own header lines. The update is stored: when memory is
 * out, the reply is only a plain one. */
static void reply_wanted(struct exchange *exchange, const struct lines *lines,
                         struct wanted *wanted) {
    buf_append(&wanted->lines, lines->text, lines->len);
    if (wanted_failed(wanted))
        reply_with(exchange, HTTP_OK, REPLY_TEXT, lines_slice(lines), SLICE("OK"));
    else
        reply_with(exchange, wanted->status, wanted->content_type,
                   (struct slice){wanted->lines.data, wanted->lines.len},
                   (struct slice){wanted->text.data, wanted->text.len});
}

/* Notes that the store refused what was pushed. */
static void note_refused(const struct store_append *push) {
    struct refusal refusal = {
        .channel = {push->name, push->name_len},
        .origin = update_origin(push->updates[0]),
        .error = store_http_error(push->error),
    };
    for (uint32_t i = 0; i < push->count; i++)
        refusal.body_bytes += (int64_t)update_raw(push->updates[i]).len;
    refusals_note(&refusal);
}

/* The header lines that say what was stored. */
static struct lines result_lines(const struct store_append *push) {
    struct lines lines = {.len = 0};
    uint32_t stored = 0;
    uint64_t ts = push->updates[push->count - 1]->ts;
    for (uint32_t i = 0; i < push->count; i++) {
        if (!store_append_is_stored(push, i))
            continue;
        stored++;
        ts = push->updates[i]->ts;
    }
    lines_add(&lines, "X-Total-Updates", ts);
    if (store_append_is_batch(push))
        lines_add(&lines, "X-Updates", stored);
    else if (!stored)
        lines_add(&lines, "X-Duplicate", ts);
    return lines;
}

void push_done(void *owner, const struct store_append *push) {
    budget_give(store_append_size(push) + PUSH_BYTES);
    bool is_batch = store_append_is_batch(push);
    if (is_batch)
        batch_done(push->count, !push->error);
    if (push->error)
        note_refused(push);
    struct exchange *exchange = owner;
    if (!exchange)
        return;
    struct ask *ask = ask_of(exchange);
    if (push->error) {
        push_forget(ask);
        reply_store_error(exchange, push->error);
        return;
    }
    struct lines lines = result_lines(push);
    lines_add_limit(&lines, exchange);
    struct wanted wanted = {0};
    bool is_wanted = true;
    ask->kind = ASK_NOTHING; /* the next request may begin while this one is replied to */
    if (ask->wanted) {
        budget_give(wanted_size(ask->wanted));
        wanted = *ask->wanted;
        free(ask->wanted);
    } else
        is_wanted = wish_read(update_query(push->updates[0]), &wanted);
    if (is_wanted)
        reply_wanted(exchange, &lines, &wanted);
    else
        reply_with(exchange, HTTP_OK, REPLY_TEXT, lines_slice(&lines), SLICE("OK"));
    wanted_deinit(&wanted);
}
