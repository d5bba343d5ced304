#include "inbox/views.h"
#include "base/counters.h"
#include "base/hash.h"
#include "inbox/looks.h"
#include "inbox/parts.h"

#include <assert.h>
#include <stdlib.h>

enum {
    IDLE_MAX = 64, /* views of a channel that no poll uses */
    PAGE_MAX = 64, /* updates looked at in one go */
};

/* --- Results ---------------------------------------------------------------------------------- */

/* Remembers a result, if it is one of the latest. */
static void note(struct view *view, uint64_t ts, bool is_wanted) {
    if (view->known_first && ts <= view->known_last)
        return;
    if (!view->known_first || ts != view->known_last + 1)
        view->known_first = ts;
    else if (ts - view->known_first == VIEW_KNOWN)
        view->known_first++;
    view->known_last = ts;
    uint64_t bit = 1ULL << ts % 64, *word = &view->known[ts % VIEW_KNOWN / 64];
    *word = is_wanted ? *word | bit : *word & ~bit;
}

bool view_wants(struct view *view, const struct update *update) {
    uint64_t ts = update->ts;
    if (view_knows(view, ts))
        return view->known[ts % VIEW_KNOWN / 64] >> ts % 64 & 1;
    counters.filter_looks++;
    bool is_wanted = filter_matches(view->filter, update);
    note(view, ts, is_wanted);
    return is_wanted;
}

/* --- The views of a channel ------------------------------------------------------------------- */

struct view_key {
    const struct channel *channel;
    const struct filter *filter;
};

static bool has_key(const struct table_node *node, const void *key, size_t len) {
    const struct view *view = container_of(node, struct view, node);
    const struct view_key *wanted = key;
    assert(len == sizeof *wanted);
    return view->channel == wanted->channel && view->filter == wanted->filter;
}

static bool make_views(struct channel *channel) {
    struct views *views = channel->views ? channel->views : malloc(sizeof *views);
    if (!views || channel->views)
        return views;
    *views = (struct views){0};
    list_init(&views->idle);
    list_init(&views->parked);
    list_init(&views->behind);
    counters.cache_bytes += sizeof *views;
    channel->views = views;
    return true;
}

static void forget_wanted(struct view *view) {
    if (!view->wanted)
        return;
    for (uint32_t i = 0; i < view->wanted_count; i++)
        update_unref(view->wanted[i]);
    free(view->wanted);
    view->wanted = NULL;
    view->wanted_count = 0;
}

/* It must be idle. */
static void free_view(struct inbox *inbox, struct view *view) {
    view->channel->views->idle_count--;
    list_remove(&view->link);
    list_remove(&view->inbox_link);
    table_remove(&inbox->views, &view->node);
    filter_unref(&inbox->filters, view->filter);
    counters.cache_bytes -= sizeof *view;
    free(view);
}

/* What was found for its polls, or is being looked for, is not needed any more. */
static void forget_work(struct view *view) {
    forget_wanted(view);
    list_remove(&view->inbox_link);
    if (view->look)
        look_abandon(view->look);
    view->look = NULL;
}

/* It has no parked polls any more, or none yet. */
static void set_idle(struct inbox *inbox, struct view *view) {
    struct views *views = view->channel->views;
    forget_work(view);
    view->is_idle = true;
    list_remove(&view->link);
    list_append(&views->idle, &view->link);
    list_append(&inbox->idle_views, &view->inbox_link);
    if (++views->idle_count > IDLE_MAX)
        free_view(inbox, container_of(views->idle.next, struct view, link));
}

bool views_free_one(struct inbox *inbox) {
    if (list_empty(&inbox->idle_views))
        return false;
    free_view(inbox, container_of(inbox->idle_views.next, struct view, inbox_link));
    return true;
}

struct view *view_get(struct inbox *inbox, struct channel *channel, struct filter *filter) {
    struct view_key key = {channel, filter};
    uint64_t hash = hash_of((struct slice){(const char *)&key, sizeof key});
    struct table_node *node = table_find(&inbox->views, hash, has_key, &key, sizeof key);
    if (node)
        return container_of(node, struct view, node);
    struct view *view = make_views(channel) ? malloc(sizeof *view) : NULL;
    if (!view)
        return NULL;
    *view = (struct view){.node.hash = hash, .channel = channel, .filter = filter_ref(filter)};
    list_init(&view->polls);
    list_init(&view->link);
    list_init(&view->inbox_link);
    table_insert(&inbox->views, &view->node);
    counters.cache_bytes += sizeof *view;
    set_idle(inbox, view);
    return view;
}

void views_free(struct inbox *inbox, struct channel *channel) {
    if (!channel->views)
        return;
    assert(list_empty(&channel->views->parked) && list_empty(&channel->views->behind));
    while (!list_empty(&channel->views->idle))
        free_view(inbox, container_of(channel->views->idle.next, struct view, link));
    counters.cache_bytes -= sizeof *channel->views;
    free(channel->views);
    channel->views = NULL;
}

static struct poll *first_poll(const struct view *view) {
    return container_of(view->polls.next, struct poll, link);
}

/* One more poll is parked in the channel's views, or one less. */
static void count_parked(struct channel *channel, int more) {
    channel->views->parked_count += (uint32_t)more;
    channel->has_parked = channel->views->parked_count;
    counters.polls_parked += (uint64_t)more;
}

/* --- Parking ---------------------------------------------------------------------------------- */

void view_park(struct inbox *inbox, struct channel *channel, struct poll *poll) {
    struct view *view = view_get(inbox, channel, poll->filter);
    if (!view) {
        poll_fail(inbox, poll, STORE_FAILED);
        return;
    }
    if (view->is_idle) {
        view->is_idle = false;
        view->looked = channel->total;
        channel->views->idle_count--;
        list_remove(&view->inbox_link);
        list_remove(&view->link);
        list_append(&channel->views->parked, &view->link);
    }
    poll->state = POLL_PARKED;
    poll->was_parked = true;
    poll->view = view;
    list_append(&view->polls, &poll->link);
    count_parked(channel, 1);
}

void view_unpark(struct inbox *inbox, struct poll *poll) {
    struct view *view = poll->view;
    if (view->looked > (uint64_t)poll->ts) {
        poll_skip(poll, view->looked - (uint64_t)poll->ts);
        poll->ts = (int64_t)view->looked;
    }
    list_remove(&poll->link);
    poll->channel = view->channel;
    count_parked(view->channel, -1);
    if (list_empty(&view->polls))
        set_idle(inbox, view);
}

void views_restart(struct inbox *inbox, struct channel *channel, const struct restart *restart) {
    struct views *views = channel->views;
    if (!views)
        return;
    for (struct list *link = views->idle.next; link != &views->idle; link = link->next)
        container_of(link, struct view, link)->known_first = 0;
    struct list all;
    list_init(&all);
    list_splice(&all, &views->parked);
    list_splice(&all, &views->behind);
    for (struct list *link; (link = list_shift(&all));) {
        struct view *view = container_of(link, struct view, link);
        list_append(&views->behind, link);
        forget_work(view);
        view->known_first = 0;
        polls_reset(inbox, channel, &view->polls, restart);
        if (!view->is_idle)
            view->looked = (uint64_t)first_poll(view)->ts;
    }
}

/* What was found for its polls, or is being looked at, is behind view->looked. */
void views_purged(struct channel *channel, uint64_t gone) {
    struct views *views = channel->views;
    if (!views)
        return;
    struct list all;
    list_init(&all);
    list_splice(&all, &views->parked);
    list_splice(&all, &views->behind);
    for (struct list *link; (link = list_shift(&all));) {
        struct view *view = container_of(link, struct view, link);
        list_append(&views->behind, link);
        if (view->looked < gone)
            forget_work(view);
    }
}

/* --- Waking ----------------------------------------------------------------------------------- */

void view_retry(struct view *view) {
    list_remove(&view->link);
    list_append(&view->channel->views->behind, &view->link);
}

/* Keeps those of the updates that are wanted, until its polls are answered. */
void view_looked(struct view *view, struct update **updates, uint32_t count, const bool *wanted) {
    uint32_t found = 0;
    for (uint32_t i = 0; i < count; i++)
        found += wanted[i];
    uint64_t end = view->looked + count;
    if (!found) {
        view->looked = end;
        return;
    }
    view->wanted = malloc(found * sizeof(struct update *));
    if (!view->wanted)
        return; /* once more, later */
    for (uint32_t i = 0; i < count; i++)
        if (wanted[i])
            view->wanted[view->wanted_count++] = update_ref(updates[i]);
    view->wanted_end = end;
}

/* What the view's first poll gets of what is wanted. */
static struct answer answer_first(struct view *view, const struct poll *poll) {
    uint32_t first = 0;
    while (view->wanted[first]->ts <= (uint64_t)poll->ts)
        first++;
    uint32_t left = view->wanted_count - first;
    struct answer answer = {.ts = view->wanted_end,
                            .total = view->channel->total,
                            .epoch = view->channel->epoch,
                            .updates = view->wanted + first,
                            .count = left < poll->limit ? left : poll->limit};
    if (answer.count < left)
        answer.ts = answer.updates[answer.count]->ts - 1;
    answer.skipped = poll->skipped + (uint32_t)(answer.ts - (uint64_t)poll->ts) - answer.count;
    return answer;
}

/* Whether the view's first poll wants one of those updates. */
static bool has_waking(const struct view *view) {
    return !list_empty(&view->polls) &&
           (uint64_t)first_poll(view)->ts < view->wanted[view->wanted_count - 1]->ts;
}

/* Answers the view's polls, which share an answer where they have come the same way. */
static void wake(struct inbox *inbox, struct view *view, uint32_t *left) {
    struct answer answer = {0};
    struct poll like = {0};
    bool has_answer = false;
    for (; *left && has_waking(view); --*left) {
        struct poll *poll = first_poll(view);
        if (!has_answer || poll->ts != like.ts || poll->limit != like.limit ||
            poll->skipped != like.skipped) {
            if (has_answer)
                inbox->events.answer_end(&answer);
            like = *poll;
            answer = answer_first(view, poll);
            has_answer = true;
        }
        list_remove(&poll->link);
        count_parked(view->channel, -1);
        poll_finish(inbox, view->channel, poll, &answer);
    }
    if (has_answer)
        inbox->events.answer_end(&answer);
    if (has_waking(view))
        return;
    view->looked = view->wanted_end;
    forget_wanted(view);
}

/* Looks at the next updates; false when they are not in memory. */
static bool look(struct inbox *inbox, struct channel *channel, struct view *view) {
    uint64_t in_memory = channel->total - channel->recent_count + 1;
    if (view->looked + 1 < in_memory)
        return false;
    struct update *updates[PAGE_MAX];
    uint32_t count = 0;
    size_t bytes = 0;
    for (uint64_t ts = view->looked + 1; ts <= channel->total && count < PAGE_MAX; ts++) {
        struct update *update = channel_recent(channel, (uint32_t)(ts - in_memory));
        bytes += update_size(update);
        if (count && bytes > READ_MAX_BYTES)
            break;
        updates[count++] = update;
    }
    if (look_for_view(inbox, view, updates, count))
        return true; /* by the worker */
    bool wanted[PAGE_MAX];
    for (uint32_t i = 0; i < count; i++)
        wanted[i] = view_wants(view, updates[i]);
    view_looked(view, updates, count, wanted);
    return true;
}

/* Whether there are updates to look at, and nobody does. */
static bool must_look(const struct view *view) {
    return !view->wanted && !view->look && list_empty(&view->inbox_link) &&
           view->looked < view->channel->total;
}

/* Puts it among those with something to do, or among the others. */
static void requeue(struct view *view) {
    struct views *views = view->channel->views;
    bool has_more = view->wanted || must_look(view);
    list_remove(&view->link);
    list_append(has_more ? &views->behind : &views->parked, &view->link);
}

/* The next updates are not in memory: each poll that needs them looks for them by itself. */
static void let_go(struct inbox *inbox, struct channel *channel, struct view *view,
                   uint32_t *left) {
    uint64_t before_memory = channel->total - channel->recent_count;
    while (*left && (uint64_t)first_poll(view)->ts < before_memory) {
        struct poll *poll = first_poll(view);
        bool is_last = view->polls.next == view->polls.prev;
        --*left;
        poll_unpark(inbox, poll);
        poll_decide(inbox, channel, poll);
        if (is_last)
            return; /* the view is idle, and may be gone */
    }
    if ((uint64_t)first_poll(view)->ts >= before_memory)
        view->looked = (uint64_t)first_poll(view)->ts;
    requeue(view);
}

/* Does one thing for the view's polls. */
static void work(struct inbox *inbox, struct channel *channel, struct view *view, uint32_t *left) {
    if (must_look(view)) {
        --*left;
        if (!look(inbox, channel, view)) {
            let_go(inbox, channel, view, left);
            return;
        }
    }
    if (view->wanted)
        wake(inbox, view, left);
    if (list_empty(&view->polls))
        set_idle(inbox, view);
    else
        requeue(view);
}

void views_work(struct inbox *inbox, struct channel *channel, uint32_t *left) {
    while (*left && views_have_work(channel)) {
        work(inbox, channel, container_of(channel->views->behind.next, struct view, link), left);
        if (!turn_has_time())
            *left = 0;
    }
}
