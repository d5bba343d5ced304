/*
 * Requests that wait, on their way into the next program of this process (http/handover.h): polls,
 * streams and polls of many channels. All others are answered before.
 *
 * A poll goes on from where it has got to. A stream of which something is still unsent goes on when
 * that is sent.
 */
#pragma once

#include "base/pack.h"
#include "http/conn.h"
#include "inbox/inbox.h"

/* What a poll asks about. On nonsense, the place is not set. */
void handover_save_place(const struct poll_place *place, struct pack *out);
void handover_read_place(struct unpack *in, struct poll_place *place);

/* handler.can_save, .save and .restore */
bool handover_can_save(const struct exchange *exchange);
void handover_save(struct exchange *exchange, struct pack *out);
bool handover_restore(struct exchange *exchange, struct slice saved);

/* handler.sent, .expire and .cancel of a stream that goes on later. */
void handover_sent(struct exchange *exchange);
void handover_expire(struct exchange *exchange);
void handover_cancel(struct exchange *exchange);
