#include "api/push.h"
#include "api/api.h"
#include "api/batch.h"
#include "api/handshake.h"
#include "api/make_update.h"
#include "api/refusals.h"
#include "api/replies.h"
#include "api/wish.h"
#include "base/log.h"
#include "http/budget.h"

#include <stdlib.h>

static size_t wanted_size(const struct wanted *wanted) {
    return sizeof *wanted + wanted->lines.cap + wanted->text.cap;
}

/* Sets what a handshake wants to hear, NULL if it is none. False when memory is out. */
static bool read_handshake(const struct request *request, struct slice query,
                           struct wanted **wanted) {
    struct wanted read = {0};
    *wanted = NULL;
    if (!handshake_read(request, query, &read))
        return true;
    if (!wanted_failed(&read))
        *wanted = malloc(sizeof **wanted);
    if (!*wanted) {
        wanted_deinit(&read);
        return false;
    }
    **wanted = read;
    budget_take(wanted_size(*wanted));
    return true;
}

void push_drop_wanted(struct ask *ask) {
    if (!ask->wanted)
        return;
    budget_give(wanted_size(ask->wanted));
    wanted_deinit(ask->wanted);
    free(ask->wanted);
    ask->wanted = NULL;
}

bool push_is_handshake(const struct request *request, struct slice query) {
    struct wanted wanted = {0};
    bool found = handshake_read(request, query, &wanted);
    wanted_deinit(&wanted);
    return found;
}

static void refuse(struct exchange *exchange, struct slice channel, enum http_error error) {
    push_drop_wanted(ask_of(exchange));
    refusals_note(channel, error);
    reply_error(exchange, error);
}

/* Hands the update to the inbox. */
static void push(struct exchange *exchange, struct slice channel, struct update *update) {
    size_t size = update_size(update) + PUSH_BYTES;
    struct ask *ask = ask_of(exchange);
    if (!budget_has(size)) {
        update_unref(update);
        refuse(exchange, channel, ERROR_BUSY);
        return;
    }
    ask->push = inbox_push(api.inbox, channel, update, exchange);
    if (ask->push)
        budget_take(size);
    else
        refuse(exchange, channel, ERROR_BUSY);
    log_debug("push", "channel", log_secret(channel).text, "bytes", log_number(size).text, NULL);
}

static enum http_error make(const struct request *request, const struct payload *payload,
                            const struct sent *sent, struct exchange *exchange,
                            struct update **update) {
    /* The body is counted already; its update may take twice as much while it is made. */
    if (!budget_has(2 * payload->bytes.len))
        return ERROR_BUSY;
    enum http_error error = make_update(request, payload, sent, api.capture_headers, update);
    if (!error && !read_handshake(request, sent->query, &ask_of(exchange)->wanted)) {
        update_unref(*update);
        error = ERROR_BUSY;
    }
    return error;
}

void push_handle(struct exchange *exchange, const struct request *request, struct slice channel,
                 const struct sent *sent) {
    struct payload payload;
    struct update *update;
    enum http_error error = payload_read(&payload, request, request->body_max_bytes);
    bool is_batch = batch_is_type(payload.content_type);
    if (!error && !is_batch)
        error = make(request, &payload, sent, exchange, &update);
    if (error)
        refuse(exchange, channel, error);
    else if (is_batch)
        batch_handle(exchange, request, channel, sent);
    else
        push(exchange, channel, update);
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

void push_done(void *owner, const struct store_append *push) {
    budget_give(store_append_size(push) + PUSH_BYTES);
    bool is_batch = store_append_is_batch(push);
    if (is_batch)
        batch_done(push->count, !push->error);
    if (push->error)
        refusals_note((struct slice){push->name, push->name_len}, store_http_error(push->error));
    struct exchange *exchange = owner;
    if (!exchange)
        return;
    ask_of(exchange)->push = NULL;
    if (push->error) {
        push_drop_wanted(ask_of(exchange));
        reply_store_error(exchange, push->error);
        return;
    }
    struct lines lines = {.len = 0};
    lines_add(&lines, "X-Total-Updates", push->updates[push->count - 1]->ts);
    if (is_batch)
        lines_add(&lines, "X-Updates", push->count);
    lines_add_limit(&lines, exchange);
    struct wanted wanted = {0};
    struct ask *ask = ask_of(exchange);
    bool is_wanted = true;
    if (ask->wanted) { /* taken over: the next request may begin while this one is replied to */
        budget_give(wanted_size(ask->wanted));
        wanted = *ask->wanted;
        free(ask->wanted);
        ask->wanted = NULL;
    } else
        is_wanted = wish_read(update_query(push->updates[0]), &wanted);
    if (is_wanted)
        reply_wanted(exchange, &lines, &wanted);
    else
        reply_with(exchange, HTTP_OK, REPLY_TEXT, lines_slice(&lines), SLICE("OK"));
    wanted_deinit(&wanted);
}
