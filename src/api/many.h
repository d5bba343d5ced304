/*
 * A poll of many channels: POST /-/poll.
 *
 * It has a poll of its own for each channel (inbox.h), all begun before anything is answered. As
 * soon as one of them has something to say the reply is made, at the end of the turn, so that all
 * that is in memory joins it. It waits for those whose outcome only the store knows, up to
 * MANY_LATE_MS: else a loud channel, which is answered from memory, would be quicker than them
 * every time. The others end with it, wherever they are.
 *
 * The reply has the smallest answers, as long as they have MANY_REPLY_BYTES of updates together,
 * and one of the others, at random. So whatever the channels bring, none waits for ever, and there
 * is never more to hold and to write than that. Where BUFFER_SIZE leaves less it has less: the
 * other answers, or the rest of the only one, come with the next poll. Where the client has no ts
 * to ask again from, it gets the one before what is left out.
 */
#pragma once

#include "api/replies.h"
#include "base/pack.h"
#include "http/conn.h"
#include "inbox/inbox.h"

enum {
    MANY_LATE_MS = 250,
    MANY_REPLY_BYTES = 1 << 20,
    MANY_LARGE_BYTES = 256 << 10, /* of updates; writing more than that is the worker's */
    MANY_CHANNEL_BYTES = 512,     /* counted for each, as it may stay in memory meanwhile */
};

struct many;

/* Handles one; `query` is what follows the `?` of the target. */
void many_handle(struct exchange *exchange, const struct request *request, struct slice query);

/* Its time is over, or the server is stopping. */
void many_expire(struct many *many);

/* handler.can_save, .save and .restore */
bool many_can_save(const struct many *many);
void many_save(struct many *many, struct pack *out);
bool many_restore(struct exchange *exchange, struct unpack *in);

/* Its client has hung up. */
void many_cancel(struct many *many);

/* inbox_events.poll_done, of a poll that is one of many. */
void many_poll_done(struct poll *poll, const struct answer *answer);
