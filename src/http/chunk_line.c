#include "http/chunk_line.h"

#include <string.h>

static bool is_digit_or_letter(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_hex(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* tchar of RFC 9110, 5.6.2. */
static bool is_token(char c) {
    return c && (is_digit_or_letter(c) || strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_space(char c) {
    return c == ' ' || c == '\t';
}

/* Any text; bytes from 0x80 on are obs-text. */
static bool is_text(char c) {
    return c == '\t' || ((unsigned char)c >= ' ' && c != 0x7f);
}

/* A byte that begins an extension is looked at again, as its first. */
static enum chunk_line_state after_size(const struct chunk_line *line, char c) {
    if (is_hex(c))
        return CHUNK_LINE_SIZE;
    return line->has_size && (c == ';' || is_space(c)) ? CHUNK_LINE_SIZE_END : CHUNK_LINE_NONE;
}

static enum chunk_line_state after_name(char c) {
    return c == '='      ? CHUNK_LINE_VALUE_START
           : c == ';'    ? CHUNK_LINE_NAME_START
           : is_space(c) ? CHUNK_LINE_NAME_END
                         : CHUNK_LINE_BAD;
}

/* What follows a value when it is over. */
static enum chunk_line_state after_value(char c) {
    return c == '\r'     ? CHUNK_LINE_NONE
           : c == ';'    ? CHUNK_LINE_NAME_START
           : is_space(c) ? CHUNK_LINE_SIZE_END
                         : CHUNK_LINE_BAD;
}

static enum chunk_line_state after(const struct chunk_line *line, char c) {
    switch ((enum chunk_line_state)line->state) {
    case CHUNK_LINE_SIZE: return after_size(line, c);
    case CHUNK_LINE_SIZE_END:
        return is_space(c) ? CHUNK_LINE_SIZE_END
               : c == ';'  ? CHUNK_LINE_NAME_START
                           : CHUNK_LINE_BAD;
    case CHUNK_LINE_NAME_START:
        return is_space(c) ? CHUNK_LINE_NAME_START : is_token(c) ? CHUNK_LINE_NAME : CHUNK_LINE_BAD;
    case CHUNK_LINE_NAME:
        return is_token(c) ? CHUNK_LINE_NAME : c == '\r' ? CHUNK_LINE_NONE : after_name(c);
    case CHUNK_LINE_NAME_END: return after_name(c);
    case CHUNK_LINE_VALUE_START:
        return is_space(c)   ? CHUNK_LINE_VALUE_START
               : c == '"'    ? CHUNK_LINE_QUOTED
               : is_token(c) ? CHUNK_LINE_VALUE
                             : CHUNK_LINE_BAD;
    case CHUNK_LINE_VALUE: return is_token(c) ? CHUNK_LINE_VALUE : after_value(c);
    case CHUNK_LINE_QUOTED:
        return c == '"'     ? CHUNK_LINE_QUOTED_END
               : c == '\\'  ? CHUNK_LINE_ESCAPED
               : is_text(c) ? CHUNK_LINE_QUOTED
                            : CHUNK_LINE_BAD;
    case CHUNK_LINE_ESCAPED: return is_text(c) ? CHUNK_LINE_QUOTED : CHUNK_LINE_BAD;
    case CHUNK_LINE_QUOTED_END: return after_value(c);
    default: return CHUNK_LINE_BAD;
    }
}

const char *chunk_line_scan(struct chunk_line *line, const char *at, const char *to) {
    bool was_in_extension = chunk_line_is_in_extension(line);
    for (; at < to; at++) {
        line->has_size |= line->state == CHUNK_LINE_SIZE && is_hex(*at);
        line->state = after(line, *at);
        if (line->state == CHUNK_LINE_NONE || line->state == CHUNK_LINE_BAD ||
            chunk_line_is_in_extension(line) != was_in_extension)
            return at;
    }
    return to;
}
