/*
 * JSON text (RFC 8259) in and out. Nothing is parsed into a tree: a text is checked, and its
 * members are slices of it. What is stored and delivered are the sender's own bytes.
 */
#pragma once

#include "base/buf.h"
#include "base/slice.h"

/* The deepest nesting that json_check() reads. */
enum { JSON_DEPTH_MAX = 500 };

enum json_kind {
    JSON_INVALID, /* not a JSON text, or not UTF-8 */
    JSON_TOO_DEEP,
    JSON_SCALAR,
    JSON_ARRAY,
    JSON_OBJECT,
};

/*
 * Says what `text` is. A valid text is one JSON value in strict UTF-8, without a byte-order mark.
 * As in RFC 8259, numbers have any size and precision, keys may repeat, and an escape may be half a
 * surrogate pair. Checking stops at the first mistake, or where the text gets too deep. Nothing is
 * allocated.
 */
enum json_kind json_check(struct slice text);

/* The same with nesting to `depth_max` levels, at most JSON_DEPTH_MAX. Also says whether a string
 * of the valid text has half a surrogate pair, as `\ud83c` alone: jq, PHP and others refuse it. */
enum json_kind json_inspect(struct slice text, int depth_max, bool *has_half);

/* Appends a valid text, with `\ufffd` in place of every half of a surrogate pair. */
void json_write_mended(struct buf *out, struct slice text);

/* A member of an object, as slices of the object's text. */
struct json_member {
    struct slice key; /* between its quotes, still escaped: see json_unescape() */
    struct slice value;
};

/*
 * Takes the next member off the front of `rest`; start with a text that is a JSON_OBJECT. False
 * when there are no more. Members come in the order of the text; a repeated key is reported each
 * time.
 */
bool json_next_member(struct slice *rest, struct json_member *member);

/* The same for the items of a text that is a JSON_ARRAY. */
bool json_next_item(struct slice *rest, struct slice *item);

/*
 * The text that a JSON string, given without its quotes, stands for: the string itself if it has no
 * escapes, otherwise a slice of `scratch`, which is overwritten. Half a surrogate pair becomes
 * U+FFFD. Check scratch->failed for lack of memory.
 */
struct slice json_unescape(struct slice string, struct buf *scratch);

/* Writes `text` as a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD. */
void json_write_string(struct buf *out, struct slice text);

enum { JSON_GROWTH_FREE_BYTES = 65536 };

/* How many bytes longer a UTF-8 text is as a JSON string, without its quotes. */
size_t json_string_growth(struct slice text);

/* Whether that is too much for `len` bytes: more than twice as long, and not a little. */
bool json_string_is_costly(size_t growth, size_t len);

/* Writes `bytes` as a JSON string of base64 (RFC 4648, padded). */
void json_write_base64(struct buf *out, struct slice bytes);
