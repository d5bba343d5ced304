/*
 * Pushes that were refused. A sender's webhook is lost with them, so each leaves a trace: it is
 * counted by its reason, and logged at info, without the channel's name. The log gets
 * REFUSALS_LINES_PER_S of them at most; the next line says how many it did not.
 */
#pragma once

#include "base/buf.h"
#include "base/slice.h"
#include "http/status.h"

enum { REFUSALS_LINES_PER_S = 10 };

/* Notes that a push to `channel` was refused. */
void refusals_note(struct slice channel, enum http_error error);

/* Writes the counters, one line for each reason that has occurred: ` name{reason="json"} 3`. */
void refusals_write(struct buf *out, const char *name);
