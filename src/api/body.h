/*
 * The text of an update: what becomes of a push's body, with the query merged in.
 *
 * The first that fits: nothing, JSON, a form, text, bytes; docs/protocol.md says what each becomes.
 */
#pragma once

#include "api/fields.h"
#include "base/buf.h"
#include "base/slice.h"
#include "http/status.h"

/*
 * The deepest nesting of JSON that stays JSON; what is deeper becomes text. jq 1.6 gives up at 256
 * levels, and an update that a consumer cannot read would block its channel. A page adds a few.
 */
enum { BODY_DEPTH_MAX = 200 };

/* STRICT_JSON: under a JSON type or none, what is no object or array is an error. Set it before the
 * first request. */
extern bool body_is_json_strict;

/*
 * Writes the update's text to `out`, which is empty; or leaves `out` empty when the text is `*body`
 * as it came (then without its byte-order mark). Running out of memory is ERROR_BUSY, or sets
 * out->failed.
 */
enum http_error body_write(struct buf *out, struct slice *body, struct slice content_type,
                           struct fields *query);

/* The same for bytes that nothing is known of, not even whether they are text. */
void body_write_bytes(struct buf *out, struct slice body, const struct fields *query);
