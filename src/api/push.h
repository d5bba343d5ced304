/* Pushes: from a request to the inbox, and back to the reply. */
#pragma once

#include "api/make_update.h"
#include "api/refusals.h"
#include "api/replies.h"
#include "http/conn.h"
#include "inbox/inbox.h"

/* What a push under way takes besides its updates and deliveries, at most. */
enum { PUSH_BYTES = sizeof(struct store_append) + CHANNEL_NAME_MAX_BYTES };

/* Handles a push to `channel`. */
void push_handle(struct exchange *exchange, const struct request *request, struct slice channel,
                 const struct sent *sent);

/* Hands the update of a push to the inbox. Its reference passes over. */
void push_made(struct exchange *exchange, struct slice channel, struct update *update,
               const struct delivery *delivery);

/* Refuses a push, and leaves its trace. */
void push_refuse(struct exchange *exchange, const struct refusal *refusal);

/* What there is to say of a complete request that is refused. */
struct refusal push_refusal(const struct request *request, struct slice channel,
                            const struct sent *sent, enum http_error error);

/* Whether a GET or a push is a handshake: then it is a push, whatever its method. */
bool push_is_handshake(const struct request *request, struct slice query);

/* Forgets the reply that the push under way wants. */
void push_forget(struct ask *ask);

/* inbox_events.push_done: `owner` is the exchange. */
void push_done(void *owner, const struct store_append *push);
