/* How a request becomes an update: its body's text (body.h), and the request as it came. */
#pragma once

#include "http/request.h"
#include "http/status.h"
#include "inbox/update.h"

/*
 * Makes the update of a complete push; `query` is what follows the `?` of the target. On an error
 * `*update` is untouched; running out of memory is ERROR_BUSY. Loop thread only.
 */
enum http_error make_update(const struct request *request, struct slice query, bool capture_headers,
                            struct update **update);
