/* What the commands that read a channel share: the options that say what they read, and what they
 * say on standard error. */
#pragma once

#include "base/buf.h"
#include "cli/feed.h"
#include "cli/options.h"

/* Makes a feed's options of the command's; what is not given stays as it is. False for a mistake,
 * which `error` then says. */
bool reading_options(const struct options *options, struct feed_options *feed, char *error,
                     size_t error_size);

/* Says in a line what is missed, reset, in trouble or well again; other events need no words. */
void reading_tell(const struct feed_event *event);

/* The exit code of FEED_REFUSED, after saying why. */
int reading_refused(const struct feed_event *event);

/* Writes what is missed, reset or refused as a line of JSON; nothing for the other events. */
void reading_write_json(struct buf *out, const struct feed_event *event);
