#include "api/content.h"
#include "base/charset.h"
#include "base/utf8.h"

static bool ends_with(struct slice text, struct slice end) {
    return text.len >= end.len && slice_equal_nocase(slice_after(text, text.len - end.len), end);
}

static bool starts_with_nocase(struct slice text, struct slice start) {
    return text.len >= start.len && slice_equal_nocase((struct slice){text.data, start.len}, start);
}

static enum media media_of(struct slice type) {
    if (!type.len)
        return MEDIA_NONE;
    if (ends_with(type, SLICE("/json")) || ends_with(type, SLICE("+json")))
        return MEDIA_JSON;
    if (slice_equal_nocase(type, SLICE("application/x-www-form-urlencoded")))
        return MEDIA_FORM;
    bool is_text = starts_with_nocase(type, SLICE("text/")) || ends_with(type, SLICE("/xml")) ||
                   ends_with(type, SLICE("+xml"));
    return is_text ? MEDIA_TEXT : MEDIA_OTHER;
}

/* The value of the parameter `charset`, without its quotes. */
static struct slice charset_of(struct slice parameters) {
    for (struct slice parameter; slice_cut(&parameters, ';', &parameter);) {
        struct slice name;
        slice_cut(&parameter, '=', &name);
        if (!parameter.data || !slice_equal_nocase(slice_trim(name), SLICE("charset")))
            continue;
        struct slice value = slice_trim(parameter);
        if (value.len >= 2 && value.data[0] == '"' && value.data[value.len - 1] == '"')
            value = (struct slice){value.data + 1, value.len - 2};
        return value;
    }
    return SLICE("");
}

struct content content_of(struct slice content_type) {
    struct slice type;
    if (!slice_cut(&content_type, ';', &type))
        return (struct content){MEDIA_NONE, SLICE("")};
    return (struct content){media_of(slice_trim(type)), charset_of(content_type)};
}

/* Whether `text` has no control characters but those of plain text. */
static bool is_plain(struct slice text) {
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];
        if (c < ' ' && (c < '\t' || c > '\r') && c != 0x1b)
            return false;
    }
    return true;
}

/* Whether `body` is UTF-8. What is said to be UTF-16 or the like may look like it, but has bytes
 * that no text of UTF-8 needs; some only say so. */
static bool is_utf8(struct slice body, struct slice charset) {
    if (!utf8_is_valid(body))
        return false;
    return !charset_is_unlike_ascii(charset) ||
           (!memchr(body.data, '\0', body.len) && !memchr(body.data, 0x1b, body.len));
}

static bool decode_as(struct buf *out, struct slice body, struct slice name) {
    struct charset charset = {.name = name};
    bool is_text = charset_decode(out, body, &charset);
    charset_deinit(&charset);
    return is_text;
}

bool content_decode(struct buf *out, struct slice body, const struct content *content) {
    bool is_typed = content->media != MEDIA_OTHER;
    if ((!is_typed && !content->charset.len) || is_utf8(body, content->charset))
        return false;
    return decode_as(out, body, charset_of_mark(body)) || decode_as(out, body, content->charset) ||
           (is_typed && is_plain(body) && decode_as(out, body, SLICE("windows-1252")));
}
