#include "base/counters.h"
#include "inbox/parts.h"

enum {
    TRIM_TRIES = 64, /* channels looked at in one go */
    ONLY_PUSHED_MAX = 4096,
};

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

static void use(struct inbox *inbox, struct channel *channel, bool is_only_pushed) {
    channel->used_ms = (uint32_t)uv_now(inbox->loop);
    inbox->only_pushed_count += (size_t)is_only_pushed - (size_t)channel->is_only_pushed;
    channel->is_only_pushed = is_only_pushed;
    list_remove(&channel->use_link);
    list_append(is_only_pushed ? &inbox->only_pushed : &inbox->by_use, &channel->use_link);
}

void cache_touch(struct inbox *inbox, struct channel *channel) {
    use(inbox, channel, false);
}

void cache_polled(struct inbox *inbox, struct channel *channel) {
    channel->is_polled = true;
    cache_touch(inbox, channel);
}

void cache_pushed(struct inbox *inbox, struct channel *channel) {
    use(inbox, channel, !channel->is_polled);
}

void cache_forget(struct inbox *inbox, struct channel *channel) {
    if (inbox->mode->forgotten)
        inbox->mode->forgotten(inbox, channel);
    inbox->has_forgotten |= channel->is_loaded;
    views_free(inbox, channel);
    consumers_free(inbox, channel);
    inbox->only_pushed_count -= channel->is_only_pushed;
    table_remove(&inbox->channels, &channel->node);
    channel_free(channel);
    counters.channels_resident = inbox->channels.count;
}

void cache_unpin(struct inbox *inbox, struct channel *channel) {
    channel->pins--;
    if (!channel->is_loaded && !channel->watched && !channel_is_in_use(channel))
        cache_forget(inbox, channel);
}

struct channel *cache_oldest(struct inbox *inbox) {
    struct list *list = inbox->only_pushed_count ? &inbox->only_pushed : &inbox->by_use;
    return list_empty(list) ? NULL : container_of(list->next, struct channel, use_link);
}

void cache_trim(struct inbox *inbox) {
    for (int tries = 0; tries < TRIM_TRIES; tries++) {
        struct channel *channel = cache_oldest(inbox);
        if (!channel || (counters.cache_bytes <= inbox->options.cache_max_bytes &&
                         inbox->only_pushed_count <= ONLY_PUSHED_MAX))
            return;
        if (!channel_is_in_use(channel)) {
            cache_forget(inbox, channel);
            continue;
        }
        if (!channel_has_new(channel)) /* else polls that are being woken need them */
            channel_drop_recents(channel);
        cache_touch(inbox, channel);
    }
}
