/* Pushes: from a request to the inbox, and back to the reply. */
#pragma once

#include "http/conn.h"
#include "inbox/inbox.h"

/* What a push under way takes besides its updates, at most. */
enum { PUSH_BYTES = sizeof(struct store_append) + CHANNEL_NAME_MAX_BYTES };

/* Handles a push to `channel`; `query` is what follows the `?` of the target. */
void push_handle(struct exchange *exchange, const struct request *request, struct slice channel,
                 struct slice query);

/* inbox_events.push_done: `owner` is the exchange. */
void push_done(void *owner, const struct store_append *push);
