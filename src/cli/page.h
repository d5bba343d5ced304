/* The body of a reply to a poll, taken apart. */
#pragma once

#include "base/buf.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

/* Slices are of the body. */
struct page {
    uint64_t ts, missed, skipped;
    bool is_reset;
    struct slice epoch;   /* empty: not told */
    struct slice updates; /* the array */
    size_t count;
};

/* Whether `body` is longline's answer to a poll. */
bool page_parse(struct slice body, struct page *page);

/* Whether it is longline's own error of that status; its description goes to `text`, decoded. */
bool page_parse_error(struct slice body, int status, struct buf *text);

/* The member of an object that comes last under that name; an empty slice when there is none. */
struct slice page_member(struct slice object, struct slice name);

/* Appends what a JSON string stands for. False when `value` is no string. */
bool page_string(struct slice value, struct buf *out);
