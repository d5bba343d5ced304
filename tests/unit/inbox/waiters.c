#include "waiters.h"
#include "base/hash.h"
#include "base/turn.h"
#include "base/worker.h"
#include "inbox/views.h"

uv_loop_t loop;
struct inbox *inbox;
struct inbox_options options;
struct waiter waiters[WAITERS_MAX];
bool are_replies_lost;
int polls_done, answers_made;
int pushes_done, pushes_failed, pushes_without_owner;
int purges_done, purges_failed, purges_without_owner;
uint64_t last_gone;
uint64_t last_pushed_ts;
uint64_t seed;
struct store_cursor listed[2 * CONSUMERS_MAX];

static int answers_alive;

/* --- What the inbox tells --------------------------------------------------------------------- */

/* With a filter: nothing but what it wants, all of that, in order; and the rest is counted. */
static void check_wanted(const struct waiter *waiter, const struct answer *answer, uint64_t from) {
    struct fake_channel *channel = fake_channel(waiter->channel);
    uint32_t got = 0, left_out = 0, unwanted = 0;
    if (channel->life) /* it may be an answer of another life */
        return;
    assert_true(answer->ts >= from && answer->ts <= channel->total);
    for (uint64_t ts = from + 1; ts <= answer->ts; ts++) {
        const struct update *update = channel->updates[ts - 1];
        bool is_wanted = filter_matches(waiter->poll.filter, update);
        bool has_it = got < answer->count && answer->updates[got]->ts == ts;
        assert_true(is_wanted || !has_it);
        got += has_it;
        left_out += is_wanted && !has_it;
        unwanted += !is_wanted;
    }
    assert_int_equal(got, answer->count);
    assert_true(left_out <= answer->missed);
    assert_true(answer->skipped <= unwanted);
    assert_int_equal(answer->ts, from + answer->missed + answer->skipped + answer->count);
}

/* Nothing is passed over without a word. */
static void check_continuity(const struct waiter *waiter, const struct answer *answer) {
    assert_true(waiter->poll.filter || !answer->skipped);
    for (uint32_t i = 1; i < answer->count && !waiter->poll.filter; i++) {
        uint64_t before = answer->updates[i - 1]->ts, ts = answer->updates[i]->ts;
        assert_int_equal(ts, before + 1 + fake_damaged(before, ts));
    }
    if (answer->count && !waiter->poll.filter) {
        uint64_t last = answer->updates[answer->count - 1]->ts;
        assert_int_equal(answer->ts, last + fake_damaged(last, answer->ts));
    }
    if (waiter->from < 0 || answer->reset)
        return;
    uint64_t from = (uint64_t)waiter->from;
    if (waiter->poll.filter) {
        check_wanted(waiter, answer, from);
        return;
    }
    assert_true(!answer->count || answer->updates[0]->ts > from);
    assert_int_equal(answer->ts, from + answer->missed + answer->count);
    uint64_t gone = fake_channel(waiter->channel)->gone;
    uint64_t lost = (gone > from ? gone - from : 0) + fake_damaged(from, answer->ts);
    if (fake.is_shared) /* where nothing is too old or too much */
        assert_true(answer->missed <= lost);
}

static void note_answer(struct waiter *waiter, const struct answer *answer) {
    waiter->is_polling = false;
    waiter->answers++;
    waiter->order = polls_done++;
    waiter->error = answer->error;
    waiter->reset = answer->reset;
    waiter->ts = answer->ts;
    waiter->total = answer->total;
    waiter->missed = answer->missed;
    waiter->epoch = answer->epoch;
    waiter->skipped = answer->skipped;
    waiter->count = answer->count;
    waiter->first = answer->count ? answer->updates[0]->ts : 0;
    waiter->last = answer->count ? answer->updates[answer->count - 1]->ts : 0;
}

static void note_consumers(struct waiter *waiter, const struct answer *answer) {
    if (waiter->poll.is_named && !answer->error)
        waiter->lag = inbox_lag(&waiter->poll, answer);
    if (!are_replies_lost)
        inbox_confirm_answer(inbox, &waiter->poll, answer);
    struct store_cursors list;
    if (!waiter->poll.is_roster || answer->error)
        return;
    assert_true(inbox_list_consumers(inbox, &waiter->poll, &list));
    assert_true(list.count <= sizeof listed / sizeof *listed);
    memcpy(listed, list.list, list.count * sizeof *listed);
    waiter->listed = list.count;
    free(list.list);
}

static void drop_filter(struct waiter *waiter) {
    if (waiter->poll.filter)
        inbox_filter_unref(inbox, waiter->poll.filter);
    waiter->poll.filter = NULL;
}

static void on_poll_done(struct poll *poll, struct answer *answer) {
    struct waiter *waiter = container_of(poll, struct waiter, poll);
    assert_int_equal(poll->state, POLL_IDLE);
    assert_true(waiter->is_polling);
    if (!answer->memos[0]) {
        int *number = calloc(1, sizeof *number);
        *number = ++answers_made;
        answer->memos[0] = number;
        answers_alive++;
    }
    waiter->answer = *(int *)answer->memos[0];
    note_answer(waiter, answer);
    note_consumers(waiter, answer);
    inbox_cancel(inbox, poll); /* as whoever polls does: it lets go of its consumer */
    waiter->errors += answer->error != STORE_OK;
    if (!answer->error)
        check_continuity(waiter, answer);
    drop_filter(waiter);
    if (answer->error)
        return;
    waiter->resets += answer->reset;
    waiter->seen += answer->count;
    waiter->all_missed += answer->missed;
    waiter->all_skipped += answer->skipped;
    waiter->cursor = answer->ts;
}

static void on_answer_end(struct answer *answer) {
    assert_non_null(answer->memos[0]); /* no answer is made for nobody */
    free(answer->memos[0]);
    answers_alive--;
}

static void on_push_done(void *owner, const struct store_append *push) {
    pushes_done++;
    pushes_failed += push->error != STORE_OK;
    pushes_without_owner += !owner;
    if (!push->error)
        last_pushed_ts = push->updates[push->count - 1]->ts;
}

static void on_purge_done(void *owner, const struct store_purge *purge) {
    purges_done++;
    purges_failed += purge->error != STORE_OK;
    purges_without_owner += !owner;
    last_gone = purge->gone;
}

/* --- Making and freeing ----------------------------------------------------------------------- */

void make_inbox(void) {
    static const struct inbox_events events = {on_poll_done, on_answer_end, on_push_done,
                                               on_purge_done};
    if (!fake.is_shared)
        fake.keep = options.channel_max_updates;
    inbox = inbox_new(&loop, &fake.store, &options, &events);
    assert_non_null(inbox);
}

static void begin(bool is_shared) {
    hash_init();
    uv_loop_init(&loop);
    turn_init(&loop);
    worker_init(&loop);
    fake_init(is_shared);
    memset(waiters, 0, sizeof waiters);
    are_replies_lost = false;
    memset(&counters, 0, sizeof counters);
    polls_done = answers_made = answers_alive = 0;
    pushes_done = pushes_failed = pushes_without_owner = 0;
    purges_done = purges_failed = purges_without_owner = 0;
    options = (struct inbox_options){.channel_max_updates = 1000,
                                     .ttl_ms = 1000000,
                                     .cache_max_bytes = 64 << 20,
                                     .load_max_ms = 100000};
    inbox = NULL;
}

int set_up(void **state) {
    (void)state;
    begin(false);
    return 0;
}

int set_up_shared(void **state) {
    (void)state;
    begin(true);
    return 0;
}

static bool is_stopped;

static void on_stopped(void) {
    assert_false(is_stopped);
    is_stopped = true;
    fake.is_closing = true;
}

void stop_inbox(void) {
    is_stopped = false;
    inbox_stop(inbox, on_stopped);
    fake_serve_cursors(STORE_OK);
    run_wakes();
    assert_true(is_stopped);
}

int tear_down(void **state) {
    (void)state;
    for (int i = 0; i < WAITERS_MAX; i++)
        cancel(i);
    while (!list_empty(&fake.appends))
        fake_answer_append(STORE_OK);
    if (fake.is_shared)
        settle();
    fake_serve_reads();
    fake_serve_cursors(STORE_OK);
    run_wakes();
    assert_int_equal(counters.polls_parked, 0);
    stop_inbox();
    inbox_free(inbox);
    worker_deinit();
    turn_deinit();
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(answers_alive, 0);
    assert_int_equal(counters.cache_bytes, 0);
    fake_deinit();
    return uv_loop_close(&loop);
}

/* --- Polling and pushing ---------------------------------------------------------------------- */

/* Makes it ready to poll. */
static struct waiter *make(int i, const char *channel, int64_t ts, uint32_t limit, bool may_wait) {
    struct waiter *waiter = &waiters[i];
    assert_int_equal(waiter->poll.state, POLL_IDLE);
    *waiter = (struct waiter){
        .poll = {.ts = ts, .limit = limit, .may_wait = may_wait},
        .channel = channel,
        .from = ts,
        .is_polling = true,
        .errors = waiter->errors,
        .resets = waiter->resets,
        .cursor = waiter->cursor,
        .seen = waiter->seen,
        .all_missed = waiter->all_missed,
        .all_skipped = waiter->all_skipped,
    };
    return waiter;
}

struct waiter *start_where(int i, const char *channel, const char *where, int64_t ts,
                           uint32_t limit, bool may_wait) {
    struct waiter *waiter = make(i, channel, ts, limit, may_wait);
    waiter->where = where;
    if (where) {
        struct slice text = {where, strlen(where) + 1};
        assert_int_equal(inbox_filter(inbox, text, &waiter->poll.filter), FILTER_OK);
    }
    assert_true(inbox_poll(inbox, slice_of(channel), &waiter->poll));
    return waiter;
}

struct waiter *start_as(int i, const char *channel, const char *name, int64_t ts, bool may_wait,
                        bool confirms_now) {
    bool has_position = ts != FROM_CONFIRMED;
    struct waiter *waiter = make(i, channel, has_position ? ts : -1, READ_MAX_UPDATES, may_wait);
    struct poll *poll = &waiter->poll;
    poll->has_position = has_position;
    poll->ts = has_position ? ts : 0;
    poll->confirms = poll->ts >= 0 || poll->ts == POSITION_NOW;
    poll->confirms_now = confirms_now;
    assert_true(inbox_poll_as(inbox, slice_of(channel), poll, slice_of(name)));
    return waiter;
}

struct waiter *list_consumers(int i, const char *channel) {
    struct waiter *waiter = make(i, channel, POSITION_NOW, 1, false);
    assert_true(inbox_poll_consumers(inbox, slice_of(channel), &waiter->poll));
    return waiter;
}

struct waiter *forget(int i, const char *channel, const char *name) {
    struct waiter *waiter = make(i, channel, -1, 1, false);
    assert_true(inbox_forget_consumer(inbox, slice_of(channel), slice_of(name), &waiter->poll));
    return waiter;
}

struct waiter *start(int i, const char *channel, int64_t ts, uint32_t limit, bool may_wait) {
    return start_where(i, channel, NULL, ts, limit, may_wait);
}

struct waiter *wait_for(int i, const char *channel, int64_t ts) {
    return start(i, channel, ts, READ_MAX_UPDATES, true);
}

struct waiter *ask(int i, const char *channel, int64_t ts) {
    return start(i, channel, ts, READ_MAX_UPDATES, false);
}

void poll_once(const char *channel) {
    ask(0, channel, 0);
    fake_serve_reads();
    polls_done = fake.reads_made = 0;
}

void cancel(int i) {
    inbox_cancel(inbox, &waiters[i].poll);
    assert_int_equal(waiters[i].poll.state, POLL_IDLE);
    waiters[i].is_polling = false;
    drop_filter(&waiters[i]);
}

struct store_append *push_body(const char *channel, struct slice body) {
    struct update_parts parts = {.body = body, .method = SLICE("POST")};
    static int owner;
    return inbox_push(inbox, slice_of(channel), update_new(&parts), NULL, &owner);
}

struct store_append *push_batch(const char *channel, uint32_t count) {
    static int owner;
    struct update **updates = malloc(count * sizeof(struct update *));
    assert_non_null(updates);
    for (uint32_t i = 0; i < count; i++) {
        struct update_parts parts = {.body = SLICE("{}"), .method = SLICE("POST")};
        updates[i] = update_new(&parts);
    }
    return inbox_push_batch(inbox, slice_of(channel), updates, NULL, count, &owner);
}

struct store_append *push(const char *channel) {
    return push_body(channel, SLICE("{}"));
}

void push_durable(const char *channel, int count) {
    for (int i = 0; i < count; i++)
        assert_non_null(push(channel));
    for (int i = 0; i < count; i++)
        fake_answer_append(STORE_OK);
}

/* --- Time ------------------------------------------------------------------------------------- */

void turn(void) {
    uv_run(&loop, UV_RUN_NOWAIT);
}

void run_wakes(void) {
    while (uv_loop_alive(&loop))
        turn();
}

bool has_seen_all(const struct waiter *waiter) {
    const struct poll *poll = &waiter->poll;
    uint64_t total = fake_channel(waiter->channel)->total;
    return poll->state == POLL_PARKED &&
           ((uint64_t)poll->ts == total || (poll->filter && poll->view->looked == total));
}

/* Nothing is on its way, and whoever polls waits at the end. */
static bool is_settled(void) {
    if (!fake_is_still())
        return false;
    for (int i = 0; i < WAITERS_MAX; i++) {
        if (waiters[i].is_polling && !has_seen_all(&waiters[i]))
            return false;
    }
    return true;
}

static void on_alive(uv_timer_t *timer) {
    (void)timer;
}

void settle(void) {
    uv_timer_t alive; /* keeps the loop turning: what failed is tried again after a pause */
    uv_timer_init(&loop, &alive);
    uv_timer_start(&alive, on_alive, 1, 1);
    uint64_t end = uv_hrtime() + (uint64_t)5 * 1000000000;
    do {
        fake_turn_on();
        while (!list_empty(&fake.news))
            fake_tell_one();
        while (!list_empty(&fake.asked))
            fake_do_read();
        while (!list_empty(&fake.done))
            fake_answer_read(STORE_OK);
        fake_serve_cursors(STORE_OK);
        uv_run(&loop, UV_RUN_ONCE);
    } while (!is_settled() && uv_hrtime() < end);
    uv_close((uv_handle_t *)&alive, NULL);
    run_wakes();
}

uint32_t random_below(uint32_t bound) {
    seed = seed * 6364136223846793005 + 1442695040888963407;
    return (uint32_t)(seed >> 33) % bound;
}

/* --- Checking --------------------------------------------------------------------------------- */

void check_answer_at(const struct waiter *waiter, uint64_t first, uint64_t last, uint64_t total,
                     uint64_t missed, int line, const char *file) {
    uint64_t count = last < first ? 0 : last - first + 1;
    if (waiter->answers == 1 && !waiter->error && !waiter->reset && waiter->count == count &&
        waiter->total == total && waiter->missed == missed &&
        (!count || (waiter->first == first && waiter->last == last)) &&
        waiter->ts == (count ? last : total))
        return;
    print_error("answers %d, error %d, reset %d, %u updates %llu..%llu, ts %llu, total %llu, "
                "missed %llu\n",
                waiter->answers, waiter->error, waiter->reset, waiter->count,
                (unsigned long long)waiter->first, (unsigned long long)waiter->last,
                (unsigned long long)waiter->ts, (unsigned long long)waiter->total,
                (unsigned long long)waiter->missed);
    _fail(file, line);
}
