#include "inbox/follow.h"
#include "base/counters.h"
#include "base/hash.h"
#include "inbox/parts.h"

#include <stdlib.h>
#include <string.h>

enum {
    TICK_MS = 100,
    PAUSE_MAX_MS = 5000,   /* from one failing read of a channel to the next */
    CATCH_UPS_MAX = 256,   /* channels re-read at once: after an outage all are due */
    LOAD_TURNS = 10,       /* see is_late() */
    IDLE_MS = 10000,       /* a channel is watched for so long after its last poll */
    UNWATCHED_SLICE = 512, /* channels looked at in one tick */
    CHECK_MS = 1000,       /* what a poll has not heard from the store is checked after so long */
};

struct follow {
    struct inbox *inbox;
    struct list due;       /* struct watched: to be read */
    struct list loading;   /* struct watched: polls wait for them, longest first */
    struct list unchecked; /* struct watched: see check_counters() */
    uint64_t loaded_ms;    /* when a channel that polls waited for was last read */
    struct store_events events;
    uv_timer_t tick;
    struct turn_task ticked;
    uint32_t catch_ups; /* reads of watched channels under way */
    uint64_t moment;    /* counts what happens to watched channels */
    bool is_stopped;
};

/* A channel on which somebody waits, or waited a moment ago. */
struct watched {
    struct store_watch watch;
    struct follow *follow;
    struct channel *channel;
    struct list loading_link; /* in follow->loading, by loading_ms, while polls wait for the load */
    struct list due_link;     /* in follow->due */
    struct list check_link;   /* in follow->unchecked */
    struct store_read *read;  /* the read of it that is under way */
    uint64_t loading_ms;
    /* Moments: of its last poll; of the last thing heard of it; of the start of the last read
     * that was answered, and of the one under way. */
    uint64_t polled_at, heard_at, verified_at, read_at;
    uint64_t check_due_ms;       /* while in follow->unchecked */
    uint64_t retry_ms, pause_ms; /* after a read that failed */
    struct follow_mark newest;   /* the channel's newest update */
    struct follow_mark expected; /* `newest` as of the start of `read` */
    uint64_t told_ts;            /* the newest update told while it was being read */
    uint32_t changes;            /* updates taken over */
    uint32_t changes_read;       /* as of the start of `read` */
    bool is_on;                  /* the store tells of it */
    bool is_known;               /* its total was known once */
    bool is_due;                 /* to be read, or re-read when the read under way is answered */
    bool is_past_newest;         /* the next read begins behind the newest update */
};

/* --- Judging a read --------------------------------------------------------------------------- */

static struct follow_mark mark_of(const struct update *update) {
    return (struct follow_mark){
        .ts = update->ts, .at_ms = update->at_ms, .hash = hash_of(update_body(update))};
}

/* Whether the counter went back and has passed what was known: another update has its ts. */
static bool is_another_life(const struct follow_mark *expected, const struct store_read *read) {
    if (!expected->ts || !read->count || read->updates[0]->ts != expected->ts)
        return false;
    struct follow_mark mark = mark_of(read->updates[0]);
    bool is_later = mark.at_ms && expected->at_ms && mark.at_ms != expected->at_ms;
    return is_later || mark.hash != expected->hash;
}

enum follow_verdict follow_judge(const struct follow_view *view, const struct store_read *read) {
    bool is_behind = view->is_known && read->total < view->total;
    if (view->epoch && read->epoch && view->epoch != read->epoch)
        return FOLLOW_RESTARTED;
    if (is_another_life(&view->expected, read) || (is_behind && !view->has_changed))
        return FOLLOW_RESTARTED;
    if (is_behind)
        return FOLLOW_STALE;
    return !view->is_known || read->total > view->total ? FOLLOW_NEWER : FOLLOW_SAME;
}

/* --- Reading watched channels ----------------------------------------------------------------- */

/* Has the channel read as soon as there is room for one more read; again, if it is being read. */
static void make_due(struct watched *watched) {
    watched->is_due = true;
    if (list_empty(&watched->due_link) && !watched->read)
        list_append(&watched->follow->due, &watched->due_link);
}

/*
 * Where the next read of the channel begins: with its newest update, so that it can be recognized,
 * or behind it. Before the total is known, where the first poll that waits for it wants to begin.
 */
static int64_t read_after(struct watched *watched) {
    struct channel *channel = watched->channel;
    if (!watched->is_known) {
        struct list *first = channel->loading.next;
        return first == &channel->loading ? -1 : container_of(first, struct poll, link)->ts;
    }
    bool is_told = watched->newest.ts && watched->newest.ts == channel->total;
    if (!is_told || watched->is_past_newest)
        return (int64_t)channel->total;
    watched->expected = watched->newest;
    return (int64_t)channel->total - 1;
}

static void read_watched(struct follow *follow, struct watched *watched) {
    watched->expected = (struct follow_mark){0};
    int64_t after_ts = read_after(watched);
    watched->is_past_newest = false;
    watched->is_due = false;
    watched->told_ts = 0;
    watched->changes_read = watched->changes;
    watched->read_at = ++follow->moment;
    watched->read = read_start(follow->inbox, watched->channel, after_ts, READ_MAX_UPDATES, NULL);
    if (watched->read)
        follow->catch_ups++;
    else
        make_due(watched); /* memory is out: with the next tick */
}

static void read_due(struct follow *follow) {
    uint64_t now_ms = uv_now(follow->inbox->loop);
    struct list due;
    list_init(&due);
    list_splice(&due, &follow->due);
    for (struct list *link;
         !follow->is_stopped && follow->catch_ups < CATCH_UPS_MAX && (link = list_shift(&due));) {
        struct watched *watched = container_of(link, struct watched, due_link);
        if (watched->is_on && watched->retry_ms > now_ms)
            list_append(&follow->due, &watched->due_link);
        else if (watched->is_on)
            read_watched(follow, watched);
    }
    list_splice(&follow->due, &due);
}

/* Takes over what is newer than memory. It may be only the first part of what is new. */
static void take_over(struct watched *watched, const struct store_read *read) {
    struct inbox *inbox = watched->follow->inbox;
    struct channel *channel = watched->channel;
    watched->changes++;
    if (read->count && read->updates[read->count - 1]->ts > watched->newest.ts)
        watched->newest = mark_of(read->updates[read->count - 1]);
    if (!watched->is_known || !read->count) {
        channel_drop_recents(channel);
        channel->total = read->total;
        channel_take_read(inbox, channel, read);
        return;
    }
    uint32_t first = 0; /* news may have brought the first of them meanwhile */
    while (first < read->count && read->updates[first]->ts <= channel->total)
        first++;
    if (channel->gone < read->gone)
        channel->gone = read->gone;
    for (; first < read->count; first++) {
        if (read->updates[first]->ts > channel->total + 1)
            channel_drop_recents(channel); /* those between are gone or damaged */
        channel_take(inbox, channel, read->updates[first]);
    }
    if (channel->total < read->end) { /* so are the last ones */
        channel_drop_recents(channel);
        channel->total = read->end;
    }
    views_note_news(channel);
    if (channel->total < read->total)
        make_due(watched);
}

/* The time of the polls in channel->loading begins now. */
static void begin_loading(struct watched *watched) {
    struct follow *follow = watched->follow;
    list_remove(&watched->loading_link);
    list_append(&follow->loading, &watched->loading_link);
    watched->loading_ms = uv_now(follow->inbox->loop);
}

/* They stand in the order in which they asked. */
static bool is_ready(const struct channel *channel, const struct poll *poll) {
    return (int32_t)(poll->asked_at - (uint32_t)channel->watched->verified_at) < 0;
}

/* Decides for the polls that came before the read began. For the others the channel is re-read. */
static void decide_loading(struct watched *watched) {
    struct channel *channel = watched->channel;
    watched->follow->loaded_ms = uv_now(watched->follow->inbox->loop);
    list_remove(&watched->loading_link);
    if (!list_empty(&channel->loading) &&
        !is_ready(channel, container_of(channel->loading.prev, struct poll, link))) {
        begin_loading(watched);
        make_due(watched);
    }
    polls_decide_ready(watched->follow->inbox, channel);
}

/* The polls that wait for the load end. Those that were parked before do not learn why. */
static void fail_loading(struct watched *watched, enum store_error error) {
    struct inbox *inbox = watched->follow->inbox;
    list_remove(&watched->loading_link);
    struct list loading;
    list_init(&loading);
    list_splice(&loading, &watched->channel->loading);
    for (struct list *link; (link = list_shift(&loading));) {
        struct poll *poll = container_of(link, struct poll, link);
        poll_end(inbox, watched->channel, poll, poll->was_parked ? STORE_OK : error);
    }
}

static void read_failed(struct watched *watched, enum store_error error) {
    watched->pause_ms = watched->pause_ms ? watched->pause_ms * 2 : TICK_MS;
    if (watched->pause_ms > PAUSE_MAX_MS)
        watched->pause_ms = PAUSE_MAX_MS;
    watched->retry_ms = uv_now(watched->follow->inbox->loop) + watched->pause_ms;
    make_due(watched);
    fail_loading(watched, error);
}

static void apply_read(struct watched *watched, const struct store_read *read) {
    struct channel *channel = watched->channel;
    struct follow_view view = {
        .is_known = watched->is_known,
        .has_changed = watched->changes != watched->changes_read,
        .total = channel->total,
        .epoch = channel->epoch,
        .expected = watched->expected,
    };
    switch (follow_judge(&view, read)) {
    case FOLLOW_SAME: break;
    case FOLLOW_NEWER: take_over(watched, read); break;
    case FOLLOW_STALE: make_due(watched); break;
    case FOLLOW_RESTARTED:
        view.epoch = 0; /* who does not ask for epochs is not told of another */
        channel_restart(
            watched->follow->inbox, channel,
            (struct restart){.total = read->total,
                             .epoch = read->epoch,
                             .is_reset = follow_judge(&view, read) == FOLLOW_RESTARTED});
        watched->newest = (struct follow_mark){0};
        break;
    }
}

/* What is gone from the store goes from memory. Whoever missed that the channel was purged learns
 * it here. */
static void drop_gone(struct inbox *inbox, struct channel *channel, uint64_t gone) {
    if (channel->views || (channel->recent_count && channel_recent(channel, 0)->ts <= gone)) {
        inbox_note_purge(inbox, channel->node.hash, gone);
        channel_purged(inbox, channel, gone);
    }
}

/* The channel has been read, from what was known of it up to its end at that moment. */
static void caught_up(struct watched *watched, const struct store_read *read) {
    struct channel *channel = watched->channel;
    uint64_t gone = channel->gone;
    watched->read = NULL;
    watched->follow->catch_ups--;
    if (read->error) {
        read_failed(watched, read->error);
        return;
    }
    watched->pause_ms = 0;
    apply_read(watched, read);
    if (read->gone > gone)
        drop_gone(watched->follow->inbox, channel, read->gone);
    if (read->epoch)
        channel->epoch = read->epoch;
    /* The page had room for nothing but the newest update again: the next one begins behind it. */
    watched->is_past_newest =
        watched->expected.ts && read->count == 1 && channel->total < read->total;
    watched->is_known = true;
    watched->verified_at = watched->read_at;
    channel->is_loaded = watched->is_on;
    if (watched->is_due || watched->told_ts > channel->total)
        make_due(watched);
    if (channel->is_loaded)
        decide_loading(watched);
    polls_wake(watched->follow->inbox, channel);
}

/* --- Watching --------------------------------------------------------------------------------- */

static bool watch(struct follow *follow, struct channel *channel) {
    struct watched *watched = malloc(sizeof *watched);
    if (!watched)
        return false;
    *watched = (struct watched){
        .watch = {.name = channel->name, .name_len = channel->name_len},
        .follow = follow,
        .channel = channel,
    };
    list_init(&watched->watch.link);
    list_init(&watched->loading_link);
    list_init(&watched->due_link);
    list_init(&watched->check_link);
    counters.cache_bytes += sizeof *watched;
    channel->watched = watched;
    channel->is_polled = true;
    store_watch(follow->inbox->store, &watched->watch);
    return true;
}

static void unwatch(struct inbox *inbox, struct channel *channel) {
    struct watched *watched = channel->watched;
    if (!watched)
        return;
    if (!inbox->follow->is_stopped)
        store_unwatch(inbox->store, &watched->watch);
    list_remove(&watched->watch.link);
    list_remove(&watched->loading_link);
    list_remove(&watched->due_link);
    list_remove(&watched->check_link);
    counters.cache_bytes -= sizeof *watched;
    free(watched);
    channel->watched = NULL;
}

/* Lets the poll wait until its channel is loaded. */
static void wait_for_load(struct watched *watched, struct poll *poll) {
    bool is_first = list_empty(&watched->channel->loading) || list_empty(&watched->loading_link);
    poll_wait_for_load(watched->channel, poll);
    poll->asked_at = (uint32_t)++watched->follow->moment;
    if (is_first)
        begin_loading(watched);
}

static struct watched *watched_of(struct store_watch *watch) {
    return container_of(watch, struct watched, watch);
}

static struct store_watch *on_find(void *context, struct slice name) {
    struct follow *follow = context;
    struct channel *channel = cache_find(follow->inbox, hash_of(name), name);
    return channel && channel->watched ? &channel->watched->watch : NULL;
}

static void on_watched(struct store_watch *watch) {
    struct watched *watched = watched_of(watch);
    watched->is_on = true;
    make_due(watched);
    read_due(watched->follow);
}

static void on_lost(struct store_watch *watch) {
    struct watched *watched = watched_of(watch);
    watched->is_on = false;
    watched->channel->is_loaded = false;
    if (!list_empty(&watched->channel->loading) && list_empty(&watched->loading_link))
        begin_loading(watched); /* they were ready, and are not any more */
}

/* Whether this update is in memory already. */
static bool is_same(const struct channel *channel, const struct update *update) {
    uint64_t age = channel->total - update->ts;
    if (update->ts > channel->total || age >= channel->recent_count)
        return false;
    const struct update *mine = channel_recent(channel, channel->recent_count - 1 - (uint32_t)age);
    return mine->at_ms == update->at_ms && slice_equal(update_body(mine), update_body(update));
}

static void on_news(struct store_watch *watch, struct update *update) {
    struct watched *watched = watched_of(watch);
    struct follow *follow = watched->follow;
    struct channel *channel = watched->channel;
    if (watched->told_ts < update->ts)
        watched->told_ts = update->ts;
    if (!channel->is_loaded)
        return;
    bool is_slow = update->ts <= channel->purged;
    if (update->ts == channel->total + 1 && !is_slow) {
        watched->changes++;
        watched->heard_at = ++follow->moment;
        watched->newest = mark_of(update);
        channel_take(follow->inbox, channel, update);
        polls_wake(follow->inbox, channel);
    } else if (is_slow || !is_same(channel, update)) { /* a gap, or the counter went back */
        make_due(watched);
        read_due(follow);
    }
}

static void on_purged(struct store_watch *watch, uint64_t gone) {
    struct watched *watched = watched_of(watch);
    struct inbox *inbox = watched->follow->inbox;
    inbox_note_purge(inbox, watched->channel->node.hash, gone);
    channel_purged(inbox, watched->channel, gone);
}

/* --- The inbox's mode ------------------------------------------------------------------------- */

/* A poll is content with what is known of the channel. Unless something is heard of it soon, it is
 * read. */
static void check_later(struct inbox *inbox, struct watched *watched) {
    if (!list_empty(&watched->check_link))
        return;
    watched->check_due_ms = uv_now(inbox->loop) + CHECK_MS;
    list_append(&inbox->follow->unchecked, &watched->check_link);
}

static void ask_again(struct inbox *inbox, struct channel *channel) {
    struct watched *watched = channel->watched;
    watched->polled_at = ++inbox->follow->moment;
    if (channel->is_loaded)
        check_later(inbox, watched);
}

static bool poll_shared(struct inbox *inbox, uint64_t hash, struct slice name, struct poll *poll) {
    struct follow *follow = inbox->follow;
    struct channel *channel = cache_get(inbox, hash, name);
    if (!channel)
        return false;
    bool ok = poll->may_wait ? channel->watched || watch(follow, channel)
                             : read_for_poll(inbox, channel, poll);
    if (!ok && !channel->watched && !channel->pins)
        cache_forget(inbox, channel);
    if (!ok || !poll->may_wait)
        return ok;
    struct watched *watched = channel->watched;
    channel->wants_epoch |= poll->wants_epoch;
    cache_touch(inbox, channel);
    watched->polled_at = ++follow->moment;
    if (!channel->is_loaded) {
        wait_for_load(watched, poll);
        return true;
    }
    check_later(inbox, watched);
    poll_decide(inbox, channel, poll);
    return true;
}

/* A poll that was parked, and whose read failed: it does not learn of the store's trouble. */
static void keep_waiting(struct inbox *inbox, struct channel *channel, struct poll *poll) {
    if (!poll->may_wait || !channel->watched) {
        poll_answer_empty(inbox, channel, poll);
        return;
    }
    if (poll->filter)
        wait_for_load(channel->watched, poll);
    else
        poll_park_first(channel, poll);
    make_due(channel->watched); /* with the next tick */
}

static void go_on(struct inbox *inbox, struct channel *channel, struct poll *poll) {
    if (!poll->may_wait || !channel->watched) {
        if (!read_for_poll(inbox, channel, poll))
            poll_fail(inbox, poll, STORE_FAILED);
    } else if (channel->is_loaded && (uint64_t)poll->ts <= channel->total &&
               (!poll->epoch || poll->epoch == channel->epoch)) {
        poll_decide(inbox, channel, poll);
    } else {
        make_due(channel->watched);
        wait_for_load(channel->watched, poll);
    }
}

static void answer_poll(struct inbox *inbox, struct channel *channel, struct poll *poll,
                        const struct store_read *read) {
    if (read->error && poll->was_parked) {
        keep_waiting(inbox, channel, poll);
        return;
    }
    if (read->error) {
        poll_end(inbox, channel, poll, read->error);
        return;
    }
    if (read->is_reset) {
        poll_reset(inbox, channel, poll, read);
        return;
    }
    poll->epoch = poll->epoch ? read->epoch : 0;
    if (channel_is_another_life(channel, read->epoch) && channel->watched)
        make_due(channel->watched); /* it has begun anew */
    bool goes_on_waiting = read->after == read->total && poll->may_wait && channel->watched;
    if (goes_on_waiting) {
        poll->ts = (int64_t)read->after;
        go_on(inbox, channel, poll);
    } else {
        poll_answer_read(inbox, channel, poll, read);
    }
}

/* A read may be answered after it is known here that the channel was purged behind it. */
static void leave_out_purged(const struct channel *channel, struct store_read *read) {
    uint64_t gone = channel->purged;
    if (read->error || read->gone >= gone || read->total < gone ||
        channel_is_another_life(channel, read->epoch))
        return;
    uint32_t count = 0;
    while (count < read->count && read->updates[count]->ts <= gone)
        update_unref(read->updates[count++]);
    read->count -= count;
    memmove(read->updates, read->updates + count, read->count * sizeof *read->updates);
    read->gone = gone;
    if (read->end < gone)
        read->end = gone;
}

static void read_done(struct inbox *inbox, struct channel *channel, struct store_read *read) {
    leave_out_purged(channel, read);
    if (read->owner)
        answer_poll(inbox, channel, read->owner, read);
    if (channel->watched && channel->watched->read == read)
        caught_up(channel->watched, read);
    if (!read->error) /* else with the next tick */
        read_due(inbox->follow);
}

/* Its cursor is ahead of what has been told, or of all there is: only the store knows. */
static void read_ahead(struct inbox *inbox, struct channel *channel, struct poll *poll) {
    if (!read_for_poll(inbox, channel, poll))
        poll_fail(inbox, poll, STORE_FAILED);
}

static void answer_unread(struct inbox *inbox, struct poll *poll) {
    poll_answer_empty(inbox, poll->channel, poll);
}

/* An update that was acknowledged before the channel's last poll may still be on its way here:
 * one read for all whose time is over now. */
static bool look_again(struct channel *channel, struct poll *poll) {
    struct watched *watched = channel->watched;
    bool may_lag = watched->is_on && watched->verified_at < watched->polled_at;
    if (!may_lag)
        return false;
    wait_for_load(watched, poll);
    make_due(watched);
    read_due(watched->follow);
    return true;
}

const struct inbox_mode follow_mode = {
    .poll = poll_shared,
    .read_done = read_done,
    .is_ready = is_ready,
    .poll_ahead = read_ahead,
    .poll_unread = answer_unread,
    .go_on = go_on,
    .look_again = look_again,
    .ask_again = ask_again,
    .forgotten = unwatch,
};

/* --- The tick --------------------------------------------------------------------------------- */

/* A counter can go back without a word (a flush, an expiry), and its channel is silent then.
 * Where polls have come since a channel was last heard of, it is read once. */
static void check_counters(struct follow *follow, uint64_t now_ms) {
    while (!list_empty(&follow->unchecked)) {
        struct watched *watched = container_of(follow->unchecked.next, struct watched, check_link);
        if (now_ms < watched->check_due_ms)
            return;
        list_remove(&watched->check_link);
        bool is_heard =
            watched->heard_at > watched->polled_at || watched->verified_at > watched->polled_at;
        if (!is_heard && channel_has_polls(watched->channel))
            make_due(watched);
    }
}

/* While others are loaded, a channel waits its turn: after a restart they come in thousands. */
static bool is_late(const struct follow *follow, const struct watched *watched, uint64_t now_ms) {
    uint64_t max_ms = follow->inbox->options.load_max_ms;
    uint64_t waited_ms = now_ms - watched->loading_ms;
    return waited_ms >= max_ms &&
           (now_ms - follow->loaded_ms >= max_ms || waited_ms >= LOAD_TURNS * max_ms);
}

/* Polls whose channel is not loaded in time learn why. */
static void fail_late_loads(struct follow *follow, uint64_t now_ms) {
    struct inbox *inbox = follow->inbox;
    while (!list_empty(&follow->loading)) {
        struct watched *watched = container_of(follow->loading.next, struct watched, loading_link);
        if (!list_empty(&watched->channel->loading) && !is_late(follow, watched, now_ms))
            return;
        enum store_error error = store_health(inbox->store, NULL);
        fail_loading(watched, error ? error : STORE_AWAY);
    }
}

/* Forgets channels that nobody has waited on for a while. Those in use go to the end of the
 * list. */
static void forget_idle(struct inbox *inbox, uint64_t now_ms) {
    for (int i = 0; i < UNWATCHED_SLICE && !list_empty(&inbox->by_use); i++) {
        struct channel *channel = container_of(inbox->by_use.next, struct channel, use_link);
        bool has_polls = channel_has_polls(channel);
        if (channel->watched &&
            (uint32_t)now_ms - channel->used_ms < (uint32_t)(has_polls ? TICK_MS : IDLE_MS))
            return;
        if (has_polls) {
            cache_touch(inbox, channel);
        } else if (channel->pins || !channel->watched) {
            list_remove(&channel->use_link);
            list_append(&inbox->by_use, &channel->use_link);
        } else {
            cache_forget(inbox, channel);
        }
    }
}

static void on_ticked(struct turn_task *task) {
    struct follow *follow = container_of(task, struct follow, ticked);
    uint64_t now_ms = uv_now(follow->inbox->loop);
    forget_idle(follow->inbox, now_ms);
    cache_trim(follow->inbox);
    fail_late_loads(follow, now_ms);
    check_counters(follow, now_ms);
    read_due(follow);
}

/* What the store has to say is heard first: where this process was held up, it was not late. */
static void on_tick(uv_timer_t *timer) {
    turn_next(&container_of(timer, struct follow, tick)->ticked);
}

/* --- Making and freeing ----------------------------------------------------------------------- */

struct follow *follow_new(struct inbox *inbox) {
    struct follow *follow = calloc(1, sizeof *follow);
    if (!follow)
        return NULL;
    follow->inbox = inbox;
    list_init(&follow->due);
    list_init(&follow->loading);
    list_init(&follow->unchecked);
    turn_task_init(&follow->ticked, on_ticked);
    uv_timer_init(inbox->loop, &follow->tick);
    uv_timer_start(&follow->tick, on_tick, TICK_MS, TICK_MS);
    uv_unref((uv_handle_t *)&follow->tick);
    follow->events = (struct store_events){
        .context = follow,
        .find = on_find,
        .watched = on_watched,
        .lost = on_lost,
        .news = on_news,
        .purged = on_purged,
    };
    store_listen(inbox->store, &follow->events);
    return follow;
}

void follow_stop(struct follow *follow) {
    follow->is_stopped = true;
    uv_timer_stop(&follow->tick);
    turn_cancel(&follow->ticked);
}

static void on_closed(uv_handle_t *handle) {
    free(container_of((uv_timer_t *)handle, struct follow, tick));
}

void follow_free(struct follow *follow) {
    uv_close((uv_handle_t *)&follow->tick, on_closed);
}
