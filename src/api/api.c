#include "api/api.h"
#include "base/json.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/text.h"
#include "base/utf8.h"
#include "http/asset.h"
#include "version.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char json_type[] = "application/json; charset=utf-8";
static const char text_type[] = "text/plain; charset=utf-8";

enum { VIEW_UPDATE, VIEW_FULL };
enum { MEMO_CLOSE = 1, MEMO_FULL = 2 };

static struct api *api;

void api_init(struct api *the_api) {
    api = the_api;
}

/* --- The path --------------------------------------------------------------------------------- */

/* A request's target, taken apart. */
struct route {
    struct slice path, query;
    char channel[CHANNEL_NAME_MAX_BYTES]; /* decoded */
    size_t channel_len;
};

static struct slice channel_of(const struct route *route) {
    return (struct slice){route->channel, route->channel_len};
}

static bool starts_with(struct slice text, const char *start) {
    size_t len = strlen(start);
    return text.len >= len && memcmp(text.data, start, len) == 0;
}

static bool is_path(struct slice path, const char *literal) {
    return slice_equal(path, (struct slice){literal, strlen(literal)});
}

/* Splits the target; of an absolute one (http://host/path) the part from the path on counts. */
static bool split_target(struct slice target, struct route *route) {
    if (starts_with(target, "http://") || starts_with(target, "https://")) {
        const char *host = memchr(target.data, ':', target.len) + 3;
        size_t left = target.len - (size_t)(host - target.data);
        const char *path = memchr(host, '/', left);
        target =
            path ? (struct slice){path, target.len - (size_t)(path - target.data)} : SLICE("/");
    }
    if (!starts_with(target, "/") || memchr(target.data, '#', target.len))
        return false;
    const char *mark = memchr(target.data, '?', target.len);
    route->path = (struct slice){target.data, mark ? (size_t)(mark - target.data) : target.len};
    route->query =
        mark ? (struct slice){mark + 1, target.len - route->path.len - 1} : (struct slice){"", 0};
    return true;
}

/* Reads the channel's name from the path segment `segment`. */
static enum http_error decode_channel(struct slice segment, struct route *route) {
    char decoded[REQUEST_TARGET_MAX_BYTES];
    long len = text_decode_percent(segment, decoded);
    if (len < 1 || len > CHANNEL_NAME_MAX_BYTES)
        return ERROR_CHANNEL_NAME;
    for (long i = 0; i < len; i++) {
        unsigned char c = (unsigned char)decoded[i];
        if (c < 0x20 || c == 0x7f)
            return ERROR_CHANNEL_NAME;
        if (c == '/')
            return ERROR_NOT_FOUND;
    }
    memcpy(route->channel, decoded, (size_t)len);
    route->channel_len = (size_t)len;
    return HTTP_NO_ERROR;
}

/* --- Replies ---------------------------------------------------------------------------------- */

/* Header lines in the making. */
struct lines {
    char text[256];
    size_t len;
};

/* Adds `name: number`. */
static void add_number(struct lines *lines, const char *name, uint64_t number) {
    size_t len = strlen(name);
    assert(lines->len + len + 24 <= sizeof lines->text);
    char *at = (char *)memcpy(lines->text + lines->len, name, len) + len;
    *at++ = ':';
    *at++ = ' ';
    at += format_number(at, number);
    *at++ = '\r';
    *at++ = '\n';
    lines->len = (size_t)(at - lines->text);
}

static struct slice lines_slice(const struct lines *lines) {
    return (struct slice){lines->text, lines->len};
}

static void add_limit(struct lines *lines, const struct exchange *exchange) {
    if (exchange->quota < 0)
        return;
    add_number(lines, "X-RateLimit-Limit", limiter_limit(api->limiter));
    add_number(lines, "X-RateLimit-Remaining", (uint64_t)exchange->quota);
}

static void reply_error(struct exchange *exchange, enum http_error error) {
    struct lines lines = {.len = 0};
    add_limit(&lines, exchange);
    if (http_error_status(error) == HTTP_SERVICE_UNAVAILABLE)
        add_number(&lines, "Retry-After", 1);
    exchange_error(exchange, error, lines_slice(&lines));
}

/* Sends a reply that has just been made; NULL: there was no memory for it. */
static void reply_made(struct exchange *exchange, struct reply *reply) {
    if (reply)
        exchange_reply(exchange, reply);
    else
        reply_error(exchange, ERROR_BUSY);
}

static void reply_with(struct exchange *exchange, enum http_status status, const char *content_type,
                       struct slice headers, struct slice body) {
    reply_made(exchange, reply_new(status, exchange_flags(exchange), content_type, headers, body));
}

static void reply_buf(struct exchange *exchange, enum http_status status, const char *content_type,
                      struct buf *body) {
    if (body->failed)
        reply_error(exchange, ERROR_BUSY);
    else
        reply_with(exchange, status, content_type, SLICE(""),
                   (struct slice){body->data, body->len});
    buf_deinit(body);
}

static const enum http_error store_errors[] = {
    [STORE_FAILED] = ERROR_STORE,
    [STORE_AWAY] = ERROR_STORE_AWAY,
    [STORE_UNSURE] = ERROR_STORE_UNSURE,
    [STORE_NOT_REPLICATED] = ERROR_STORE_NOT_REPLICATED,
    [STORE_READ_ONLY] = ERROR_STORE_READ_ONLY,
    [STORE_TOO_FEW_REPLICAS] = ERROR_STORE_TOO_FEW_REPLICAS,
    [STORE_LOADING] = ERROR_STORE_LOADING,
    [STORE_OUT_OF_MEMORY] = ERROR_STORE_OUT_OF_MEMORY,
    [STORE_CLUSTER_DOWN] = ERROR_STORE_CLUSTER_DOWN,
    [STORE_REFUSED] = ERROR_STORE_REFUSED,
};

/* --- Push ------------------------------------------------------------------------------------- */

static bool is_identity(const struct request *request) {
    struct slice coding = slice_trim(request_header(request, HEADER_CONTENT_ENCODING));
    return !coding.len || slice_equal_nocase(coding, SLICE("identity"));
}

static void push(struct exchange *exchange, const struct request *request,
                 const struct route *route) {
    if (!is_identity(request)) {
        reply_error(exchange, ERROR_CONTENT_ENCODING);
        return;
    }
    /* The request's body is counted already; its update may take twice as much while it is made. */
    if (!exchange_has_room(exchange, 2 * (size_t)request->body.len)) {
        reply_error(exchange, ERROR_BUSY);
        return;
    }
    struct update *update;
    enum http_error error = update_build(request, route->query, api->capture_headers, &update);
    if (error) {
        reply_error(exchange, error);
        return;
    }
    size_t size = update_size(update);
    exchange->push = inbox_push(api->inbox, channel_of(route), update, exchange);
    if (!exchange->push)
        reply_error(exchange, ERROR_BUSY);
    else
        metrics.buffer_bytes += size;
    log_debug("push", "channel", log_secret(channel_of(route)).text, "bytes", log_number(size).text,
              NULL);
}

static void push_done(void *owner, const struct update *update, enum store_error error) {
    metrics.buffer_bytes -= update_size(update);
    struct exchange *exchange = owner;
    if (!exchange)
        return;
    exchange->push = NULL;
    if (error) {
        reply_error(exchange, store_errors[error]);
        return;
    }
    struct lines lines = {.len = 0};
    add_number(&lines, "X-Total-Updates", update->ts);
    add_limit(&lines, exchange);
    reply_with(exchange, HTTP_OK, text_type, lines_slice(&lines), SLICE("OK"));
}

/* --- Poll ------------------------------------------------------------------------------------- */

/* Decodes a query's value into `out`; false when it is longer than a number can be. */
static bool decode_value(struct slice value, char out[32]) {
    long len = value.len < 32 ? text_decode_percent(value, out) : -1;
    if (len < 0)
        return false;
    out[len] = '\0';
    return strlen(out) == (size_t)len;
}

/* A whole number, perhaps with a minus; `21.0` is one too: some clients' languages print it so. */
static bool parse_ts(const char *text, int64_t *ts) {
    bool is_negative = *text == '-';
    text += is_negative;
    size_t digits = strspn(text, "0123456789");
    if (!digits || digits > 18)
        return false;
    const char *end = text + digits;
    if (*end == '.')
        end += 1 + strspn(end + 1, "0");
    if (*end)
        return false;
    *ts = strtoll(text, NULL, 10) * (is_negative ? -1 : 1);
    return true;
}

/* Seconds with a fraction, as milliseconds rounded up. */
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
    unsigned long long number = strtoull(text, NULL, 10); /* ULLONG_MAX where it is larger still */
    *limit = number < READ_MAX_UPDATES ? (uint32_t)number : READ_MAX_UPDATES;
    return number > 0;
}

/* Reads the parameters of a poll; others are not looked at. An empty one counts as absent. */
static enum http_error parse_poll(struct slice query, struct exchange *exchange,
                                  uint64_t *sleep_ms) {
    struct poll *poll = &exchange->poll;
    poll->ts = 0;
    poll->limit = READ_MAX_UPDATES;
    exchange->view = VIEW_UPDATE;
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
            exchange->view = VIEW_FULL;
        }
    }
    return HTTP_NO_ERROR;
}

static void poll_channel(struct exchange *exchange, const struct route *route) {
    uint64_t sleep_ms;
    enum http_error error = parse_poll(route->query, exchange, &sleep_ms);
    if (error) {
        reply_error(exchange, error);
        return;
    }
    exchange->poll.may_wait = sleep_ms && !exchange->is_head && !api->is_draining;
    if (exchange->poll.may_wait)
        exchange_wait(exchange, wheel_now_ms() + sleep_ms);
    log_debug("poll", "channel", log_secret(channel_of(route)).text, "sleep_ms",
              log_number(sleep_ms).text, NULL);
    if (!inbox_poll(api->inbox, channel_of(route), &exchange->poll))
        reply_error(exchange, ERROR_BUSY);
}

/* Everything of an answer's JSON before its updates. */
static size_t write_opening(char *out, size_t size, const struct answer *answer) {
    int len = snprintf(out, size, "{\"ok\":true,\"ts\":%" PRIu64, answer->ts);
    if (answer->missed)
        len += snprintf(out + len, size - (size_t)len, ",\"missed\":%" PRIu64, answer->missed);
    len += snprintf(out + len, size - (size_t)len, "%s,\"updates\":[",
                    answer->reset ? ",\"reset\":true" : "");
    return (size_t)len;
}

static struct reply *build_plain(const struct answer *answer, unsigned flags,
                                 struct slice headers) {
    char opening[128];
    size_t opening_len = write_opening(opening, sizeof opening, answer);
    size_t len = opening_len + 2 + (answer->count ? answer->count - 1 : 0);
    for (uint32_t i = 0; i < answer->count; i++)
        len += answer->updates[i]->body_len;
    char *at;
    struct reply *reply = reply_new_uninitialized(HTTP_OK, flags, json_type, headers, len, &at);
    if (!reply || !at)
        return reply;
    at = (char *)memcpy(at, opening, opening_len) + opening_len;
    for (uint32_t i = 0; i < answer->count; i++) {
        if (i)
            *at++ = ',';
        struct slice body = update_body(answer->updates[i]);
        at = (char *)memcpy(at, body.data, body.len) + body.len;
    }
    memcpy(at, "]}", 2);
    return reply;
}

static void write_full(struct buf *out, const struct update *update) {
    struct slice headers = update_headers(update), body = update_body(update),
                 raw = update_raw(update);
    buf_printf(out, "{\"ts\":%" PRIu64 ",\"at\":%" PRId64 ",\"method\":", update->ts,
               update->at_ms);
    json_write_string(out, update_method(update));
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
    char opening[128];
    struct buf body = {0};
    buf_append(&body, opening, write_opening(opening, sizeof opening, answer));
    for (uint32_t i = 0; i < answer->count; i++) {
        if (i)
            buf_putc(&body, ',');
        write_full(&body, answer->updates[i]);
    }
    buf_puts(&body, "]}");
    struct reply *reply = NULL;
    if (!body.failed)
        reply = reply_new(HTTP_OK, flags, json_type, headers, (struct slice){body.data, body.len});
    buf_deinit(&body);
    return reply;
}

static struct reply *build_answer(const struct exchange *exchange, const struct answer *answer) {
    struct lines lines = {.len = 0};
    add_number(&lines, "X-Total-Updates", answer->total);
    add_limit(&lines, exchange);
    unsigned flags = exchange_flags(exchange);
    return exchange->view == VIEW_FULL ? build_full(answer, flags, lines_slice(&lines))
                                       : build_plain(answer, flags, lines_slice(&lines));
}

static void poll_done(struct poll *poll, struct answer *answer) {
    struct exchange *exchange = container_of(poll, struct exchange, poll);
    if (answer->error) {
        reply_error(exchange, store_errors[answer->error]);
        return;
    }
    unsigned flags = exchange_flags(exchange);
    /* With a rate limit, each client's headers are its own. */
    bool is_shared = !api->limiter && !(flags & REPLY_HEAD);
    unsigned kind =
        (flags & REPLY_CLOSE ? MEMO_CLOSE : 0) | (exchange->view == VIEW_FULL ? MEMO_FULL : 0);
    struct reply *reply = is_shared ? answer->memos[kind] : NULL;
    if (!reply)
        reply = build_answer(exchange, answer);
    if (reply && is_shared)
        answer->memos[kind] = reply_ref(reply);
    if (!reply || (!reply->pending && !exchange_has_room(exchange, reply->len))) {
        if (reply)
            reply_unref(reply);
        reply_error(exchange, ERROR_BUSY);
        return;
    }
    metrics.polls++;
    metrics.updates_delivered += answer->count;
    exchange_reply(exchange, reply);
}

static void answer_end(struct answer *answer) {
    for (int i = 0; i < ANSWER_MEMOS; i++)
        if (answer->memos[i])
            reply_unref(answer->memos[i]);
}

const struct inbox_events api_inbox_events = {poll_done, answer_end, push_done};

/* --- Other paths ------------------------------------------------------------------------------ */

static void show_health(struct exchange *exchange) {
    struct buf body = {0};
    struct buf line = {0};
    bool is_up = store_health(api->store, &line) == STORE_OK, is_ok = is_up && !api->is_draining;
    buf_printf(&body, "{\"ok\":%s,\"status\":\"%s\",\"version\":\"%s\",\"provider\":\"%s\"",
               is_ok ? "true" : "false",
               api->is_draining ? "draining"
               : is_up          ? "serving"
                                : "store away",
               LONGLINE_VERSION, api->provider);
    buf_printf(&body, ",\"keeps\":{\"updates\":%" PRIu64 ",\"seconds\":%" PRIu64 "}",
               api->keep_updates, api->keep_seconds);
    if (line.len) {
        buf_puts(&body, ",\"store\":");
        json_write_string(&body, (struct slice){line.data, line.len});
    }
    buf_putc(&body, '}');
    buf_deinit(&line);
    reply_buf(exchange, is_ok ? HTTP_OK : HTTP_SERVICE_UNAVAILABLE, json_type, &body);
}

static void show_metrics(struct exchange *exchange) {
    struct buf body = {0};
    struct store_stats stats;
    store_stats(api->store, &stats);
    metrics_write(&body, &stats);
    reply_buf(exchange, HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", &body);
}

static const struct {
    const char *path;
    void (*show)(struct exchange *exchange);
} reports[] = {
    {"/-/health", show_health},
    {"/-/metrics", show_metrics},
};

/* --- The route table -------------------------------------------------------------------------- */

enum { MAY_GET = 1, MAY_POST = 2 };

/* The Allow header of a path that takes `methods`, with further headers behind it. */
#define ALLOW(methods, more)                                                                       \
    ((methods) == MAY_GET    ? SLICE("Allow: GET, HEAD, OPTIONS\r\n" more)                         \
     : (methods) == MAY_POST ? SLICE("Allow: POST, OPTIONS\r\n" more)                              \
                             : SLICE("Allow: GET, HEAD, POST, OPTIONS\r\n" more))

static void reply_options(struct exchange *exchange, unsigned methods) {
    reply_with(exchange, HTTP_NO_CONTENT, NULL,
               ALLOW(methods, "Access-Control-Allow-Methods: GET, HEAD, POST, OPTIONS\r\n"
                              "Access-Control-Allow-Headers: *, Content-Type\r\n"
                              "Access-Control-Max-Age: 86400\r\n"),
               SLICE(""));
}

static void refuse_method(struct exchange *exchange, unsigned methods) {
    exchange_error(exchange, ERROR_METHOD, ALLOW(methods, ""));
}

static unsigned method_bit(const struct request *request) {
    switch (request->parser.method) {
    case HTTP_GET:
    case HTTP_HEAD: return MAY_GET;
    case HTTP_POST: return MAY_POST;
    default: return 0;
    }
}

/* Sees through the proxies on the way, each of which may have added a header of its own. */
static void find_client(const struct request *request, uint8_t ip[16]) {
    for (uint32_t i = request->header_count; i-- > 0;) {
        struct slice name = request_slice(request, request->headers[i].name);
        if (slice_equal_nocase(name, SLICE("x-forwarded-for")) &&
            !proxy_client_ip(api->trust, request_slice(request, request->headers[i].value), ip))
            return;
    }
}

/* Counts the request; when it is one too many it is refused here, and false returned. */
static bool within_limit(struct exchange *exchange, const struct request *request) {
    if (!api->limiter)
        return true;
    struct peer peer = exchange_peer(exchange);
    find_client(request, peer.ip);
    struct limiter_verdict verdict = limiter_take(api->limiter, peer.ip, wheel_now_ms());
    exchange->quota = (int64_t)verdict.remaining;
    if (verdict.allowed)
        return true;
    metrics.rate_limited++;
    struct lines lines = {.len = 0};
    add_limit(&lines, exchange);
    add_number(&lines, "Retry-After", verdict.retry_after_s);
    exchange_error(exchange, ERROR_RATE_LIMIT, lines_slice(&lines));
    return false;
}

/* `/{channel}`, `/{channel}/pushUpdates` and `/{channel}/getUpdates`. */
static void serve_channel(struct exchange *exchange, const struct request *request,
                          struct route *route) {
    struct slice segment = {route->path.data + 1, route->path.len - 1};
    const char *slash = memchr(segment.data, '/', segment.len);
    unsigned methods = MAY_GET | MAY_POST;
    if (slash) {
        struct slice rest = {slash, segment.len - (size_t)(slash - segment.data)};
        methods = is_path(rest, "/pushUpdates")  ? MAY_POST
                  : is_path(rest, "/getUpdates") ? MAY_GET
                                                 : 0;
        segment.len -= rest.len;
    }
    enum http_error error = methods ? decode_channel(segment, route) : ERROR_NOT_FOUND;
    if (error) {
        reply_error(exchange, error);
        return;
    }
    if (request->parser.method == HTTP_OPTIONS) {
        reply_options(exchange, methods);
        return;
    }
    unsigned method = method_bit(request) & methods;
    if (!method)
        refuse_method(exchange, methods);
    else if (within_limit(exchange, request)) {
        if (method == MAY_POST)
            push(exchange, request, route);
        else
            poll_channel(exchange, route);
    }
}

/* The paths that are no channels. */
static void serve_reserved(struct exchange *exchange, const struct request *request,
                           struct slice path) {
    const struct asset *asset = asset_find(path);
    void (*show)(struct exchange *) = NULL;
    for (size_t i = 0; i < sizeof reports / sizeof *reports; i++)
        if (is_path(path, reports[i].path))
            show = reports[i].show;
    if (!asset && !show)
        reply_error(exchange, ERROR_NOT_FOUND);
    else if (request->parser.method == HTTP_OPTIONS)
        reply_options(exchange, MAY_GET);
    else if (method_bit(request) != MAY_GET)
        refuse_method(exchange, MAY_GET);
    else if (asset)
        reply_made(exchange, asset_reply(asset, request, exchange_flags(exchange)));
    else
        show(exchange);
}

static void on_request(struct exchange *exchange, const struct request *request) {
    exchange->quota = -1;
    exchange->poll.may_wait = exchange->poll.was_parked = false;
    struct slice target = request_slice(request, request->target);
    if (request->parser.method == HTTP_OPTIONS && is_path(target, "*")) {
        reply_options(exchange, MAY_GET | MAY_POST);
        return;
    }
    struct route route;
    if (!split_target(target, &route)) {
        reply_error(exchange, ERROR_TARGET);
        return;
    }
    bool is_reserved = route.path.len == 1 || starts_with(route.path, "/-/") ||
                       is_path(route.path, "/-") || is_path(route.path, "/favicon.ico") ||
                       is_path(route.path, "/robots.txt");
    if (is_reserved)
        serve_reserved(exchange, request, route.path);
    else
        serve_channel(exchange, request, &route);
}

/* A poll's time is over, or the server is stopping; anything else goes on to its own end. */
static void on_expire(struct exchange *exchange) {
    struct poll *poll = &exchange->poll;
    poll->may_wait = false;
    if (poll->state == POLL_PARKED)
        inbox_expire(api->inbox, poll, !api->is_draining);
}

static void on_cancel(struct exchange *exchange) {
    inbox_cancel(api->inbox, &exchange->poll);
    if (exchange->push)
        inbox_cancel_push(exchange->push);
    exchange->push = NULL;
}

const struct handler api_handler = {on_request, on_expire, on_cancel};
