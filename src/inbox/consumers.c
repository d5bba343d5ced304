#include "inbox/consumers.h"
#include "base/counters.h"
#include "base/hash.h"
#include "inbox/parts.h"

#include <assert.h>
#include <stdlib.h>

enum {
    SAVE_MS = 500,          /* from a change until it is saved */
    TOUCH_MAX_MS = 3600000, /* how much later a consumer may have been used than is saved, */
    TOUCH_SHARE = 16,       /* or this part of the time after which it is forgotten */
    GO_ON_A_TURN = 512,
};

/* Of a channel. */
struct consumers {
    struct channel *channel;
    struct list all;          /* struct consumer */
    struct list waiting;      /* polls, until the list is loaded */
    struct list unsaved_link; /* in keeper->unsaved: holds the channel */
    uint32_t count;
    bool is_loaded, is_loading;
};

struct consumer {
    struct table_node node; /* in inbox->consumers */
    struct list link;       /* in its channel's */
    struct consumers *consumers;
    uint64_t ts;
    int64_t used_ms, saved_used_ms; /* by the store's clock */
    uint32_t polls;                 /* that use it */
    uint32_t saves;                 /* that are under way */
    bool is_unsaved;
    bool is_stored;  /* the store has it, as far as is known */
    bool was_stored; /* merge()'s */
    bool was_reset;  /* what the store has is too large a ts */
    bool is_gone;    /* forgotten: freed when no poll uses it */
    uint8_t name_len;
    char name[];
};

/* Saves what has changed a moment later, and lets polls go on whose consumers are loaded. */
struct keeper {
    uv_timer_t timer;
    struct inbox *inbox;
    struct list unsaved; /* struct consumers */
    bool is_stopped;
    struct list ready;      /* polls that can go on, */
    struct turn_task go_on; /* and what lets some of them */
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
    (void)len;
    const struct consumer *consumer = container_of(node, struct consumer, node);
    const struct consumer_key *wanted = key;
    return consumer->consumers == wanted->consumers && slice_equal(name_of(consumer), wanted->name);
}

static uint64_t hash_of_key(const struct consumer_key *key) {
    return hash_of(key->name) ^
           hash_of((struct slice){(const char *)&key->consumers, sizeof key->consumers});
}

static struct consumer *find(struct inbox *inbox, struct consumers *consumers, struct slice name) {
    struct consumer_key key = {consumers, name};
    struct table_node *node =
        table_find(&inbox->consumers, hash_of_key(&key), has_key, &key, sizeof key);
    return node ? container_of(node, struct consumer, node) : NULL;
}

/* A new one; NULL when memory is out. */
static struct consumer *add(struct inbox *inbox, struct consumers *consumers, struct slice name) {
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

/* Takes it out of its channel; polls may go on using it. */
static void drop(struct inbox *inbox, struct consumer *consumer) {
    if (!consumer->is_gone) {
        table_remove(&inbox->consumers, &consumer->node);
        list_remove(&consumer->link);
        consumer->consumers->count--;
        counters.cache_bytes -= size_of(consumer);
    }
    consumer->is_gone = true;
    if (!consumer->polls)
        free(consumer);
}

/* --- Operations of the store ------------------------------------------------------------------ */

static void on_done(struct store_op *op);

/* An operation on `count` cursors, which are yet to be set. NULL when memory is out. */
static struct store_cursors *operation_new(struct inbox *inbox, struct channel *channel,
                                           enum cursors_action action, uint32_t count) {
    struct store_cursors *cursors = calloc(1, sizeof *cursors + channel->name_len);
    struct store_cursor *list = count ? calloc(count, sizeof *list) : NULL;
    if (!cursors || (count && !list)) {
        free(cursors);
        free(list);
        return NULL;
    }
    cursors->op = (struct store_op){.done = on_done, .context = inbox};
    cursors->owner = inbox->keeper;
    cursors->action = action;
    cursors->list = list;
    cursors->hash = channel->node.hash;
    cursors->name_len = channel->name_len;
    memcpy(cursors->name, channel->name, channel->name_len);
    return cursors;
}

/* Begins it; its channel stays until it is done. */
static void operation_start(struct inbox *inbox, struct channel *channel,
                            struct store_cursors *cursors) {
    channel->pins++;
    store_cursors(inbox->store, cursors);
}

static struct slice cursor_name(const struct store_cursor *cursor) {
    return (struct slice){cursor->name, cursor->name_len};
}

static void put_cursor(struct store_cursors *cursors, const struct consumer *consumer) {
    struct store_cursor *cursor = &cursors->list[cursors->count++];
    *cursor = (struct store_cursor){
        .ts = consumer->ts, .used_ms = consumer->used_ms, .name_len = consumer->name_len};
    memcpy(cursor->name, consumer->name, consumer->name_len);
}

/* --- Saving ----------------------------------------------------------------------------------- */

/* Whether it is among those that are forgotten before all is saved, or among those that are
 * saved. */
static bool is_for(const struct consumer *consumer, enum cursors_action action) {
    return consumer->is_unsaved && (action == CURSORS_SAVE || consumer->was_reset);
}

static uint32_t count_for(const struct consumers *consumers, enum cursors_action action) {
    uint32_t count = 0;
    for (const struct list *link = consumers->all.next; link != &consumers->all; link = link->next)
        count += is_for(container_of(link, struct consumer, link), action);
    return count;
}

static bool send_operation(struct inbox *inbox, struct consumers *consumers,
                           enum cursors_action action) {
    uint32_t count = count_for(consumers, action);
    if (!count)
        return true;
    struct store_cursors *cursors = operation_new(inbox, consumers->channel, action, count);
    if (!cursors)
        return false;
    for (struct list *link = consumers->all.next; link != &consumers->all; link = link->next) {
        struct consumer *consumer = container_of(link, struct consumer, link);
        if (!is_for(consumer, action))
            continue;
        put_cursor(cursors, consumer);
        consumer->saves++;
        consumer->was_reset = false;
        if (action == CURSORS_SAVE) {
            consumer->saved_used_ms = consumer->used_ms;
            consumer->is_unsaved = false;
        }
    }
    operation_start(inbox, consumers->channel, cursors);
    return true;
}

/* Saves what has changed; what there is no memory for is saved later. */
static void save_all(struct inbox *inbox) {
    struct keeper *keeper = inbox->keeper;
    struct list unsaved;
    list_init(&unsaved);
    list_splice(&unsaved, &keeper->unsaved);
    for (struct list *link; (link = list_shift(&unsaved));) {
        struct consumers *consumers = container_of(link, struct consumers, unsaved_link);
        if (send_operation(inbox, consumers, CURSORS_FORGET) &&
            send_operation(inbox, consumers, CURSORS_SAVE))
            cache_unpin(inbox, consumers->channel);
        else
            list_append(&keeper->unsaved, link);
    }
}

static void start_timer(struct inbox *inbox);

static void on_save_time(uv_timer_t *timer) {
    struct keeper *keeper = container_of(timer, struct keeper, timer);
    save_all(keeper->inbox);
    start_timer(keeper->inbox);
    cache_trim(keeper->inbox);
}

static void start_timer(struct inbox *inbox) {
    if (!list_empty(&inbox->keeper->unsaved))
        uv_timer_start(&inbox->keeper->timer, on_save_time, SAVE_MS, 0);
}

static void set_unsaved(struct inbox *inbox, struct consumer *consumer) {
    struct consumers *consumers = consumer->consumers;
    if (consumer->is_gone || inbox->keeper->is_stopped)
        return;
    consumer->is_unsaved = true;
    if (!list_empty(&consumers->unsaved_link))
        return;
    consumers->channel->pins++;
    bool is_first = list_empty(&inbox->keeper->unsaved);
    list_append(&inbox->keeper->unsaved, &consumers->unsaved_link);
    if (is_first)
        start_timer(inbox);
}

/* What could not be saved is saved when the consumer is used again. */
static void saved(struct inbox *inbox, struct consumers *consumers,
                  const struct store_cursors *cursors) {
    for (uint32_t i = 0; i < cursors->count; i++) {
        struct consumer *consumer = find(inbox, consumers, cursor_name(&cursors->list[i]));
        if (!consumer || !consumer->saves)
            continue;
        consumer->saves--;
        consumer->is_stored |= !cursors->error && cursors->action == CURSORS_SAVE;
        consumer->was_reset |= cursors->error && cursors->action == CURSORS_FORGET;
        if (cursors->error)
            consumer->saved_used_ms = 0;
    }
}

/* --- Loading ---------------------------------------------------------------------------------- */

/* Whether the store may not have it, and it is of no use any more. */
static bool is_free(const struct consumer *consumer) {
    return !consumer->polls && !consumer->saves && !consumer->is_unsaved;
}

/* Makes what the store has and what is in memory one. A consumer that it had and has no more was
 * forgotten. False when memory is out. */
static bool merge(struct inbox *inbox, struct consumers *consumers,
                  const struct store_cursors *cursors) {
    for (struct list *link = consumers->all.next; link != &consumers->all; link = link->next) {
        struct consumer *consumer = container_of(link, struct consumer, link);
        consumer->was_stored = consumer->is_stored && !consumer->saves && !consumer->is_unsaved;
        consumer->is_stored &= !consumer->was_stored;
    }
    for (uint32_t i = 0; i < cursors->count; i++) {
        const struct store_cursor *cursor = &cursors->list[i];
        struct consumer *consumer = find(inbox, consumers, cursor_name(cursor));
        if (!consumer)
            consumer = add(inbox, consumers, cursor_name(cursor));
        if (!consumer)
            return false;
        consumer->is_stored = true;
        consumer->was_stored = false;
        if (consumer->ts < cursor->ts && !consumer->was_reset)
            consumer->ts = cursor->ts;
        if (consumer->used_ms < cursor->used_ms)
            consumer->used_ms = consumer->saved_used_ms = cursor->used_ms;
    }
    for (struct list *link = consumers->all.next, *next; link != &consumers->all; link = next) {
        struct consumer *consumer = container_of(link, struct consumer, link);
        next = link->next;
        if (!consumer->was_stored)
            continue;
        consumer->ts = 0;
        if (is_free(consumer))
            drop(inbox, consumer);
    }
    return true;
}

static void let_go_on(struct inbox *inbox, struct consumers *consumers) {
    list_splice(&inbox->keeper->ready, &consumers->waiting);
    if (!list_empty(&inbox->keeper->ready))
        turn_end(&inbox->keeper->go_on);
}

static void loaded(struct inbox *inbox, struct consumers *consumers,
                   const struct store_cursors *cursors) {
    consumers->is_loading = false;
    enum store_error error = cursors->error;
    if (!error && !merge(inbox, consumers, cursors))
        error = STORE_BUSY;
    consumers->is_loaded = !error;
    if (!error) {
        let_go_on(inbox, consumers);
        return;
    }
    for (struct list *link; (link = list_shift(&consumers->waiting));)
        poll_fail(inbox, container_of(link, struct poll, link), error);
}

static bool load(struct inbox *inbox, struct consumers *consumers) {
    if (consumers->is_loading)
        return true;
    struct store_cursors *cursors = operation_new(inbox, consumers->channel, CURSORS_LOAD, 0);
    if (!cursors)
        return false;
    consumers->is_loading = true;
    operation_start(inbox, consumers->channel, cursors);
    return true;
}

/* --- Forgetting ------------------------------------------------------------------------------- */

static void forgotten(struct inbox *inbox, struct channel *channel,
                      const struct store_cursors *cursors) {
    struct consumer *consumer = channel->consumers && !cursors->error
                                    ? find(inbox, channel->consumers, cursor_name(cursors->list))
                                    : NULL;
    if (consumer) /* loaded meanwhile */
        drop(inbox, consumer);
    struct poll *poll = cursors->owner;
    if (!poll)
        return;
    struct answer answer = {.error = cursors->error};
    poll_answer(inbox, poll, &answer);
}

bool inbox_forget_consumer(struct inbox *inbox, struct slice name, struct slice consumer_name,
                           struct poll *poll) {
    struct channel *channel = cache_get(inbox, hash_of(name), name);
    struct store_cursors *cursors =
        channel ? operation_new(inbox, channel, CURSORS_FORGET, 1) : NULL;
    if (!cursors)
        return false;
    cursors->count = 1;
    cursors->owner = poll;
    cursors->list->name_len = (uint8_t)consumer_name.len;
    memcpy(cursors->list->name, consumer_name.data, consumer_name.len);
    struct consumer *consumer =
        channel->consumers ? find(inbox, channel->consumers, consumer_name) : NULL;
    if (consumer)
        drop(inbox, consumer);
    poll->state = POLL_FORGETTING;
    poll->forgetting = cursors;
    operation_start(inbox, channel, cursors);
    return true;
}

static void on_done(struct store_op *op) {
    struct inbox *inbox = op->context;
    struct store_cursors *cursors = container_of(op, struct store_cursors, op);
    struct channel *channel =
        cache_find(inbox, cursors->hash, (struct slice){cursors->name, cursors->name_len});
    assert(channel && channel->pins);
    if (cursors->action == CURSORS_LOAD)
        loaded(inbox, channel->consumers, cursors);
    else if (cursors->owner == inbox->keeper)
        saved(inbox, channel->consumers, cursors);
    else
        forgotten(inbox, channel, cursors);
    free(cursors->list);
    free(cursors);
    cache_unpin(inbox, channel);
    cache_trim(inbox);
}

/* --- The consumers of a channel --------------------------------------------------------------- */

static struct consumers *get(struct channel *channel) {
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
    return channel->consumers = consumers;
}

void consumers_free(struct inbox *inbox, struct channel *channel) {
    struct consumers *consumers = channel->consumers;
    if (!consumers)
        return;
    assert(list_empty(&consumers->waiting) && list_empty(&consumers->unsaved_link));
    while (!list_empty(&consumers->all))
        drop(inbox, container_of(consumers->all.next, struct consumer, link));
    counters.cache_bytes -= sizeof *consumers;
    free(consumers);
    channel->consumers = NULL;
}

static bool is_expired(const struct inbox *inbox, const struct consumer *consumer) {
    return !consumer->polls &&
           consumer->used_ms < store_now_ms(inbox->store) - inbox->options.ttl_ms;
}

static void drop_expired(struct inbox *inbox, struct consumers *consumers) {
    for (struct list *link = consumers->all.next, *next; link != &consumers->all; link = next) {
        struct consumer *consumer = container_of(link, struct consumer, link);
        next = link->next;
        if (is_free(consumer) && is_expired(inbox, consumer))
            drop(inbox, consumer);
    }
}

/* The consumer of a poll, which uses it now; NULL when there are too many, or memory is out. */
static struct consumer *use(struct inbox *inbox, struct consumers *consumers, struct slice name,
                            enum store_error *error) {
    *error = STORE_OK;
    struct consumer *consumer = find(inbox, consumers, name);
    if (consumer && is_expired(inbox, consumer))
        consumer->ts = 0;
    if (!consumer && consumers->count >= CONSUMERS_MAX)
        drop_expired(inbox, consumers);
    bool is_full = !consumer && consumers->count >= CONSUMERS_MAX;
    if (!consumer && !is_full)
        consumer = add(inbox, consumers, name);
    if (consumer)
        consumer->polls++;
    else
        *error = is_full ? STORE_CONSUMERS_FULL : STORE_BUSY;
    return consumer;
}

/* --- Polls ------------------------------------------------------------------------------------ */

static void touch(struct inbox *inbox, struct consumer *consumer) {
    int64_t touch_ms = inbox->options.ttl_ms / TOUCH_SHARE;
    consumer->used_ms = store_now_ms(inbox->store);
    if (consumer->used_ms - consumer->saved_used_ms >=
        (touch_ms < TOUCH_MAX_MS ? touch_ms : TOUCH_MAX_MS))
        set_unsaved(inbox, consumer);
}

static void confirm(struct inbox *inbox, struct consumer *consumer, uint64_t ts) {
    if (ts <= consumer->ts)
        return;
    consumer->ts = ts;
    set_unsaved(inbox, consumer);
}

void consumer_reached(struct inbox *inbox, struct poll *poll, uint64_t ts) {
    if (poll->is_named && poll->confirms)
        confirm(inbox, poll->consumer, ts);
}

void consumer_answered(struct inbox *inbox, struct poll *poll, const struct answer *answer) {
    if (!poll->is_named || answer->error)
        return;
    struct consumer *consumer = poll->consumer;
    if (answer->reset && consumer->ts > answer->ts) { /* it is from another life of the channel */
        consumer->ts = answer->ts;
        consumer->was_reset = true;
        set_unsaved(inbox, consumer);
    }
    if (answer->reset)
        return;
    uint64_t ts = poll_cursor(poll->ts, answer->total);
    if (poll->confirms && ts <= answer->total)
        confirm(inbox, consumer, ts);
    if (poll->confirms_now)
        confirm(inbox, consumer, answer->ts);
}

void consumer_leave(struct poll *poll) {
    if (poll->is_waiting)
        poll->channel->pins--;
    if (poll->is_roster)
        poll->roster->channel->pins--;
    if (poll->is_named && !--poll->consumer->polls && poll->consumer->is_gone)
        free(poll->consumer);
    poll->is_waiting = poll->is_roster = poll->is_named = false;
}

uint64_t inbox_lag(const struct poll *poll, const struct answer *answer) {
    uint64_t ts = poll->consumer->ts;
    return ts < answer->total ? answer->total - ts : 0;
}

/* The consumers are loaded. */
static void go_on(struct inbox *inbox, struct channel *channel, struct poll *poll) {
    if (poll->is_named && !poll->has_position)
        poll->ts = (int64_t)poll->consumer->ts;
    if (poll->is_named)
        touch(inbox, poll->consumer);
    struct slice name = {channel->name, channel->name_len};
    if (!inbox->mode->poll(inbox, channel->node.hash, name, poll))
        poll_fail(inbox, poll, STORE_BUSY);
}

/* turn_task: polls that waited for consumers go on. */
static void go_on_some(struct turn_task *task) {
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
        consumers->is_loaded && (!inbox->follow || (poll->is_named && poll->has_position));
    if (is_current) {
        go_on(inbox, channel, poll);
        return true;
    }
    if (!load(inbox, consumers))
        return false;
    poll->state = POLL_LOADING;
    poll->channel = channel;
    poll->is_waiting = true;
    channel->pins++;
    list_append(&consumers->waiting, &poll->link);
    return true;
}

bool inbox_poll_as(struct inbox *inbox, struct slice name, struct poll *poll,
                   struct slice consumer_name) {
    poll_begin(poll);
    struct channel *channel = cache_get(inbox, hash_of(name), name);
    struct consumers *consumers = channel ? get(channel) : NULL;
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
        consumer_leave(poll);
    return ok;
}

/* --- The list --------------------------------------------------------------------------------- */

bool inbox_poll_consumers(struct inbox *inbox, struct slice name, struct poll *poll) {
    poll_begin(poll);
    struct channel *channel = cache_get(inbox, hash_of(name), name);
    struct consumers *consumers = channel ? get(channel) : NULL;
    if (!consumers)
        return false;
    poll->roster = consumers;
    poll->is_roster = true;
    channel->pins++; /* until consumer_leave() */
    bool ok = go_on_when_loaded(inbox, consumers, poll);
    if (!ok)
        consumer_leave(poll);
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
        if (!is_expired(inbox, consumer))
            put_cursor(out, consumer);
    }
    qsort(out->list, out->count, sizeof *out->list, by_name);
    return true;
}

/* --- Making and freeing ----------------------------------------------------------------------- */

bool consumers_init(struct inbox *inbox) {
    struct keeper *keeper = calloc(1, sizeof *keeper);
    if (!keeper || !table_init(&inbox->consumers)) {
        free(keeper);
        return false;
    }
    keeper->inbox = inbox;
    list_init(&keeper->unsaved);
    list_init(&keeper->ready);
    turn_task_init(&keeper->go_on, go_on_some);
    uv_timer_init(inbox->loop, &keeper->timer);
    uv_unref((uv_handle_t *)&keeper->timer);
    inbox->keeper = keeper;
    return true;
}

void consumers_stop(struct inbox *inbox) {
    save_all(inbox);
    inbox->keeper->is_stopped = true;
    uv_timer_stop(&inbox->keeper->timer);
}

static void on_closed(uv_handle_t *handle) {
    free(container_of((uv_timer_t *)handle, struct keeper, timer));
}

void consumers_deinit(struct inbox *inbox) {
    turn_cancel(&inbox->keeper->go_on);
    table_deinit(&inbox->consumers);
    uv_close((uv_handle_t *)&inbox->keeper->timer, on_closed);
}
