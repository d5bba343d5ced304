/*
 * Polls: their parameters, and the reply that an answer of the inbox becomes.
 *
 * Polls that are woken together share one reply: poll_done() keeps what it built in the answer's
 * memos.
 */
#pragma once

#include "http/conn.h"
#include "inbox/inbox.h"

enum { SLEEP_MAX_MS = 60000 };

/* Handles a poll of `channel`; `query` is what follows the `?` of the target. */
void poll_handle(struct exchange *exchange, struct slice channel, struct slice query);

/* The time of the exchange's poll is over, or the server is stopping. Harmless when there is
 * none. */
void poll_expire(struct exchange *exchange);

/* Replies with a page of `count` updates, whose reference passes over; NULL: memory was out. */
void poll_reply(struct exchange *exchange, struct reply *reply, uint32_t count);

/* inbox_events.poll_done and .answer_end */
void poll_done(struct poll *poll, struct answer *answer);
void poll_answer_end(struct answer *answer);
