/*
 * Bodies of multipart/form-data (RFC 7578): each part is a member of one object.
 *
 * A field that is text is a string, by the charset that it or the field `_charset_` names. A file,
 * or a field of other bytes, is an object: `{"filename":…,"content_type":…,"size":N,"body":text}`,
 * with `body_base64` instead of `body` when it is not UTF-8. A name that is repeated has an array
 * of them, in order.
 */
#pragma once

#include "api/fields.h"
#include "base/buf.h"
#include "base/slice.h"

enum {
    MULTIPART_PARTS_MAX = 1000,
    MULTIPART_BOUNDARY_MAX_BYTES = 70,  /* RFC 2046, 5.1.1 */
    MULTIPART_HEADERS_MAX_BYTES = 8192, /* of one part */
};

/* Whether this is the Content-Type of such a body. */
bool multipart_is_form(struct slice content_type);

/*
 * Appends the object, with the query's fields as members; they win over parts of the same name.
 * False, and `out` as it was, when the body is not sound: cut off, past a limit above, or a part
 * without a name, or with control characters in its headers. True with out->failed when memory is
 * out.
 */
bool multipart_write(struct buf *out, struct slice body, struct slice content_type,
                     const struct fields *query);
