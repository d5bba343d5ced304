#include "api/api.h"
#include "api/access.h"
#include "api/batch.h"
#include "api/consumers.h"
#include "api/handover.h"
#include "api/handshake.h"
#include "api/large_push.h"
#include "api/many.h"
#include "api/page.h"
#include "api/poll.h"
#include "api/purge.h"
#include "api/push.h"
#include "api/refusals.h"
#include "api/replies.h"
#include "api/report.h"
#include "api/stream.h"
#include "base/counters.h"
#include "base/text.h"
#include "http/asset.h"

#include <arpa/inet.h>
#include <string.h>

struct api api;

/* --- The path --------------------------------------------------------------------------------- */

/* A request's target, taken apart. */
struct route {
    struct slice path, query;
    struct slice below;                   /* what of the path is below the channel, for a push */
    char channel[CHANNEL_NAME_MAX_BYTES]; /* decoded, and its own name: of a key, the w_ one */
    size_t channel_len;
    enum key_kind kind; /* of what the client calls it */
};

/* Without all but the last of the slashes at its front. */
static struct slice without_doubled(struct slice path) {
    while (slice_starts_with(path, SLICE("//")))
        path = slice_after(path, 1);
    return path;
}

/* Whether no channel is there. */
static bool is_reserved(struct slice path) {
    return path.len == 1 || slice_starts_with(path, SLICE("/-/")) ||
           slice_equal(path, SLICE("/-")) || slice_equal(path, SLICE("/favicon.ico")) ||
           slice_equal(path, SLICE("/robots.txt"));
}

/* Splits the target. Of an absolute one (http://host/path) the part from the path on counts. */
static bool split_target(struct slice target, struct route *route) {
    if (slice_starts_with(target, SLICE("http://")) ||
        slice_starts_with(target, SLICE("https://"))) {
        struct slice host = slice_after(target, strcspn(target.data, ":") + strlen("://"));
        const char *path = memchr(host.data, '/', host.len);
        target = path ? slice_after(host, (size_t)(path - host.data)) : SLICE("/");
    }
    if (!slice_starts_with(target, SLICE("/")) || memchr(target.data, '#', target.len) ||
        !slice_cut(&target, '?', &route->path))
        return false;
    /* A proxy that hides /-/metrics need not know //-/metrics. */
    struct slice path = without_doubled(route->path);
    if (!is_reserved(path))
        route->path = path;
    route->query = target.data ? target : SLICE("");
    return true;
}

/* Reads the name of a channel from a segment of the path; on an error there is none. From here on
 * nobody sees a key that reads. */
static enum http_error decode_channel(struct slice segment, struct route *route) {
    char decoded[REQUEST_TARGET_MAX_BYTES];
    route->channel_len = 0;
    if (segment.len > sizeof decoded) /* the target may have been refused for its size */
        return ERROR_CHANNEL_NAME;
    long len = text_decode_percent(segment, decoded);
    if (len < 1 || len > CHANNEL_NAME_MAX_BYTES)
        return ERROR_CHANNEL_NAME;
    if (slice_has_control((struct slice){decoded, (size_t)len}))
        return ERROR_CHANNEL_NAME;
    if (memchr(decoded, '/', (size_t)len))
        return ERROR_NOT_FOUND;
    memcpy(route->channel, decoded, (size_t)len);
    route->channel_len = (size_t)len;
    route->kind = key_to_channel(route->channel, route->channel_len);
    return HTTP_NO_ERROR;
}

/* --- The route table -------------------------------------------------------------------------- */

enum { MAY_GET = 1, MAY_PUSH = 2, MAY_DELETE = 4, MAY_ALL = 7, MAY_POST = 8 };

/* The Allow header of a path that takes `methods`, with further headers behind it. */
#define ALLOW(methods, more)                                                                       \
    ((methods) == MAY_GET    ? SLICE("Allow: GET, HEAD, OPTIONS\r\n" more)                         \
     : (methods) == MAY_POST ? SLICE("Allow: POST, OPTIONS\r\n" more)                              \
     : (methods) == MAY_PUSH ? SLICE("Allow: POST, PUT, PATCH, OPTIONS\r\n" more)                  \
     : (methods) == MAY_ALL                                                                        \
         ? SLICE("Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n" more)                   \
         : SLICE("Allow: GET, HEAD, POST, PUT, PATCH, OPTIONS\r\n" more))

#define CORS                                                                                       \
    "Access-Control-Allow-Methods: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"               \
    "Access-Control-Allow-Headers: *, Authorization, Content-Type\r\n"                             \
    "Access-Control-Max-Age: 86400\r\n"

static void reply_options(struct exchange *exchange, unsigned methods) {
    reply_with(exchange, HTTP_NO_CONTENT, NULL, ALLOW(methods, CORS), SLICE(""));
}

/* Answers OPTIONS on a path that takes pushes: a sender of CloudEvents asks for consent by it. */
static void reply_push_options(struct exchange *exchange, const struct request *request,
                               unsigned methods) {
    struct buf lines = {0};
    if (!handshake_consent(request, &lines)) {
        reply_options(exchange, methods);
        return;
    }
    struct slice allow = ALLOW(methods, CORS);
    buf_append(&lines, allow.data, allow.len);
    if (lines.failed)
        reply_error(exchange, ERROR_BUSY);
    else
        reply_with(exchange, HTTP_OK, REPLY_TEXT, (struct slice){lines.data, lines.len}, SLICE(""));
    buf_deinit(&lines);
}

static void refuse_method(struct exchange *exchange, unsigned methods) {
    exchange_error(exchange, ERROR_METHOD, ALLOW(methods, ""));
}

static unsigned method_bit(const struct request *request) {
    switch (request->parser.method) {
    case HTTP_GET:
    case HTTP_HEAD: return MAY_GET;
    case HTTP_POST:
    case HTTP_PUT:
    case HTTP_PATCH: return MAY_PUSH;
    case HTTP_DELETE: return MAY_DELETE;
    default: return 0;
    }
}

/* Sees through the proxies on the way, each of which may have added a header of its own. */
static void find_client(const struct request *request, uint8_t ip[16]) {
    for (uint32_t i = request->header_count; i-- > 0;) {
        struct slice name = request_slice(request, request->headers[i].name);
        if (slice_equal_nocase(name, SLICE("x-forwarded-for")) &&
            !proxy_client_ip(api.trust, request_slice(request, request->headers[i].value), ip))
            return;
    }
}

static struct peer client_of(const struct exchange *exchange, const struct request *request) {
    struct peer peer = exchange_peer(exchange);
    find_client(request, peer.ip);
    return peer;
}

/* What stands behind the channel's name in a path. PLACE_MANY has none. */
enum place {
    PLACE_CHANNEL,
    PLACE_PUSH,
    PLACE_POLL,
    PLACE_REFUSED,
    PLACE_CONSUMERS,
    PLACE_BELOW,
    PLACE_MANY,
};

/* Takes the channel's name off the front of `*path`, which begins with a slash. The rest begins
 * with a slash too, or is empty. Slashes that are doubled, or behind everything, do not count. */
static enum place take_channel(struct slice *path, struct slice *name) {
    struct slice rest = slice_after(*path, 1);
    const char *slash = memchr(rest.data, '/', rest.len);
    size_t len = slash ? (size_t)(slash - rest.data) : rest.len;
    *name = (struct slice){rest.data, len};
    *path = without_doubled(slice_after(rest, len));
    struct slice word = *path;
    while (word.len && word.data[word.len - 1] == '/')
        word.len--;
    if (!word.len)
        *path = SLICE("");
    return !word.len                                  ? PLACE_CHANNEL
           : slice_equal(word, SLICE("/pushUpdates")) ? PLACE_PUSH
           : slice_equal(word, SLICE("/getUpdates"))  ? PLACE_POLL
           : slice_equal(word, SLICE("/refused"))     ? PLACE_REFUSED
           : slice_equal(word, SLICE("/consumers"))   ? PLACE_CONSUMERS
                                                      : PLACE_BELOW;
}

/* Every push has an address: this is quicker than format_number(). */
static char *put_octet(char *at, unsigned octet) {
    if (octet > 99)
        *at++ = (char)('0' + octet / 100);
    if (octet > 9)
        *at++ = (char)('0' + octet / 10 % 10);
    *at++ = (char)('0' + octet % 10);
    return at;
}

/* Writes a client's address as text; empty for that of a unix socket, whose client is not known. */
static struct slice write_address(const uint8_t ip[16], char text[INET6_ADDRSTRLEN]) {
    static const uint8_t ipv4[12] = {[10] = 0xff, [11] = 0xff}, none[16];
    if (memcmp(ip, none, sizeof none) == 0)
        return SLICE("");
    if (memcmp(ip, ipv4, sizeof ipv4) != 0) {
        inet_ntop(AF_INET6, ip, text, INET6_ADDRSTRLEN);
        return slice_of(text);
    }
    char *at = text;
    for (int i = 12; i < 16; i++) {
        at = put_octet(at, ip[i]);
        *at++ = '.';
    }
    return (struct slice){text, (size_t)(at - text) - 1};
}

static struct slice channel_of(const struct route *route) {
    return (struct slice){route->channel, route->channel_len};
}

static void push(struct exchange *exchange, const struct request *request,
                 const struct route *route) {
    char address[INET6_ADDRSTRLEN];
    struct peer peer = client_of(exchange, request);
    struct sent sent = {route->query, route->below, write_address(peer.ip, address)};
    push_handle(exchange, request, channel_of(route), &sent);
}

/* --- Refused pushes --------------------------------------------------------------------------- */

/* Whether a GET of the place is never a push. */
static bool is_read_only(enum place place) {
    return place == PLACE_POLL || place == PLACE_REFUSED || place == PLACE_CONSUMERS;
}

/* Whether a request whose path leads there is a push. */
static bool is_push(const struct request *request, const struct route *route, enum place place) {
    if (method_bit(request) == MAY_PUSH)
        return place != PLACE_MANY;
    return request->parser.method == HTTP_GET &&
           (place == PLACE_PUSH ||
            (!is_read_only(place) && push_is_handshake(request, route->query)));
}

/* Notes that a request is refused, if it is a push. Its path may be cut off, and its channel be
 * empty: not known. */
static void note_refused(const struct exchange *exchange, const struct request *request,
                         const struct route *route, enum place place, enum http_error error) {
    if (!is_push(request, route, place))
        return;
    char address[INET6_ADDRSTRLEN];
    struct peer peer = client_of(exchange, request);
    struct slice path = place == PLACE_PUSH ? SLICE("") : route->path;
    struct sent sent = {route->query, path, write_address(peer.ip, address)};
    struct refusal refusal = push_refusal(request, channel_of(route), &sent, error);
    bool is_announced = request->head_complete && !request->counts[HEADER_TRANSFER_ENCODING];
    refusal.body_bytes = is_announced ? (int64_t)request_content_length(request) : -1;
    refusals_note(&refusal);
}

/* handler.refused: a request was refused while it was read. */
static void on_refused(const struct exchange *exchange, const struct request *request,
                       enum http_error error) {
    struct slice target = request_slice(request, request->target), name;
    struct route route;
    if (!split_target(target, &route) || is_reserved(route.path))
        return;
    enum place place = take_channel(&route.path, &name);
    bool is_cut = !request->is_target_complete && name.data + name.len == target.data + target.len;
    if (is_cut || decode_channel(name, &route))
        route.channel_len = 0;
    note_refused(exchange, request, &route, place, error);
}

/* Counts the request; when it is one too many it is refused here, and false returned. */
static bool within_limit(struct exchange *exchange, const struct request *request,
                         const struct route *route, enum place place) {
    if (!api.limiter)
        return true;
    struct peer peer = client_of(exchange, request);
    struct limiter_verdict verdict = limiter_take(api.limiter, peer.ip, wheel_now_ms());
    ask_of(exchange)->quota = (int32_t)verdict.remaining;
    if (verdict.allowed)
        return true;
    counters.rate_limited++;
    note_refused(exchange, request, route, place, ERROR_RATE_LIMIT);
    struct lines lines = {.len = 0};
    lines_add_limit(&lines, exchange);
    lines_add(&lines, "Retry-After", verdict.retry_after_s);
    exchange_error(exchange, ERROR_RATE_LIMIT, lines_slice(&lines));
    return false;
}

static void reply_refused(struct exchange *exchange, struct slice channel) {
    struct buf body = {0};
    buf_puts(&body, "{\"ok\":true,\"refused\":");
    refusals_write_channel(&body, channel);
    buf_putc(&body, '}');
    reply_buf(exchange, HTTP_OK, REPLY_JSON, &body);
}

/* --- Channels --------------------------------------------------------------------------------- */

/* Whether a HEAD only looks whether there is something to send to. */
static bool is_look(const struct exchange *exchange, const struct route *route, enum place place) {
    bool may_lead_to_push = place == PLACE_CHANNEL || place == PLACE_BELOW;
    return exchange->is_head &&
           (place == PLACE_PUSH || (may_lead_to_push && route->kind == KEY_SEND));
}

/* What a request asks of its channel, by its method and its place. */
static enum right right_of(const struct exchange *exchange, const struct request *request,
                           const struct route *route, enum place place, bool is_sent) {
    if (is_sent || place == PLACE_PUSH)
        return RIGHT_SEND;
    if (method_bit(request) == MAY_DELETE)
        return RIGHT_DELETE;
    bool is_nothing = place == PLACE_BELOW || is_look(exchange, route, place);
    return is_nothing ? RIGHT_NONE : RIGHT_READ;
}

/* A GET or HEAD: a poll, or what cannot be sent by any other method. */
static void serve_get(struct exchange *exchange, const struct request *request, struct route *route,
                      enum place place) {
    if (is_look(exchange, route, place))
        reply_with(exchange, HTTP_OK, REPLY_TEXT, SLICE(""), SLICE("OK"));
    else if (place == PLACE_REFUSED)
        reply_refused(exchange, channel_of(route));
    else if (place == PLACE_CONSUMERS)
        consumers_list(exchange, channel_of(route));
    else if (place == PLACE_BELOW)
        reply_error(exchange, ERROR_NOT_FOUND);
    else
        poll_handle(exchange, request, channel_of(route), route->query);
}

/* A request that its path takes: who may, is served. */
static void serve_place(struct exchange *exchange, const struct request *request,
                        struct route *route, enum place place) {
    bool is_sent = is_push(request, route, place);
    enum right right = right_of(exchange, request, route, place, is_sent);
    enum http_error error = access_check(route->kind, right);
    if (error) {
        note_refused(exchange, request, route, place, error);
        reply_error(exchange, error);
    } else if (is_sent)
        push(exchange, request, route);
    else if (right == RIGHT_DELETE)
        delete_handle(exchange, request, channel_of(route), route->query);
    else
        serve_get(exchange, request, route, place);
}

/* `/{channel}` and what is below it. */
static void serve_channel(struct exchange *exchange, const struct request *request,
                          struct route *route) {
    static const unsigned methods_of[] = {
        [PLACE_CHANNEL] = MAY_ALL,
        [PLACE_PUSH] = MAY_GET | MAY_PUSH,
        [PLACE_POLL] = MAY_GET,
        [PLACE_REFUSED] = MAY_GET | MAY_PUSH, /* below the channel, like any other path */
        [PLACE_CONSUMERS] = MAY_GET | MAY_PUSH,
        [PLACE_BELOW] = MAY_PUSH,
    };
    struct slice name;
    enum place place = take_channel(&route->path, &name);
    bool is_below = place == PLACE_BELOW || place == PLACE_REFUSED || place == PLACE_CONSUMERS;
    route->below = is_below ? route->path : SLICE("");
    unsigned method = method_bit(request), methods = methods_of[place];
    enum http_error error = decode_channel(name, route);
    if (error) {
        note_refused(exchange, request, route, place, error);
        reply_error(exchange, error);
    } else if (request->parser.method == HTTP_OPTIONS) {
        if (methods & MAY_PUSH)
            reply_push_options(exchange, request, methods);
        else
            reply_options(exchange, methods);
    } else if (!(method & methods) && method != MAY_GET) {
        note_refused(exchange, request, route, place, ERROR_METHOD);
        refuse_method(exchange, methods);
    } else if (within_limit(exchange, request, route, place))
        serve_place(exchange, request, route, place);
}

/* `/-/poll`, the poll of many channels. */
static void serve_many(struct exchange *exchange, const struct request *request,
                       const struct route *route) {
    if (request->parser.method == HTTP_OPTIONS)
        reply_options(exchange, MAY_POST);
    else if (request->parser.method != HTTP_POST)
        refuse_method(exchange, MAY_POST);
    else if (within_limit(exchange, request, route, PLACE_MANY))
        many_handle(exchange, request, route->query);
}

static const struct {
    struct slice path;
    void (*show)(struct exchange *exchange);
} reports[] = {
    {SLICE("/-/health"), report_health},
    {SLICE("/-/metrics"), report_metrics},
};

/* The paths that are no channels. */
static void serve_reserved(struct exchange *exchange, const struct request *request,
                           struct slice path) {
    const struct asset *asset = asset_find(path);
    void (*show)(struct exchange *) = NULL;
    for (size_t i = 0; i < sizeof reports / sizeof *reports; i++)
        if (slice_equal(path, reports[i].path))
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
    ask_of(exchange)->quota = -1;
    struct slice target = request_slice(request, request->target);
    if (request->parser.method == HTTP_OPTIONS && slice_equal(target, SLICE("*"))) {
        reply_options(exchange, MAY_ALL);
        return;
    }
    struct route route;
    if (!split_target(target, &route)) {
        reply_error(exchange, ERROR_TARGET);
        return;
    }
    if (slice_equal(route.path, SLICE("/-/poll")))
        serve_many(exchange, request, &route);
    else if (is_reserved(route.path))
        serve_reserved(exchange, request, route.path);
    else
        serve_channel(exchange, request, &route);
}

static void on_cancel(struct exchange *exchange) {
    struct ask *ask = ask_of(exchange);
    switch ((enum ask_kind)ask->kind) {
    case ASK_NOTHING: return;
    case ASK_UPDATES:
    case ASK_CONSUMERS:
    case ASK_FORGET: poll_forget(ask); return;
    case ASK_LARGE_PAGE: large_page_cancel(exchange); return;
    case ASK_STREAM:
    case ASK_STREAM_PAGE: stream_cancel(exchange); return;
    case ASK_STREAM_LATER: handover_cancel(exchange); return;
    case ASK_MANY: many_cancel(ask->many); return;
    case ASK_PURGE:
        inbox_cancel_purge(ask->purge);
        ask->kind = ASK_NOTHING;
        return;
    case ASK_BATCH: batch_cancel(ask->batch); break;
    case ASK_LARGE_PUSH: large_push_cancel(ask->large_push); break;
    case ASK_PUSH:
        if (ask->push)
            inbox_cancel_push(ask->push);
        break;
    }
    push_forget(ask);
}

static void on_expire(struct exchange *exchange) {
    struct ask *ask = ask_of(exchange);
    if (ask->kind == ASK_MANY)
        many_expire(ask->many);
    else if (ask->kind == ASK_UPDATES)
        poll_expire(exchange);
    else if (ask->kind == ASK_STREAM || ask->kind == ASK_STREAM_PAGE)
        stream_expire(exchange);
    else if (ask->kind == ASK_STREAM_LATER)
        handover_expire(exchange);
}

static void on_sent(struct exchange *exchange) {
    if (ask_of(exchange)->kind == ASK_STREAM_LATER)
        handover_sent(exchange);
    else
        stream_sent(exchange);
}

const struct handler api_handler = {
    .request = on_request,
    .expire = on_expire,
    .cancel = on_cancel,
    .refused = on_refused,
    .is_quiet = handover_is_quiet,
    .can_save = handover_can_save,
    .save = handover_save,
    .restore = handover_restore,
    .sent = on_sent,
};
const struct inbox_events api_inbox_events = {poll_done, poll_answer_end, push_done, purge_done};
