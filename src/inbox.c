#include "inbox.h"
#include "hash.h"
#include "metrics.h"
#include "table.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    RECENT_MAX = 256, /* updates a channel keeps in memory */
    WAKE_SLICE = 512, /* polls woken before the loop looks at its sockets again */
    TRIM_TRIES = 64,  /* channels looked at when the cache is too full */
    READS_MAX = 4096, /* under way in the store: the next poll that needs one is refused */
};

struct channel {
    struct table_node node;
    struct list polls;     /* loading: all that wait for the load; else parked, by cursor */
    struct list use_link;  /* in inbox->by_use */
    struct list wake_link; /* in inbox->waking */
    uint64_t total;
    uint64_t gone;          /* updates up to this ts are certainly not kept any more */
    struct update **recent; /* a ring: the newest updates, without a gap up to total */
    uint32_t recent_first, recent_count, recent_cap;
    uint32_t reads; /* store reads under way that are to fill it */
    bool is_loaded; /* total is known */
    uint16_t name_len;
    char name[];
};

struct inbox {
    struct store *store;
    struct inbox_options options;
    struct inbox_events events;
    struct table channels;
    struct list by_use;    /* least recently used first */
    struct list waking;    /* channels whose polls at the front have not been woken yet */
    uv_check_t wake_check; /* wakes in the turn of the push */
    uv_idle_t wake_idle;   /* keeps the loop turning while there are more to wake */
    uint64_t cache_bytes;
    uint32_t reads;         /* under way in the store */
    struct update **picked; /* room for the updates of one answer */
};

/* The push is the store's append; its owner stands there. */
struct push {
    struct store_append append;
};

static struct inbox *the_inbox; /* store callbacks carry no context; a process has one inbox */

/* --- Channels --------------------------------------------------------------------------------- */

static bool channel_equal(const struct table_node *node, const void *name, size_t len) {
    const struct channel *channel = container_of(node, struct channel, node);
    return channel->name_len == len && memcmp(channel->name, name, len) == 0;
}

static size_t channel_size(const struct channel *channel) {
    return sizeof *channel + channel->name_len + 2 * sizeof(void *);
}

static void account(struct inbox *inbox, int64_t bytes) {
    inbox->cache_bytes += (uint64_t)bytes;
    metrics.cache_bytes = inbox->cache_bytes;
    metrics.channels_resident = inbox->channels.count;
}

static struct update *recent_at(const struct channel *channel, uint32_t index) {
    return channel->recent[(channel->recent_first + index) & (channel->recent_cap - 1)];
}

static void drop_oldest_recent(struct inbox *inbox, struct channel *channel) {
    struct update *update = recent_at(channel, 0);
    account(inbox, -(int64_t)update_size(update));
    update_unref(update);
    channel->recent_first++;
    channel->recent_count--;
}

static void drop_recents(struct inbox *inbox, struct channel *channel) {
    while (channel->recent_count)
        drop_oldest_recent(inbox, channel);
    account(inbox, -(int64_t)(channel->recent_cap * sizeof(struct update *)));
    free(channel->recent);
    channel->recent = NULL;
    channel->recent_cap = channel->recent_first = 0;
}

/* Makes room for one more; false when memory is out. */
static bool grow_recents(struct inbox *inbox, struct channel *channel) {
    if (channel->recent_count < channel->recent_cap)
        return true;
    uint32_t cap = channel->recent_cap ? channel->recent_cap * 2 : 1;
    struct update **grown = malloc(cap * sizeof(struct update *));
    if (!grown)
        return false;
    for (uint32_t i = 0; i < channel->recent_count; i++)
        grown[i] = recent_at(channel, i);
    account(inbox, (int64_t)((cap - channel->recent_cap) * sizeof(struct update *)));
    free(channel->recent);
    channel->recent = grown;
    channel->recent_first = 0;
    channel->recent_cap = cap;
    return true;
}

/* Whether the poll at the front waits for an update that is there. */
static bool has_new(const struct channel *channel) {
    if (list_empty(&channel->polls))
        return false;
    struct poll *front = container_of(channel->polls.next, struct poll, link);
    return (uint64_t)front->ts < channel->total;
}

static void trim_recents(struct inbox *inbox, struct channel *channel) {
    uint64_t max =
        inbox->options.channel_max_updates < RECENT_MAX ? inbox->options.channel_max_updates : RECENT_MAX;
    while (channel->recent_count > max)
        drop_oldest_recent(inbox, channel);
}

/* Adds `update`, the channel's newest. What does not fit the memory is read from the store later. */
static void remember(struct inbox *inbox, struct channel *channel, struct update *update) {
    if (!grow_recents(inbox, channel)) {
        drop_recents(inbox, channel);
        return;
    }
    channel->recent[(channel->recent_first + channel->recent_count++) & (channel->recent_cap - 1)] =
        update_ref(update);
    account(inbox, (int64_t)update_size(update));
    if (!has_new(channel)) /* else polls that are being woken need the older ones */
        trim_recents(inbox, channel);
}

static void channel_free(struct inbox *inbox, struct channel *channel) {
    drop_recents(inbox, channel);
    table_remove(&inbox->channels, &channel->node);
    list_remove(&channel->use_link);
    list_remove(&channel->wake_link);
    account(inbox, -(int64_t)channel_size(channel));
    free(channel);
}

static void touch(struct inbox *inbox, struct channel *channel) {
    list_remove(&channel->use_link);
    list_append(&inbox->by_use, &channel->use_link);
}

/* Frees the least recently used until the cache fits; of channels that are in use, only the updates. */
static void trim_cache(struct inbox *inbox) {
    for (int tries = 0; inbox->cache_bytes > inbox->options.cache_max_bytes && tries < TRIM_TRIES; tries++) {
        if (list_empty(&inbox->by_use))
            return;
        struct channel *channel = container_of(inbox->by_use.next, struct channel, use_link);
        if (list_empty(&channel->polls) && !channel->reads && channel->is_loaded) {
            channel_free(inbox, channel);
            continue;
        }
        if (list_empty(&channel->wake_link))
            drop_recents(inbox, channel);
        touch(inbox, channel);
    }
}

static struct channel *find_channel(struct inbox *inbox, uint64_t hash, struct slice name) {
    struct table_node *node = table_find(&inbox->channels, hash, channel_equal, name.data, name.len);
    return node ? container_of(node, struct channel, node) : NULL;
}

/* NULL when memory is out. */
static struct channel *channel_new(struct inbox *inbox, uint64_t hash, struct slice name) {
    struct channel *channel = malloc(sizeof *channel + name.len);
    if (!channel)
        return NULL;
    *channel = (struct channel){.node.hash = hash, .name_len = (uint16_t)name.len};
    memcpy(channel->name, name.data, name.len);
    list_init(&channel->polls);
    list_init(&channel->use_link);
    list_init(&channel->wake_link);
    table_insert(&inbox->channels, &channel->node);
    list_append(&inbox->by_use, &channel->use_link);
    account(inbox, (int64_t)channel_size(channel));
    return channel;
}

/* --- Answering polls -------------------------------------------------------------------------- */

static void finish(struct inbox *inbox, struct poll *poll, struct answer *answer) {
    poll->state = POLL_IDLE;
    inbox->events.poll_done(poll, answer);
}

static void finish_alone(struct inbox *inbox, struct poll *poll, struct answer *answer) {
    finish(inbox, poll, answer);
    inbox->events.answer_end(answer);
}

static void fail_poll(struct inbox *inbox, struct poll *poll) {
    struct answer answer = {.ok = false};
    finish_alone(inbox, poll, &answer);
}

/* The first ts that may still be kept of a channel with so many updates. */
static uint64_t oldest_allowed(const struct inbox *inbox, const struct channel *channel) {
    uint64_t max = inbox->options.channel_max_updates;
    uint64_t gone = channel->total > max ? channel->total - max : 0;
    return (gone > channel->gone ? gone : channel->gone) + 1;
}

/* The cursor of a poll, `-K` resolved. */
static uint64_t cursor_of(const struct poll *poll, const struct channel *channel) {
    if (poll->ts >= 0)
        return (uint64_t)poll->ts;
    uint64_t last = (uint64_t)-poll->ts;
    return last < channel->total ? channel->total - last : 0;
}

/*
 * Builds the answer of a poll whose cursor is behind the channel from the updates in memory; false when they
 * do not reach back far enough. The answer is valid until the next one is built.
 */
static bool answer_from_memory(struct inbox *inbox, struct channel *channel, const struct poll *poll,
                               struct answer *answer) {
    uint64_t cursor = cursor_of(poll, channel), first = cursor + 1;
    /* A poll that waited gets all that came, even if a burst was larger than the bound on what is kept. */
    bool has_waited = poll->state == POLL_PARKED;
    if (!has_waited && first < oldest_allowed(inbox, channel))
        first = oldest_allowed(inbox, channel);
    uint64_t in_memory = channel->total - channel->recent_count + 1; /* the first ts in memory */
    if (first < in_memory)
        return false;
    uint32_t index = (uint32_t)(first - in_memory);
    int64_t cutoff = inbox->options.clock_ms() - inbox->options.ttl_ms;
    while (index < channel->recent_count && recent_at(channel, index)->at_ms < cutoff)
        index++;
    *answer = (struct answer){.ok = true, .total = channel->total, .updates = inbox->picked};
    uint64_t found = in_memory + index; /* the first that is delivered */
    answer->missed = poll->ts < 0 ? 0 : found - cursor - 1;
    size_t bytes = 0;
    for (; index < channel->recent_count && answer->count < poll->limit; index++) {
        struct update *update = recent_at(channel, index);
        bytes += update_size(update);
        if (answer->count && bytes > READ_MAX_BYTES)
            break;
        inbox->picked[answer->count++] = update;
    }
    answer->ts = found - 1 + answer->count;
    return true;
}

static bool read_from_store(struct inbox *inbox, struct channel *channel, struct poll *poll);

static void park(struct channel *channel, struct poll *poll) {
    poll->state = POLL_PARKED;
    poll->channel = channel;
    poll->ts = (int64_t)channel->total;
    list_append(&channel->polls, &poll->link);
    metrics.polls_parked++;
}

/* Answers, parks, or sends the poll to the store. The channel is loaded. */
static void decide(struct inbox *inbox, struct channel *channel, struct poll *poll) {
    uint64_t cursor = cursor_of(poll, channel);
    struct answer answer;
    if (cursor < channel->total) {
        if (answer_from_memory(inbox, channel, poll, &answer))
            finish_alone(inbox, poll, &answer);
        else if (!read_from_store(inbox, channel, poll))
            fail_poll(inbox, poll);
    } else if (cursor == channel->total && poll->may_wait) {
        park(channel, poll);
    } else {
        answer = (struct answer){
            .ok = true, .reset = cursor > channel->total, .ts = channel->total, .total = channel->total};
        finish_alone(inbox, poll, &answer);
    }
}

/* Decides for all that waited for the load. */
static void decide_loading(struct inbox *inbox, struct channel *channel) {
    struct list loading;
    list_init(&loading);
    list_splice(&loading, &channel->polls);
    channel->reads++; /* the channel stays while it is looked at */
    for (struct list *link; (link = list_shift(&loading));)
        decide(inbox, channel, container_of(link, struct poll, link));
    channel->reads--;
}

/* A channel that the store has forgotten begins anew: what is in memory of the old one is void. */
static void restart_channel(struct inbox *inbox, struct channel *channel, uint64_t total) {
    drop_recents(inbox, channel);
    channel->gone = 0;
    channel->total = total;
    struct list polls;
    list_init(&polls);
    list_splice(&polls, &channel->polls);
    channel->reads++; /* the channel stays while it is looked at */
    for (struct list *link; (link = list_shift(&polls));) {
        metrics.polls_parked--;
        decide(inbox, channel, container_of(link, struct poll, link));
    }
    channel->reads--;
}

/* --- Reading from the store ------------------------------------------------------------------- */

/* Keeps what was read when it is the newest of the channel and nothing is in memory yet. */
static void remember_read(struct inbox *inbox, struct channel *channel, const struct store_read *read) {
    if (channel->gone < read->gone)
        channel->gone = read->gone;
    if (channel->recent_count || !read->count || read->updates[read->count - 1]->ts != channel->total)
        return;
    uint32_t count = read->count < RECENT_MAX ? read->count : RECENT_MAX;
    for (uint32_t i = read->count - count; i < read->count; i++)
        remember(inbox, channel, read->updates[i]);
}

static void answer_read(struct inbox *inbox, struct channel *channel, struct poll *poll,
                        const struct store_read *read) {
    uint64_t cursor = cursor_of(poll, channel);
    if (cursor >= read->total) {
        decide(inbox, channel, poll);
        return;
    }
    uint64_t found = read->count ? read->updates[0]->ts : read->total + 1;
    struct answer answer = {
        .ok = true,
        .total = channel->total,
        .missed = poll->ts < 0 ? 0 : found - cursor - 1,
        .ts = found - 1 + read->count,
        .count = read->count,
        .updates = read->updates,
    };
    finish_alone(inbox, poll, &answer);
}

static void on_read(struct store_op *op) {
    struct inbox *inbox = the_inbox;
    struct store_read *read = container_of(op, struct store_read, op);
    struct channel *channel = find_channel(inbox, read->hash, (struct slice){read->name, read->name_len});
    assert(channel && channel->reads);
    if (read->ok) {
        bool was_loaded = channel->is_loaded;
        if (!was_loaded) {
            channel->is_loaded = true;
            channel->total = read->total;
        }
        if (read->total < channel->total)
            restart_channel(inbox, channel, read->total);
        remember_read(inbox, channel, read);
        if (!was_loaded)
            decide_loading(inbox, channel);
        if (read->owner)
            answer_read(inbox, channel, read->owner, read);
    } else {
        if (read->owner)
            fail_poll(inbox, read->owner);
        while (!channel->is_loaded && !list_empty(&channel->polls))
            fail_poll(inbox, container_of(list_shift(&channel->polls), struct poll, link));
    }
    channel->reads--;
    inbox->reads--;
    if (!channel->is_loaded && !channel->reads)
        channel_free(inbox, channel);
    for (uint32_t i = 0; i < read->count; i++)
        update_unref(read->updates[i]);
    free(read->updates);
    free(read);
    trim_cache(inbox);
}

static bool read_from_store(struct inbox *inbox, struct channel *channel, struct poll *poll) {
    if (inbox->reads >= READS_MAX)
        return false;
    struct store_read *read = calloc(1, sizeof *read + channel->name_len);
    if (!read)
        return false;
    read->op.done = on_read;
    read->owner = poll;
    read->after_ts = poll->ts;
    read->limit = poll->limit;
    read->hash = channel->node.hash;
    read->name_len = channel->name_len;
    memcpy(read->name, channel->name, channel->name_len);
    poll->state = POLL_READING;
    poll->read = read;
    channel->reads++;
    inbox->reads++;
    store_read(inbox->store, read);
    return true;
}

/* --- Waking ----------------------------------------------------------------------------------- */

static void unpark(struct poll *poll) {
    list_remove(&poll->link);
    metrics.polls_parked--;
}

/* Wakes up to `budget` polls of the channel; they share an answer while they ask for the same. */
static void wake_some(struct inbox *inbox, struct channel *channel, int *budget) {
    struct answer answer = {0};
    bool has_answer = false;
    int64_t ts = 0;
    uint32_t limit = 0;
    for (; *budget > 0 && has_new(channel); --*budget) {
        struct poll *poll = container_of(channel->polls.next, struct poll, link);
        unpark(poll);
        if (!has_answer || poll->ts != ts || poll->limit != limit) {
            if (has_answer)
                inbox->events.answer_end(&answer);
            ts = poll->ts;
            limit = poll->limit;
            has_answer = answer_from_memory(inbox, channel, poll, &answer);
        }
        if (has_answer)
            finish(inbox, poll, &answer);
        else if (!read_from_store(inbox, channel, poll))
            fail_poll(inbox, poll);
    }
    if (has_answer)
        inbox->events.answer_end(&answer);
}

static void on_wake(uv_check_t *check);

static void on_idle(uv_idle_t *idle) {
    (void)idle;
}

static void start_waking(struct inbox *inbox) {
    uv_check_start(&inbox->wake_check, on_wake);
    uv_idle_start(&inbox->wake_idle, on_idle);
}

/* Wakes a slice of all that is to be woken; the rest in the next turn of the loop. */
static void wake_slice(struct inbox *inbox) {
    int budget = WAKE_SLICE;
    while (budget > 0 && !list_empty(&inbox->waking)) {
        struct channel *channel = container_of(inbox->waking.next, struct channel, wake_link);
        wake_some(inbox, channel, &budget);
        list_remove(&channel->wake_link);
        if (has_new(channel))
            list_append(&inbox->waking, &channel->wake_link);
        else
            trim_recents(inbox, channel);
    }
    if (list_empty(&inbox->waking)) {
        uv_idle_stop(&inbox->wake_idle);
        uv_check_stop(&inbox->wake_check);
    }
}

static void on_wake(uv_check_t *check) {
    wake_slice(check->data);
}

/* --- Pushing ---------------------------------------------------------------------------------- */

/* Takes note of an update that is durable now. */
static void deliver(struct inbox *inbox, struct store_append *append) {
    struct slice name = {append->name, append->name_len};
    struct update *update = append->update;
    struct channel *channel = find_channel(inbox, append->hash, name);
    if (!channel)
        channel = channel_new(inbox, append->hash, name);
    if (!channel)
        return; /* nobody waits on it */
    touch(inbox, channel);
    if (channel->is_loaded && update->ts != channel->total + 1)
        restart_channel(inbox, channel, update->ts - 1);
    channel->total = update->ts;
    if (!channel->is_loaded) {
        channel->is_loaded = true;
        remember(inbox, channel, update);
        decide_loading(inbox, channel);
    } else {
        remember(inbox, channel, update);
    }
    if (has_new(channel) && list_empty(&channel->wake_link)) {
        list_append(&inbox->waking, &channel->wake_link);
        start_waking(inbox);
    }
}

static void on_append(struct store_op *op) {
    struct inbox *inbox = the_inbox;
    struct store_append *append = container_of(op, struct store_append, op);
    if (append->ok) {
        metrics.pushes++;
        metrics.push_bytes += append->update->body_len;
        deliver(inbox, append);
    }
    inbox->events.push_done(append->owner, append->update, append->ok);
    update_unref(append->update);
    free(append);
    trim_cache(inbox);
}

struct push *inbox_push(struct inbox *inbox, struct slice channel, struct update *update, void *owner) {
    struct push *push = malloc(sizeof *push + channel.len);
    if (!push) {
        update_unref(update);
        return NULL;
    }
    struct store_append *append = &push->append;
    *append = (struct store_append){
        .op.done = on_append,
        .update = update,
        .owner = owner,
        .hash = hash_of(channel),
        .name_len = (uint16_t)channel.len,
    };
    memcpy(append->name, channel.data, channel.len);
    store_append(inbox->store, append);
    return push;
}

void inbox_cancel_push(struct push *push) {
    push->append.owner = NULL;
}

/* --- Polling ---------------------------------------------------------------------------------- */

bool inbox_poll(struct inbox *inbox, struct slice name, struct poll *poll) {
    uint64_t hash = hash_of(name);
    struct channel *channel = find_channel(inbox, hash, name);
    if (channel && channel->is_loaded) {
        touch(inbox, channel);
        decide(inbox, channel, poll);
        return true;
    }
    if (channel) {
        poll->state = POLL_LOADING;
        poll->channel = channel;
        list_append(&channel->polls, &poll->link);
        return true;
    }
    channel = channel_new(inbox, hash, name);
    if (!channel)
        return false;
    if (read_from_store(inbox, channel, poll))
        return true;
    channel_free(inbox, channel);
    return false;
}

void inbox_cancel(struct inbox *inbox, struct poll *poll) {
    (void)inbox;
    switch (poll->state) {
    case POLL_IDLE: return;
    case POLL_LOADING: list_remove(&poll->link); break;
    case POLL_READING: poll->read->owner = NULL; break;
    case POLL_PARKED: unpark(poll); break;
    }
    poll->state = POLL_IDLE;
}

uint64_t inbox_parked_total(const struct poll *poll) {
    return poll->channel->total;
}

/* --- Making and freeing ----------------------------------------------------------------------- */

struct inbox *inbox_new(uv_loop_t *loop, struct store *store, const struct inbox_options *options,
                        const struct inbox_events *events) {
    struct inbox *inbox = calloc(1, sizeof *inbox);
    if (!inbox)
        return NULL;
    inbox->picked = malloc(READ_MAX_UPDATES * sizeof(struct update *));
    if (!inbox->picked || !table_init(&inbox->channels)) {
        free(inbox->picked);
        free(inbox);
        return NULL;
    }
    inbox->store = store;
    inbox->options = *options;
    inbox->events = *events;
    list_init(&inbox->by_use);
    list_init(&inbox->waking);
    uv_idle_init(loop, &inbox->wake_idle);
    uv_check_init(loop, &inbox->wake_check);
    inbox->wake_idle.data = inbox->wake_check.data = inbox;
    the_inbox = inbox;
    return inbox;
}

static void on_idle_closed(uv_handle_t *handle) {
    free(handle->data);
}

void inbox_free(struct inbox *inbox) {
    while (!list_empty(&inbox->by_use))
        channel_free(inbox, container_of(inbox->by_use.next, struct channel, use_link));
    table_deinit(&inbox->channels);
    free(inbox->picked);
    uv_close((uv_handle_t *)&inbox->wake_check, NULL);
    uv_close((uv_handle_t *)&inbox->wake_idle, on_idle_closed);
}
