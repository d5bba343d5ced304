/*
 * The codings of a body, as Content-Encoding names them (RFC 9110, 8.4).
 *
 * gzip and deflate are undone, at most CODINGS_MAX of them one upon the other. `br`, `zstd` and the
 * like are known by name only. Anything else (`UTF-8`, `none`) is no coding, and ignored.
 */
#pragma once

#include "base/buf.h"
#include "base/slice.h"

enum { CODINGS_MAX = 2 };

enum coding_result {
    CODING_NONE,      /* the body is as it came */
    CODING_UNDONE,    /* the plain body is in `out` */
    CODING_OPAQUE,    /* the body is in a coding that is not known, or broken, or cut */
    CODING_TOO_LARGE, /* the plain body has more than `max` bytes */
    CODING_NO_MEMORY,
};

/* Undoes `codings`, a list. `out` is empty, and of no use unless the result is CODING_UNDONE. Stops
 * at the first byte beyond `max`. */
enum coding_result coding_undo(struct buf *out, struct slice body, struct slice codings,
                               size_t max);
