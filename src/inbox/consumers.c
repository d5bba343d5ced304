#include "inbox/consumers.h"
#include "base/counters.h"
#include "base/hash.h"
#include "inbox/parts.h"

#include <assert.h>
#include <stdlib.h>

enum {
    TOUCH_MAX_MS = 3600000, /* how much later a consumer may have been used than is saved, */
    TOUCH_SHARE = 16,       /* or this part of the time after which it is forgotten */
    GO_ON_A_TURN = 512,
    UNKNOWN_MS = 1, /* what store_now_ms() says while the store does not know the time */
};

/* --- One consumer ----------------------------------------------------------------------------- */

static size_t size_of(const struct consumer *consumer) {
    return sizeof *consumer + consumer->name_len;
}

static struct slice name_of(const struct consumer *consumer) {
    return (struct slice){consumer->name, consumer->name_len};
}

struct consumer_key {
    const struct consumers *consumers;
    struct slice name;
};

static bool has_key(const struct table_node *node, const void *key, size_t len) {
    const struct consumer *consumer = container_of(node, struct consumer, node);
    const struct consumer_key *wanted = key;
    assert(len == sizeof *wanted);
    return consumer->consumers == wanted->consumers && slice_equal(name_of(consumer), wanted->name);
}

static uint64_t hash_of_key(const struct consumer_key *key) {
    return hash_of(key->name) ^ ((uint64_t)(uintptr_t)key->consumers * 0x9e3779b97f4a7c15);
}

struct consumer *consumer_find(struct inbox *inbox, struct consumers *consumers,
                               struct slice name) {
    struct consumer_key key = {consumers, name};
    struct table_node *node =
        table_find(&inbox->consumers, hash_of_key(&key), has_key, &key, sizeof key);
    return node ? container_of(node, struct consumer, node) : NULL;
}

struct consumer *consumer_add(struct inbox *inbox, struct consumers *consumers, struct slice name) {
    struct consumer *consumer = malloc(sizeof *consumer + name.len);
    if (!consumer)
        return NULL;
    struct consumer_key key = {consumers, name};
    *consumer = (struct consumer){
        .node.hash = hash_of_key(&key), .consumers = consumers, .name_len = (uint8_t)name.len};
    memcpy(consumer->name, name.data, name.len);
    table_insert(&inbox->consumers, &consumer->node);
    list_append(&consumers->all, &consumer->link);
    consumers->count++;
    counters.cache_bytes += size_of(consumer);
    return consumer;
}

void consumer_drop(struct inbox *inbox, struct consumer *consumer) {
    table_remove(&inbox->consumers, &consumer->node);
    list_remove(&consumer->link);
    consumer->consumers->count--;
    counters.cache_bytes -= size_of(consumer);
    consumer->is_gone = true; /* nobody finds it any more */
    if (!consumer->polls)
        free(consumer);
}

bool consumer_is_saved(const struct consumer *consumer) {
    return !consumer->saves && !consumer->is_unsaved;
}

bool consumer_is_free(const struct consumer *consumer) {
    return !consumer->polls && consumer_is_saved(consumer);
}

/* --- The consumers of a channel --------------------------------------------------------------- */

static struct consumers *get(struct inbox *inbox, struct channel *channel) {
    struct consumers *consumers = channel->consumers;
    if (consumers)
        return consumers;
    consumers = calloc(1, sizeof *consumers);
    if (!consumers)
        return NULL;
    consumers->channel = channel;
    list_init(&consumers->all);
    list_init(&consumers->waiting);
    list_init(&consumers->unsaved_link);
    counters.cache_bytes += sizeof *consumers;
    cache_polled(inbox, channel);
    return channel->consumers = consumers;
}

void consumers_free(struct inbox *inbox, struct channel *channel) {
    struct consumers *consumers = channel->consumers;
    if (!consumers)
        return;
    assert(list_empty(&consumers->waiting) && list_empty(&consumers->unsaved_link));
    while (!list_empty(&consumers->all))
        consumer_drop(inbox, container_of(consumers->all.next, struct consumer, link));
    counters.cache_bytes -= sizeof *consumers;
    free(consumers);
    channel->consumers = NULL;
}

static bool is_expired(const struct inbox *inbox, const struct consumer *consumer) {
    return !consumer->polls && consumer->used_ms != UNKNOWN_MS &&
           consumer->used_ms < store_now_ms(inbox->store) - inbox->options.ttl_ms;
}

static void drop_expired(struct inbox *inbox, struct consumers *consumers) {
    for (struct list *link = consumers->all.next, *next; link != &consumers->all; link = next) {
        struct consumer *consumer = container_of(link, struct consumer, link);
        next = link->next;
        if (consumer_is_free(consumer) && is_expired(inbox, consumer))
            consumer_drop(inbox, consumer);
    }
}

/* Whether nobody can have changed them since they were loaded. */
static bool is_known(const struct inbox *inbox, const struct consumers *consumers) {
    return consumers->is_loaded && !inbox->follow;
}

/* Whether it is new, and there are too many now that they are loaded. */
static bool is_one_too_many(struct inbox *inbox, const struct consumer *consumer) {
    struct consumers *consumers = consumer->consumers;
    if (consumer->used_ms || consumer->is_gone || consumers->count <= CONSUMERS_MAX)
        return false;
    drop_expired(inbox, consumers);
    return consumers->count > CONSUMERS_MAX;
}

/* The consumer of a poll, which uses it now. There may be twice as many as long as they must be
 * loaded first. NULL when there are too many, or memory is out. */
static struct consumer *use(struct inbox *inbox, struct consumers *consumers, struct slice name,
                            enum store_error *error) {
    *error = STORE_OK;
    struct consumer *consumer = consumer_find(inbox, consumers, name);
    if (consumer && is_expired(inbox, consumer))
        consumer->ts = 0;
    uint32_t max = is_known(inbox, consumers) ? CONSUMERS_MAX : 2 * CONSUMERS_MAX;
    if (!consumer && consumers->count >= max)
        drop_expired(inbox, consumers);
    bool is_full = !consumer && consumers->count >= max;
    if (!consumer && !is_full)
        consumer = consumer_add(inbox, consumers, name);
    if (consumer)
        consumer->polls++;
    else
        *error = is_full ? STORE_CONSUMERS_FULL : STORE_BUSY;
    return consumer;
}

/* --- Polls ------------------------------------------------------------------------------------ */

static void touch(struct inbox *inbox, struct consumer *consumer) {
    int64_t touch_ms = inbox->options.ttl_ms / TOUCH_SHARE;
    int64_t now_ms = store_now_ms(inbox->store);
    if (now_ms > consumer->used_ms)
        consumer->used_ms = now_ms;
    if (!consumer->saved_used_ms || consumer->used_ms - consumer->saved_used_ms >=
                                        (touch_ms < TOUCH_MAX_MS ? touch_ms : TOUCH_MAX_MS))
        consumer_changed(inbox, consumer);
}

static void confirm(struct inbox *inbox, struct consumer *consumer, uint64_t ts) {
    if (ts <= consumer->ts)
        return;
    consumer->ts = ts;
    consumer_changed(inbox, consumer);
}

void consumer_reached(struct inbox *inbox, struct poll *poll, uint64_t total) {
    if (!poll->is_named || !poll->confirms)
        return;
    poll->confirms = false;
    uint64_t ts = poll_cursor(poll->ts, total);
    if (ts <= total)
        confirm(inbox, poll->consumer, ts);
}

void consumer_answered(struct inbox *inbox, struct poll *poll, const struct answer *answer) {
    if (!poll->is_named || answer->error)
        return;
    struct consumer *consumer = poll->consumer;
    if (!consumer->is_gone)
        consumer->consumers->total = answer->total;
    if (answer->reset && consumer->ts > answer->ts) { /* it is from another life of the channel */
        consumer->ts = answer->ts;
        consumer->was_reset = consumer->is_lowered = true;
        consumer_changed(inbox, consumer);
    }
    if (answer->reset)
        return;
    consumer_reached(inbox, poll, answer->total);
}

/* Whether the poll confirms what this answer brings, once that is sent. */
static bool confirms_answer(const struct poll *poll, const struct answer *answer) {
    return poll->is_named && poll->confirms_now && !answer->error && !answer->reset;
}

void inbox_confirm_answer(struct inbox *inbox, struct poll *poll, const struct answer *answer) {
    if (confirms_answer(poll, answer))
        confirm(inbox, poll->consumer, answer->ts);
}

void consumer_stop_waiting(struct poll *poll) {
    if (poll->is_waiting)
        poll->channel->pins--;
    poll->is_waiting = false;
}

/* One that has waited was in use until now. */
void consumer_leave(struct inbox *inbox, struct poll *poll) {
    consumer_stop_waiting(poll);
    if (poll->is_roster)
        poll->roster->channel->pins--;
    if (poll->is_named && poll->was_parked && poll->consumer->used_ms)
        touch(inbox, poll->consumer);
    if (poll->is_named && !--poll->consumer->polls && poll->consumer->is_gone)
        free(poll->consumer);
    poll->is_roster = poll->is_named = false;
}

uint64_t inbox_lag(const struct poll *poll, const struct answer *answer) {
    uint64_t ts = poll->consumer->ts;
    if (confirms_answer(poll, answer) && ts < answer->ts)
        ts = answer->ts;
    return ts < answer->total ? answer->total - ts : 0;
}

/* The consumers are loaded. */
static void go_on(struct inbox *inbox, struct channel *channel, struct poll *poll) {
    if (poll->is_named && is_one_too_many(inbox, poll->consumer)) {
        poll_fail(inbox, poll, STORE_CONSUMERS_FULL);
        return;
    }
    if (poll->is_named && !poll->has_position) {
        poll->ts = (int64_t)poll->consumer->ts;
        poll->confirms = false;
    }
    if (poll->is_named)
        touch(inbox, poll->consumer);
    struct slice name = {channel->name, channel->name_len};
    if (!inbox->mode->poll(inbox, channel->node.hash, name, poll))
        poll_fail(inbox, poll, STORE_BUSY);
}

/* turn_task: polls that waited for consumers go on. */
void consumers_go_on(struct turn_task *task) {
    struct keeper *keeper = container_of(task, struct keeper, go_on);
    struct list *link;
    for (int i = 0; i < GO_ON_A_TURN && (link = list_shift(&keeper->ready)); i++) {
        struct poll *poll = container_of(link, struct poll, link);
        struct channel *channel = poll->channel;
        poll->is_waiting = false;
        poll->state = POLL_IDLE;
        go_on(keeper->inbox, channel, poll);
        cache_unpin(keeper->inbox, channel);
    }
    cache_trim(keeper->inbox);
    if (!list_empty(&keeper->ready))
        turn_next(task);
}

static bool go_on_when_loaded(struct inbox *inbox, struct consumers *consumers, struct poll *poll) {
    struct channel *channel = consumers->channel;
    bool is_current =
        is_known(inbox, consumers) || (consumers->is_loaded && consumers->count <= CONSUMERS_MAX &&
                                       poll->is_named && poll->has_position);
    if (is_current) {
        go_on(inbox, channel, poll);
        return true;
    }
    if (!consumers_load(inbox, consumers))
        return false;
    poll->state = POLL_LOADING;
    poll->channel = channel;
    poll->is_waiting = true;
    channel->pins++;
    list_append(&consumers->waiting, &poll->link);
    return true;
}

bool poll_as(struct inbox *inbox, struct slice name, struct poll *poll,
             struct slice consumer_name) {
    struct channel *channel = cache_get(inbox, hash_of(name), name);
    struct consumers *consumers = channel ? get(inbox, channel) : NULL;
    if (!consumers)
        return false;
    enum store_error error;
    poll->consumer = use(inbox, consumers, consumer_name, &error);
    if (error) {
        poll_fail(inbox, poll, error);
        return true;
    }
    poll->is_named = true;
    channel->pins++;
    bool ok = go_on_when_loaded(inbox, consumers, poll);
    cache_unpin(inbox, channel);
    if (!ok)
        consumer_leave(inbox, poll);
    return ok;
}

bool poll_as_gone(struct inbox *inbox, struct slice name, struct poll *poll, uint64_t ts) {
    struct consumer *consumer = malloc(sizeof *consumer);
    if (!consumer)
        return false;
    *consumer = (struct consumer){.ts = ts, .polls = 1, .is_gone = true};
    poll->consumer = consumer;
    poll->is_named = true;
    if (!poll->has_position)
        poll->ts = (int64_t)ts;
    bool ok = inbox->mode->poll(inbox, hash_of(name), name, poll);
    if (!ok)
        consumer_leave(inbox, poll);
    return ok;
}

bool inbox_poll_as(struct inbox *inbox, struct slice channel, struct poll *poll,
                   struct slice consumer) {
    poll_begin(poll);
    return poll_as(inbox, channel, poll, consumer);
}

void consumers_release(struct inbox *inbox, struct consumers *consumers) {
    list_splice(&inbox->keeper->ready, &consumers->waiting);
    if (!list_empty(&inbox->keeper->ready))
        turn_end(&inbox->keeper->go_on);
}

/* --- The list --------------------------------------------------------------------------------- */

bool inbox_poll_consumers(struct inbox *inbox, struct slice name, struct poll *poll) {
    poll_begin(poll);
    struct channel *channel = cache_get(inbox, hash_of(name), name);
    struct consumers *consumers = channel ? get(inbox, channel) : NULL;
    if (!consumers)
        return false;
    poll->roster = consumers;
    poll->is_roster = true;
    channel->pins++; /* until consumer_leave() */
    bool ok = go_on_when_loaded(inbox, consumers, poll);
    if (!ok)
        consumer_leave(inbox, poll);
    return ok;
}

static int by_name(const void *a, const void *b) {
    const struct store_cursor *left = a, *right = b;
    size_t len = left->name_len < right->name_len ? left->name_len : right->name_len;
    int order = memcmp(left->name, right->name, len);
    return order ? order : left->name_len - right->name_len;
}

bool inbox_list_consumers(struct inbox *inbox, const struct poll *poll, struct store_cursors *out) {
    const struct consumers *consumers = poll->roster;
    out->count = 0;
    out->list = malloc((consumers->count + 1) * sizeof *out->list);
    if (!out->list)
        return false;
    for (const struct list *link = consumers->all.next; link != &consumers->all;
         link = link->next) {
        const struct consumer *consumer = container_of(link, struct consumer, link);
        if (consumer->used_ms && !is_expired(inbox, consumer))
            consumer_put(out, consumer);
    }
    qsort(out->list, out->count, sizeof *out->list, by_name);
    return true;
}

/* --- Lags ------------------------------------------------------------------------------------- */

/* The oldest update behind `ts` that is in memory; NULL when none is. */
static const struct update *oldest_behind(const struct channel *channel, uint64_t ts) {
    uint64_t before = channel->total - channel->recent_count;
    uint64_t index = ts > before ? ts - before : 0;
    return index < channel->recent_count ? channel_recent(channel, (uint32_t)index) : NULL;
}

/* `total` is the channel's; a channel of a shared store that nobody waits for does not have it. */
static void add_lag(struct inbox_lags *lags, const struct channel *channel, uint64_t total,
                    uint64_t ts, int64_t now_ms) {
    lags->consumers++;
    if (ts >= total)
        return;
    uint64_t lag = total - ts;
    lags->behind++;
    lags->updates += lag;
    if (lag > lags->most)
        lags->most = lag;
    const struct update *oldest = channel->is_loaded ? oldest_behind(channel, ts) : NULL;
    if (oldest && now_ms - oldest->born_ms > lags->oldest_ms)
        lags->oldest_ms = now_ms - oldest->born_ms;
}

void inbox_lags(const struct inbox *inbox, struct inbox_lags *lags) {
    *lags = (struct inbox_lags){.consumers = 0};
    int64_t now_ms = store_now_ms(inbox->store);
    for (const struct list *at = inbox->by_use.next; at != &inbox->by_use; at = at->next) {
        const struct channel *channel = container_of(at, struct channel, use_link);
        const struct consumers *consumers = channel->consumers;
        if (!consumers)
            continue;
        uint64_t total = channel->is_loaded ? channel->total : consumers->total;
        for (const struct list *link = consumers->all.next; link != &consumers->all;
             link = link->next) {
            const struct consumer *consumer = container_of(link, struct consumer, link);
            if (consumer->used_ms && !is_expired(inbox, consumer))
                add_lag(lags, channel, total, consumer->ts, now_ms);
        }
    }
}
