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
 * Writes the update's text to `out`, which is empty; or leaves `out` empty when the text is `*body`
 * as it came (then without its byte-order mark). Running out of memory is ERROR_BUSY, or sets
 * out->failed.
 */
enum http_error body_write(struct buf *out, struct slice *body, struct slice content_type,
                           struct fields *query);
