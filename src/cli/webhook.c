#include "cli/webhook.h"
#include "base/json.h"
#include "cli/page.h"

#include <sodium.h>
#include <stdlib.h>

enum { EVENT_MAX_BYTES = 64 };

static bool is_token(struct slice text) {
    for (size_t i = 0; i < text.len; i++) {
        char c = text.data[i];
        bool is_alnum = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
        if (!is_alnum && (!c || !strchr("!#$%&'*+-.^_`|~", c)))
            return false;
    }
    return text.len > 0;
}

/* Whether it can stand in a request's target. */
static bool is_target(struct slice text) {
    return !slice_has_control(text) && !memchr(text.data, ' ', text.len);
}

static bool is_value(struct slice text) {
    for (size_t i = 0; i < text.len; i++)
        if (((unsigned char)text.data[i] < ' ' && text.data[i] != '\t') || text.data[i] == 0x7f)
            return false;
    return true;
}

static bool is_short(struct slice text) {
    return text.len <= EVENT_MAX_BYTES;
}

/* Ends with a NUL that does not count. */
static void end_text(struct buf *text) {
    buf_putc(text, '\0');
    if (!text->failed)
        text->len--;
}

static void read_text(struct slice item, struct slice name, bool (*is_fit)(struct slice),
                      struct buf *out) {
    buf_reset(out, SIZE_MAX);
    if (page_string(page_member(item, name), out) && out->len &&
        !is_fit((struct slice){out->data, out->len}))
        out->len = 0;
    end_text(out);
}

static void add_header(struct buf *headers, const struct json_member *member) {
    struct buf name = {0}, value = {0}, scratch = {0};
    struct slice key = json_unescape(member->key, &scratch);
    buf_append(&name, key.data, key.len);
    if (is_token(key) && page_string(member->value, &value) &&
        is_value((struct slice){value.data, value.len})) {
        buf_append(headers, name.data, name.len);
        buf_putc(headers, '\0');
        buf_append(headers, value.data, value.len);
        buf_putc(headers, '\0');
    }
    headers->failed |= name.failed || value.failed || scratch.failed;
    buf_deinit(&name);
    buf_deinit(&value);
    buf_deinit(&scratch);
}

static void read_headers(struct slice item, struct buf *out) {
    struct slice object = page_member(item, SLICE("headers"));
    struct json_member member;
    buf_reset(out, SIZE_MAX);
    if (object.len && *object.data == '{')
        while (json_next_member(&object, &member))
            add_header(out, &member);
}

/* Decodes a member; false when there is none, and nothing is written. */
static bool read_base64(struct slice item, struct slice name, struct buf *out) {
    struct slice base64 = page_member(item, name);
    if (!base64.len)
        return false;
    struct buf text = {0};
    size_t len = 0;
    page_string(base64, &text);
    if (buf_reserve(out, text.len / 4 * 3 + 3) &&
        sodium_base642bin((unsigned char *)out->data, out->cap, text.data, text.len, NULL, &len,
                          NULL, sodium_base64_VARIANT_ORIGINAL) == 0)
        out->len = len;
    out->failed |= text.failed;
    buf_deinit(&text);
    return true;
}

/* Reads the bytes that came; false when these are the plain ones for all that is known. */
static bool read_body(struct slice item, struct buf *out) {
    buf_reset(out, SIZE_MAX);
    if (read_base64(item, SLICE("coded_base64"), out))
        return true;
    if (!read_base64(item, SLICE("raw_base64"), out))
        page_string(page_member(item, SLICE("raw")), out);
    return false;
}

/* Whether longline has undone the codings of a body whose coded bytes it has not: it can undo
 * these, and then the length is another, or, where none was told, the update is not just bytes. */
static bool is_undone(const struct webhook *webhook, struct slice item) {
    const char *codings = webhook_header(webhook, "content-encoding");
    const char *length = webhook_header(webhook, "content-length");
    struct slice rest = slice_of(codings ? codings : "br"), coding;
    struct slice update = page_member(item, SLICE("body"));
    uint64_t len;
    while (slice_cut(&rest, ',', &coding)) {
        coding = slice_trim(coding);
        if (!slice_equal_nocase(coding, SLICE("gzip")) &&
            !slice_equal_nocase(coding, SLICE("x-gzip")) &&
            !slice_equal_nocase(coding, SLICE("deflate")))
            return false;
    }
    if (length && slice_number(slice_of(length), INT64_MAX, &len))
        return len != webhook->body.len;
    bool is_bytes =
        update.len && *update.data == '{' && page_member(update, SLICE("body_base64")).len;
    return webhook->body.len && !is_bytes;
}

/* The header of that name, in lower case, is there no more. */
static void drop_header(struct webhook *webhook, const char *wanted) {
    struct buf *headers = &webhook->headers;
    const char *name, *value;
    for (struct slice rest = webhook_headers(webhook); webhook_next_header(&rest, &name, &value);)
        if (strcasecmp(name, wanted) == 0) {
            memmove(headers->data + (name - headers->data), rest.data, rest.len);
            headers->len -= (size_t)(rest.data - name);
            return;
        }
}

bool webhook_read(struct webhook *webhook, struct slice item) {
    webhook->ts = webhook->at = 0;
    slice_number(page_member(item, SLICE("ts")), INT64_MAX, &webhook->ts);
    slice_number(page_member(item, SLICE("at")), INT64_MAX, &webhook->at);
    read_text(item, SLICE("method"), is_token, &webhook->method);
    read_text(item, SLICE("path"), is_target, &webhook->path);
    read_text(item, SLICE("query"), is_target, &webhook->query);
    read_text(item, SLICE("from"), is_value, &webhook->from);
    if (!webhook->method.len) {
        buf_puts(&webhook->method, "POST");
        end_text(&webhook->method);
    }
    read_headers(item, &webhook->headers);
    bool is_coded = read_body(item, &webhook->body);
    if (!is_coded && !webhook->headers.failed && is_undone(webhook, item)) {
        drop_header(webhook, "content-encoding");
        drop_header(webhook, "content-length");
    }
    return !webhook->method.failed && !webhook->path.failed && !webhook->query.failed &&
           !webhook->from.failed && !webhook->headers.failed && !webhook->body.failed;
}

void webhook_deinit(struct webhook *webhook) {
    buf_deinit(&webhook->method);
    buf_deinit(&webhook->path);
    buf_deinit(&webhook->query);
    buf_deinit(&webhook->from);
    buf_deinit(&webhook->headers);
    buf_deinit(&webhook->body);
}

struct slice webhook_headers(const struct webhook *webhook) {
    return (struct slice){webhook->headers.data, webhook->headers.len};
}

bool webhook_next_header(struct slice *rest, const char **name, const char **value) {
    if (!rest->len)
        return false;
    *name = rest->data;
    *value = *name + strlen(*name) + 1;
    *rest = slice_after(*rest, (size_t)(*value + strlen(*value) + 1 - rest->data));
    return true;
}

const char *webhook_header(const struct webhook *webhook, const char *wanted) {
    const char *name, *value;
    for (struct slice rest = webhook_headers(webhook); webhook_next_header(&rest, &name, &value);)
        if (strcasecmp(name, wanted) == 0)
            return value;
    return NULL;
}

void webhook_write_event(const struct webhook *webhook, struct buf *out) {
    static const char *const names[] = {"x-github-event", "x-gitlab-event", "x-shopify-topic",
                                        "x-event-key",    "x-gitea-event",  "ce-type"};
    struct slice body = {webhook->body.data, webhook->body.len};
    buf_reset(out, SIZE_MAX);
    for (size_t i = 0; i < sizeof names / sizeof *names && !out->len; i++) {
        const char *value = webhook_header(webhook, names[i]);
        buf_puts(out, value && is_short(slice_of(value)) ? value : "");
    }
    if (!out->len && json_check(body) == JSON_OBJECT)
        read_text(body, SLICE("type"), is_short, out);
    end_text(out);
}
