#include "inbox/inbox.h"
#include "base/hash.h"
#include "base/metrics.h"
#include "base/table.h"
#include "inbox/channel.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    RECENT_MAX = 256, /* updates a channel keeps in memory */
    WAKE_SLICE = 512, /* polls woken before the loop looks at its sockets again */
    TRIM_TRIES = 64,  /* channels looked at when the cache is too full */
    READS_MAX = 4096, /* under way in the store: the next poll that needs one is refused */
    /* Of a shared store: */
    PAUSE_MAX_MS = 5000, /* from one failing read of a channel to the next */
    CATCH_UPS_MAX =
        256, /* channels that are read at once, for their own sake: after an outage all are due */
    TICK_MS = 100,
    WATCH_IDLE_MS = 10000, /* a channel is watched for so long after its last poll */
    CHECK_MS = 1000, /* what a poll has not heard from the store itself is checked after so long */
};

/* What an update is known by. */
struct newest {
    uint64_t ts, hash;
    int64_t at_ms;
};

/*
 * A channel of a shared store on which somebody waits, or waited a moment ago.
 *
 * It is loaded while the store tells of its updates (is_on) and all that came before have been read. When the store
 * loses it, parked polls stay where they are; as soon as it is told of again, it is read again.
 */
struct watched {
    struct store_watch watch;
    struct channel *channel;
    struct list loading;      /* polls that wait for it to be loaded */
    struct list loading_link; /* in inbox->loading, while there are any, by loading_ms */
    struct list due_link;     /* in inbox->due: to be read */
    struct list check_link;   /* in inbox->unchecked */
    struct store_read *read;  /* what reads it */
    uint64_t loading_ms, used_ms;
    /* Moments, counted by inbox->moment: of its last poll; of the last thing heard of it; of the start of the last
     * read that was answered, and of the one under way. */
    uint64_t polled_at, heard_at, verified_at, read_at;
    uint64_t check_due_ms;       /* while in inbox->unchecked */
    uint64_t retry_ms, pause_ms; /* after a read that failed */
    struct newest newest,
        expected;          /* the channel's, and as of the start of `read`; ts 0: not known */
    uint64_t told_ts;      /* the newest update told while it was being read */
    uint32_t changes;      /* updates taken over */
    uint32_t changes_read; /* as of the start of `read` */
    bool is_on;            /* the store tells of it */
    bool is_known;         /* total was known once */
    bool is_due;           /* it is to be read, or read once more */
    bool is_past_newest;   /* the next read begins behind the newest update */
};

struct inbox {
    struct store *store;
    struct inbox_options options;
    struct inbox_events events;
    struct table channels;
    struct list by_use; /* least recently used first */
    struct list waking; /* channels whose polls at the front have not been woken yet */
    struct list due, loading, unchecked; /* struct watched */
    uv_timer_t tick;                     /* of a shared store */
    uv_check_t wake_check;               /* wakes in the turn of the push */
    uv_idle_t wake_idle;                 /* keeps the loop turning while there are more to wake */
    uint32_t reads;                      /* under way in the store */
    uint32_t catch_ups;                  /* of them: those of channels */
    uint64_t moment;                     /* counts what happens to watched channels */
    bool is_stopped;
    struct update **picked; /* room for the updates of one answer */
};

/* The push is the store's append; its owner stands there. */
struct push {
    struct store_append append;
};

static struct inbox *the_inbox; /* store callbacks carry no context; a process has one inbox */

/* --- Channels --------------------------------------------------------------------------------- */

/* Whether the poll at the front waits for an update that is there. */
static bool has_new(const struct channel *channel) {
    if (list_empty(&channel->polls))
        return false;
    struct poll *front = container_of(channel->polls.next, struct poll, link);
    return (uint64_t)front->ts < channel->total;
}

static void trim_recents(struct inbox *inbox, struct channel *channel) {
    uint64_t max = inbox->options.channel_max_updates;
    channel_trim(channel, max < RECENT_MAX ? max : RECENT_MAX);
}

/* Adds `update`, the channel's newest, to those in memory. */
static void remember(struct inbox *inbox, struct channel *channel, struct update *update) {
    channel_remember(channel, update);
    if (!has_new(channel)) /* else polls that are being woken need the older ones */
        trim_recents(inbox, channel);
}

/* Puts the channel behind all others; `is_used`: because a poll has to do with it. */
static void touch_as(struct inbox *inbox, struct channel *channel, bool is_used) {
    list_remove(&channel->use_link);
    list_append(&inbox->by_use, &channel->use_link);
    if (channel->watched && is_used)
        channel->watched->used_ms = uv_now(inbox->tick.loop);
}

static void touch(struct inbox *inbox, struct channel *channel) {
    touch_as(inbox, channel, true);
}

static void unwatch(struct inbox *inbox, struct channel *channel) {
    struct watched *watched = channel->watched;
    if (!inbox->is_stopped)
        store_unwatch(inbox->store, &watched->watch);
    list_remove(&watched->watch.link);
    list_remove(&watched->loading_link);
    list_remove(&watched->due_link);
    list_remove(&watched->check_link);
    metrics.cache_bytes -= sizeof *watched;
    free(watched);
    channel->watched = NULL;
}

static void forget_channel(struct inbox *inbox, struct channel *channel) {
    if (channel->watched)
        unwatch(inbox, channel);
    table_remove(&inbox->channels, &channel->node);
    channel_free(channel);
    metrics.channels_resident = inbox->channels.count;
}

static bool is_in_use(const struct channel *channel) {
    bool is_loading =
        channel->watched ? !list_empty(&channel->watched->loading) : !channel->is_loaded;
    return !list_empty(&channel->polls) || channel->reads || is_loading;
}

/* Frees the least recently used until the cache fits; of channels that are in use, only the updates. */
static void trim_cache(struct inbox *inbox) {
    for (int tries = 0; metrics.cache_bytes > inbox->options.cache_max_bytes && tries < TRIM_TRIES;
         tries++) {
        if (list_empty(&inbox->by_use))
            return;
        struct channel *channel = container_of(inbox->by_use.next, struct channel, use_link);
        if (!is_in_use(channel)) {
            forget_channel(inbox, channel);
            continue;
        }
        if (list_empty(&channel->wake_link))
            channel_drop_recents(channel);
        touch(inbox, channel);
    }
}

static struct channel *find_channel(struct inbox *inbox, uint64_t hash, struct slice name) {
    struct table_node *node =
        table_find(&inbox->channels, hash, channel_equal, name.data, name.len);
    return node ? container_of(node, struct channel, node) : NULL;
}

/* NULL when memory is out. */
static struct channel *make_channel(struct inbox *inbox, uint64_t hash, struct slice name) {
    struct channel *channel = channel_new(hash, name);
    if (!channel)
        return NULL;
    table_insert(&inbox->channels, &channel->node);
    list_append(&inbox->by_use, &channel->use_link);
    metrics.channels_resident = inbox->channels.count;
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

static void fail_poll(struct inbox *inbox, struct poll *poll, enum store_error error) {
    struct answer answer = {.error = error};
    finish_alone(inbox, poll, &answer);
}

/* The first ts that may still be kept of a channel with so many updates. */
static uint64_t oldest_allowed(const struct inbox *inbox, const struct channel *channel) {
    uint64_t max = inbox->options.channel_max_updates;
    uint64_t gone = channel->total > max ? channel->total - max : 0;
    return (gone > channel->gone ? gone : channel->gone) + 1;
}

/* The cursor of a poll, `-K` resolved. */
static uint64_t cursor_of(const struct poll *poll, uint64_t total) {
    if (poll->ts >= 0)
        return (uint64_t)poll->ts;
    uint64_t last = (uint64_t)-poll->ts;
    return last < total ? total - last : 0;
}

/* An update of upstream's has no time: it goes with its channel. */
static bool is_too_old(const struct update *update, int64_t cutoff) {
    return update->at_ms && update->at_ms < cutoff;
}

/*
 * Builds the answer of a poll whose cursor is behind the channel from the updates in memory; false when they
 * do not reach back far enough. The answer is valid until the next one is built.
 */
static bool answer_from_memory(struct inbox *inbox, struct channel *channel,
                               const struct poll *poll, struct answer *answer) {
    uint64_t cursor = cursor_of(poll, channel->total), first = cursor + 1;
    /* A poll that waited gets all that came, even if a burst was larger than the bound on what is kept. */
    bool has_waited = poll->state == POLL_PARKED;
    uint64_t oldest = has_waited ? channel->gone + 1 : oldest_allowed(inbox, channel);
    if (first < oldest)
        first = oldest;
    uint64_t in_memory = channel->total - channel->recent_count + 1; /* the first ts in memory */
    if (first < in_memory)
        return false;
    uint32_t index = (uint32_t)(first - in_memory);
    int64_t cutoff = inbox->options.clock_ms() - inbox->options.ttl_ms;
    while (!has_waited && index < channel->recent_count &&
           is_too_old(channel_recent(channel, index), cutoff))
        index++;
    *answer = (struct answer){.total = channel->total, .updates = inbox->picked};
    uint64_t found = in_memory + index; /* the first that is delivered */
    answer->missed = poll->ts < 0 ? 0 : found - cursor - 1;
    size_t bytes = 0;
    for (; index < channel->recent_count && answer->count < poll->limit; index++) {
        struct update *update = channel_recent(channel, index);
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
    poll->was_parked = true;
    poll->channel = channel;
    poll->ts = (int64_t)channel->total;
    list_append(&channel->polls, &poll->link);
    metrics.polls_parked++;
}

/* Answers, parks, or sends the poll to the store. The channel is loaded. */
static void decide(struct inbox *inbox, struct channel *channel, struct poll *poll) {
    uint64_t cursor = cursor_of(poll, channel->total);
    struct answer answer;
    if (cursor < channel->total) {
        if (answer_from_memory(inbox, channel, poll, &answer))
            finish_alone(inbox, poll, &answer);
        else if (!read_from_store(inbox, channel, poll))
            fail_poll(inbox, poll, STORE_FAILED);
    } else if (cursor == channel->total && poll->may_wait) {
        park(channel, poll);
    } else if (channel->watched &&
               cursor > channel->total) { /* ahead of what has been told, or of all there is */
        if (!read_from_store(inbox, channel, poll))
            fail_poll(inbox, poll, STORE_FAILED);
    } else {
        answer = (struct answer){
            .reset = cursor > channel->total, .ts = channel->total, .total = channel->total};
        finish_alone(inbox, poll, &answer);
    }
}

/* Decides for all that waited for the load in `polls`. */
static void decide_loading(struct inbox *inbox, struct channel *channel, struct list *polls) {
    struct list loading;
    list_init(&loading);
    list_splice(&loading, polls);
    channel->reads++; /* the channel stays while it is looked at */
    for (struct list *link; (link = list_shift(&loading));)
        decide(inbox, channel, container_of(link, struct poll, link));
    channel->reads--;
}

static void say_reset(struct inbox *inbox, const struct channel *channel, struct poll *poll) {
    /* Where the counter has passed the poll again, it goes on from where it is: what came since is not lost to it. */
    uint64_t ts = (uint64_t)poll->ts < channel->total ? (uint64_t)poll->ts : channel->total;
    struct answer answer = {.reset = true, .ts = ts, .total = channel->total};
    finish_alone(inbox, poll, &answer);
}

/* A channel that the store has forgotten begins anew: what is in memory of the old one is void. `is_reset`: its polls have
 * seen what is not there any more, whatever the total is now. */
static void restart_channel(struct inbox *inbox, struct channel *channel, uint64_t total,
                            bool is_reset) {
    channel_drop_recents(channel);
    channel->gone = 0;
    channel->total = total;
    struct list polls;
    list_init(&polls);
    list_splice(&polls, &channel->polls);
    channel->reads++; /* the channel stays while it is looked at */
    for (struct list *link; (link = list_shift(&polls));) {
        struct poll *poll = container_of(link, struct poll, link);
        metrics.polls_parked--;
        if (is_reset)
            say_reset(inbox, channel, poll);
        else
            decide(inbox, channel, poll);
    }
    channel->reads--;
}

/* --- Reading from the store ------------------------------------------------------------------- */

/* Keeps what was read when it is the newest of the channel and nothing is in memory yet. */
static void remember_read(struct inbox *inbox, struct channel *channel,
                          const struct store_read *read) {
    if (channel->gone < read->gone)
        channel->gone = read->gone;
    if (channel->recent_count || !read->count ||
        read->updates[read->count - 1]->ts != channel->total)
        return;
    uint32_t count = read->count < RECENT_MAX ? read->count : RECENT_MAX;
    for (uint32_t i = read->count - count; i < read->count; i++)
        remember(inbox, channel, read->updates[i]);
}

static void answer_read(struct inbox *inbox, struct channel *channel, struct poll *poll,
                        const struct store_read *read) {
    uint64_t cursor = cursor_of(poll, channel->total);
    if (cursor >= read->total) {
        decide(inbox, channel, poll);
        return;
    }
    uint64_t found = read->count ? read->updates[0]->ts : read->total + 1;
    struct answer answer = {
        .total = channel->total,
        .missed = poll->ts < 0 ? 0 : found - cursor - 1,
        .ts = found - 1 + read->count,
        .count = read->count,
        .updates = read->updates,
    };
    finish_alone(inbox, poll, &answer);
}

/* What a read of a store of our own brings: its total is the channel's. */
static void finish_read(struct inbox *inbox, struct channel *channel, struct store_read *read) {
    if (read->error) {
        if (read->owner)
            fail_poll(inbox, read->owner, read->error);
        while (!channel->is_loaded && !list_empty(&channel->polls))
            fail_poll(inbox, container_of(list_shift(&channel->polls), struct poll, link),
                      read->error);
        return;
    }
    bool was_loaded = channel->is_loaded;
    if (!was_loaded) {
        channel->is_loaded = true;
        channel->total = read->total;
    }
    if (read->total < channel->total)
        restart_channel(inbox, channel, read->total, false);
    remember_read(inbox, channel, read);
    if (!was_loaded)
        decide_loading(inbox, channel, &channel->polls);
    if (read->owner)
        answer_read(inbox, channel, read->owner, read);
}

static void finish_shared_read(struct inbox *inbox, struct channel *channel,
                               struct store_read *read);

static void on_read(struct store_op *op) {
    struct inbox *inbox = the_inbox;
    struct store_read *read = container_of(op, struct store_read, op);
    struct channel *channel =
        find_channel(inbox, read->hash, (struct slice){read->name, read->name_len});
    assert(channel && channel->reads);
    inbox->reads--;
    if (store_is_shared(inbox->store))
        finish_shared_read(inbox, channel, read);
    else
        finish_read(inbox, channel, read);
    channel->reads--;
    if (!channel->is_loaded && !channel->watched && !channel->reads)
        forget_channel(inbox, channel);
    for (uint32_t i = 0; i < read->count; i++)
        update_unref(read->updates[i]);
    free(read->updates);
    free(read);
    trim_cache(inbox);
}

/* Reads a channel, for a poll or for itself; NULL when there is no memory, or too much under way. */
static struct store_read *start_read(struct inbox *inbox, struct channel *channel, int64_t after_ts,
                                     uint32_t limit, struct poll *owner) {
    if (inbox->reads >= READS_MAX)
        return NULL;
    struct store_read *read = calloc(1, sizeof *read + channel->name_len);
    if (!read)
        return NULL;
    read->op.done = on_read;
    read->owner = owner;
    read->after_ts = after_ts;
    read->limit = limit;
    read->hash = channel->node.hash;
    read->name_len = channel->name_len;
    memcpy(read->name, channel->name, channel->name_len);
    channel->reads++;
    inbox->reads++;
    store_read(inbox->store, read);
    return read;
}

static bool read_from_store(struct inbox *inbox, struct channel *channel, struct poll *poll) {
    struct store_read *read = start_read(inbox, channel, poll->ts, poll->limit, poll);
    if (!read)
        return false;
    poll->state = POLL_READING;
    poll->read = read;
    return true;
}

/* --- Waking ----------------------------------------------------------------------------------- */

static void unpark(struct poll *poll) {
    list_remove(&poll->link);
    metrics.polls_parked--;
}

/* A poll was woken, and nothing can be read for it: over a shared store it is not told of that. */
static void fail_woken(struct inbox *inbox, struct channel *channel, struct poll *poll) {
    if (!channel->watched) {
        fail_poll(inbox, poll, STORE_FAILED);
        return;
    }
    struct answer answer = {.ts = (uint64_t)poll->ts, .total = channel->total};
    finish_alone(inbox, poll, &answer);
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
            fail_woken(inbox, channel, poll);
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

/* Wakes those who wait for what is new. */
static void wake(struct inbox *inbox, struct channel *channel) {
    if (!has_new(channel) || !list_empty(&channel->wake_link))
        return;
    list_append(&inbox->waking, &channel->wake_link);
    start_waking(inbox);
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
    trim_cache(check->data);
}

/* --- Pushing ---------------------------------------------------------------------------------- */

/* Takes note of an update that is durable now. */
static void deliver(struct inbox *inbox, struct store_append *append) {
    struct slice name = {append->name, append->name_len};
    struct update *update = append->update;
    struct channel *channel = find_channel(inbox, append->hash, name);
    if (!channel)
        channel = make_channel(inbox, append->hash, name);
    if (!channel)
        return; /* nobody waits on it */
    touch(inbox, channel);
    if (channel->is_loaded && update->ts != channel->total + 1)
        restart_channel(inbox, channel, update->ts - 1, false);
    channel->total = update->ts;
    if (!channel->is_loaded) {
        channel->is_loaded = true;
        remember(inbox, channel, update);
        decide_loading(inbox, channel, &channel->polls);
    } else {
        remember(inbox, channel, update);
    }
    wake(inbox, channel);
}

static void on_append(struct store_op *op) {
    struct inbox *inbox = the_inbox;
    struct store_append *append = container_of(op, struct store_append, op);
    if (!append->error) {
        metrics.pushes++;
        metrics.push_bytes += append->update->body_len;
        if (!store_is_shared(inbox->store)) /* else the store tells of it, as of everybody's */
            deliver(inbox, append);
    }
    inbox->events.push_done(append->owner, append->update, append->error);
    update_unref(append->update);
    free(append);
    trim_cache(inbox);
}

struct push *inbox_push(struct inbox *inbox, struct slice channel, struct update *update,
                        void *owner) {
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

/* --- Channels of a shared store ---------------------------------------------------------------- */

/* Has the channel read as soon as there is room for one more read; once more, when it is being read. */
static void make_due(struct inbox *inbox, struct watched *watched) {
    watched->is_due = true;
    if (list_empty(&watched->due_link) && !watched->read)
        list_append(&inbox->due, &watched->due_link);
}

/* Notes the newest update, to know it again. */
static void note_newest(struct watched *watched, const struct update *update) {
    watched->newest = (struct newest){
        .ts = update->ts, .at_ms = update->at_ms, .hash = hash_of(update_body(update))};
}

static void read_watched(struct inbox *inbox, struct watched *watched) {
    struct channel *channel = watched->channel;
    int64_t after_ts = -1;
    watched->expected = (struct newest){0};
    if (watched->is_known) {
        after_ts = (int64_t)channel->total;
        bool is_told = watched->newest.ts && watched->newest.ts == channel->total;
        if (is_told && !watched->is_past_newest) { /* and the newest once more */
            watched->expected = watched->newest;
            after_ts--;
        }
    } else if (!list_empty(&watched->loading))
        after_ts = container_of(watched->loading.next, struct poll, link)->ts;
    watched->is_past_newest = false;
    watched->is_due = false;
    watched->told_ts = 0;
    watched->changes_read = watched->changes;
    watched->read_at = ++inbox->moment;
    watched->read = start_read(inbox, channel, after_ts, READ_MAX_UPDATES, NULL);
    if (watched->read)
        inbox->catch_ups++;
    else
        make_due(inbox, watched); /* too much is under way, or memory is out: with the next tick */
}

static void read_due(struct inbox *inbox) {
    uint64_t now_ms = uv_now(inbox->tick.loop);
    struct list due;
    list_init(&due);
    list_splice(&due, &inbox->due);
    for (struct list *link;
         !inbox->is_stopped && inbox->catch_ups < CATCH_UPS_MAX && (link = list_shift(&due));) {
        struct watched *watched = container_of(link, struct watched, due_link);
        if (watched->is_on && watched->retry_ms > now_ms)
            list_append(&inbox->due, &watched->due_link);
        else if (watched->is_on)
            read_watched(inbox, watched);
    }
    list_splice(&inbox->due, &due);
}

/* Whether what was read shows that the counter has gone back and passed what was known. */
static bool is_another_life(const struct watched *watched, const struct store_read *read) {
    const struct newest *expected = &watched->expected;
    if (!expected->ts || !read->count || read->updates[0]->ts != expected->ts)
        return false;
    const struct update *update = read->updates[0];
    bool is_later = update->at_ms && expected->at_ms && update->at_ms != expected->at_ms;
    return is_later || hash_of(update_body(update)) != expected->hash;
}

/* Takes over what is newer than what is in memory: what was read, which may be only the first part of it. */
static void take_over(struct inbox *inbox, struct watched *watched, const struct store_read *read) {
    struct channel *channel = watched->channel;
    watched->changes++;
    if (read->count && read->updates[read->count - 1]->ts > watched->newest.ts)
        note_newest(watched, read->updates[read->count - 1]);
    if (!watched->is_known || !read->count) {
        channel_drop_recents(channel);
        channel->total = read->total;
        remember_read(inbox, channel, read);
        return;
    }
    uint32_t first = 0; /* news may have brought the first of them meanwhile */
    while (first < read->count && read->updates[first]->ts <= channel->total)
        first++;
    if (first < read->count &&
        read->updates[first]->ts > channel->total + 1) { /* those between are gone */
        channel_drop_recents(channel);
        channel->gone = read->updates[first]->ts - 1;
    }
    for (; first < read->count; first++) {
        channel->total = read->updates[first]->ts;
        remember(inbox, channel, read->updates[first]);
    }
    if (channel->total < read->total)
        make_due(inbox, watched);
}

/* Decides for the polls that came before the read began; for the others it is read once more. */
static void decide_watched(struct inbox *inbox, struct watched *watched) {
    struct list loading, ready;
    list_init(&loading);
    list_init(&ready);
    list_splice(&loading, &watched->loading);
    for (struct list *link; (link = list_shift(&loading));) {
        bool is_ready = container_of(link, struct poll, link)->asked_at < watched->read_at;
        list_append(is_ready ? &ready : &watched->loading, link);
    }
    if (list_empty(&watched->loading))
        list_remove(&watched->loading_link);
    else
        make_due(inbox, watched);
    decide_loading(inbox, watched->channel, &ready);
}

/* The polls that wait for the channel get nothing: those that were parked before do not learn why. */
static void fail_loading(struct inbox *inbox, struct watched *watched, enum store_error error) {
    list_remove(&watched->loading_link);
    struct list loading;
    list_init(&loading);
    list_splice(&loading, &watched->loading);
    for (struct list *link; (link = list_shift(&loading));) {
        struct poll *poll = container_of(link, struct poll, link);
        if (poll->was_parked)
            fail_woken(inbox, watched->channel, poll);
        else
            fail_poll(inbox, poll, error);
    }
}

/* The channel has been read, from what was known of it to its end at that moment. */
static void caught_up(struct inbox *inbox, struct watched *watched, const struct store_read *read) {
    struct channel *channel = watched->channel;
    watched->read = NULL;
    inbox->catch_ups--;
    if (read->error) {
        watched->pause_ms = watched->pause_ms ? watched->pause_ms * 2 : TICK_MS;
        if (watched->pause_ms > PAUSE_MAX_MS)
            watched->pause_ms = PAUSE_MAX_MS;
        watched->retry_ms = uv_now(inbox->tick.loop) + watched->pause_ms;
        make_due(inbox, watched);
        fail_loading(inbox, watched, read->error);
        return;
    }
    bool has_changed = watched->changes != watched->changes_read;
    watched->pause_ms = 0;
    bool is_behind = watched->is_known && read->total < channel->total;
    bool is_restarted = is_another_life(watched, read) || (is_behind && !has_changed);
    if (is_restarted)
        restart_channel(inbox, channel, read->total, true);
    else if (is_behind)
        make_due(inbox, watched); /* what was told since is newer than what was read */
    else if (!watched->is_known || read->total > channel->total)
        take_over(inbox, watched, read);
    if (is_restarted)
        watched->newest = (struct newest){0};
    /* A page that had room for nothing but the newest once more: the next one begins behind it. */
    watched->is_past_newest =
        watched->expected.ts && read->count == 1 && channel->total < read->total;
    watched->is_known = true;
    watched->verified_at = watched->read_at;
    channel->is_loaded = watched->is_on;
    if (watched->is_due || watched->told_ts > channel->total)
        make_due(inbox, watched);
    if (channel->is_loaded)
        decide_watched(inbox, watched);
    wake(inbox, channel);
}

/* Lets the poll wait until its channel is loaded. */
static void wait_for_load(struct inbox *inbox, struct channel *channel, struct poll *poll) {
    struct watched *watched = channel->watched;
    poll->state = POLL_LOADING;
    poll->channel = channel;
    poll->asked_at = ++inbox->moment;
    list_append(&watched->loading, &poll->link);
    if (list_empty(&watched->loading_link)) {
        watched->loading_ms = uv_now(inbox->tick.loop);
        list_append(&inbox->loading, &watched->loading_link);
    }
}

static bool watch(struct inbox *inbox, struct channel *channel) {
    struct watched *watched = malloc(sizeof *watched);
    if (!watched)
        return false;
    *watched = (struct watched){
        .watch = {.name = channel->name, .name_len = channel->name_len},
        .channel = channel,
    };
    list_init(&watched->watch.link);
    list_init(&watched->loading);
    list_init(&watched->loading_link);
    list_init(&watched->due_link);
    list_init(&watched->check_link);
    metrics.cache_bytes += sizeof *watched;
    channel->watched = watched;
    store_watch(inbox->store, &watched->watch);
    return true;
}

/* A poll that was woken, but for which nothing could be read: it is not told of the store's trouble. */
static void keep_waiting(struct inbox *inbox, struct channel *channel, struct poll *poll) {
    if (poll->may_wait && channel->watched) {
        poll->state = POLL_PARKED;
        poll->channel = channel;
        list_append(channel->polls.next, &poll->link); /* before all others: it has seen least */
        metrics.polls_parked++;
        make_due(inbox, channel->watched); /* with the next tick */
        return;
    }
    struct answer answer = {.ts = (uint64_t)poll->ts, .total = channel->total};
    finish_alone(inbox, poll, &answer);
}

/* Answers a poll by what was read for it. */
static void answer_shared(struct inbox *inbox, struct channel *channel, struct poll *poll,
                          const struct store_read *read) {
    if (read->error && poll->was_parked) {
        keep_waiting(inbox, channel, poll);
        return;
    }
    if (read->error) {
        fail_poll(inbox, poll, read->error);
        return;
    }
    uint64_t cursor = cursor_of(poll, read->total);
    if (cursor == read->total && poll->may_wait && channel->watched) {
        poll->ts = (int64_t)cursor;
        if (channel->is_loaded && cursor <= channel->total) {
            decide(inbox, channel, poll);
        } else {
            make_due(inbox, channel->watched);
            wait_for_load(inbox, channel, poll);
        }
        return;
    }
    bool is_behind = cursor < read->total;
    uint64_t found = read->count ? read->updates[0]->ts : read->total + 1;
    struct answer answer = {
        .reset = cursor > read->total,
        .total = read->total,
        .missed = is_behind && poll->ts >= 0 ? found - cursor - 1 : 0,
        .ts = is_behind ? found - 1 + read->count : read->total,
        .count = read->count,
        .updates = read->updates,
    };
    finish_alone(inbox, poll, &answer);
}

static void finish_shared_read(struct inbox *inbox, struct channel *channel,
                               struct store_read *read) {
    if (read->owner)
        answer_shared(inbox, channel, read->owner, read);
    if (channel->watched && channel->watched->read == read)
        caught_up(inbox, channel->watched, read);
    if (!read->error) /* else with the next tick */
        read_due(inbox);
}

static struct watched *watched_of(struct store_watch *watch) {
    return container_of(watch, struct watched, watch);
}

static struct store_watch *on_find(struct slice name) {
    struct channel *channel = find_channel(the_inbox, hash_of(name), name);
    return channel && channel->watched ? &channel->watched->watch : NULL;
}

static void on_watched(struct store_watch *watch) {
    watched_of(watch)->is_on = true;
    make_due(the_inbox, watched_of(watch));
    read_due(the_inbox);
}

static void on_lost(struct store_watch *watch) {
    watched_of(watch)->is_on = false;
    watched_of(watch)->channel->is_loaded = false;
}

/* Whether this is an update that is in memory already. */
static bool is_same(const struct channel *channel, const struct update *update) {
    uint64_t age = channel->total - update->ts;
    if (update->ts > channel->total || age >= channel->recent_count)
        return false;
    const struct update *mine = channel_recent(channel, channel->recent_count - 1 - (uint32_t)age);
    return mine->at_ms == update->at_ms && slice_equal(update_body(mine), update_body(update));
}

static void on_news(struct store_watch *watch, struct update *update) {
    struct inbox *inbox = the_inbox;
    struct watched *watched = watched_of(watch);
    struct channel *channel = watched->channel;
    if (watched->told_ts < update->ts)
        watched->told_ts = update->ts;
    if (!channel->is_loaded)
        return;
    if (update->ts == channel->total + 1) {
        channel->total = update->ts;
        watched->changes++;
        watched->heard_at = ++inbox->moment;
        note_newest(watched, update);
        remember(inbox, channel, update);
        wake(inbox, channel);
    } else if (!is_same(channel, update)) { /* a gap, or the counter went back */
        make_due(inbox, watched);
        read_due(inbox);
    }
}

static bool poll_shared(struct inbox *inbox, uint64_t hash, struct slice name, struct poll *poll) {
    struct channel *channel = find_channel(inbox, hash, name);
    if (!channel)
        channel = make_channel(inbox, hash, name);
    if (!channel)
        return false;
    /* Who does not wait wants all that has been acknowledged, by whichever process. */
    bool ok = poll->may_wait ? channel->watched || watch(inbox, channel)
                             : read_from_store(inbox, channel, poll);
    if (!ok && !channel->watched && !channel->reads)
        forget_channel(inbox, channel);
    if (!ok || !poll->may_wait)
        return ok;
    touch(inbox, channel);
    channel->watched->polled_at = ++inbox->moment;
    if (!channel->is_loaded) {
        wait_for_load(inbox, channel, poll);
        return true;
    }
    if (list_empty(&channel->watched->check_link)) {
        channel->watched->check_due_ms = uv_now(inbox->tick.loop) + CHECK_MS;
        list_append(&inbox->unchecked, &channel->watched->check_link);
    }
    decide(inbox, channel, poll);
    return true;
}

/* A counter can go back without a word (a flush, an expiry), and its channel then says nothing. Where polls have come
 * since a channel was heard of, it is read once. */
static void check_counters(struct inbox *inbox, uint64_t now_ms) {
    while (!list_empty(&inbox->unchecked)) {
        struct watched *watched = container_of(inbox->unchecked.next, struct watched, check_link);
        if (now_ms < watched->check_due_ms)
            return;
        list_remove(&watched->check_link);
        bool is_heard =
            watched->heard_at > watched->polled_at || watched->verified_at > watched->polled_at;
        if (!is_heard && !list_empty(&watched->channel->polls))
            make_due(inbox, watched);
    }
}

/* Polls whose channel is not loaded in time learn why. */
static void fail_late_loads(struct inbox *inbox, uint64_t now_ms) {
    while (!list_empty(&inbox->loading)) {
        struct watched *watched = container_of(inbox->loading.next, struct watched, loading_link);
        if (!list_empty(&watched->loading) &&
            now_ms - watched->loading_ms < inbox->options.load_max_ms)
            return;
        enum store_error error = store_health(inbox->store, NULL);
        fail_loading(inbox, watched, error ? error : STORE_AWAY);
    }
}

/* Stops watching channels that nobody has waited on for a while. Those in use go to the end of the list. */
static void unwatch_idle(struct inbox *inbox, uint64_t now_ms) {
    for (int count = 0; count < WAKE_SLICE && !list_empty(&inbox->by_use); count++) {
        struct channel *channel = container_of(inbox->by_use.next, struct channel, use_link);
        struct watched *watched = channel->watched;
        bool has_polls =
            watched && (!list_empty(&channel->polls) || !list_empty(&watched->loading));
        if (watched && now_ms - watched->used_ms < (has_polls ? TICK_MS : WATCH_IDLE_MS))
            return;
        if (!watched || has_polls || channel->reads)
            touch_as(inbox, channel, has_polls);
        else
            forget_channel(inbox, channel);
    }
}

static void on_tick(uv_timer_t *timer) {
    struct inbox *inbox = timer->data;
    uint64_t now_ms = uv_now(timer->loop);
    unwatch_idle(inbox, now_ms);
    trim_cache(inbox);
    fail_late_loads(inbox, now_ms);
    check_counters(inbox, now_ms);
    read_due(inbox);
}

static const struct store_events store_events = {on_find, on_watched, on_lost, on_news};

/* --- Polling ---------------------------------------------------------------------------------- */

bool inbox_poll(struct inbox *inbox, struct slice name, struct poll *poll) {
    uint64_t hash = hash_of(name);
    if (store_is_shared(inbox->store))
        return poll_shared(inbox, hash, name, poll);
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
    channel = make_channel(inbox, hash, name);
    if (!channel)
        return false;
    if (read_from_store(inbox, channel, poll))
        return true;
    forget_channel(inbox, channel);
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

/* Whether an update that was acknowledged before the channel's last poll may still be on its way here. */
static bool may_lag(const struct channel *channel) {
    const struct watched *watched = channel->watched;
    return watched && watched->is_on && watched->verified_at < watched->polled_at;
}

void inbox_expire(struct inbox *inbox, struct poll *poll, bool may_look) {
    struct channel *channel = poll->channel;
    unpark(poll);
    poll->may_wait = false;
    if (may_look && may_lag(channel)) { /* one read for all whose time is over now */
        wait_for_load(inbox, channel, poll);
        make_due(inbox, channel->watched);
        read_due(inbox);
        return;
    }
    struct answer answer = {.ts = (uint64_t)poll->ts, .total = channel->total};
    finish_alone(inbox, poll, &answer);
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
    list_init(&inbox->due);
    list_init(&inbox->loading);
    list_init(&inbox->unchecked);
    uv_timer_init(loop, &inbox->tick);
    uv_idle_init(loop, &inbox->wake_idle);
    uv_check_init(loop, &inbox->wake_check);
    inbox->wake_idle.data = inbox->wake_check.data = inbox->tick.data = inbox;
    the_inbox = inbox;
    if (store_is_shared(store)) {
        store_listen(store, &store_events);
        uv_timer_start(&inbox->tick, on_tick, TICK_MS, TICK_MS);
        uv_unref((uv_handle_t *)&inbox->tick);
    }
    return inbox;
}

static void on_idle_closed(uv_handle_t *handle) {
    free(handle->data);
}

void inbox_stop(struct inbox *inbox) {
    inbox->is_stopped = true;
    uv_timer_stop(&inbox->tick);
}

void inbox_free(struct inbox *inbox) {
    while (!list_empty(&inbox->by_use))
        forget_channel(inbox, container_of(inbox->by_use.next, struct channel, use_link));
    table_deinit(&inbox->channels);
    free(inbox->picked);
    uv_close((uv_handle_t *)&inbox->tick, NULL);
    uv_close((uv_handle_t *)&inbox->wake_check, NULL);
    uv_close((uv_handle_t *)&inbox->wake_idle, on_idle_closed);
}
