/*
 * Looking at all rows of `channel` at a start, and mending them.
 *
 * A start reads the table and the index on names once, and compares them: some second for a
 * million channels. A row that is damaged or lost is made again, from the index and from the
 * channel's newest update in the log; the index is made again from the table. Where neither tells
 * what a row held the start is refused, for its channel would give ids twice.
 *
 * The table and the index may agree on a name that is damaged: an index that was made again from
 * the table does. Such a name is believed, for it may be the seal that is damaged; the log says how
 * many there are.
 */
#pragma once

#include "sqlite/known_names.h"
#include "sqlite/log_file.h"

/* Tells `names` every name. False with one line in `error` when the rows are not what they should
 * be, and cannot be mended; and on failure. */
bool recover_channels(struct log_file *file, struct known_names *names,
                      const struct store_options *options, char *error, size_t error_size);
