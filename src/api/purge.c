#include "api/purge.h"
#include "api/api.h"
#include "api/consumers.h"
#include "api/refusals.h"
#include "base/counters.h"
#include "base/log.h"
#include "base/text.h"
#include "base/wheel.h"

#include <inttypes.h>
#include <string.h>

/* --- The query -------------------------------------------------------------------------------- */

/* The value of the query's only parameter, if that is `name`. */
static bool is_only(struct slice query, struct slice name, struct slice *value) {
    struct text_pair pair, more;
    if (!text_next_pair(&query, &pair) || !slice_equal(pair.name, name) ||
        text_next_pair(&query, &more))
        return false;
    *value = pair.value;
    return true;
}

bool purge_parse(struct slice query, uint64_t *upto) {
    struct slice value;
    *upto = UINT64_MAX;
    return !query.data ||
           (is_only(query, SLICE("upto"), &value) && slice_number(value, INT64_MAX, upto));
}

/* --- Purging ---------------------------------------------------------------------------------- */

static enum http_error begin_purge(struct exchange *exchange, struct slice channel,
                                   struct slice query) {
    uint64_t upto;
    if (!purge_parse(query, &upto))
        return ERROR_DELETE;
    if (!api.may_purge)
        return ERROR_PURGE;
    struct ask *ask = ask_of(exchange);
    ask->purge = inbox_purge(api.inbox, channel, upto, exchange);
    if (!ask->purge)
        return ERROR_BUSY;
    ask->kind = ASK_PURGE;
    return HTTP_NO_ERROR;
}

void delete_handle(struct exchange *exchange, const struct request *request, struct slice channel,
                   struct slice query) {
    struct slice target = request_slice(request, request->target), name;
    if (is_only(query, SLICE("as"), &name)) {
        consumers_forget(exchange, channel, query);
        return;
    }
    bool has_query = memchr(target.data, '?', target.len);
    enum http_error error = begin_purge(exchange, channel, has_query ? query : (struct slice){0});
    if (error)
        reply_error(exchange, error);
}

/* What is known of a purge that is done; its channel's trace of refused pushes goes with all of its
 * updates. */
static void note(const struct store_purge *purge) {
    static struct log_limit limit;
    struct slice channel = {purge->name, purge->name_len};
    if (purge->upto == UINT64_MAX)
        refusals_forget_channel(channel);
    if (!purge->gone) /* nothing was ever there */
        return;
    counters.purges++;
    if (!log_enabled(LOG_LEVEL_INFO) || !log_may_say(&limit, wheel_now_ms() / 1000))
        return;
    log_info("channel purged", "channel", log_secret(channel).text, "upto",
             log_number(purge->gone).text, limit.unsaid ? "unsaid" : NULL,
             log_number(limit.unsaid).text, NULL);
    limit.unsaid = 0;
}

void purge_done(void *owner, const struct store_purge *purge) {
    if (!purge->error)
        note(purge);
    struct exchange *exchange = owner;
    if (!exchange)
        return;
    ask_of(exchange)->kind = ASK_NOTHING;
    if (purge->error) {
        reply_store_error(exchange, purge->error);
        return;
    }
    struct buf body = {0};
    buf_printf(&body, "{\"ok\":true,\"gone\":%" PRIu64 "}", purge->gone);
    reply_buf(exchange, HTTP_OK, REPLY_JSON, &body);
}
