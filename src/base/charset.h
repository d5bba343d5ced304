/*
 * Texts that are not UTF-8, as the `charset` of a Content-Type names them.
 *
 * Known are the names of a table (charset.c), which are those that web browsers know; glibc's iconv
 * decodes most of them. A name of the table may lack its module on a small system: then, as with
 * any other name, a text is taken for windows-1252, as browsers do.
 */
#pragma once

#include "base/buf.h"
#include "base/slice.h"

/* Whether texts in `charset` may look like UTF-8 and are none: UTF-16, UTF-32, ISO-2022-JP. */
bool charset_is_unlike_ascii(struct slice charset);

/* The charset that a byte-order mark of UTF-16 or UTF-32 announces; empty when there is none. */
struct slice charset_of_mark(struct slice text);

/* A charset, and what it keeps open from one text to the next. Zeroed but for its name; in the end
 * charset_deinit() it. */
struct charset {
    struct slice name;  /* may be empty */
    const char *opened; /* what the converter is for; NULL when there is none */
    void *converter;
};

void charset_deinit(struct charset *charset);

/*
 * Appends `text` as UTF-8, without a byte-order mark. False when the charset is not known, the text
 * is no text in it, or would grow to more than twice its length (and a little); what was appended
 * is then taken back. Check out->failed.
 */
bool charset_decode(struct buf *out, struct slice text, struct charset *charset);

/* Appends `text` by its charset, or else as windows-1252, in which every text is one; it may grow
 * to three times its length. */
void charset_decode_text(struct buf *out, struct slice text, struct charset *charset);
