/*
 * Finding one value in a JSON text by its path: `a.b.0`, the names of members from the outside in;
 * a number is also the place in an array, from 0.
 */
#pragma once

#include "base/buf.h"
#include "base/slice.h"
#include <stdbool.h>

enum { JSON_FIND_MAX_NAMES = 16 }; /* each reads the rest of the text once more */

/* Appends what stands at `path` in a valid JSON text to `out`: a string, decoded; a number, true or
 * false, as it is written. False for anything else, when there is nothing, and when the path has
 * more than JSON_FIND_MAX_NAMES. Check out->failed. */
bool json_find(struct slice json, struct slice path, struct buf *out);
