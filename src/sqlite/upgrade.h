/*
 * Files of earlier versions.
 *
 * Version 1 had no seals and no clock of its own: its rows aged by `at`. They move to a table of
 * version 2 in slices, each in a transaction, oldest first; the space of those that have moved is
 * used again, so the file hardly grows. A kill at any moment loses nothing: the next opening goes
 * on where this one stopped.
 */
#pragma once

#include "sqlite/log_file.h"

/* Brings the open file to LOG_SCHEMA_VERSION, or goes on with it. Logs its progress. False,
 * with one line in `error`, on failure. */
bool upgrade_file(struct log_file *file, const struct store_options *options, char *error,
                  size_t error_size);
