/*
 * Batches: a push whose body is NDJSON, each line an update. All are stored, or none.
 *
 * A batch's updates are made in slices, so that ten thousand of them do not hold up the loop: what
 * is small is made when it comes, the rest goes to the end of a queue. Requests and the queue each
 * get BATCH_TURN_WORK per turn of the loop. While the store has APPEND_MAX_UPDATES of batches to
 * write, the queue stands still: other pushes then wait behind two batches at most, however many
 * have come, and what waits here is the requests' bytes and not their updates.
 *
 * When the store has failed, all are handed to it, until it stores again.
 *
 * A batch whose connection is reset before all its updates are made is dropped whole.
 */
#pragma once

#include "api/make_update.h"
#include "http/conn.h"

enum {
    BATCH_TURN_WORK = 256 << 10, /* bytes read and written, with BATCH_LINE_WORK for each line */
    BATCH_LINE_WORK = 256,
    BATCH_LINE_MAX_BYTES = 1 << 20,    /* a line is made at once */
    BATCH_COPIES_MAX_BYTES = 16 << 20, /* what its updates may take beyond their lines */
};

struct batch;

/* Whether a body of this Content-Type is a batch. */
bool batch_is_type(struct slice content_type);

/* Handles a batch for `channel`; see push_handle(). The payload has no codings any more, and passes
 * over. */
void batch_handle(struct exchange *exchange, const struct request *request, struct slice channel,
                  const struct sent *sent, struct payload *payload);

/* The same for a request that was kept, and its maker. All pass over. */
void batch_go_on(struct exchange *exchange, struct slice channel, struct update_maker *maker,
                 struct payload *payload, struct inbuf *kept);

/* Frees a batch that is being made; nothing of it is stored. */
void batch_cancel(struct batch *batch);

/* The store has answered a batch of `count` updates. */
void batch_done(uint32_t count, bool is_stored);
