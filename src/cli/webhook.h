/*
 * A request as a service sent it, out of an item of view=full.
 *
 * What the server says is not trusted: a method, path, query or header that could not have been
 * sent as it is, or that would be something else behind our own words, is left out.
 */
#pragma once

#include "base/buf.h"
#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

/* Texts end with NUL, which `len` does not count. */
struct webhook {
    uint64_t ts, at;
    struct buf method, path, query, from;
    struct buf headers; /* name, NUL, value, NUL, ... */
    struct buf body;    /* the exact bytes; if longline has only the plain ones of a coded body, no
                         * header says otherwise */
};

/* Reads an item; what `webhook` held is gone. False without memory. */
bool webhook_read(struct webhook *webhook, struct slice item);
void webhook_deinit(struct webhook *webhook);

/* Takes the next header off the front of `rest`, which begins as webhook_headers(). */
struct slice webhook_headers(const struct webhook *webhook);
bool webhook_next_header(struct slice *rest, const char **name, const char **value);

/* A header's value by its name in lower case; NULL when there is none. */
const char *webhook_header(const struct webhook *webhook, const char *name);

/* What has happened, as the services say it: `push`, `charge.succeeded`; "" for unknown. Goes to
 * `out`, as a C string. */
void webhook_write_event(const struct webhook *webhook, struct buf *out);
