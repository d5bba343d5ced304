#include "inbox/parts.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { ABANDONED_MAX = 4096 }; /* then polls that need one more read are refused */

static void on_read(struct store_op *op) {
    struct inbox *inbox = op->context;
    struct store_read *read = container_of(op, struct store_read, op);
    struct channel *channel =
        cache_find(inbox, read->hash, (struct slice){read->name, read->name_len});
    assert(channel && channel->pins);
    if (read->owner == inbox) {
        read->owner = NULL;
        inbox->reads_abandoned--;
    }
    if (read->wants_epoch && !read->error)
        channel->lacks_epoch = read->total && !read->epoch;
    inbox->mode->read_done(inbox, channel, read);
    cache_unpin(inbox, channel);
    for (uint32_t i = 0; i < read->count; i++)
        update_unref(read->updates[i]);
    free(read->updates);
    free(read);
    cache_trim(inbox);
}

struct store_read *read_start(struct inbox *inbox, struct channel *channel, int64_t position,
                              uint32_t limit, struct poll *owner) {
    if (owner && inbox->reads_abandoned >= ABANDONED_MAX)
        return NULL;
    struct store_read *read = calloc(1, sizeof *read + channel->name_len);
    if (!read)
        return NULL;
    read->op.done = on_read;
    read->op.context = inbox;
    read->owner = owner;
    read->position = position;
    read->limit = limit;
    read->wants_epoch = channel->wants_epoch;
    read->seen_epoch = owner ? owner->epoch : 0;
    read->hash = channel->node.hash;
    read->name_len = channel->name_len;
    memcpy(read->name, channel->name, channel->name_len);
    channel->pins++;
    store_read(inbox->store, read);
    return read;
}

void read_abandon(struct store_read *read) {
    struct inbox *inbox = read->op.context;
    read->owner = inbox;
    inbox->reads_abandoned++;
}

bool read_for_poll(struct inbox *inbox, struct channel *channel, struct poll *poll) {
    channel->wants_epoch |= poll->wants_epoch;
    struct store_read *read = read_start(inbox, channel, poll->ts, poll_page_limit(poll), poll);
    if (!read)
        return false;
    poll->is_judged = true;
    poll->state = POLL_READING;
    poll->read = read;
    return true;
}
