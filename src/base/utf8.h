/* UTF-8 as Unicode defines it: no overlong forms, no surrogates, nothing above U+10FFFF. */
#pragma once

#include "base/buf.h"
#include "base/slice.h"

/* The length of the valid sequence at the start of `text` (1 to 4), 0 when there is none. */
size_t utf8_sequence(struct slice text);

bool utf8_is_valid(struct slice text);

/* Appends `text` to `out`, with U+FFFD for every byte that is not part of a valid sequence. */
void utf8_append(struct buf *out, struct slice text);
