#include "api/push.h"
#include "api/api.h"
#include "api/make_update.h"
#include "api/replies.h"
#include "base/log.h"
#include "http/budget.h"

void push_handle(struct exchange *exchange, const struct request *request, struct slice channel,
                 struct slice query) {
    /* The body is counted already; its update may take twice as much while it is made. */
    if (!budget_has(2 * (size_t)request->body.len)) {
        reply_error(exchange, ERROR_BUSY);
        return;
    }
    struct update *update;
    enum http_error error = make_update(request, query, api.capture_headers, &update);
    if (error) {
        reply_error(exchange, error);
        return;
    }
    size_t size = update_size(update);
    struct ask *ask = ask_of(exchange);
    ask->push = inbox_push(api.inbox, channel, update, exchange);
    if (!ask->push)
        reply_error(exchange, ERROR_BUSY);
    else
        budget_take(size);
    log_debug("push", "channel", log_secret(channel).text, "bytes", log_number(size).text, NULL);
}

void push_done(void *owner, const struct store_append *push) {
    budget_give(store_append_size(push));
    struct exchange *exchange = owner;
    if (!exchange)
        return;
    ask_of(exchange)->push = NULL;
    if (push->error) {
        reply_store_error(exchange, push->error);
        return;
    }
    struct lines lines = {.len = 0};
    lines_add(&lines, "X-Total-Updates", push->updates[push->count - 1]->ts);
    lines_add_limit(&lines, exchange);
    reply_with(exchange, HTTP_OK, REPLY_TEXT, lines_slice(&lines), SLICE("OK"));
}
