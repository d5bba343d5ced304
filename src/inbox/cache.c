#include "base/counters.h"
#include "inbox/parts.h"

enum { TRIM_TRIES = 64 }; /* channels looked at in one go */

struct channel *cache_find(struct inbox *inbox, uint64_t hash, struct slice name) {
    struct table_node *node =
        table_find(&inbox->channels, hash, channel_equal, name.data, name.len);
    return node ? container_of(node, struct channel, node) : NULL;
}

struct channel *cache_get(struct inbox *inbox, uint64_t hash, struct slice name) {
    struct channel *channel = cache_find(inbox, hash, name);
    if (channel)
        return channel;
    channel = channel_new(hash, name);
    if (!channel)
        return NULL;
    table_insert(&inbox->channels, &channel->node);
    list_append(&inbox->by_use, &channel->use_link);
    counters.channels_resident = inbox->channels.count;
    return channel;
}

void cache_touch(struct inbox *inbox, struct channel *channel) {
    channel->used_ms = (uint32_t)uv_now(inbox->loop);
    list_remove(&channel->use_link);
    list_append(&inbox->by_use, &channel->use_link);
}

void cache_forget(struct inbox *inbox, struct channel *channel) {
    if (inbox->mode->forgotten)
        inbox->mode->forgotten(inbox, channel);
    inbox->has_forgotten |= channel->is_loaded;
    views_free(inbox, channel);
    consumers_free(inbox, channel);
    table_remove(&inbox->channels, &channel->node);
    channel_free(channel);
    counters.channels_resident = inbox->channels.count;
}

void cache_unpin(struct inbox *inbox, struct channel *channel) {
    channel->pins--;
    if (!channel->is_loaded && !channel->watched && !channel_is_in_use(channel))
        cache_forget(inbox, channel);
}

void cache_trim(struct inbox *inbox) {
    for (int tries = 0; tries < TRIM_TRIES; tries++) {
        if (counters.cache_bytes <= inbox->options.cache_max_bytes || list_empty(&inbox->by_use))
            return;
        struct channel *channel = container_of(inbox->by_use.next, struct channel, use_link);
        if (!channel_is_in_use(channel)) {
            cache_forget(inbox, channel);
            continue;
        }
        if (!channel_has_new(channel)) /* else polls that are being woken need them */
            channel_drop_recents(channel);
        cache_touch(inbox, channel);
    }
}
