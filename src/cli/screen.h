/*
 * What people see: colours, times and JSON on a terminal; one line for each thing where programs
 * read. What came from outside never controls the terminal.
 */
#pragma once

#include "base/buf.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum screen_colour {
    SCREEN_PLAIN,
    SCREEN_DIM,
    SCREEN_RED,
    SCREEN_GREEN,
    SCREEN_YELLOW,
    SCREEN_BLUE
};

/* Whether a stream is a terminal, and whether it may have colours (NO_COLOR, TERM=dumb). */
bool screen_is_terminal(FILE *stream);
bool screen_has_colours(FILE *stream);

/* Appends the sequence that begins a colour, or ends it. */
void screen_set_colour(struct buf *out, enum screen_colour colour);

/* Appends text of others without what controls a terminal, or turns the direction of writing: each
 * such character becomes `\uXXXX`. */
void screen_put_text(struct buf *out, struct slice text);

/* Appends a JSON text as one line: its line breaks are left out, all else stays. */
void screen_put_line(struct buf *out, struct slice json);

/* Appends a JSON text with an indented line for each value, and a line break. */
void screen_put_pretty(struct buf *out, struct slice json, bool has_colours);

/* Appends milliseconds since 1970 as the local time of day; the day too if it is not today. */
void screen_put_time(struct buf *out, int64_t wall_ms);

/* Writes it at once. False, with errno, when that is not possible. */
bool screen_write(FILE *stream, const struct buf *text);

/* The same with a line of JSON. On a terminal it is escaped as screen_put_text() does, which leaves
 * it the same JSON; a program gets it as it is. */
bool screen_write_json(FILE *stream, const struct buf *line);
