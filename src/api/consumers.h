/*
 * Named consumers: the list of a channel's, and forgetting one. Polling as one is poll.h's.
 */
#pragma once

#include "api/replies.h"
#include "base/slice.h"
#include "inbox/inbox.h"

/* GET /{channel}/consumers */
void consumers_list(struct exchange *exchange, struct slice channel);
/* DELETE /{channel}?as=NAME: the query is that and nothing else. */
void consumers_forget(struct exchange *exchange, struct slice channel, struct slice query);

/* The reply to either, during poll_done(); NULL when memory is out. */
struct reply *consumers_reply(struct exchange *exchange, const struct answer *answer);
