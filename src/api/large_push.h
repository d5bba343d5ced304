/*
 * Large pushes: those of more than LARGE_PUSH_BYTES, and those that inflate to more. Inflating them
 * and making their update would hold up the loop, so the worker does it (base/worker.h), one push
 * at a time. A batch is only inflated there; its updates are made in slices on the loop (batch.h).
 *
 * A push whose connection is reset before its update is made is dropped.
 */
#pragma once

#include "api/make_update.h"
#include "http/conn.h"

enum { LARGE_PUSH_BYTES = 65536 };

struct large_push;

/* Handles a push to `channel` whose `payload` is large and not inflated yet; see push_handle(). */
void large_push_handle(struct exchange *exchange, const struct request *request,
                       struct slice channel, const struct sent *sent,
                       const struct payload *payload);

/* The client has hung up. */
void large_push_cancel(struct large_push *push);
