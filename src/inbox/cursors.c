#include "base/hash.h"
#include "inbox/consumers.h"
#include "inbox/parts.h"

#include <assert.h>
#include <stdlib.h>

enum {
    SAVE_MS = 500,     /* from a change until it is saved */
    STOP_MS = 1000,    /* how long the end waits for that */
    EXPIRED_MS = 1000, /* the store may know a little more of the time */
};

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

void consumer_put(struct store_cursors *cursors, const struct consumer *consumer) {
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
        consumer_put(cursors, consumer);
        consumer->saves++;
        consumer->was_reset = false;
        if (action == CURSORS_SAVE) {
            consumer->saved_used_ms = consumer->used_ms;
            consumer->is_unsaved = false;
        }
    }
    inbox->keeper->saves++;
    operation_start(inbox, consumers->channel, cursors);
    return true;
}

/* Saves what has changed of the next channel. False when memory is out: later, unless this is the
 * end. */
static bool save_next(struct inbox *inbox) {
    struct keeper *keeper = inbox->keeper;
    struct list *link = list_shift(&keeper->unsaved);
    struct consumers *consumers = container_of(link, struct consumers, unsaved_link);
    bool ok = send_operation(inbox, consumers, CURSORS_FORGET) &&
              send_operation(inbox, consumers, CURSORS_SAVE);
    if (ok || keeper->is_stopped)
        cache_unpin(inbox, consumers->channel);
    else
        list_append(&keeper->unsaved, link);
    return ok;
}

/* Saves as far as this turn goes. */
static void on_save_time(uv_timer_t *timer) {
    struct keeper *keeper = container_of(timer, struct keeper, timer);
    bool ok = true, has_time = true;
    while (ok && has_time && !list_empty(&keeper->unsaved)) {
        ok = save_next(keeper->inbox);
        has_time = turn_has_time();
    }
    if (!list_empty(&keeper->unsaved))
        uv_timer_start(timer, on_save_time, ok ? 1 : SAVE_MS, 0);
    cache_trim(keeper->inbox);
}

void consumer_changed(struct inbox *inbox, struct consumer *consumer) {
    struct consumers *consumers = consumer->consumers;
    if (consumer->is_gone || inbox->keeper->is_stopped)
        return;
    consumer->is_unsaved = true;
    consumer->was_stored = false;
    if (!list_empty(&consumers->unsaved_link))
        return;
    consumers->channel->pins++;
    bool is_first = list_empty(&inbox->keeper->unsaved);
    list_append(&inbox->keeper->unsaved, &consumers->unsaved_link);
    if (is_first)
        uv_timer_start(&inbox->keeper->timer, on_save_time, SAVE_MS, 0);
}

/* What could not be saved is saved when the consumer is used again. */
static void saved(struct inbox *inbox, struct consumers *consumers,
                  const struct store_cursors *cursors) {
    for (uint32_t i = 0; i < cursors->count; i++) {
        struct consumer *consumer = consumer_find(inbox, consumers, cursor_name(&cursors->list[i]));
        if (!consumer || !consumer->saves)
            continue;
        consumer->saves--;
        consumer->is_stored |= !cursors->error && cursors->action == CURSORS_SAVE;
        consumer->was_reset |= cursors->error && cursors->action == CURSORS_FORGET;
        if (cursors->error)
            consumer->saved_used_ms = 0;
    }
}

static void end(struct keeper *keeper) {
    void (*stopped)(void) = keeper->stopped;
    keeper->stopped = NULL;
    uv_timer_stop(&keeper->timer);
    stopped();
}

static void on_stop_time(uv_timer_t *timer) {
    end(container_of(timer, struct keeper, timer));
}

/* --- Loading ---------------------------------------------------------------------------------- */

/* Makes what the store has and what is in memory one. A consumer that it had and has no more was
 * forgotten. False when memory is out. */
static bool merge(struct inbox *inbox, struct consumers *consumers,
                  const struct store_cursors *cursors) {
    int64_t expired_ms = store_now_ms(inbox->store) - inbox->options.ttl_ms + EXPIRED_MS;
    for (uint32_t i = 0; i < cursors->count; i++) {
        const struct store_cursor *cursor = &cursors->list[i];
        struct consumer *consumer = consumer_find(inbox, consumers, cursor_name(cursor));
        if (!consumer)
            consumer = consumer_add(inbox, consumers, cursor_name(cursor));
        if (!consumer)
            return false;
        /* Where nothing was unsaved, the store is believed: the channel may have begun anew. */
        if (consumer->was_stored || (consumer->ts < cursor->ts && !consumer->is_lowered))
            consumer->ts = cursor->ts;
        consumer->is_stored = true;
        consumer->was_stored = false;
        if (consumer->used_ms < cursor->used_ms)
            consumer->used_ms = consumer->saved_used_ms = cursor->used_ms;
    }
    for (struct list *link = consumers->all.next, *next; link != &consumers->all; link = next) {
        struct consumer *consumer = container_of(link, struct consumer, link);
        next = link->next;
        if (!consumer->was_stored)
            continue;
        consumer->is_stored = false;
        if (consumer->polls && consumer->saved_used_ms < expired_ms) {
            consumer_changed(inbox, consumer); /* it is in use */
            continue;
        }
        consumer->ts = 0;
        consumer->used_ms = consumer->saved_used_ms = 0;
        if (consumer_is_free(consumer))
            consumer_drop(inbox, consumer);
    }
    return true;
}

static void loaded(struct inbox *inbox, struct consumers *consumers,
                   const struct store_cursors *cursors) {
    consumers->is_loading = false;
    enum store_error error = cursors->error;
    if (!error && !merge(inbox, consumers, cursors))
        error = STORE_BUSY;
    consumers->is_loaded = !error;
    if (!error) {
        consumers_release(inbox, consumers);
        return;
    }
    struct list waiting; /* who comes while they end is not among them */
    list_init(&waiting);
    list_splice(&waiting, &consumers->waiting);
    for (struct list *link; (link = list_shift(&waiting));) {
        struct poll *poll = container_of(link, struct poll, link);
        consumer_stop_waiting(poll);
        poll_end(inbox, consumers->channel, poll, error);
    }
}

bool consumers_load(struct inbox *inbox, struct consumers *consumers) {
    if (consumers->is_loading)
        return true;
    struct store_cursors *cursors = operation_new(inbox, consumers->channel, CURSORS_LOAD, 0);
    if (!cursors)
        return false;
    for (struct list *link = consumers->all.next; link != &consumers->all; link = link->next) {
        struct consumer *consumer = container_of(link, struct consumer, link);
        consumer->was_stored = consumer->is_stored && consumer_is_saved(consumer);
        consumer->is_lowered &= !consumer_is_saved(consumer) || consumer->was_reset;
    }
    consumers->is_loading = true;
    operation_start(inbox, consumers->channel, cursors);
    return true;
}

/* --- Forgetting ------------------------------------------------------------------------------- */

static void forgotten(struct inbox *inbox, struct channel *channel,
                      const struct store_cursors *cursors) {
    struct consumer *consumer =
        channel->consumers && !cursors->error
            ? consumer_find(inbox, channel->consumers, cursor_name(cursors->list))
            : NULL;
    if (consumer) /* loaded meanwhile */
        consumer_drop(inbox, consumer);
    if (channel->consumers && cursors->error)
        channel->consumers->is_loaded = false; /* it may still be there */
    struct poll *poll = cursors->owner;
    if (!poll)
        return;
    struct answer answer = {.error = cursors->error};
    poll_answer(inbox, NULL, poll, &answer);
}

bool inbox_forget_consumer(struct inbox *inbox, struct slice name, struct slice consumer_name,
                           struct poll *poll) {
    poll_begin(poll);
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
        channel->consumers ? consumer_find(inbox, channel->consumers, consumer_name) : NULL;
    if (consumer)
        consumer_drop(inbox, consumer);
    poll->state = POLL_FORGETTING;
    poll->forgetting = cursors;
    inbox->writes++;
    operation_start(inbox, channel, cursors);
    return true;
}

static void on_done(struct store_op *op) {
    struct inbox *inbox = op->context;
    struct store_cursors *cursors = container_of(op, struct store_cursors, op);
    struct channel *channel =
        cache_find(inbox, cursors->hash, (struct slice){cursors->name, cursors->name_len});
    assert(channel && channel->pins);
    bool is_save = cursors->owner == inbox->keeper && cursors->action != CURSORS_LOAD;
    if (cursors->action == CURSORS_LOAD)
        loaded(inbox, channel->consumers, cursors);
    else if (is_save)
        saved(inbox, channel->consumers, cursors);
    else
        forgotten(inbox, channel, cursors);
    inbox->writes -= cursors->action == CURSORS_FORGET && !is_save;
    free(cursors->list);
    free(cursors);
    cache_unpin(inbox, channel);
    cache_trim(inbox);
    if (is_save && !--inbox->keeper->saves && inbox->keeper->stopped)
        uv_timer_start(&inbox->keeper->timer, on_stop_time, 0, 0); /* the store is answering */
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
    turn_task_init(&keeper->go_on, consumers_go_on);
    uv_timer_init(inbox->loop, &keeper->timer);
    uv_unref((uv_handle_t *)&keeper->timer);
    inbox->keeper = keeper;
    return true;
}

void consumers_stop(struct inbox *inbox, void (*stopped)(void)) {
    struct keeper *keeper = inbox->keeper;
    keeper->is_stopped = true;
    keeper->stopped = stopped;
    while (!list_empty(&keeper->unsaved))
        save_next(inbox);
    uv_ref((uv_handle_t *)&keeper->timer);
    uv_timer_start(&keeper->timer, on_stop_time, STOP_MS, 0);
    if (!keeper->saves)
        end(keeper);
}

static void on_closed(uv_handle_t *handle) {
    free(container_of((uv_timer_t *)handle, struct keeper, timer));
}

void consumers_deinit(struct inbox *inbox) {
    turn_cancel(&inbox->keeper->go_on);
    table_deinit(&inbox->consumers);
    uv_close((uv_handle_t *)&inbox->keeper->timer, on_closed);
}
