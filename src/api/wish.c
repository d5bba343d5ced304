#include "api/wish.h"
#include "base/text.h"
#include "base/utf8.h"

enum parameter { NONE, REPLY, STATUS, TYPE, ONCE, KEY };

static enum parameter parameter_of(struct slice name) {
    static const struct slice names[] = {
        [REPLY] = SLICE(".reply"), [STATUS] = SLICE(".status"), [TYPE] = SLICE(".type"),
        [ONCE] = SLICE(".once"),   [KEY] = SLICE(".key"),
    };
    if (!slice_starts_with(name, SLICE(".")))
        return NONE;
    for (enum parameter i = REPLY; i <= KEY; i++)
        if (slice_equal(name, names[i]))
            return i;
    return NONE;
}

static bool read_status(struct slice text, enum http_status *status) {
    uint64_t code;
    if (!slice_number(text, 299, &code) || code < 200)
        return false;
    *status = http_success((unsigned)code);
    for (enum http_status i = 0; i < HTTP_STATUS_COUNT; i++)
        if ((uint64_t)http_status_code(i) == code)
            *status = i;
    return true;
}

static bool read_type(struct slice text, const char **type) {
    static const char *const types[] = {
        "text/plain; charset=utf-8",
        "application/json; charset=utf-8",
        "application/xml; charset=utf-8",
        "text/xml; charset=utf-8",
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct slice rest = slice_of(types[i]), type_only;
        if (slice_cut(&rest, ';', &type_only) && slice_equal_nocase(text, type_only)) {
            *type = types[i];
            return true;
        }
    }
    return false;
}

static bool read_text(struct slice text, struct buf *out) {
    if (text.len > WANTED_TEXT_MAX_BYTES || !utf8_is_valid(text))
        return false;
    buf_reset(out, SIZE_MAX);
    buf_append(out, text.data, text.len);
    return true;
}

/* Sets what the parameter asks for; false when its value cannot be. */
static bool apply(struct wanted *wanted, enum parameter parameter, struct slice value) {
    switch (parameter) {
    case REPLY: return read_text(value, &wanted->text);
    case STATUS: return read_status(value, &wanted->status);
    case TYPE: return read_type(value, &wanted->content_type);
    default: return true;
    }
}

static void add_ignored(struct buf *lines, struct slice name) {
    bool is_first = !lines->len;
    buf_puts(lines, is_first ? "X-Ignored: " : ", ");
    buf_append(lines, name.data, name.len);
}

/* A 204 and a 205 have no body (RFC 9110, 15.3); the length of a 204's is not even announced. */
static void finish(struct wanted *wanted) {
    if (wanted->lines.len)
        buf_puts(&wanted->lines, "\r\n");
    buf_puts(&wanted->lines, WANTED_SANDBOX);
    if (wanted->status == HTTP_RESET_CONTENT)
        buf_puts(&wanted->lines, "Content-Length: 0\r\n");
    if (wanted->status == HTTP_RESET_CONTENT || wanted->status == HTTP_NO_CONTENT)
        wanted->content_type = NULL;
}

bool wish_read(struct slice query, struct wanted *wanted) {
    if (!query.len || !memchr(query.data, '.', query.len))
        return false;
    bool is_any = false;
    unsigned ignored = 0;
    wanted->status = HTTP_OK;
    wanted->content_type = "text/plain; charset=utf-8";
    buf_puts(&wanted->text, "OK");
    struct buf value = {0};
    for (struct text_pair pair; text_next_pair(&query, &pair);) {
        enum parameter parameter = parameter_of(pair.name);
        if (parameter != REPLY && parameter != STATUS && parameter != TYPE)
            continue;
        is_any = true;
        buf_reset(&value, SIZE_MAX);
        text_decode_form(&value, pair.value);
        wanted->lines.failed |= value.failed; /* read_text() forgets it of the text */
        if (apply(wanted, parameter, (struct slice){value.data, value.len}) ||
            ignored & 1U << parameter)
            continue;
        ignored |= 1U << parameter; /* each is named once, however often it comes */
        add_ignored(&wanted->lines, pair.name);
    }
    buf_deinit(&value);
    if (is_any)
        finish(wanted);
    else
        wanted_deinit(wanted);
    return is_any;
}

struct slice wish_strip(struct slice query, struct buf *out) {
    if (!query.len || !memchr(query.data, '.', query.len))
        return query;
    struct slice rest = query;
    bool is_any = false;
    for (struct text_pair pair; text_next_pair(&rest, &pair);) {
        if (parameter_of(pair.name)) {
            is_any = true;
            continue;
        }
        if (out->len)
            buf_putc(out, '&');
        buf_append(out, pair.name.data, pair.name.len);
        buf_putc(out, '=');
        buf_append(out, pair.value.data, pair.value.len);
    }
    return is_any ? (struct slice){out->data ? out->data : "", out->len} : query;
}
