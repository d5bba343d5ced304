/*
 * What a sender's address says to longline itself: parameters whose names begin with a dot.
 *
 * `.reply`, `.status` and `.type` describe the reply to a push; `.once` and `.key` are about
 * duplicates. They are not merged into the update; a name with a dot that is not among them is. A
 * value that cannot be is passed over, and named in the reply's X-Ignored header: whoever wrote it
 * into a service's settings would lose that service's webhooks if it were an error.
 */
#pragma once

#include "api/wanted.h"
#include "base/slice.h"

/* Reads the reply that the query asks for. False when it does not; otherwise check
 * wanted_failed(), and wanted_deinit() it. `*wanted` is zeroed. */
bool wish_read(struct slice query, struct wanted *wanted);

/* The query without these parameters: the query itself if it has none, otherwise in `out`, which is
 * empty. Check out->failed. */
struct slice wish_strip(struct slice query, struct buf *out);
