#include "base/counters.h"
#include "inbox/parts.h"

enum {
    RECENT_MAX = 256,     /* updates that a channel keeps in memory, */
    BEHIND_MAX = 1024,    /* and while its views are behind; they need not find them there */
    ANSWERS_A_TURN = 512, /* to polls that are answered together */
    FIRST_PAGE = 256,     /* updates looked through for a filter at first; then twice as many */
};

/* --- A channel's updates in memory ------------------------------------------------------------ */

static void trim_recents(struct inbox *inbox, struct channel *channel) {
    uint64_t max = inbox->options.channel_max_updates;
    if (views_have_work(channel))
        channel_trim(channel, BEHIND_MAX);
    else
        channel_trim(channel, max < RECENT_MAX ? max : RECENT_MAX);
}

/* Adds the channel's newest update to those in memory. */
static void remember(struct inbox *inbox, struct channel *channel, struct update *update) {
    channel_remember(channel, update);
    if (!channel_has_new(channel)) /* else polls that are being woken need the older ones */
        trim_recents(inbox, channel);
}

void channel_take(struct inbox *inbox, struct channel *channel, struct update *update) {
    channel->total = update->ts;
    views_note_news(channel);
    if (channel->is_polled)
        remember(inbox, channel, update);
}

void channel_take_read(struct inbox *inbox, struct channel *channel,
                       const struct store_read *read) {
    if (channel->gone < read->gone)
        channel->gone = read->gone;
    uint32_t count = read->count < RECENT_MAX ? read->count : RECENT_MAX;
    if (count <= channel->recent_count || read->updates[read->count - 1]->ts != channel->total)
        return;
    channel_drop_recents(channel); /* they are in the page, too */
    for (uint32_t i = read->count - count; i < read->count; i++)
        remember(inbox, channel, read->updates[i]);
}

/* --- Answering -------------------------------------------------------------------------------- */

bool answer_cut(struct answer *answer, uint32_t count) {
    uint64_t start = answer->ts - answer->count - answer->skipped - answer->missed;
    uint64_t ts = count ? answer->updates[count - 1]->ts : start;
    uint64_t missed = count ? answer->missed : 0;
    if (ts < start + missed + count)
        return false;
    answer->skipped = (uint32_t)(ts - start - missed - count);
    answer->missed = missed;
    answer->count = count;
    answer->ts = ts;
    return true;
}

void poll_begin(struct poll *poll) {
    poll->state = POLL_IDLE;
    poll->was_parked = poll->is_judged = poll->is_waiting = false;
    poll->is_named = poll->is_roster = false;
    poll->pages = 0;
    poll->skipped = 0;
}

static void hold(struct channel *channel, struct poll *poll) {
    poll->state = POLL_HELD;
    poll->channel = channel;
    list_init(&poll->link);
    channel->pins++;
}

void poll_finish(struct inbox *inbox, struct channel *channel, struct poll *poll,
                 struct answer *answer) {
    poll->state = POLL_IDLE;
    if (channel && poll->is_stream && !answer->error)
        hold(channel, poll);
    consumer_answered(inbox, poll, answer);
    inbox->events.poll_done(poll, answer);
}

void poll_answer(struct inbox *inbox, struct channel *channel, struct poll *poll,
                 struct answer *answer) {
    poll_finish(inbox, channel, poll, answer);
    inbox->events.answer_end(answer);
}

void poll_fail(struct inbox *inbox, struct poll *poll, enum store_error error) {
    struct answer answer = {.error = error};
    poll_answer(inbox, NULL, poll, &answer);
}

/* How many polls that are answered together may still be answered in this turn. */
static uint32_t *answers_left(struct inbox *inbox) {
    if (inbox->turn != turn_number()) {
        inbox->turn = turn_number();
        inbox->answers_left = ANSWERS_A_TURN;
    }
    return &inbox->answers_left;
}

static void end_one(struct inbox *inbox, struct poll *poll) {
    struct channel *channel = poll->is_stream ? poll->channel : NULL;
    struct answer answer = {
        .ts = (uint64_t)poll->ts,
        .total = channel ? channel->total : poll->total,
        .epoch = poll->epoch,
    };
    answer.reset = poll->outcome == POLL_RESET;
    answer.error = answer.reset ? STORE_OK : poll->outcome;
    if (answer.total < answer.ts) /* what it has seen was there, whatever is known here */
        answer.total = answer.ts;
    answer.skipped = answer.reset ? 0 : poll->skipped;
    poll_answer(inbox, channel, poll, &answer);
    if (channel)
        cache_unpin(inbox, channel);
}

/* Answers polls of inbox->ending, as far as this turn goes. */
static void end_some(struct inbox *inbox) {
    uint32_t *left = answers_left(inbox);
    for (struct list *link; *left && (link = list_shift(&inbox->ending)); --*left)
        end_one(inbox, container_of(link, struct poll, link));
    if (!list_empty(&inbox->ending))
        turn_end(&inbox->wake);
}

void poll_end(struct inbox *inbox, struct channel *channel, struct poll *poll, int outcome) {
    poll->ts = (int64_t)poll_cursor(poll->ts, channel->total);
    if (poll->is_stream) {
        poll->channel = channel;
        channel->pins++;
    } else {
        poll->total = channel->total;
    }
    poll->epoch = channel->epoch;
    poll->outcome = (uint8_t)outcome;
    poll->state = POLL_ENDING;
    list_append(&inbox->ending, &poll->link);
    end_some(inbox);
}

void poll_answer_empty(struct inbox *inbox, struct channel *channel, struct poll *poll) {
    struct answer answer = {.ts = poll_cursor(poll->ts, channel->total),
                            .total = channel->total,
                            .epoch = channel->epoch,
                            .skipped = poll->skipped};
    poll_answer(inbox, channel, poll, &answer);
}

void poll_reset(struct inbox *inbox, struct channel *channel, struct poll *poll,
                const struct store_read *read) {
    struct answer answer = {
        .reset = true, .ts = read->after, .total = read->total, .epoch = read->epoch};
    poll_answer(inbox, channel, poll, &answer);
}

/* Answers with a page of updates, or with those of them that the poll wants. */
static void answer_page(struct inbox *inbox, struct channel *channel, struct poll *poll,
                        struct answer *page) {
    page->skipped = poll->skipped;
    if (!poll->filter || !page->count) {
        poll_answer(inbox, channel, poll, page);
        return;
    }
    consumer_reached(inbox, poll, page->total); /* what is left out is not confirmed */
    poll_look(inbox, channel, poll, page);
}

void poll_answer_read(struct inbox *inbox, struct channel *channel, struct poll *poll,
                      const struct store_read *read) {
    uint64_t total = inbox->follow ? read->total : channel->total;
    uint64_t cursor = read->after;
    bool is_behind = cursor < read->total;
    uint64_t found = read->count ? read->updates[0]->ts : read->end + 1; /* what is delivered */
    struct answer answer = {
        .reset = cursor > read->total,
        .total = total,
        .epoch = read->epoch,
        .missed = is_behind && poll->ts >= 0 ? found - cursor - 1 : 0,
        .ts = is_behind ? found - 1 + read->count : read->total,
        .count = read->count,
        .updates = read->updates,
    };
    answer_page(inbox, channel, poll, &answer);
}

uint32_t poll_page_limit(const struct poll *poll) {
    if (!poll->filter)
        return poll->limit;
    uint32_t limit = poll->limit < FIRST_PAGE ? FIRST_PAGE : poll->limit;
    limit <<= poll->pages < 6 ? poll->pages : 6;
    return limit < READ_MAX_UPDATES ? limit : READ_MAX_UPDATES;
}

uint64_t poll_cursor(int64_t position, uint64_t total) {
    if (position >= 0)
        return (uint64_t)position;
    if (position < POSITION_LAST_MIN)
        return total;
    uint64_t last = (uint64_t)-position;
    return last < total ? total - last : 0;
}

/* The first ts of the channel that may still be kept. */
static uint64_t oldest_allowed(const struct inbox *inbox, const struct channel *channel) {
    uint64_t max = inbox->options.channel_max_updates;
    uint64_t gone = channel->total > max ? channel->total - max : 0;
    return (gone > channel->gone ? gone : channel->gone) + 1;
}

/* An update that lua-long-polling stored has no time: it goes with its channel. */
static bool is_too_old(const struct update *update, int64_t cutoff) {
    return update->born_ms && update->born_ms < cutoff;
}

/* The ts that a poll's position stands for; false if only the store can tell. */
static bool find_cursor(const struct inbox *inbox, const struct channel *channel,
                        const struct poll *poll, uint64_t *cursor) {
    *cursor = poll_cursor(poll->ts, channel->total);
    if (!position_is_since(poll->ts))
        return true;
    int64_t since_ms = position_since_ms(poll->ts);
    for (uint32_t i = channel->recent_count; i--; --*cursor) {
        int64_t at_ms = channel_recent(channel, i)->at_ms; /* 0: not known */
        if (at_ms && at_ms < since_ms)
            return true;
    }
    return *cursor < oldest_allowed(inbox, channel);
}

/*
 * Builds the answer of a poll whose cursor is behind the channel from the updates in memory; false
 * when they do not reach back far enough. The answer is valid until the next one is built.
 */
static bool answer_from_memory(struct inbox *inbox, struct channel *channel,
                               const struct poll *poll, uint64_t cursor, struct answer *answer) {
    uint64_t first = cursor + 1;
    /* A poll that waited gets all that came, even when a burst exceeds what is kept. */
    bool has_waited = poll->state == POLL_PARKED;
    uint64_t oldest = has_waited ? channel->gone + 1 : oldest_allowed(inbox, channel);
    if (first < oldest)
        first = oldest;
    uint64_t in_memory = channel->total - channel->recent_count + 1; /* the first ts in memory */
    if (first < in_memory)
        return false;
    uint32_t index = (uint32_t)(first - in_memory);
    int64_t cutoff = store_now_ms(inbox->store) - inbox->options.ttl_ms;
    while (!has_waited && index < channel->recent_count &&
           is_too_old(channel_recent(channel, index), cutoff))
        index++;
    uint32_t limit = poll_page_limit(poll);
    *answer =
        (struct answer){.total = channel->total, .epoch = channel->epoch, .updates = inbox->picked};
    uint64_t found = in_memory + index; /* the first that is delivered */
    answer->missed = poll->ts < 0 ? 0 : found - cursor - 1;
    size_t bytes = 0;
    for (; index < channel->recent_count && answer->count < limit; index++) {
        struct update *update = channel_recent(channel, index);
        bytes += update_size(update);
        if (answer->count && bytes > READ_MAX_BYTES)
            break;
        inbox->picked[answer->count++] = update;
    }
    answer->ts = found - 1 + answer->count;
    if (answer->total < answer->ts) /* another process pushed, and then all was purged */
        answer->total = answer->ts;
    return true;
}

/* --- Deciding --------------------------------------------------------------------------------- */

/* Parks the poll in front of `next`. */
static void park_before(struct channel *channel, struct poll *poll, struct list *next) {
    poll->state = POLL_PARKED;
    poll->was_parked = true;
    poll->channel = channel;
    list_append(next, &poll->link);
    counters.polls_parked++;
}

void poll_park(struct inbox *inbox, struct channel *channel, struct poll *poll) {
    consumer_reached(inbox, poll, channel->total);
    poll->ts = (int64_t)channel->total;
    poll->epoch = poll->epoch ? channel->epoch : 0;
    if (poll->filter)
        view_park(inbox, channel, poll);
    else
        park_before(channel, poll, &channel->polls);
}

void poll_park_first(struct channel *channel, struct poll *poll) {
    park_before(channel, poll, channel->polls.next);
}

void poll_unpark(struct inbox *inbox, struct poll *poll) {
    if (poll->filter) {
        view_unpark(inbox, poll);
        return;
    }
    list_remove(&poll->link);
    counters.polls_parked--;
}

void poll_wait_for_load(struct channel *channel, struct poll *poll) {
    poll->state = POLL_LOADING;
    poll->channel = channel;
    list_append(&channel->loading, &poll->link);
}

/* Whether only the store can say if what the poll has seen is there, or what epoch that is. */
static bool must_be_judged(const struct channel *channel, const struct poll *poll) {
    if (!poll->wants_epoch || !channel->total)
        return false;
    return (!channel->epoch && !poll->is_judged && !channel->lacks_epoch) ||
           (poll->epoch && poll->epoch != channel->epoch && poll->ts > 0);
}

bool poll_needs_load(const struct channel *channel, const struct poll *poll) {
    if (!channel->is_loaded)
        return true;
    if (channel->is_fetched && !channel->is_loading)
        return false;
    uint64_t in_memory = channel->total - channel->recent_count; /* what is behind this ts */
    return !position_is_since(poll->ts) && !must_be_judged(channel, poll) &&
           poll_cursor(poll->ts, channel->total) < in_memory;
}

void poll_decide(struct inbox *inbox, struct channel *channel, struct poll *poll) {
    uint64_t cursor;
    bool is_found = !must_be_judged(channel, poll) && find_cursor(inbox, channel, poll, &cursor);
    struct answer answer;
    if (is_found && cursor > channel->total)
        inbox->mode->poll_ahead(inbox, channel, poll);
    else if (is_found && cursor == channel->total && poll->may_wait)
        poll_park(inbox, channel, poll);
    else if (is_found && cursor == channel->total)
        poll_answer_empty(inbox, channel, poll);
    else if (is_found && answer_from_memory(inbox, channel, poll, cursor, &answer))
        answer_page(inbox, channel, poll, &answer);
    else if (!read_for_poll(inbox, channel, poll))
        poll_fail(inbox, poll, STORE_FAILED);
}

/* --- Streams ---------------------------------------------------------------------------------- */

/* A held poll may park where it is: it has seen everything, of the data that is there. */
static bool is_at_end(const struct inbox *inbox, const struct channel *channel,
                      const struct poll *poll) {
    return channel->is_loaded && (!inbox->follow || channel->watched) &&
           (uint64_t)poll->ts == channel->total && !must_be_judged(channel, poll);
}

/* As one that was parked, it does not learn of trouble that the store has for a while: unless its
 * epoch is not known here, and would be forgotten over it. */
static void begin_again(struct poll *poll) {
    poll->state = POLL_IDLE;
    poll->was_parked = !poll->epoch || poll->epoch == poll->channel->epoch;
    poll->is_judged = false;
    poll->pages = 0;
    poll->skipped = 0;
}

void inbox_poll_again(struct inbox *inbox, struct poll *poll) {
    struct channel *channel = poll->channel;
    if (is_at_end(inbox, channel, poll)) {
        begin_again(poll);
        poll_park(inbox, channel, poll);
        cache_unpin(inbox, channel);
    } else if (list_empty(&poll->link)) {
        list_append(&inbox->again, &poll->link);
        turn_end(&inbox->wake);
    }
}

bool inbox_is_behind(const struct poll *poll) {
    return (uint64_t)poll->ts < poll->channel->total;
}

void poll_let_go(struct inbox *inbox, struct poll *poll) {
    list_remove(&poll->link);
    cache_unpin(inbox, poll->channel);
}

/* Lets held polls go on, as far as this turn goes. */
static void go_on_some(struct inbox *inbox) {
    uint32_t *left = answers_left(inbox);
    for (struct list *link; *left && (link = list_shift(&inbox->again)); --*left) {
        struct poll *poll = container_of(link, struct poll, link);
        struct channel *channel = poll->channel;
        struct slice name = {channel->name, channel->name_len};
        begin_again(poll);
        if (!inbox->mode->poll(inbox, channel->node.hash, name, poll))
            poll_fail(inbox, poll, STORE_BUSY);
        cache_unpin(inbox, channel);
    }
}

/* --- Polls that wait for their channel -------------------------------------------------------- */

static bool has_ready(const struct inbox *inbox, const struct channel *channel) {
    if (list_empty(&channel->loading) || !channel->is_loaded)
        return false;
    struct poll *first = container_of(channel->loading.next, struct poll, link);
    return !inbox->mode->is_ready || inbox->mode->is_ready(channel, first);
}

static void decide_some(struct inbox *inbox, struct channel *channel, uint32_t *left) {
    for (; *left && has_ready(inbox, channel); --*left)
        poll_decide(inbox, channel, container_of(list_shift(&channel->loading), struct poll, link));
}

void polls_decide_ready(struct inbox *inbox, struct channel *channel) {
    if (list_empty(&inbox->waking)) /* else it is not its turn */
        decide_some(inbox, channel, answers_left(inbox));
    polls_wake(inbox, channel);
}

void polls_reset(struct inbox *inbox, struct channel *channel, struct list *polls,
                 const struct restart *restart) {
    for (struct list *link = polls->next, *next; link != polls; link = next) {
        struct poll *poll = container_of(link, struct poll, link);
        next = link->next;
        bool is_ahead = (uint64_t)poll->ts > restart->total;
        bool knows_it = poll->epoch && poll->epoch == restart->epoch;
        bool is_lost = restart->is_reset || (restart->is_new_life && poll->wants_epoch);
        if (!is_ahead && (!is_lost || knows_it))
            continue;
        poll_unpark(inbox, poll);
        if (poll->wants_epoch && restart->is_new_life && !knows_it)
            poll->ts = 0;
        else if ((uint64_t)poll->ts > restart->total)
            poll->ts = (int64_t)restart->total;
        poll_end(inbox, channel, poll, POLL_RESET);
    }
}

/* A parked poll whose cursor is ahead has seen what does not exist any more. Where the counter has
 * passed it again it goes on from its cursor: it loses nothing of what came since. */
void channel_restart(struct inbox *inbox, struct channel *channel, struct restart restart) {
    channel_drop_recents(channel);
    restart.is_new_life = channel_is_another_life(channel, restart.epoch);
    channel->gone = channel->purged = 0;
    channel->total = restart.total;
    channel->epoch = restart.epoch;
    polls_reset(inbox, channel, &channel->polls, &restart);
    views_restart(inbox, channel, &restart);
    polls_wake(inbox, channel);
}

/* A poll that is being woken with what is gone now gets `missed`, as from the store. */
void channel_purged(struct inbox *inbox, struct channel *channel, uint64_t gone) {
    if (channel->gone < gone)
        channel->gone = gone;
    if (channel->purged < gone)
        channel->purged = gone;
    uint64_t left = channel->total > gone ? channel->total - gone : 0;
    channel_trim(channel, left);
    if (!left)
        channel_drop_recents(channel);
    views_purged(channel, gone);
    polls_wake(inbox, channel);
}

/* --- Waking ----------------------------------------------------------------------------------- */

/* Wakes up to `*left` polls of the channel. They share an answer while they ask for the same. */
static void wake_some(struct inbox *inbox, struct channel *channel, uint32_t *left) {
    struct answer answer = {0};
    bool has_answer = false;
    int64_t ts = 0;
    uint32_t limit = 0;
    for (; *left && channel_has_new(channel); --*left) {
        struct poll *poll = container_of(channel->polls.next, struct poll, link);
        poll_unpark(inbox, poll);
        if (!has_answer || poll->ts != ts || poll->limit != limit) {
            if (has_answer)
                inbox->events.answer_end(&answer);
            ts = poll->ts;
            limit = poll->limit;
            has_answer = answer_from_memory(inbox, channel, poll, (uint64_t)poll->ts, &answer);
        }
        if (has_answer)
            poll_finish(inbox, channel, poll, &answer);
        else if (!read_for_poll(inbox, channel, poll))
            inbox->mode->poll_unread(inbox, poll);
    }
    if (has_answer)
        inbox->events.answer_end(&answer);
}

static bool has_work(const struct inbox *inbox, const struct channel *channel) {
    return channel_has_new(channel) || views_have_work(channel) || has_ready(inbox, channel);
}

void polls_answer_slice(struct turn_task *task) {
    struct inbox *inbox = container_of(task, struct inbox, wake);
    uint32_t *left = answers_left(inbox);
    end_some(inbox);
    go_on_some(inbox);
    while (*left && !list_empty(&inbox->waking)) {
        struct channel *channel = container_of(inbox->waking.next, struct channel, wake_link);
        decide_some(inbox, channel, left);
        wake_some(inbox, channel, left);
        views_work(inbox, channel, left);
        list_remove(&channel->wake_link);
        if (has_work(inbox, channel))
            list_append(&inbox->waking, &channel->wake_link);
        else
            trim_recents(inbox, channel);
    }
    turn_cancel(task);
    if (!list_empty(&inbox->ending) || !list_empty(&inbox->again) || !list_empty(&inbox->waking))
        turn_next(task);
    cache_trim(inbox);
}

void polls_wake(struct inbox *inbox, struct channel *channel) {
    if (!has_work(inbox, channel) || !list_empty(&channel->wake_link))
        return;
    list_append(&inbox->waking, &channel->wake_link);
    turn_end(&inbox->wake);
}
