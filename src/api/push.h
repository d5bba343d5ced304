/*
 * Pushes: how a request becomes an update, and its way into the inbox.
 */
#pragma once

#include "http/conn.h"
#include "inbox/inbox.h"

/* Handles a push to `channel`; `query` is what follows the `?` of the target. */
void push_handle(struct exchange *exchange, const struct request *request, struct slice channel,
                 struct slice query);

/* inbox_events.push_done: `owner` is the exchange. */
void push_done(void *owner, const struct update *update, enum store_error error);

/*
 * Builds the update of a complete push. On an error `*update` is untouched; running out of memory is
 * ERROR_BUSY. Loop thread only.
 */
enum http_error push_build(const struct request *request, struct slice query, bool capture_headers,
                           struct update **update);
