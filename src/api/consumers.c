#include "api/consumers.h"
#include "api/api.h"
#include "api/poll.h"
#include "api/poll_query.h"
#include "base/clock.h"
#include "base/json.h"

#include <inttypes.h>
#include <stdlib.h>

void consumers_list(struct exchange *exchange, struct slice channel) {
    struct ask *ask = ask_of(exchange);
    ask->kind = ASK_CONSUMERS;
    ask->poll = (struct poll){.ts = POSITION_NOW, .limit = 1}; /* only the total is wanted */
    if (inbox_poll_consumers(api.inbox, channel, &ask->poll))
        return;
    poll_forget(ask);
    reply_error(exchange, ERROR_BUSY);
}

void consumers_forget(struct exchange *exchange, struct slice channel, struct slice query) {
    struct ask *ask = ask_of(exchange);
    struct poll_query asked;
    enum http_error error = poll_query_parse(&asked, query, clock_wall_ms);
    if (!error && !asked.name_len)
        error = ERROR_DELETE;
    ask->kind = ASK_FORGET;
    ask->poll = (struct poll){0};
    struct slice name = {asked.name, asked.name_len};
    if (!error && !inbox_forget_consumer(api.inbox, channel, name, &ask->poll))
        error = ERROR_BUSY;
    poll_query_deinit(&asked);
    if (!error)
        return;
    poll_forget(ask);
    reply_error(exchange, error);
}

/* A time of the store's clock by the wall clock. A restart may have taken the former back. */
static int64_t wall_time_of(int64_t store_ms) {
    if (store_is_shared(api.store))
        return store_ms;
    int64_t ago_ms = store_now_ms(api.store) - store_ms;
    return clock_wall_ms() - (ago_ms > 0 ? ago_ms : 0);
}

static void write_consumer(struct buf *body, const struct store_cursor *cursor, uint64_t total) {
    buf_puts(body, "{\"name\":");
    json_write_string(body, (struct slice){cursor->name, cursor->name_len});
    buf_printf(body, ",\"ts\":%" PRIu64 ",\"lag\":%" PRIu64 ",\"at\":%" PRId64 "}", cursor->ts,
               cursor->ts < total ? total - cursor->ts : 0, wall_time_of(cursor->used_ms));
}

static void write_list(struct ask *ask, const struct answer *answer, struct buf *body) {
    struct store_cursors cursors;
    if (!inbox_list_consumers(api.inbox, &ask->poll, &cursors)) {
        body->failed = true;
        return;
    }
    buf_printf(body, "{\"ok\":true,\"ts\":%" PRIu64 ",\"consumers\":[", answer->total);
    for (uint32_t i = 0; i < cursors.count; i++) {
        if (i)
            buf_putc(body, ',');
        write_consumer(body, &cursors.list[i], answer->total);
    }
    buf_puts(body, "]}");
    free(cursors.list);
}

struct reply *consumers_reply(struct exchange *exchange, const struct answer *answer) {
    struct ask *ask = ask_of(exchange);
    struct lines lines = {.len = 0};
    struct buf body = {0};
    lines_add_limit(&lines, exchange);
    if (ask->kind == ASK_CONSUMERS)
        write_list(ask, answer, &body);
    else
        buf_puts(&body, "{\"ok\":true}");
    struct reply *reply = NULL;
    if (!body.failed)
        reply = reply_new(HTTP_OK, exchange_flags(exchange), REPLY_JSON, lines_slice(&lines),
                          (struct slice){body.data, body.len});
    buf_deinit(&body);
    return reply;
}
