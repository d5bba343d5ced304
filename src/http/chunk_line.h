/*
 * The line in front of each chunk: its size in hex, and extensions, which are read over (RFC 9112,
 * 7.1.1):
 *
 *     5;name;name=value; name = "a \"quoted\" value"
 *
 * The versions of llhttp disagree about which extensions there may be, so it sees none: this
 * scanner finds where they begin and end, whatever pieces the line comes in, and llhttp reads the
 * rest. It is as strict as the grammar; a line that is not is refused, because two programs that
 * read it differently would see different requests.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum chunk_line_state {
    CHUNK_LINE_NONE, /* not in such a line */
    CHUNK_LINE_SIZE,
    CHUNK_LINE_SIZE_END, /* behind a size or a value, after a space */
    CHUNK_LINE_NAME_START,
    CHUNK_LINE_NAME,
    CHUNK_LINE_NAME_END,
    CHUNK_LINE_VALUE_START,
    CHUNK_LINE_VALUE,
    CHUNK_LINE_QUOTED,
    CHUNK_LINE_ESCAPED,
    CHUNK_LINE_QUOTED_END,
    CHUNK_LINE_BAD,
};

struct chunk_line {
    uint8_t state; /* enum chunk_line_state */
    bool has_size; /* at least one digit */
};

static inline void chunk_line_begin(struct chunk_line *line) {
    *line = (struct chunk_line){.state = CHUNK_LINE_SIZE};
}

/* Whether the next byte belongs to an extension, and is none of llhttp's business. */
static inline bool chunk_line_is_in_extension(const struct chunk_line *line) {
    return line->state > CHUNK_LINE_SIZE;
}

/*
 * Scans from `at` up to where it changes whose business the bytes are: to the end of the size, or
 * of the extensions; then the state is CHUNK_LINE_NONE, and llhttp judges what follows. Returns
 * that place, or `to` if it comes later; on CHUNK_LINE_BAD, the byte that is wrong.
 */
const char *chunk_line_scan(struct chunk_line *line, const char *at, const char *to);
