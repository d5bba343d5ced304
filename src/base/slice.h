/* A run of bytes that somebody else owns; not terminated, may hold NUL. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <strings.h>

struct slice {
    const char *data;
    size_t len;
};

/* A string literal as a slice; fit to initialize a static. */
#define SLICE(literal) ((struct slice){"" literal, sizeof(literal) - 1})

/* A C string as a slice. */
static inline struct slice slice_of(const char *text) {
    return (struct slice){text, strlen(text)};
}

static inline bool slice_equal(struct slice a, struct slice b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/* ASCII case does not matter. Most that differ do so in their length or the first byte. */
static inline bool slice_equal_nocase(struct slice a, struct slice b) {
    return a.len == b.len && (!a.len || ((*a.data ^ *b.data) & ~0x20) == 0) &&
           strncasecmp(a.data, b.data, a.len) == 0;
}

static inline char slice_lower(char ascii) {
    return ascii >= 'A' && ascii <= 'Z' ? (char)(ascii + ('a' - 'A')) : ascii;
}

/* Without the spaces and tabs at both ends: the optional white space of HTTP (RFC 9110, 5.6.3). */
static inline struct slice slice_trim(struct slice s) {
    while (s.len && (*s.data == ' ' || *s.data == '\t'))
        s.data++, s.len--;
    while (s.len && (s.data[s.len - 1] == ' ' || s.data[s.len - 1] == '\t'))
        s.len--;
    return s;
}

/* Without the blanks in front: spaces, tabs and line breaks, the white space of JSON (RFC 8259,
 * 2). */
static inline struct slice skip_blank(struct slice s) {
    while (s.len && (*s.data == ' ' || *s.data == '\t' || *s.data == '\r' || *s.data == '\n'))
        s.data++, s.len--;
    return s;
}

/* Without the first `len` bytes, which must be there. */
static inline struct slice slice_after(struct slice s, size_t len) {
    return (struct slice){s.data + len, s.len - len};
}

static inline bool slice_starts_with(struct slice s, struct slice start) {
    return s.len >= start.len && memcmp(s.data, start.data, start.len) == 0;
}

/* Whether it has a control character of ASCII. */
static inline bool slice_has_control(struct slice s) {
    for (size_t i = 0; i < s.len; i++)
        if ((unsigned char)s.data[i] < ' ' || s.data[i] == 0x7f)
            return true;
    return false;
}

/*
 * Takes the next item off the front of `list`: what stands before `separator`, or all that is left.
 * A list has one item more than it has separators. False after the last one, when list->data is
 * NULL.
 */
static inline bool slice_cut(struct slice *list, char separator, struct slice *item) {
    if (!list->data)
        return false;
    const char *end = list->len ? memchr(list->data, separator, list->len) : NULL;
    *item = (struct slice){list->data, end ? (size_t)(end - list->data) : list->len};
    *list = end ? slice_after(*list, item->len + 1) : (struct slice){NULL, 0};
    return true;
}

/* Reads a decimal number of digits only, at most `max`; false when `s` is anything else. */
static inline bool slice_number(struct slice s, uint64_t max, uint64_t *number) {
    uint64_t value = 0;
    for (size_t i = 0; i < s.len; i++) {
        unsigned digit = (unsigned char)s.data[i] - (unsigned)'0';
        if (digit > 9 || value > max / 10 || digit > max - value * 10)
            return false;
        value = value * 10 + digit;
    }
    if (s.len)
        *number = value;
    return s.len > 0;
}
