#include "base/json.h"
#include "base/utf8.h"

#include <endian.h>
#include <sodium.h>

/* --- Tokens (RFC 8259, sections 2, 3, 6 and 7) ------------------------------------------------ */

/*
 * What is left of a text, and what is open in it. The functions are inline so that a reader lives
 * in registers while a value is read; that makes them twice as fast.
 */
struct reader {
    const char *at, *end;
    char *closers; /* the brackets still to come, the innermost last */
    int depth;     /* how many of them */
    int depth_max;
    bool has_half; /* of a surrogate pair, without the other */
};

/* An empty text may be a null pointer, to which nothing may be added. */
static struct reader reader_of(struct slice text) {
    return (struct reader){.at = text.data, .end = text.len ? text.data + text.len : text.data};
}

/* The next byte. At the end it is NUL, which no token begins with. */
static inline char peek(const struct reader *in) {
    return in->at < in->end ? *in->at : '\0';
}

static inline bool take(struct reader *in, char c) {
    if (peek(in) != c)
        return false;
    in->at++;
    return true;
}

static inline void pass_blank(struct reader *in) {
    while (peek(in) == ' ' || peek(in) == '\n' || peek(in) == '\r' || peek(in) == '\t')
        in->at++;
}

static inline bool take_word(struct reader *in, struct slice word) {
    if ((size_t)(in->end - in->at) < word.len || memcmp(in->at, word.data, word.len) != 0)
        return false;
    in->at += word.len;
    return true;
}

static inline bool take_digits(struct reader *in) {
    const char *start = in->at;
    while (peek(in) >= '0' && peek(in) <= '9')
        in->at++;
    return in->at > start;
}

static inline bool take_number(struct reader *in) {
    take(in, '-');
    if (!take(in, '0') && !take_digits(in))
        return false;
    if (take(in, '.') && !take_digits(in))
        return false;
    if (!take(in, 'e') && !take(in, 'E'))
        return true;
    if (!take(in, '+'))
        take(in, '-');
    return take_digits(in);
}

/* The value of a hexadecimal digit, or -1. */
static inline int hex_value(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The four digits behind `\\u`. */
static inline bool take_unit(struct reader *in) {
    for (int i = 0; i < 4; i++, in->at++)
        if (hex_value(peek(in)) < 0)
            return false;
    return true;
}

/* The kind of UTF-16 code unit that is written at `at`. */
enum unit { UNIT_WHOLE, UNIT_HIGH, UNIT_LOW };

static enum unit unit_at(const char *at) {
    int second = hex_value(at[1]);
    if (hex_value(at[0]) != 0xD || second < 8)
        return UNIT_WHOLE;
    return second < 0xC ? UNIT_HIGH : UNIT_LOW;
}

/* The unit was just taken. If it is the high half of a pair, takes the low one too; notes a half
 * without the other. */
static bool take_low_half(struct reader *in) {
    enum unit unit = unit_at(in->at - 4);
    if (unit == UNIT_WHOLE)
        return true;
    bool has_low = unit == UNIT_HIGH && in->end - in->at >= 6 && in->at[0] == '\\' &&
                   in->at[1] == 'u' && unit_at(in->at + 2) == UNIT_LOW;
    if (!has_low) {
        in->has_half = true;
        return true;
    }
    in->at += 2;
    return take_unit(in);
}

static inline bool take_escape(struct reader *in) {
    if (!take(in, '\\'))
        return false;
    if (!take(in, 'u')) {
        bool is_known = peek(in) && strchr("\"\\/bfnrt", peek(in));
        in->at += is_known;
        return is_known;
    }
    return take_unit(in) && take_low_half(in);
}

static inline bool is_ascii(char c) {
    return (unsigned char)c < 0x80;
}

/* An escape, or a character that is not ASCII. */
static inline bool take_character(struct reader *in) {
    if (is_ascii(peek(in)))
        return take_escape(in);
    size_t len = utf8_sequence((struct slice){in->at, (size_t)(in->end - in->at)});
    in->at += len;
    return len > 0;
}

/* A character of a single byte that stands for itself. */
static inline bool is_plain(char c) {
    return is_ascii(c) && c >= ' ' && c != '"' && c != '\\';
}

/* The first byte from `at` on that is not plain, or `end`; eight at a time. */
static inline const char *plain_end(const char *at, const char *end) {
    static const uint64_t ones = 0x0101010101010101;
    for (; end - at >= 8; at += 8) {
        uint64_t word;
        memcpy(&word, at, sizeof word);
        word = le64toh(word);
        /* Sets the high bit of every byte that is not plain. Borrows may set more of them, but only
         * above such a byte: the lowest is right. */
        uint64_t stops = (word ^ ones * '"') - ones;
        stops |= (word ^ ones * '\\') - ones;
        stops |= word - ones * ' ';
        stops = (stops | word) & ones * 0x80;
        if (stops)
            return at + __builtin_ctzll(stops) / 8;
    }
    while (at < end && is_plain(*at))
        at++;
    return at;
}

static inline bool take_string(struct reader *in) {
    if (!take(in, '"'))
        return false;
    for (;;) {
        in->at = plain_end(in->at, in->end);
        if (take(in, '"'))
            return true;
        do { /* such characters come in runs */
            if (!take_character(in))
                return false;
        } while (peek(in) == '\\' || !is_ascii(peek(in)));
    }
}

/* --- The grammar ------------------------------------------------------------------------------ */

/* What must come next, or how the reading has ended. */
enum state { VALUE, KEY, AFTER_VALUE, DONE, BAD, TOO_DEEP };

static inline enum state read_opening(struct reader *in) {
    if (in->depth == in->depth_max)
        return TOO_DEEP;
    char opener = *in->at++, closer = opener == '{' ? '}' : ']';
    in->closers[in->depth++] = closer;
    pass_blank(in);
    if (peek(in) == closer)
        return AFTER_VALUE; /* as if the last of its values had just been read */
    return opener == '{' ? KEY : VALUE;
}

static inline enum state read_value(struct reader *in) {
    pass_blank(in);
    bool is_good;
    switch (peek(in)) {
    case '{':
    case '[': return read_opening(in);
    case '"': is_good = take_string(in); break;
    case 't': is_good = take_word(in, SLICE("true")); break;
    case 'f': is_good = take_word(in, SLICE("false")); break;
    case 'n': is_good = take_word(in, SLICE("null")); break;
    default: is_good = take_number(in);
    }
    return is_good ? AFTER_VALUE : BAD;
}

static inline enum state read_key(struct reader *in) {
    pass_blank(in);
    if (!take_string(in))
        return BAD;
    pass_blank(in);
    return take(in, ':') ? VALUE : BAD;
}

static inline enum state read_after_value(struct reader *in) {
    if (!in->depth)
        return DONE;
    char closer = in->closers[in->depth - 1];
    pass_blank(in);
    if (take(in, closer)) {
        in->depth--;
        return AFTER_VALUE;
    }
    if (take(in, ','))
        return closer == '}' ? KEY : VALUE;
    return BAD;
}

/* Takes one value and everything in it off the front of `text`. Returns DONE, BAD or TOO_DEEP. */
static enum state read_whole_value(struct reader *text, int depth_max) {
    char closers[JSON_DEPTH_MAX];
    struct reader in = {
        .at = text->at, .end = text->end, .closers = closers, .depth_max = depth_max};
    enum state state = VALUE;
    while (state < DONE) {
        if (state == VALUE)
            state = read_value(&in);
        else if (state == KEY)
            state = read_key(&in);
        else
            state = read_after_value(&in);
    }
    text->at = in.at;
    text->has_half |= in.has_half;
    return state;
}

enum json_kind json_check(struct slice text) {
    bool has_half;
    return json_inspect(text, JSON_DEPTH_MAX, &has_half);
}

enum json_kind json_inspect(struct slice text, int depth_max, bool *has_half) {
    struct reader in = reader_of(text);
    pass_blank(&in);
    char first = peek(&in);
    enum state state = read_whole_value(&in, depth_max);
    pass_blank(&in);
    *has_half = in.has_half;
    if (state == TOO_DEEP)
        return JSON_TOO_DEEP;
    if (state == BAD || in.at < in.end)
        return JSON_INVALID;
    return first == '{' ? JSON_OBJECT : first == '[' ? JSON_ARRAY : JSON_SCALAR;
}

bool json_next_member(struct slice *rest, struct json_member *member) {
    struct reader in = reader_of(*rest);
    pass_blank(&in);
    if (!take(&in, '{') && !take(&in, ','))
        return false;
    pass_blank(&in);
    const char *key = in.at + 1;
    if (!take_string(&in))
        return false;
    member->key = (struct slice){key, (size_t)(in.at - 1 - key)};
    pass_blank(&in);
    if (!take(&in, ':'))
        return false;
    pass_blank(&in);
    const char *value = in.at;
    if (read_whole_value(&in, JSON_DEPTH_MAX) != DONE)
        return false;
    member->value = (struct slice){value, (size_t)(in.at - value)};
    *rest = (struct slice){in.at, (size_t)(in.end - in.at)};
    return true;
}

bool json_next_item(struct slice *rest, struct slice *item) {
    struct reader in = reader_of(*rest);
    pass_blank(&in);
    if (!take(&in, '[') && !take(&in, ','))
        return false;
    pass_blank(&in);
    const char *from = in.at;
    if (read_whole_value(&in, JSON_DEPTH_MAX) != DONE)
        return false;
    *item = (struct slice){from, (size_t)(in.at - from)};
    *rest = (struct slice){in.at, (size_t)(in.end - in.at)};
    return true;
}

/* --- Strings ---------------------------------------------------------------------------------- */

/* The UTF-16 code unit of the escape at `at`. */
static uint32_t escaped_unit(const char *at) {
    static const char letters[] = "bfnrt", units[] = "\b\f\n\r\t";
    if (at[1] != 'u') {
        const char *letter = strchr(letters, at[1]);
        return (uint32_t)(letter ? units[letter - letters] : at[1]);
    }
    uint32_t unit = 0;
    for (int i = 2; i < 6; i++)
        unit = unit << 4 | (uint32_t)hex_value(at[i]);
    return unit;
}

/* Takes an escape, or the two of a surrogate pair, and returns the character. */
static uint32_t take_escaped(struct reader *in) {
    const char *at = in->at;
    uint32_t unit = escaped_unit(at);
    take_escape(in);
    if (unit < 0xD800 || unit > 0xDFFF)
        return unit;
    if (in->at - at < 12)
        return 0xFFFD;
    return 0x10000 + ((unit - 0xD800) << 10) + (escaped_unit(at + 6) - 0xDC00);
}

void json_write_mended(struct buf *out, struct slice text) {
    struct reader in = reader_of(text);
    while (in.at < in.end) {
        const char *escape = memchr(in.at, '\\', (size_t)(in.end - in.at));
        const char *from = in.at;
        in.at = escape ? escape : in.end;
        in.has_half = false;
        if (escape)
            take_escape(&in);
        const char *end = in.has_half ? escape : in.at;
        buf_append(out, from, (size_t)(end - from));
        if (in.has_half)
            buf_puts(out, "\\ufffd");
    }
}

struct slice json_unescape(struct slice string, struct buf *scratch) {
    if (!memchr(string.data, '\\', string.len))
        return string;
    buf_reset(scratch, SIZE_MAX);
    struct reader in = reader_of(string);
    while (in.at < in.end) {
        const char *escape = memchr(in.at, '\\', (size_t)(in.end - in.at));
        const char *plain_end = escape ? escape : in.end;
        buf_append(scratch, in.at, (size_t)(plain_end - in.at));
        in.at = plain_end;
        if (escape)
            utf8_put(scratch, take_escaped(&in));
    }
    return (struct slice){scratch->data, scratch->len};
}

/* The letter behind the backslash, where two bytes are enough; else 0. */
static char short_escape(unsigned char c) {
    switch (c) {
    case '"':
    case '\\': return (char)c;
    case '\n': return 'n';
    default: return 0;
    }
}

/* A quote, a backslash, a control character, or a byte that is not UTF-8. */
static void write_changed(struct buf *out, unsigned char c) {
    static const char hex[] = "0123456789abcdef";
    if (c >= 0x80)
        buf_puts(out, "\xEF\xBF\xBD");
    else if (short_escape(c))
        buf_append(out, (char[]){'\\', short_escape(c)}, 2);
    else
        buf_append(out, (char[]){'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]}, 6);
}

/* How many bytes at the start of `text` stand for themselves in a string. DEL could, but lua-cjson
 * escapes it. */
static size_t unchanged_len(struct slice text) {
    const char *at = text.data, *end = at + text.len;
    for (size_t len; at < end; at += len) {
        const char *stop = plain_end(at, end);
        const char *del = memchr(at, 0x7f, (size_t)(stop - at));
        if (del)
            return (size_t)(del - text.data);
        at = stop;
        bool is_text = at < end && !is_ascii(*at);
        len = is_text ? utf8_sequence((struct slice){at, (size_t)(end - at)}) : 0;
        if (!len)
            break;
    }
    return (size_t)(at - text.data);
}

void json_write_string(struct buf *out, struct slice text) {
    buf_reserve(out, text.len + 2);
    buf_putc(out, '"');
    while (text.len) {
        size_t len = unchanged_len(text);
        buf_append(out, text.data, len);
        if (len < text.len)
            write_changed(out, (unsigned char)text.data[len++]);
        text = slice_after(text, len);
    }
    buf_putc(out, '"');
}

size_t json_string_growth(struct slice text) {
    size_t growth = 0;
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.data[i];
        bool is_control = c < ' ' || c == 0x7f;
        growth += short_escape(c) ? 1 : is_control ? 5 : 0;
    }
    return growth;
}

bool json_string_is_costly(size_t growth, size_t len) {
    return growth > JSON_GROWTH_FREE_BYTES && growth > len;
}

void json_write_base64(struct buf *out, struct slice bytes) {
    size_t size = sodium_base64_ENCODED_LEN(bytes.len, sodium_base64_VARIANT_ORIGINAL);
    buf_putc(out, '"');
    if (!buf_reserve(out, size))
        return;
    sodium_bin2base64(out->data + out->len, size, (const unsigned char *)bytes.data, bytes.len,
                      sodium_base64_VARIANT_ORIGINAL);
    out->len += size - 1;
    buf_putc(out, '"');
}
