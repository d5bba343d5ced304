/*
 * Consumers: cursors that are kept here, for those who cannot keep one (`as` of docs/protocol.md).
 *
 * A channel's consumers are loaded from the store when the first of them polls, and change in
 * memory; what has changed is saved within half a second, all of a channel in one operation. On a
 * shared store others change them too: a poll that wants to go on where its consumer is has them
 * loaded anew. A cursor never goes back, so what is in memory and what is loaded become one by the
 * larger ts.
 *
 * The inbox's own (parts.h).
 */
#pragma once

#include "inbox/inbox.h"

struct consumers;

/* Makes what saves them. False when memory is out. */
bool consumers_init(struct inbox *inbox);
/* Saves what has changed; nothing is saved after that. */
void consumers_stop(struct inbox *inbox);
/* Frees when the loop runs once more. */
void consumers_deinit(struct inbox *inbox);

/* Frees those of a channel; none may be polling. */
void consumers_free(struct inbox *inbox, struct channel *channel);

/* The poll is at this ts of a channel that has it: it has confirmed what it says that it has. */
void consumer_reached(struct inbox *inbox, struct poll *poll, uint64_t ts);
/* The same for one that gets this answer. */
void consumer_answered(struct inbox *inbox, struct poll *poll, const struct answer *answer);
/* It is answered, or cancelled: lets go of its consumer. */
void consumer_leave(struct poll *poll);
