#include "cli/screen.h"
#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

bool screen_is_terminal(FILE *stream) {
    return isatty(fileno(stream));
}

bool screen_has_colours(FILE *stream) {
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return screen_is_terminal(stream) && !(no && *no) && !(term && strcmp(term, "dumb") == 0);
}

void screen_set_colour(struct buf *out, enum screen_colour colour) {
    static const char *const codes[] = {
        [SCREEN_PLAIN] = "\033[0m",  [SCREEN_DIM] = "\033[2m",     [SCREEN_RED] = "\033[31m",
        [SCREEN_GREEN] = "\033[32m", [SCREEN_YELLOW] = "\033[33m", [SCREEN_BLUE] = "\033[34m",
    };
    buf_puts(out, codes[colour]);
}

/* The control character at the front of `text`: of ASCII, of the C1 set, or one that turns the
 * direction (U+202A to 202E, U+2066 to 2069), both in UTF-8. Returns its length; 0 for none. */
static size_t control_len(struct slice text, unsigned *code) {
    unsigned char bytes[3] = {0};
    memcpy(bytes, text.data, text.len < 3 ? text.len : 3);
    *code = bytes[0];
    if (bytes[0] < ' ' || bytes[0] == 0x7f)
        return 1;
    *code = bytes[1];
    if (bytes[0] == 0xc2 && bytes[1] >= 0x80 && bytes[1] < 0xa0)
        return 2;
    *code = 0x2000u + (bytes[1] & 0x3fu) * 64 + (bytes[2] & 0x3fu);
    bool turns = bytes[0] == 0xe2 &&
                 ((*code >= 0x202a && *code <= 0x202e) || (*code >= 0x2066 && *code <= 0x2069));
    return turns ? 3 : 0;
}

void screen_put_text(struct buf *out, struct slice text) {
    while (text.len) {
        unsigned code;
        size_t len = control_len(text, &code);
        if (len)
            buf_printf(out, "\\u%04x", code);
        else
            buf_append(out, text.data, len = 1);
        text = slice_after(text, len);
    }
}

void screen_put_line(struct buf *out, struct slice json) {
    while (json.len) {
        size_t len = 0;
        while (len < json.len && json.data[len] != '\n' && json.data[len] != '\r')
            len++;
        buf_append(out, json.data, len);
        json = slice_after(json, len < json.len ? len + 1 : len);
    }
}

/* --- JSON for people -------------------------------------------------------------------------- */

static void put_break(struct buf *out, unsigned depth) {
    buf_printf(out, "\n%*s", (int)depth * 2, "");
}

static size_t string_len(struct slice json) {
    size_t len = 1;
    while (len < json.len && json.data[len] != '"')
        len += json.data[len] == '\\' ? 2 : 1;
    return len < json.len ? len + 1 : json.len;
}

static size_t word_len(struct slice json) {
    size_t len = 1;
    while (len < json.len && !strchr(",]}: \t\r\n", json.data[len]))
        len++;
    return len;
}

/* A string, a number, true, false or null. Returns its length. */
static size_t put_scalar(struct buf *out, struct slice json, bool has_colours) {
    bool is_string = *json.data == '"';
    size_t len = is_string ? string_len(json) : word_len(json);
    struct slice behind = skip_blank(slice_after(json, len));
    bool is_key = behind.len && *behind.data == ':';
    if (has_colours)
        screen_set_colour(out, is_key ? SCREEN_BLUE : is_string ? SCREEN_GREEN : SCREEN_YELLOW);
    screen_put_text(out, (struct slice){json.data, len});
    if (has_colours)
        screen_set_colour(out, SCREEN_PLAIN);
    return len;
}

void screen_put_pretty(struct buf *out, struct slice json, bool has_colours) {
    unsigned depth = 0;
    char before = 0; /* not the last one in `out`, for which there may have been no memory */
    for (json = skip_blank(json); json.len; json = skip_blank(json)) {
        char c = *json.data;
        size_t len = 1;
        struct slice behind = skip_blank(slice_after(json, 1));
        bool is_empty = behind.len && (*behind.data == '}' || *behind.data == ']');
        if (c == '{' || c == '[') {
            buf_putc(out, c);
            depth++;
            if (!is_empty)
                put_break(out, depth);
        } else if (c == '}' || c == ']') {
            depth--;
            if (before != '{' && before != '[')
                put_break(out, depth);
            buf_putc(out, c);
        } else if (c == ',') {
            buf_putc(out, c);
            put_break(out, depth);
        } else if (c == ':') {
            buf_puts(out, ": ");
        } else {
            len = put_scalar(out, json, has_colours);
        }
        before = c;
        json = slice_after(json, len);
    }
    buf_putc(out, '\n');
}

void screen_put_time(struct buf *out, int64_t wall_ms) {
    time_t then = (time_t)(wall_ms / 1000), now = (time_t)(clock_wall_ms() / 1000);
    struct tm at, today;
    char text[32];
    if (!localtime_r(&then, &at) || !localtime_r(&now, &today))
        return;
    bool is_today = at.tm_yday == today.tm_yday && at.tm_year == today.tm_year;
    buf_append(out, text, strftime(text, sizeof text, is_today ? "%T" : "%F %T", &at));
}

bool screen_write(FILE *stream, const struct buf *text) {
    if (text->failed) {
        errno = ENOMEM;
        return false;
    }
    return !text->len ||
           (fwrite(text->data, 1, text->len, stream) == text->len && fflush(stream) == 0);
}

bool screen_write_json(FILE *stream, const struct buf *line) {
    if (!line->len || !screen_is_terminal(stream))
        return screen_write(stream, line);
    struct buf safe = {0};
    screen_put_text(&safe, (struct slice){line->data, line->len - 1});
    buf_putc(&safe, '\n');
    safe.failed |= line->failed;
    bool is_written = screen_write(stream, &safe);
    buf_deinit(&safe);
    return is_written;
}
