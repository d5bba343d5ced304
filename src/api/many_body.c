#include "api/many_body.h"
#include "api/access.h"
#include "api/poll_query.h"
#include "base/json.h"
#include "inbox/store.h"

enum {
    DEPTH_MAX = 2,        /* of the body's nesting */
    NUMBER_MAX_BYTES = 64 /* longer is none */
};

/* Reads a number, or "now". */
static bool parse_cursor(struct slice value, int64_t *position) {
    if (slice_equal(value, SLICE("\"now\""))) {
        *position = POSITION_NOW;
        return true;
    }
    char text[NUMBER_MAX_BYTES];
    if (value.len >= sizeof text)
        return false;
    memcpy(text, value.data, value.len);
    text[value.len] = '\0';
    return parse_position(text, position);
}

/* The text of a value that is a string; false when it is none. */
static bool take_string(struct slice value, struct buf *scratch, struct slice *text) {
    if (!slice_starts_with(value, SLICE("\"")))
        return false;
    *text = json_unescape((struct slice){value.data + 1, value.len - 2}, scratch);
    return true;
}

/* Reads `{"ts":7,"epoch":"…"}`. */
static bool parse_object(struct many_channel *channel, struct slice value, struct buf *scratch) {
    bool has_ts = false, ok = true;
    struct slice epoch;
    for (struct json_member member; ok && json_next_member(&value, &member);) {
        if (slice_equal(member.key, SLICE("ts"))) {
            ok = has_ts = parse_cursor(member.value, &channel->position);
        } else if (slice_equal(member.key, SLICE("epoch"))) {
            ok = channel->has_epoch = take_string(member.value, scratch, &epoch);
            channel->epoch = ok ? parse_epoch(epoch) : 0;
        } else {
            ok = false;
        }
    }
    return ok && has_ts;
}

/* Reads a channel's name from its key. It is as long as the key at most. */
static enum http_error parse_name(struct many_body *body, struct many_channel *channel,
                                  struct buf *scratch) {
    struct slice name = json_unescape(channel->key, scratch);
    if (slice_starts_with(name, SLICE("/")))
        name = slice_after(name, 1);
    if (!name.len || name.len > CHANNEL_NAME_MAX_BYTES || slice_has_control(name) ||
        memchr(name.data, '/', name.len))
        return ERROR_MANY_NAME;
    char own[CHANNEL_NAME_MAX_BYTES];
    memcpy(own, name.data, name.len);
    name.data = own;
    enum http_error error = access_check(key_to_channel(own, name.len), RIGHT_READ);
    if (error)
        return error;
    for (uint32_t i = 0; i < body->count; i++)
        if (slice_equal(name, body->channels[i].name))
            return ERROR_MANY_NAME;
    channel->name = (struct slice){body->names.data + body->names.len, name.len};
    buf_append(&body->names, name.data, name.len);
    return HTTP_NO_ERROR;
}

static enum http_error parse_channel(struct many_body *body, const struct json_member *member,
                                     struct buf *scratch) {
    struct many_channel channel = {.key = member->key};
    bool is_object = slice_starts_with(member->value, SLICE("{"));
    if (body->count == MANY_CHANNELS_MAX ||
        !(is_object ? parse_object(&channel, member->value, scratch)
                    : parse_cursor(member->value, &channel.position)))
        return ERROR_MANY_BODY;
    enum http_error error = parse_name(body, &channel, scratch);
    if (!error)
        body->channels[body->count++] = channel;
    return error;
}

enum http_error many_body_parse(struct many_body *body, struct slice text) {
    bool has_half = false;
    struct buf scratch = {0};
    body->count = 0;
    body->names = (struct buf){0};
    if (text.len > MANY_BODY_MAX_BYTES)
        return ERROR_MANY_SIZE;
    if (json_inspect(text, DEPTH_MAX, &has_half) != JSON_OBJECT || has_half)
        return ERROR_MANY_BODY;
    /* Nothing grows when it is unescaped: the names stay where they are. */
    bool has_room = buf_reserve(&body->names, text.len) && buf_reserve(&scratch, text.len);
    enum http_error error = has_room ? HTTP_NO_ERROR : ERROR_BUSY;
    for (struct json_member member; !error && json_next_member(&text, &member);)
        error = parse_channel(body, &member, &scratch);
    buf_deinit(&scratch);
    return error || body->count ? error : ERROR_MANY_BODY;
}

enum http_error many_body_read(const struct request *request, struct payload *payload,
                               struct many_body *body) {
    *payload = payload_of(request);
    enum http_error error = payload_inflate(payload, MANY_BODY_MAX_BYTES);
    if (error == ERROR_BODY_SIZE)
        return ERROR_MANY_SIZE;
    return error                ? error
           : payload->is_opaque ? ERROR_MANY_BODY
                                : many_body_parse(body, payload->bytes);
}

void many_body_deinit(struct many_body *body) {
    buf_deinit(&body->names);
}
