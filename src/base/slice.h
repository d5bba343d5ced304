/* A run of bytes that somebody else owns; not terminated, may hold NUL. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

struct slice {
    const char *data;
    size_t len;
};

/* A literal as a slice; also in the initializer of a static. */
#define SLICE(literal) ((struct slice){"" literal, sizeof(literal) - 1})

static inline bool slice_equal(struct slice a, struct slice b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/* ASCII case does not matter. */
static inline bool slice_equal_nocase(struct slice a, struct slice b) {
    return a.len == b.len && strncasecmp(a.data, b.data, a.len) == 0;
}

/* Without the spaces and tabs at both ends. */
static inline struct slice slice_trim(struct slice s) {
    while (s.len && (*s.data == ' ' || *s.data == '\t'))
        s.data++, s.len--;
    while (s.len && (s.data[s.len - 1] == ' ' || s.data[s.len - 1] == '\t'))
        s.len--;
    return s;
}
