#include "api/handshake.h"
#include "base/json.h"
#include "base/text.h"
#include "base/utf8.h"

#define TEXT "text/plain; charset=utf-8"
#define JSON "application/json; charset=utf-8"

/* --- What is echoed --------------------------------------------------------------------------- */

static bool is_header_safe(struct slice value) {
    if (!value.len || value.len > HANDSHAKE_HEADER_MAX_BYTES)
        return false;
    for (size_t i = 0; i < value.len; i++)
        if (value.data[i] <= ' ' || value.data[i] > '~')
            return false;
    return true;
}

static void add_line(struct buf *lines, const char *name, struct slice value) {
    buf_puts(lines, name);
    buf_puts(lines, ": ");
    buf_append(lines, value.data, value.len);
    buf_puts(lines, "\r\n");
}

static void want(struct wanted *wanted, const char *content_type) {
    wanted->status = HTTP_OK;
    wanted->content_type = content_type;
    buf_puts(&wanted->lines, WANTED_SANDBOX);
}

/* Answers with the text itself; false when it is empty, too long or no text. */
static bool echo_text(struct wanted *wanted, struct slice text) {
    if (!text.len || text.len > WANTED_TEXT_MAX_BYTES || !utf8_is_valid(text))
        return false;
    want(wanted, TEXT);
    buf_append(&wanted->text, text.data, text.len);
    return true;
}

/* Answers with the JSON object `{"<name>":"<text>"}`. */
static bool echo_json(struct wanted *wanted, const char *name, struct slice text) {
    if (!is_header_safe(text))
        return false;
    want(wanted, JSON);
    buf_printf(&wanted->text, "{\"%s\":", name);
    json_write_string(&wanted->text, text);
    buf_putc(&wanted->text, '}');
    return true;
}

/* --- In the query ----------------------------------------------------------------------------- */

/* Whether the query is a poll's, whatever else is in it. */
static bool is_poll(struct slice query) {
    static const struct slice names[] = {
        SLICE("ts"),    SLICE("sleep"), SLICE("limit"), SLICE("view"),    SLICE("since"),
        SLICE("epoch"), SLICE("where"), SLICE("as"),    SLICE("confirm"), SLICE("feed"),
    };
    for (struct text_pair pair; text_next_pair(&query, &pair);)
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            if (slice_equal(pair.name, names[i]))
                return true;
    return false;
}

static bool read_query(const struct request *request, struct slice query, struct wanted *wanted) {
    bool is_get = request->parser.method == HTTP_GET;
    struct buf value = {0};
    bool found = false;
    if (!is_get)
        found = text_find_pair(query, SLICE("validationToken"), &value);
    else if (text_find_pair(query, SLICE("hub.mode"), &value))
        found = text_find_pair(query, SLICE("hub.challenge"), &value);
    else if (!is_poll(query))
        found = text_find_pair(query, SLICE("challenge"), &value) ||
                text_find_pair(query, SLICE("validationToken"), &value);
    if (found)
        found = value.failed || echo_text(wanted, (struct slice){value.data, value.len});
    wanted->text.failed |= value.failed;
    buf_deinit(&value);
    return found;
}

/* --- In the headers --------------------------------------------------------------------------- */

enum asked { ASKED_NONE, ASKED_TWITCH, ASKED_ASANA, ASKED_SMARTSHEET, ASKED_OKTA };

/* Finds the header by which a service asks, and its value. */
static enum asked find_header(const struct request *request, struct slice *value) {
    static const struct slice names[] = {
        [ASKED_TWITCH] = SLICE("twitch-eventsub-message-type"),
        [ASKED_ASANA] = SLICE("x-hook-secret"),
        [ASKED_SMARTSHEET] = SLICE("smartsheet-hook-challenge"),
        [ASKED_OKTA] = SLICE("x-okta-verification-challenge"),
    };
    for (uint32_t i = 0; i < request->header_count; i++) {
        struct slice name = request_slice(request, request->headers[i].name);
        if (name.len < names[ASKED_ASANA].len)
            continue;
        for (enum asked asked = ASKED_TWITCH; asked <= ASKED_OKTA; asked++) {
            if (!slice_equal_nocase(name, names[asked]))
                continue;
            *value = request_slice(request, request->headers[i].value);
            return asked;
        }
    }
    return ASKED_NONE;
}

static bool echo_secret(struct wanted *wanted, const char *name, struct slice value) {
    if (!is_header_safe(value))
        return false;
    want(wanted, TEXT);
    add_line(&wanted->lines, name, value);
    return true;
}

/* --- In the body ------------------------------------------------------------------------------ */

enum { BODY_MAX_BYTES = 4096 }; /* of a handshake; a larger body is not looked at */

/* Whether `body` has the word by which Slack asks. Every push pays for this, and few bodies have
 * many underscores: memmem() would take longer. */
static bool has_verification(struct slice body) {
    static const struct slice before = SLICE("\"url"), after = SLICE("_verification\"");
    while (body.len) {
        const char *at = memchr(body.data, '_', body.len);
        if (!at)
            return false;
        struct slice rest = slice_after(body, (size_t)(at - body.data));
        if ((size_t)(at - body.data) >= before.len && slice_starts_with(rest, after) &&
            memcmp(at - before.len, before.data, before.len) == 0)
            return true;
        body = slice_after(rest, 1);
    }
    return false;
}

/* Echoes the `challenge` of an object; if `type` is not NULL, only of one with this `type`. */
static bool read_body(struct slice body, const char *type, struct wanted *wanted) {
    if (body.len > BODY_MAX_BYTES || json_check(body) != JSON_OBJECT)
        return false;
    struct slice challenge = SLICE("");
    bool is_type = !type;
    struct buf scratch = {0}, text = {0};
    for (struct json_member member; json_next_member(&body, &member);) {
        struct slice value = member.value;
        if (value.len < 2 || *value.data != '"')
            continue;
        value = (struct slice){value.data + 1, value.len - 2};
        if (slice_equal(member.key, SLICE("challenge")))
            challenge = json_unescape(value, &text);
        if (type && slice_equal(member.key, SLICE("type")))
            is_type = slice_equal(json_unescape(value, &scratch), slice_of(type));
    }
    bool failed = scratch.failed || text.failed;
    bool found = is_type && (failed || echo_text(wanted, challenge));
    wanted->text.failed |= found && failed;
    buf_deinit(&scratch);
    buf_deinit(&text);
    return found;
}

/* --- All of them ------------------------------------------------------------------------------ */

bool handshake_read(const struct request *request, struct slice query, struct wanted *wanted) {
    if (request->parser.method == HTTP_HEAD)
        return false;
    bool is_get = request->parser.method == HTTP_GET;
    struct slice value, body = request_slice(request, request->body);
    switch (find_header(request, &value)) {
    case ASKED_TWITCH:
        return !is_get && slice_equal(value, SLICE("webhook_callback_verification")) &&
               read_body(body, NULL, wanted);
    case ASKED_ASANA: return !is_get && echo_secret(wanted, "X-Hook-Secret", value);
    case ASKED_SMARTSHEET:
        if (is_get || !echo_json(wanted, "smartsheetHookResponse", value))
            return false;
        add_line(&wanted->lines, "Smartsheet-Hook-Response", value);
        return true;
    case ASKED_OKTA: return is_get && echo_json(wanted, "verification", value);
    case ASKED_NONE: break;
    }
    if (query.len && read_query(request, query, wanted))
        return true;
    body = skip_blank(body);
    return body.len && *body.data == '{' && body.len <= BODY_MAX_BYTES && has_verification(body) &&
           read_body(body, "url_verification", wanted);
}

bool handshake_consent(const struct request *request, struct buf *lines) {
    for (uint32_t i = 0; i < request->header_count; i++) {
        struct slice value = request_slice(request, request->headers[i].value);
        if (!slice_equal_nocase(request_slice(request, request->headers[i].name),
                                SLICE("webhook-request-origin")) ||
            !is_header_safe(value))
            continue;
        add_line(lines, "WebHook-Allowed-Origin", value);
        buf_puts(lines, "WebHook-Allowed-Rate: *\r\n");
        return true;
    }
    return false;
}
