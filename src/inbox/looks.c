#include "inbox/looks.h"
#include "base/counters.h"
#include "base/worker.h"
#include "inbox/parts.h"

#include <assert.h>
#include <stdlib.h>

enum {
    LITTLE_BYTES = 16 << 10,   /* read by a filter on the loop, whatever else the turn has to do, */
    INLINE_BYTES = 64 << 10,   /* and while it has time */
    PAGES_MAX = 64,            /* looked through for one poll */
    WORK_MAX_BYTES = 64 << 20, /* of updates that wait for the worker, unless it is one page */
};

/* Updates that the worker looks at, for a poll or for a view's polls. */
struct look {
    struct work work; /* its link: in inbox->looks, until it is the worker's */
    struct inbox *inbox;
    struct channel *channel; /* pinned */
    struct filter *filter;
    struct poll *poll; /* NULL: gone, or it is for a view */
    struct view *view;
    struct answer page; /* with updates of its own */
    size_t bytes;
    bool is_void; /* it was given up before the worker came to it */
    bool wanted[];
};

/* --- The worker ------------------------------------------------------------------------------- */

/* work.run: on the worker's thread. */
static void run(struct work *work) {
    struct look *look = container_of(work, struct look, work);
    if (look->is_void)
        return;
    for (uint32_t i = 0; i < look->page.count; i++)
        look->wanted[i] = filter_matches(look->filter, look->page.updates[i]);
}

static void free_look(struct look *look) {
    struct inbox *inbox = look->inbox;
    for (uint32_t i = 0; i < look->page.count; i++)
        update_unref(look->page.updates[i]);
    free(look->page.updates);
    filter_unref(&inbox->filters, look->filter);
    inbox->look_bytes -= look->bytes;
    free(look);
    for (struct list *link; (link = list_shift(&inbox->roomless));) {
        struct view *view = container_of(link, struct view, inbox_link);
        view_retry(view);
        polls_wake(inbox, view->channel);
    }
}

static void poll_looked(struct inbox *inbox, struct channel *channel, struct poll *poll,
                        const struct answer *page, const bool *wanted);

/* The worker has one look at a time: so large pushes and pages take turns with them. */
static void start_next(struct inbox *inbox) {
    struct list *link = inbox->is_looking ? NULL : list_shift(&inbox->looks);
    if (!link)
        return;
    struct look *look = container_of(link, struct look, work.link);
    look->is_void = !look->poll && !look->view;
    inbox->is_looking = true;
    worker_submit(&look->work);
}

/* work.done */
static void looked(struct work *work) {
    struct look *look = container_of(work, struct look, work);
    struct inbox *inbox = look->inbox;
    struct channel *channel = look->channel;
    inbox->is_looking = false;
    start_next(inbox);
    counters.filter_looks += look->is_void ? 0 : look->page.count;
    if (look->view) {
        look->view->look = NULL;
        view_looked(look->view, look->page.updates, look->page.count, look->wanted);
        view_retry(look->view);
    }
    if (look->poll)
        poll_looked(inbox, channel, look->poll, &look->page, look->wanted);
    free_look(look);
    polls_wake(inbox, channel);
    cache_unpin(inbox, channel);
    cache_trim(inbox);
}

void look_abandon(struct look *look) {
    look->poll = NULL;
    look->view = NULL;
}

static size_t bytes_of(const struct answer *page) {
    size_t bytes = 0;
    for (uint32_t i = 0; i < page->count; i++)
        bytes += update_size(page->updates[i]);
    return bytes;
}

static bool has_room(const struct inbox *inbox, const struct answer *page) {
    return !inbox->look_bytes || inbox->look_bytes + bytes_of(page) <= WORK_MAX_BYTES;
}

/* Hands a page to the worker. NULL when memory is out. */
static struct look *submit(struct inbox *inbox, struct channel *channel, struct filter *filter,
                           const struct answer *page, struct poll *poll, struct view *view) {
    assert(page->count);
    struct look *look = malloc(sizeof *look + page->count * sizeof *look->wanted);
    struct update **updates = malloc(page->count * sizeof *updates);
    if (!look || !updates) {
        free(look);
        free(updates);
        return NULL;
    }
    *look = (struct look){.work = {.run = run, .done = looked},
                          .inbox = inbox,
                          .channel = channel,
                          .filter = filter_ref(filter),
                          .poll = poll,
                          .view = view,
                          .page = *page,
                          .bytes = bytes_of(page)};
    for (uint32_t i = 0; i < page->count; i++)
        updates[i] = update_ref(page->updates[i]);
    look->page.updates = updates;
    inbox->look_bytes += look->bytes;
    channel->pins++;
    list_append(&inbox->looks, &look->work.link);
    start_next(inbox);
    return look;
}

/* Bytes to be read for that of a page which is not known yet; when there are too many for the loop,
 * at least that. */
static size_t cost_of(const struct filter *filter, const struct view *view,
                      struct update *const *updates, uint32_t count) {
    size_t cost = 0;
    for (uint32_t i = 0; i < count && cost <= INLINE_BYTES; i++)
        if (!view || !view_knows(view, updates[i]->ts))
            cost += filter_cost(filter, updates[i]);
    return cost;
}

/* --- For a view's polls ----------------------------------------------------------------------- */

bool look_for_view(struct inbox *inbox, struct view *view, struct update **updates,
                   uint32_t count) {
    if (cost_of(view->filter, view, updates, count) <= INLINE_BYTES)
        return false;
    struct answer page = {.updates = updates, .count = count};
    if (!has_room(inbox, &page)) {
        list_append(&inbox->roomless, &view->inbox_link);
        return true;
    }
    view->look = submit(inbox, view->channel, view->filter, &page, NULL, view);
    return view->look;
}

/* --- For a poll ------------------------------------------------------------------------------- */

void poll_skip(struct poll *poll, uint64_t count) {
    uint64_t skipped = poll->skipped + count;
    poll->skipped = skipped < UINT32_MAX ? (uint32_t)skipped : UINT32_MAX;
}

/* Whether what begins the page is purged. Of a shared store, the page may be of the channel's next
 * life, in which nothing is. */
static bool is_purged(const struct channel *channel, const struct answer *page) {
    return page->updates[0]->ts <= channel->purged && page->total >= channel->purged &&
           !channel_is_another_life(channel, page->epoch);
}

/* Takes what the poll wants of the page. */
static void poll_looked(struct inbox *inbox, struct channel *channel, struct poll *poll,
                        const struct answer *page, const bool *wanted) {
    if (is_purged(channel, page)) { /* meanwhile */
        inbox->mode->go_on(inbox, channel, poll);
        return;
    }
    struct answer answer = *page;
    answer.updates = inbox->picked;
    answer.count = 0;
    uint32_t i = 0;
    for (; i < page->count && !(wanted[i] && answer.count == poll->limit); i++)
        if (wanted[i])
            inbox->picked[answer.count++] = page->updates[i];
    if (i < page->count)
        answer.ts = page->updates[i]->ts - 1;
    poll_skip(poll, i - answer.count);
    answer.skipped = poll->skipped;
    bool is_at_end = answer.ts >= page->total;
    if (answer.count || page->missed || (is_at_end && !poll->may_wait) ||
        ++poll->pages == PAGES_MAX) {
        poll_answer(inbox, channel, poll, &answer);
        return;
    }
    poll->ts = (int64_t)answer.ts;
    poll->epoch = poll->epoch ? page->epoch : 0; /* of which that is */
    inbox->mode->go_on(inbox, channel, poll);
}

/* Whether what its view knows is of the same updates as its page. What was read from a shared store
 * may already be of the channel's next life. */
static bool is_of_this_life(const struct inbox *inbox, const struct poll *poll) {
    return !inbox->follow || poll->state != POLL_READING;
}

void poll_look(struct inbox *inbox, struct channel *channel, struct poll *poll,
               const struct answer *page) {
    struct view *view =
        is_of_this_life(inbox, poll) ? view_get(inbox, channel, poll->filter) : NULL;
    size_t cost = cost_of(poll->filter, view, page->updates, page->count);
    if (cost <= LITTLE_BYTES || (cost <= INLINE_BYTES && turn_has_time())) {
        for (uint32_t i = 0; i < page->count; i++)
            inbox->wanted[i] = view ? view_wants(view, page->updates[i])
                                    : filter_matches(poll->filter, page->updates[i]);
        counters.filter_looks += view ? 0 : page->count;
        poll_looked(inbox, channel, poll, page, inbox->wanted);
        return;
    }
    struct look *look = NULL;
    if (has_room(inbox, page))
        look = submit(inbox, channel, poll->filter, page, poll, NULL);
    if (!look) {
        poll_fail(inbox, poll, STORE_BUSY);
        return;
    }
    poll->state = POLL_LOOKING;
    poll->look = look;
}
