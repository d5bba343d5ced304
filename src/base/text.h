/* The encodings of a web address: percent-encoding (RFC 3986, 2.1) and forms (WHATWG URL, 5). */
#pragma once

#include "base/buf.h"
#include "base/slice.h"
#include <stdbool.h>

/*
 * Decodes %XX into `out`, which has room for text.len bytes and may be where `text` is. Returns the
 * new length, or -1 when two hex digits do not follow a %.
 */
long text_decode_percent(struct slice text, char *out);

/* One `name=value` of a query or a form, still encoded. */
struct text_pair {
    struct slice name, value;
};

/* Takes the next pair off the front of a query or a form; skips empty ones. False at the end. */
bool text_next_pair(struct slice *text, struct text_pair *pair);

/* The first pair called `name` as it stands, not decoded: its value goes to `value`, decoded. False
 * when there is none. */
bool text_find_pair(struct slice text, struct slice name, struct buf *value);

/* Appends the decoded `text`: + becomes a space, %XX a byte; a % without two hex digits stays. */
void text_decode_form(struct buf *out, struct slice text);
