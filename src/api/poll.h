/*
 * Polls: their parameters, and the reply that an answer of the inbox becomes.
 *
 * Polls that are woken together share one reply: poll_done() keeps what it built in the answer's
 * memos.
 */
#pragma once

#include "api/replies.h"
#include "http/conn.h"
#include "inbox/inbox.h"

/* The memos of an answer: replies and large pages that are being written, of polls and streams. */
enum { MEMO_PAGES = 8, MEMO_STREAMS = 16, MEMO_STREAM_PAGES = 32 };

/* Handles a poll of `channel`, or a stream; `query` is what follows the `?` of the target. */
void poll_handle(struct exchange *exchange, const struct request *request, struct slice channel,
                 struct slice query);

/* The filter of a query's conditions, with a reference for inbox_filter_unref(); NULL: there are
 * none. */
enum http_error poll_filter(const struct buf *where, struct filter **filter);

/* The exchange has no poll any more. Harmless when it had none. */
void poll_forget(struct ask *ask);

/* The time of the exchange's poll is over, or the server is stopping. Harmless when there is
 * none. */
void poll_expire(struct exchange *exchange);

/* Replies with a page of `count` updates, whose reference passes over; NULL: memory was out. */
void poll_reply(struct exchange *exchange, struct reply *reply, uint32_t count);

/* inbox_events.poll_done and .answer_end */
void poll_done(struct poll *poll, struct answer *answer);
void poll_answer_end(struct answer *answer);
