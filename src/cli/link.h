/* The addresses that a command is given: of a channel, and of the server that gets its webhooks. */
#pragma once

#include "base/buf.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

/*
 * Reads the address of a channel; that of a page which shows it, https://server/#channel, becomes
 * the channel's own in place. NULL when it is an http or https address with a path, else why it is
 * not. The reason does not repeat it: it is a secret.
 */
const char *link_read_channel(char *url);

/* Prints what is wrong with an address, as one line; the exit code. */
int link_complain(const char *wrong);

/* Writes the channel's address without its query and fragment, with `query` in its place, as a
 * C string. False without memory. */
bool link_write_poll(const char *url, struct slice query, struct buf *out);

/* Words to append where a status is none of longline's: what a redirect may mean; else "". */
const char *link_redirect_hint(const char *url, int status);

/* Appends the channel's address as one of its spellings: those that are another in the same words
 * have the same. */
void link_write_identity(const char *url, struct buf *out);

/* Appends `text` as the value of a query. */
void link_escape(struct buf *out, const char *text);

/* The address of a target, taken apart. */
struct link_target {
    char *path;    /* "/" for none */
    char *query;   /* "" for none */
    bool is_plain; /* http, not https */
};

/* NULL on success; then link_target_deinit() frees it. Else why it is no target. */
const char *link_parse_target(const char *url, struct link_target *target);
void link_target_deinit(struct link_target *target);

/*
 * Writes the target of a request, as a C string: the target's path and query, with what a sender
 * added to those of the channel behind them, and one slash between the paths. A path that would
 * lead out of the target's, by `..` in whatever disguise, is left out. False without memory.
 */
bool link_write_target(const struct link_target *target, struct slice path, struct slice query,
                       struct buf *out);
