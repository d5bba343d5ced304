/*
 * DELETE /{channel}: purging its updates, or forgetting one of its consumers (consumers.h).
 */
#pragma once

#include "api/replies.h"
#include "base/slice.h"
#include "http/request.h"
#include "inbox/inbox.h"

/* Without a query all updates are purged, with `upto=N` those up to N; `as=NAME` forgets a
 * consumer. Anything else is refused: a slip must not delete anything. */
void delete_handle(struct exchange *exchange, const struct request *request, struct slice channel,
                   struct slice query);

/* inbox_events.purge_done: replies to the purge. */
void purge_done(void *owner, const struct store_purge *purge);

/* Reads the query of a DELETE that is a purge; NULL data: it has none. For the tests. */
bool purge_parse(struct slice query, uint64_t *upto);
