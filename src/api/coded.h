/*
 * A body that came in a coding (coding.h) stands as it came in its update's `raw`: signatures may
 * be over these bytes, and who passes the request on needs them. Its plain bytes are made of it
 * when they are asked for.
 *
 * That may cost no more than the update itself: where the plain bytes are more than twice as many
 * as those of its text, or where no headers are kept to say what the coding was, `raw` is plain.
 */
#pragma once

#include "base/buf.h"
#include "inbox/update.h"

/* Whether an update with these headers and this many bytes of text keeps its coded body. */
bool coded_is_kept(struct slice headers, size_t body_len, size_t plain_len);

/* Writes the plain bytes of update_raw() to `plain`, which is empty. False when they are the same,
 * or memory is out: then `plain` has failed. */
bool coded_undo(const struct update *update, struct buf *plain);
