#include "inbox/inbox.h"
#include "base/counters.h"
#include "base/hash.h"
#include "inbox/follow.h"
#include "inbox/parts.h"

#include <stdlib.h>
#include <string.h>

enum { FREED_MAX = 1024 }; /* idle views, to make room for one filter */

/* --- A store of our own ----------------------------------------------------------------------- */

/* The first update of an append that was stored, from number `i` on; `count` when there is none. */
static uint32_t next_stored(const struct store_append *append, uint32_t i) {
    while (i < append->count && !store_append_is_stored(append, i))
        i++;
    return i;
}

/* Takes over updates that are durable now. */
static void deliver(struct inbox *inbox, struct store_append *append) {
    uint32_t first = next_stored(append, 0);
    if (first == append->count)
        return;
    struct channel *channel =
        cache_get(inbox, append->hash, (struct slice){append->name, append->name_len});
    if (!channel) { /* no memory, so nobody waits on it */
        inbox->has_forgotten = true;
        return;
    }
    cache_pushed(inbox, channel);
    uint64_t before = append->updates[first]->ts - 1;
    if (channel->is_loaded && before != channel->total)
        channel_restart(inbox, channel, (struct restart){.total = before, .epoch = append->epoch});
    channel->is_loaded = true;
    channel->epoch = append->epoch;
    for (uint32_t i = first; i < append->count; i = next_stored(append, i + 1))
        channel_take(inbox, channel, append->updates[i]);
    polls_decide_ready(inbox, channel);
}

static void answer_read(struct inbox *inbox, struct channel *channel, struct poll *poll,
                        const struct store_read *read) {
    poll->epoch = poll->epoch ? read->epoch : 0; /* what it has seen is there, unless it is reset */
    if (read->is_reset) {
        poll_reset(inbox, channel, poll, read);
    } else if (read->after >= read->total) {
        poll->ts = (int64_t)read->after;
        poll_decide(inbox, channel, poll);
    } else {
        poll_answer_read(inbox, channel, poll, read);
    }
}

static void fail_polls(struct inbox *inbox, struct channel *channel,
                       const struct store_read *read) {
    if (read->owner)
        poll_end(inbox, channel, read->owner, read->error);
    while (!channel->is_loaded && !list_empty(&channel->loading))
        poll_end(inbox, channel, container_of(list_shift(&channel->loading), struct poll, link),
                 read->error);
    polls_decide_ready(inbox, channel);
}

/* A read's total is the channel's: nobody else writes. */
static void read_done(struct inbox *inbox, struct channel *channel, struct store_read *read) {
    channel->is_loading = false;
    if (read->error) {
        fail_polls(inbox, channel, read);
        return;
    }
    if (!channel->is_loaded)
        channel->total = read->total;
    channel->is_loaded = true;
    if (read->total < channel->total)
        channel_restart(inbox, channel,
                        (struct restart){.total = read->total, .epoch = read->epoch});
    if (read->total == channel->total)
        channel->epoch = read->epoch;
    channel_take_read(inbox, channel, read);
    polls_decide_ready(inbox, channel);
    if (read->owner)
        answer_read(inbox, channel, read->owner, read);
}

static bool poll_own(struct inbox *inbox, uint64_t hash, struct slice name, struct poll *poll) {
    struct channel *channel = cache_get(inbox, hash, name);
    if (!channel)
        return false;
    cache_polled(inbox, channel);
    if (!poll_needs_load(channel, poll)) {
        poll_decide(inbox, channel, poll);
        return true;
    }
    if (channel->is_loading) {
        poll_wait_for_load(channel, poll);
        return true;
    }
    channel->is_loading = channel->is_fetched = read_for_poll(inbox, channel, poll);
    if (channel->is_loading)
        return true;
    if (!channel->is_loaded && !channel->pins)
        cache_forget(inbox, channel);
    return false;
}

static bool is_ready(const struct channel *channel, const struct poll *poll) {
    return !poll_needs_load(channel, poll);
}

static void reset_poll(struct inbox *inbox, struct channel *channel, struct poll *poll) {
    struct answer answer = {
        .reset = true, .ts = channel->total, .total = channel->total, .epoch = channel->epoch};
    poll_answer(inbox, channel, poll, &answer);
}

static void fail_unread(struct inbox *inbox, struct poll *poll) {
    poll_fail(inbox, poll, STORE_FAILED);
}

static const struct inbox_mode own_mode = {
    .poll = poll_own,
    .read_done = read_done,
    .poll_ahead = reset_poll,
    .poll_unread = fail_unread,
    .is_ready = is_ready,
    .go_on = poll_decide,
    .stored = deliver,
};

/* --- Pushes ----------------------------------------------------------------------------------- */

static void free_append(struct store_append *append) {
    for (uint32_t i = 0; i < append->count; i++)
        update_unref(append->updates[i]);
    if (store_append_is_batch(append))
        free(append->updates);
    free(append->deliveries);
    free(append);
}

static void on_append(struct store_op *op) {
    struct inbox *inbox = op->context;
    struct store_append *append = container_of(op, struct store_append, op);
    inbox->writes--;
    if (!append->error) {
        for (uint32_t i = next_stored(append, 0); i < append->count;
             i = next_stored(append, i + 1)) {
            counters.pushes++;
            counters.push_bytes += append->updates[i]->body_len;
        }
        if (inbox->mode->stored)
            inbox->mode->stored(inbox, append);
    }
    inbox->events.push_done(append->owner, append);
    free_append(append);
    cache_trim(inbox);
}

static struct store_append *append_new(struct inbox *inbox, struct slice channel, uint32_t count,
                                       void *owner) {
    struct store_append *append = malloc(sizeof *append + channel.len);
    if (!append)
        return NULL;
    *append = (struct store_append){
        .op = {.done = on_append, .context = inbox},
        .count = count,
        .owner = owner,
        .hash = hash_of(channel),
        .name_len = (uint16_t)channel.len,
    };
    memcpy(append->name, channel.data, channel.len);
    return append;
}

struct store_append *inbox_push(struct inbox *inbox, struct slice channel, struct update *update,
                                const struct delivery *delivery, void *owner) {
    struct store_append *append = append_new(inbox, channel, 1, owner);
    struct delivery *copy = append && delivery ? malloc(sizeof *copy) : NULL;
    if (!append || (delivery && !copy)) {
        update_unref(update);
        free(append);
        return NULL;
    }
    if (copy)
        *copy = *delivery;
    append->deliveries = copy;
    append->only = update;
    append->updates = &append->only;
    inbox->writes++;
    store_append(inbox->store, append);
    return append;
}

struct store_append *inbox_push_batch(struct inbox *inbox, struct slice channel,
                                      struct update **updates, struct delivery *deliveries,
                                      uint32_t count, void *owner) {
    struct store_append *append = append_new(inbox, channel, count, owner);
    if (!append) {
        for (uint32_t i = 0; i < count; i++)
            update_unref(updates[i]);
        free(updates);
        free(deliveries);
        return NULL;
    }
    append->updates = updates;
    append->deliveries = deliveries;
    inbox->writes++;
    store_append(inbox->store, append);
    return append;
}

void inbox_cancel_push(struct store_append *push) {
    push->owner = NULL;
}

/* --- Purges ----------------------------------------------------------------------------------- */

void inbox_note_purge(struct inbox *inbox, uint64_t hash, uint64_t gone) {
    for (size_t i = 0; i < PURGES_NOTED; i++)
        if (inbox->purged[i].hash == hash && inbox->purged[i].gone == gone)
            return; /* nothing new is gone */
    if (gone)
        inbox->purged[inbox->purges++ % PURGES_NOTED] = (struct purged){hash, gone};
}

static void on_purge(struct store_op *op) {
    struct inbox *inbox = op->context;
    struct store_purge *purge = container_of(op, struct store_purge, op);
    inbox->writes--;
    if (!purge->error) {
        struct channel *channel =
            cache_find(inbox, purge->hash, (struct slice){purge->name, purge->name_len});
        inbox_note_purge(inbox, purge->hash, purge->gone);
        if (channel)
            channel_purged(inbox, channel, purge->gone);
    }
    inbox->events.purge_done(purge->owner, purge);
    free(purge);
}

struct store_purge *inbox_purge(struct inbox *inbox, struct slice channel, uint64_t upto,
                                void *owner) {
    struct store_purge *purge = malloc(sizeof *purge + channel.len);
    if (!purge)
        return NULL;
    *purge = (struct store_purge){
        .op = {.done = on_purge, .context = inbox},
        .upto = upto,
        .owner = owner,
        .hash = hash_of(channel),
        .name_len = (uint16_t)channel.len,
    };
    memcpy(purge->name, channel.data, channel.len);
    inbox->writes++;
    store_purge(inbox->store, purge);
    return purge;
}

void inbox_cancel_purge(struct store_purge *purge) {
    purge->owner = NULL;
}

uint64_t inbox_purges(const struct inbox *inbox) {
    return inbox->purges;
}

bool inbox_may_be_purged(struct inbox *inbox, struct slice channel, uint64_t ts, uint64_t purges) {
    if (inbox->purges == purges)
        return false;
    uint64_t hash = hash_of(channel);
    const struct channel *found = cache_find(inbox, hash, channel);
    if (found)
        return ts <= found->purged;
    if (inbox->purges - purges > PURGES_NOTED)
        return true;
    for (; purges < inbox->purges; purges++) {
        const struct purged *purged = &inbox->purged[purges % PURGES_NOTED];
        if (purged->hash == hash && ts <= purged->gone)
            return true;
    }
    return false;
}

/* --- Polls ------------------------------------------------------------------------------------ */

bool inbox_poll(struct inbox *inbox, struct slice channel, struct poll *poll) {
    poll_begin(poll);
    return inbox->mode->poll(inbox, hash_of(channel), channel, poll);
}

void inbox_cancel(struct inbox *inbox, struct poll *poll) {
    switch (poll->state) {
    case POLL_IDLE: break;
    case POLL_LOADING: list_remove(&poll->link); break;
    case POLL_ENDING:
        list_remove(&poll->link);
        if (poll->is_stream)
            cache_unpin(inbox, poll->channel);
        break;
    case POLL_HELD: poll_let_go(inbox, poll); break;
    case POLL_READING: read_abandon(poll->read); break;
    case POLL_LOOKING: look_abandon(poll->look); break;
    case POLL_FORGETTING: poll->forgetting->owner = NULL; break;
    case POLL_PARKED: poll_unpark(inbox, poll); break;
    }
    poll->state = POLL_IDLE;
    consumer_leave(inbox, poll);
}

bool inbox_is_writing(const struct inbox *inbox) {
    return inbox->writes;
}

bool inbox_can_take_out(const struct inbox *inbox, const struct poll *poll) {
    bool is_with_store = poll->state == POLL_LOADING || poll->state == POLL_READING;
    return poll->state == POLL_PARKED || poll->state == POLL_HELD ||
           (inbox->follow && is_with_store);
}

/* NULL: it is being read for the poll. */
static const struct channel *channel_of(const struct poll *poll) {
    return poll->state == POLL_READING                  ? NULL
           : poll->state == POLL_PARKED && poll->filter ? poll->view->channel
                                                        : poll->channel;
}

void inbox_take_out(struct inbox *inbox, struct poll *poll, struct poll_place *place) {
    const struct channel *channel = channel_of(poll);
    struct slice name = channel ? (struct slice){channel->name, channel->name_len}
                                : (struct slice){poll->read->name, poll->read->name_len};
    place->is_known = channel && channel->is_loaded && !inbox->follow;
    place->total = place->is_known ? channel->total : 0;
    place->epoch = place->is_known ? channel->epoch : 0;
    place->channel_len = (uint16_t)name.len;
    memcpy(place->channel, name.data, name.len);
    bool has_consumer = poll->is_named && !poll->consumer->is_gone;
    place->is_gone = poll->is_named && !has_consumer;
    place->confirmed = place->is_gone ? poll->consumer->ts : 0;
    place->consumer_len = has_consumer ? poll->consumer->name_len : 0;
    if (has_consumer)
        memcpy(place->consumer, poll->consumer->name, place->consumer_len);
    poll->has_position |= poll->state == POLL_PARKED || poll->state == POLL_HELD;
    inbox_cancel(inbox, poll);
}

/* The channel need not be read to know what it is at: a push since then would have left it in
 * memory. Should that be wrong all the same, the next push tells. */
static void recall(struct inbox *inbox, struct slice name, const struct poll_place *place) {
    struct channel *channel = cache_get(inbox, hash_of(name), name);
    if (!channel || channel->is_loaded || channel->is_loading)
        return;
    channel->is_loaded = true;
    channel->total = place->total;
    channel->epoch = place->epoch;
}

bool inbox_put_back(struct inbox *inbox, struct poll *poll, const struct poll_place *place) {
    struct slice channel = {place->channel, place->channel_len};
    struct slice consumer = {place->consumer, place->consumer_len};
    uint32_t skipped = poll->skipped;
    bool was_parked = poll->was_parked;
    poll_begin(poll);
    poll->skipped = skipped;
    poll->was_parked = was_parked;
    if (place->is_known && !inbox->follow && !inbox->has_forgotten)
        recall(inbox, channel, place);
    return consumer.len     ? poll_as(inbox, channel, poll, consumer)
           : place->is_gone ? poll_as_gone(inbox, channel, poll, place->confirmed)
                            : inbox->mode->poll(inbox, hash_of(channel), channel, poll);
}

void inbox_expire(struct inbox *inbox, struct poll *poll, bool may_look) {
    struct channel *channel = poll->filter ? poll->view->channel : poll->channel;
    poll_unpark(inbox, poll);
    poll->may_wait = false;
    if (poll->is_stream && inbox->mode->ask_again)
        inbox->mode->ask_again(inbox, channel);
    bool goes_on = may_look && inbox->mode->look_again && inbox->mode->look_again(channel, poll);
    if (!goes_on)
        poll_answer_empty(inbox, channel, poll);
}

enum filter_error inbox_filter(struct inbox *inbox, struct slice text, struct filter **filter) {
    enum filter_error error = filters_get(&inbox->filters, text, filter);
    for (int i = 0; error == FILTER_NO_ROOM && i < FREED_MAX && views_free_one(inbox); i++)
        error = filters_get(&inbox->filters, text, filter);
    return error;
}

void inbox_filter_unref(struct inbox *inbox, struct filter *filter) {
    filter_unref(&inbox->filters, filter);
}

/* --- Making and freeing ----------------------------------------------------------------------- */

static void free_parts(struct inbox *inbox) {
    if (inbox->keeper)
        consumers_deinit(inbox);
    table_deinit(&inbox->channels);
    table_deinit(&inbox->views);
    filters_deinit(&inbox->filters);
    free(inbox->picked);
    free(inbox->wanted);
    free(inbox);
}

struct inbox *inbox_new(uv_loop_t *loop, struct store *store, const struct inbox_options *options,
                        const struct inbox_events *events) {
    struct inbox *inbox = calloc(1, sizeof *inbox);
    if (!inbox)
        return NULL;
    inbox->loop = loop;
    inbox->store = store;
    inbox->options = *options;
    inbox->events = *events;
    list_init(&inbox->by_use);
    list_init(&inbox->only_pushed);
    list_init(&inbox->waking);
    list_init(&inbox->ending);
    list_init(&inbox->again);
    list_init(&inbox->roomless);
    list_init(&inbox->looks);
    list_init(&inbox->idle_views);
    turn_task_init(&inbox->wake, polls_answer_slice);
    bool is_shared = store_is_shared(store);
    inbox->mode = is_shared ? &follow_mode : &own_mode;
    inbox->picked = malloc(READ_MAX_UPDATES * sizeof(struct update *));
    inbox->wanted = malloc(READ_MAX_UPDATES * sizeof *inbox->wanted);
    if (!inbox->picked || !inbox->wanted || !table_init(&inbox->channels) ||
        !table_init(&inbox->views) || !filters_init(&inbox->filters) || !consumers_init(inbox))
        goto fail;
    if (!is_shared)
        return inbox;
    inbox->follow = follow_new(inbox);
    if (inbox->follow)
        return inbox;
fail:
    free_parts(inbox);
    return NULL;
}

void inbox_stop(struct inbox *inbox, void (*stopped)(void)) {
    if (inbox->follow)
        follow_stop(inbox->follow);
    consumers_stop(inbox, stopped);
}

void inbox_free(struct inbox *inbox) {
    for (struct channel *channel; (channel = cache_oldest(inbox));)
        cache_forget(inbox, channel);
    turn_cancel(&inbox->wake);
    if (inbox->follow)
        follow_free(inbox->follow);
    free_parts(inbox);
}
