/*
 * Streams: polls that ask again by themselves (docs/protocol.md, "Streams").
 *
 * The first poll of a stream does not wait, so that its head is sent at once, and says where the
 * stream begins. From then on the poll waits, until something comes or it is time for a heartbeat.
 * What comes is sent in parts, which streams that are woken together share.
 *
 * A stream that is behind gets its next part when the socket has taken the one before. One that has
 * seen everything is parked again while the socket still has something to take; http cuts it when
 * that becomes too much.
 */
#pragma once

#include "api/replies.h"
#include "http/conn.h"
#include "inbox/inbox.h"

enum {
    STREAM_BEAT_MS = 15000,
    STREAM_BEATS = 60, /* then it ends: 15 minutes, or a little less while many streams wait */
};

/* inbox_events.poll_done of a stream's poll. */
void stream_done(struct ask *ask, struct answer *answer);

/* Its large page is written; NULL: memory was out. */
void stream_page_written(struct exchange *exchange, struct reply *part);

/* handler.sent */
void stream_sent(struct exchange *exchange);

/* handler.expire and .cancel of a stream. */
void stream_expire(struct exchange *exchange);
void stream_cancel(struct exchange *exchange);
