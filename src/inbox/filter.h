/*
 * Filters: which updates a poll wants (`where` of docs/protocol.md).
 *
 * A filter is a list of conditions, all of which must hold. Each is `FIELD:TEXT`:
 *
 *     FIELD   header.NAME, query.NAME, body.A.B (json_find.h), method or path; `!` negates it
 *     TEXT    alternatives, with `|` between them; `*` stands for any bytes, and `\` takes the next
 *             `\`, `|` or `*` as it is
 *
 * Texts are compared byte by byte, whole. A field that is missing, null, an array or an object
 * matches no text. A query's parameter that occurs more than once matches if one of its values
 * does. Polls that ask for the same share one filter.
 */
#pragma once

#include "base/slice.h"
#include "base/table.h"
#include "inbox/update.h"
#include <stdbool.h>
#include <stddef.h>

enum {
    FILTER_MAX_CONDITIONS = 16,
    FILTER_MAX_BYTES = 4096, /* of all conditions together */
    FILTER_MAX_READS = 64,   /* names, and texts between two `*`: each may read an update once */
    FILTERS_MAX_BYTES = 16 << 20, /* memory for all filters */
};

struct filter;

/* All filters that somebody uses, by their text. */
struct filters {
    struct table table;
    size_t bytes;
};

enum filter_error {
    FILTER_OK,
    FILTER_MALFORMED,
    FILTER_TOO_LARGE,
    FILTER_NO_ROOM, /* for one more; or memory is out */
};

/* False when memory is out. */
bool filters_init(struct filters *filters);
/* None may be in use. */
void filters_deinit(struct filters *filters);

/* The filter of `text`: the conditions, each with a NUL behind it. It gets one more reference. */
enum filter_error filters_get(struct filters *filters, struct slice text, struct filter **filter);
/* Loop thread only, both. */
struct filter *filter_ref(struct filter *filter);
void filter_unref(struct filters *filters, struct filter *filter);

/* The text that it was made of. */
struct slice filter_text(const struct filter *filter);

/* Whether the update is wanted. An update that cannot be looked at for want of memory is. Any
 * thread. */
bool filter_matches(const struct filter *filter, const struct update *update);

/* How many bytes filter_matches() may have to read of the update, and of the filter; those that it
 * reads more than once, as often. */
size_t filter_cost(const struct filter *filter, const struct update *update);
