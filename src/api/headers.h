/*
 * The headers of a push that are kept with its update, as one JSON object.
 *
 * Names are in lower case, values are strings; a repeated header is joined with ", " (RFC 9110,
 * 5.3). A value that is not UTF-8 is read as Latin-1. Left out are the headers of the connection
 * itself (RFC 9110, 7.6.1), Proxy-* and Cookie, and each that would make the object larger than
 * HEADERS_MAX_BYTES.
 */
#pragma once

#include "base/buf.h"
#include "http/request.h"

enum { HEADERS_MAX_BYTES = 8192 };

/* Appends the object; check out->failed. */
void headers_write(struct buf *out, const struct request *request);
