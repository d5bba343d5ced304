#include "inbox/channel.h"
#include "base/counters.h"

#include <stdlib.h>
#include <string.h>

static size_t size_of(const struct channel *channel) {
    return sizeof *channel + channel->name_len + 2 * sizeof(void *);
}

static void drop_oldest(struct channel *channel) {
    struct update *update = channel_recent(channel, 0);
    counters.cache_bytes -= update_size(update);
    update_unref(update);
    channel->recent_first++;
    channel->recent_count--;
}

void channel_trim(struct channel *channel, uint64_t max) {
    while (channel->recent_count > max)
        drop_oldest(channel);
}

void channel_drop_recents(struct channel *channel) {
    channel_trim(channel, 0);
    counters.cache_bytes -= channel->recent_cap * sizeof(struct update *);
    free(channel->recent);
    channel->recent = NULL;
    channel->recent_cap = channel->recent_first = 0;
}

/* Makes room for one more; false when memory is out. */
static bool grow(struct channel *channel) {
    if (channel->recent_count < channel->recent_cap)
        return true;
    uint32_t cap = channel->recent_cap ? channel->recent_cap * 2 : 1;
    struct update **grown = malloc(cap * sizeof(struct update *));
    if (!grown)
        return false;
    for (uint32_t i = 0; i < channel->recent_count; i++)
        grown[i] = channel_recent(channel, i);
    counters.cache_bytes += (cap - channel->recent_cap) * sizeof(struct update *);
    free(channel->recent);
    channel->recent = grown;
    channel->recent_first = 0;
    channel->recent_cap = cap;
    return true;
}

void channel_remember(struct channel *channel, struct update *update) {
    if (!grow(channel)) {
        channel_drop_recents(channel);
        return;
    }
    channel->recent[(channel->recent_first + channel->recent_count++) & (channel->recent_cap - 1)] =
        update_ref(update);
    counters.cache_bytes += update_size(update);
}

bool channel_equal(const struct table_node *node, const void *name, size_t len) {
    const struct channel *channel = container_of(node, struct channel, node);
    return channel->name_len == len && memcmp(channel->name, name, len) == 0;
}

struct channel *channel_new(uint64_t hash, struct slice name) {
    struct channel *channel = malloc(sizeof *channel + name.len);
    if (!channel)
        return NULL;
    *channel = (struct channel){.node.hash = hash, .name_len = (uint16_t)name.len};
    memcpy(channel->name, name.data, name.len);
    list_init(&channel->polls);
    list_init(&channel->loading);
    list_init(&channel->use_link);
    list_init(&channel->wake_link);
    counters.cache_bytes += size_of(channel);
    return channel;
}

void channel_free(struct channel *channel) {
    channel_drop_recents(channel);
    list_remove(&channel->use_link);
    list_remove(&channel->wake_link);
    counters.cache_bytes -= size_of(channel);
    free(channel);
}
