/*
 * JSON text in and out. Reading is yajl's: it checks the grammar and says where the members are;
 * nothing is ever parsed into a tree, so that texts pass through byte for byte.
 */
#pragma once

#include "base/buf.h"
#include "base/slice.h"
#include <stdint.h>

/* Deeper texts are refused: the parsers of PHP, Python and Lua give up at 512 to 1,000 levels, and an
 * update that a consumer cannot read would block its channel. */
enum { JSON_DEPTH_MAX = 500 };

/* Where something stands in a text. */
struct json_span {
    size_t at, len;
};

/* A member of the top-level object: its value's span. */
typedef void json_member(void *context, struct slice key, struct json_span value);

enum json_kind {
    JSON_INVALID, /* no JSON text, or not UTF-8 */
    JSON_TOO_DEEP,
    JSON_SCALAR,
    JSON_ARRAY,
    JSON_OBJECT,
    JSON_NO_MEMORY,
};

/*
 * Checks that `text` is one JSON text (RFC 8259, strict UTF-8) and says what it is. For an object,
 * `on_member`, if not NULL, is called for every member in order, with its decoded key (valid during the
 * call); duplicates are reported each. An escaped surrogate without its pair reads as `?` in a key.
 */
enum json_kind json_check(struct slice text, json_member *on_member, void *context);

/* Writes `text` as a JSON string with its quotes. What is not UTF-8 becomes U+FFFD. */
void json_write_string(struct buf *out, struct slice text);

/* Writes `bytes` as a JSON string of base64 (RFC 4648, padded). */
void json_write_base64(struct buf *out, struct slice bytes);
