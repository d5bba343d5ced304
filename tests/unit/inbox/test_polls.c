/*
 * The inbox over a store that answers when the test says so: every order of pushes, reads, wake-ups and
 * cancellations can be had.
 */
#include "base/counters.h"
#include "base/hash.h"
#include "base/turn.h"
#include "inbox/inbox.h"
#include "support.h"

enum { CHANNELS_MAX = 600, WAITERS_MAX = 3000 };

/* --- The store -------------------------------------------------------------------------------- */

struct fake_channel {
    char name[16];
    uint64_t total, gone; /* updates up to `gone` have been deleted */
    struct update **updates;
};

static struct fake_channel channels[CHANNELS_MAX];
static int channel_count;
static struct list appends, reads;
static int reads_made;
static struct inbox_options options;
static int64_t now_ms;

static int64_t test_clock(void) {
    return now_ms;
}

static struct fake_channel *fake_channel(const char *name, size_t len) {
    for (int i = 0; i < channel_count; i++)
        if (strlen(channels[i].name) == len && memcmp(channels[i].name, name, len) == 0)
            return &channels[i];
    struct fake_channel *channel = &channels[channel_count++];
    assert_true(channel_count <= CHANNELS_MAX && len < sizeof channel->name);
    memset(channel, 0, sizeof *channel);
    memcpy(channel->name, name, len);
    return channel;
}

static void fake_add(struct fake_channel *channel, struct update *update) {
    update->ts = ++channel->total;
    update->at_ms = now_ms;
    channel->updates = realloc(channel->updates, channel->total * sizeof(struct update *));
    channel->updates[channel->total - 1] = update_ref(update);
}

static void fake_append(struct store *store, struct store_append *append) {
    (void)store;
    list_append(&appends, &append->op.link);
}

static void fake_read(struct store *store, struct store_read *read) {
    (void)store;
    assert_in_range(read->limit, 1, READ_MAX_UPDATES);
    reads_made++;
    list_append(&reads, &read->op.link);
}

static const struct store_ops fake_ops = {.append = fake_append, .read = fake_read};
static struct store fake_store = {&fake_ops};

/* Does the oldest append that waits, and answers it. */
static void answer_append(bool ok) {
    struct list *link = list_shift(&appends);
    assert_non_null(link);
    struct store_append *append = container_of(link, struct store_append, op.link);
    assert_int_equal(append->hash, hash_of((struct slice){append->name, append->name_len}));
    append->error = ok ? STORE_OK : STORE_FAILED;
    if (ok)
        fake_add(fake_channel(append->name, append->name_len), append->update);
    append->op.done(&append->op);
}

static void answer_read(bool ok) {
    struct list *link = list_shift(&reads);
    assert_non_null(link);
    struct store_read *read = container_of(link, struct store_read, op.link);
    assert_int_equal(read->hash, hash_of((struct slice){read->name, read->name_len}));
    read->error = ok ? STORE_OK : STORE_FAILED;
    if (ok) {
        struct fake_channel *channel = fake_channel(read->name, read->name_len);
        int64_t total = (int64_t)channel->total, max = (int64_t)options.channel_max_updates;
        int64_t after = read->after_ts < 0 ? total + read->after_ts : read->after_ts;
        read->total = channel->total;
        read->gone = channel->gone;
        if (total > max && read->gone < (uint64_t)(total - max))
            read->gone = (uint64_t)(total - max);
        if (after < (int64_t)read->gone)
            after = (int64_t)read->gone;
        read->updates = malloc((read->limit + 1) * sizeof(struct update *));
        while (after < total && read->count < read->limit)
            read->updates[read->count++] = update_ref(channel->updates[after++]);
    }
    read->op.done(&read->op);
}

/* Puts updates into the store behind the inbox's back, as if from an earlier life. */
static void preload(const char *name, int count) {
    for (int i = 0; i < count; i++) {
        struct update_parts parts = {.body = SLICE("{}"), .method = SLICE("POST")};
        struct update *update = update_new(&parts);
        fake_add(fake_channel(name, strlen(name)), update);
        update_unref(update);
    }
}

/* --- Those who poll and push ------------------------------------------------------------------ */

struct waiter {
    struct poll poll; /* first, so that poll_done finds it */
    int answers;
    bool ok, reset;
    uint64_t ts, total, missed;
    uint32_t count;
    uint64_t first, last; /* of the updates */
    int answer;           /* which answer it was */
    int order;            /* how many polls had been answered before */
};

static uv_loop_t loop;
static struct inbox *inbox;
static struct waiter waiters[WAITERS_MAX];
static int polls_done, answers_made, answers_alive;
static int pushes_done, pushes_failed, pushes_without_owner;
static uint64_t last_pushed_ts;

static void on_poll_done(struct poll *poll, struct answer *answer) {
    struct waiter *waiter = (struct waiter *)poll;
    assert_int_equal(poll->state, POLL_IDLE);
    if (!answer->memos[0]) {
        int *number = malloc(sizeof *number);
        *number = ++answers_made;
        answer->memos[0] = number;
        answers_alive++;
    }
    waiter->answer = *(int *)answer->memos[0];
    waiter->answers++;
    waiter->order = polls_done++;
    waiter->ok = !answer->error;
    waiter->reset = answer->reset;
    waiter->ts = answer->ts;
    waiter->total = answer->total;
    waiter->missed = answer->missed;
    waiter->count = answer->count;
    for (uint32_t i = 0; i < answer->count; i++)
        assert_int_equal(answer->updates[i]->ts, answer->updates[0]->ts + i);
    waiter->first = answer->count ? answer->updates[0]->ts : 0;
    waiter->last = answer->count ? answer->updates[answer->count - 1]->ts : 0;
    if (!answer->error && answer->count)
        assert_int_equal(waiter->last, answer->ts);
}

static void on_answer_end(struct answer *answer) {
    assert_non_null(answer->memos[0]); /* no answer is made for nobody */
    free(answer->memos[0]);
    answers_alive--;
}

static void on_push_done(void *owner, const struct update *update, enum store_error error) {
    pushes_done++;
    pushes_failed += error != STORE_OK;
    pushes_without_owner += !owner;
    if (!error)
        last_pushed_ts = update->ts;
}

static const struct inbox_events events = {on_poll_done, on_answer_end, on_push_done};

static void make_inbox(void) {
    inbox = inbox_new(&loop, &fake_store, &options, &events);
    assert_non_null(inbox);
}

static int set_up(void **state) {
    (void)state;
    hash_init();
    uv_loop_init(&loop);
    turn_init(&loop);
    list_init(&appends);
    list_init(&reads);
    memset(waiters, 0, sizeof waiters);
    memset(&counters, 0, sizeof counters);
    channel_count = polls_done = answers_made = answers_alive = reads_made = 0;
    pushes_done = pushes_failed = pushes_without_owner = 0;
    now_ms = 1700000000000;
    options = (struct inbox_options){.channel_max_updates = 1000,
                                     .ttl_ms = 1000000,
                                     .cache_max_bytes = 64 << 20,
                                     .clock_ms = test_clock};
    inbox = NULL;
    return 0;
}

static void turn(void) {
    uv_run(&loop, UV_RUN_NOWAIT);
}

static int tear_down(void **state) {
    (void)state;
    for (int i = 0; i < WAITERS_MAX; i++)
        inbox_cancel(&waiters[i].poll);
    while (!list_empty(&appends) || !list_empty(&reads)) {
        if (!list_empty(&appends))
            answer_append(true);
        if (!list_empty(&reads))
            answer_read(true);
    }
    while (uv_loop_alive(&loop))
        turn();
    assert_int_equal(counters.polls_parked, 0);
    inbox_free(inbox);
    turn_deinit();
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(answers_alive, 0);
    assert_int_equal(counters.cache_bytes, 0);
    for (int i = 0; i < channel_count; i++) {
        for (uint64_t j = 0; j < channels[i].total; j++) {
            assert_int_equal(channels[i].updates[j]->refs, 1); /* nobody else holds it any more */
            update_unref(channels[i].updates[j]);
        }
        free(channels[i].updates);
    }
    return uv_loop_close(&loop);
}

static struct waiter *start(int i, const char *name, int64_t ts, uint32_t limit, bool may_wait) {
    struct waiter *waiter = &waiters[i];
    assert_int_equal(waiter->poll.state, POLL_IDLE);
    *waiter = (struct waiter){.poll = {.ts = ts, .limit = limit, .may_wait = may_wait}};
    assert_true(inbox_poll(inbox, slice_of(name), &waiter->poll));
    return waiter;
}

static struct waiter *wait_for(int i, const char *name, int64_t ts) {
    return start(i, name, ts, READ_MAX_UPDATES, true);
}

static struct waiter *ask(int i, const char *name, int64_t ts) {
    return start(i, name, ts, READ_MAX_UPDATES, false);
}

static struct store_append *push_body(const char *name, struct slice body) {
    struct update_parts parts = {.body = body, .method = SLICE("POST")};
    static int owner;
    return inbox_push(inbox, slice_of(name), update_new(&parts), &owner);
}

static struct store_append *push(const char *name) {
    return push_body(name, SLICE("{}"));
}

/* Pushes `count` updates that the store has taken when this returns. */
static void push_durable(const char *name, int count) {
    for (int i = 0; i < count; i++)
        assert_non_null(push(name));
    for (int i = 0; i < count; i++)
        answer_append(true);
}

static void run_wakes(void) {
    while (uv_loop_alive(&loop))
        turn();
}

/* The waiter has got exactly the updates `first` to `last` of `total` (none when last < first). */
static void check_answer_at(const struct waiter *waiter, uint64_t first, uint64_t last,
                            uint64_t total, uint64_t missed, int line) {
    uint64_t count = last < first ? 0 : last - first + 1;
    if (waiter->answers != 1 || !waiter->ok || waiter->reset || waiter->count != count ||
        waiter->total != total || waiter->missed != missed ||
        (count && (waiter->first != first || waiter->last != last)) ||
        waiter->ts != (count ? last : total)) {
        print_error("answers %d, ok %d, reset %d, %u updates %llu..%llu, ts %llu, total %llu, "
                    "missed %llu\n",
                    waiter->answers, waiter->ok, waiter->reset, waiter->count,
                    (unsigned long long)waiter->first, (unsigned long long)waiter->last,
                    (unsigned long long)waiter->ts, (unsigned long long)waiter->total,
                    (unsigned long long)waiter->missed);
        _fail(__FILE__, line);
    }
}

#define check_answer(waiter, first, last, total, missed)                                           \
    check_answer_at(waiter, first, last, total, missed, __LINE__)

/* --- Loading and reading ---------------------------------------------------------------------- */

static void test_first_poll_loads(void **state) {
    (void)state;
    make_inbox();
    preload("a", 3);
    struct waiter *waiter = ask(0, "a", 0);
    assert_int_equal(waiter->answers, 0);
    assert_int_equal(reads_made, 1);
    answer_read(true);
    check_answer(waiter, 1, 3, 3, 0);
    /* From then on it is in memory. */
    check_answer(ask(0, "a", 0), 1, 3, 3, 0);
    check_answer(ask(0, "a", 2), 3, 3, 3, 0);
    check_answer(ask(0, "a", 3), 1, 0, 3, 0);
    check_answer(ask(0, "a", -1), 3, 3, 3, 0);
    check_answer(ask(0, "a", -2), 2, 3, 3, 0);
    check_answer(ask(0, "a", -3), 1, 3, 3, 0);
    check_answer(ask(0, "a", -4), 1, 3, 3, 0);
    check_answer(ask(0, "a", -999999999999999999), 1, 3, 3, 0); /* what api lets through at most */
    assert_int_equal(reads_made, 1);
}

static void test_unknown_channel(void **state) {
    (void)state;
    make_inbox();
    struct waiter *waiter = ask(0, "a", 0);
    answer_read(true);
    check_answer(waiter, 1, 0, 0, 0);
    check_answer(ask(0, "a", -7), 1, 0, 0, 0);
    waiter = wait_for(0, "a", -7);
    assert_int_equal(waiter->poll.state, POLL_PARKED);
    push_durable("a", 1);
    run_wakes();
    check_answer(waiter, 1, 1, 1, 0);
}

static void test_one_load_for_all(void **state) {
    (void)state;
    make_inbox();
    preload("a", 5);
    ask(0, "a", 0);
    ask(1, "a", 3);
    wait_for(2, "a", 5);
    wait_for(3, "a", 9);
    wait_for(4, "a", -2);
    wait_for(5, "a", 5);
    assert_int_equal(reads_made, 1);
    assert_int_equal(polls_done, 0);
    answer_read(true);
    check_answer(&waiters[0], 1, 5, 5, 0);
    check_answer(&waiters[1], 4, 5, 5, 0);
    check_answer(&waiters[4], 4, 5, 5, 0);
    assert_true(waiters[3].reset && waiters[3].ok && waiters[3].ts == 5);
    assert_int_equal(counters.polls_parked, 2);
    push_durable("a", 1);
    run_wakes();
    check_answer(&waiters[2], 6, 6, 6, 0);
    check_answer(&waiters[5], 6, 6, 6, 0);
    assert_int_equal(counters.polls_parked, 0);
}

/* The poll that causes the load parks once, like those that join it. */
static void test_parks_once(void **state) {
    (void)state;
    make_inbox();
    for (int i = 0; i < 10; i++)
        wait_for(i, "a", 0);
    answer_read(true);
    assert_int_equal(counters.polls_parked, 10);
    push_durable("a", 1);
    run_wakes();
    for (int i = 0; i < 10; i++)
        check_answer(&waiters[i], 1, 1, 1, 0);
    assert_int_equal(counters.polls_parked, 0);
}

static void test_failed_load(void **state) {
    (void)state;
    make_inbox();
    preload("a", 2);
    ask(0, "a", 0);
    wait_for(1, "a", 2);
    answer_read(false);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(waiters[i].answers, 1);
        assert_false(waiters[i].ok);
    }
    assert_int_equal(counters.polls_parked, 0);
    /* The next one tries again. */
    struct waiter *waiter = ask(0, "a", 0);
    assert_int_equal(reads_made, 2);
    answer_read(true);
    check_answer(waiter, 1, 2, 2, 0);
}

static void test_backlog_is_read(void **state) {
    (void)state;
    make_inbox();
    preload("a", 900);
    struct waiter *waiter = ask(0, "a", 890);
    answer_read(true);
    check_answer(waiter, 891, 900, 900, 0);
    waiter = ask(0, "a", 10);
    assert_int_equal(waiter->poll.state, POLL_READING);
    answer_read(true);
    check_answer(waiter, 11, 900, 900, 0);
    waiter = start(0, "a", 10, 5, true);
    answer_read(true);
    assert_int_equal(waiter->ts, 15);
    check_answer(waiter, 11, 15, 900, 0);
    waiter = ask(0, "a", 10);
    answer_read(false);
    assert_int_equal(waiter->answers, 1);
    assert_false(waiter->ok);
    check_answer(ask(0, "a", 899), 900, 900, 900, 0); /* the channel itself is as it was */
}

static void test_missed(void **state) {
    (void)state;
    options.channel_max_updates = 10;
    make_inbox();
    preload("a", 30);
    fake_channel("a", 1)->gone = 25;
    struct waiter *waiter = ask(0, "a", 2);
    answer_read(true);
    check_answer(waiter, 26, 30, 30, 23);
    waiter = ask(0, "a", -10); /* whoever asks for the last K misses nothing */
    if (!list_empty(&reads))
        answer_read(true);
    check_answer(waiter, 26, 30, 30, 0);
    push_durable("b", 25);
    waiter = ask(0, "b", 3);
    if (!list_empty(&reads))
        answer_read(true);
    check_answer(waiter, 16, 25, 25, 12);
    /* All of it is gone. */
    preload("c", 8);
    fake_channel("c", 1)->gone = 8;
    waiter = wait_for(0, "c", 3);
    answer_read(true);
    check_answer(waiter, 9, 8, 8, 5);
}

static void test_expired_in_memory(void **state) {
    (void)state;
    options.ttl_ms = 1000;
    make_inbox();
    for (int i = 0; i < 10; i++, now_ms += 100)
        push_durable("a", 1);
    /* Stored at 0, 100, … 900; it is 1,000. */
    check_answer(ask(0, "a", 0), 1, 10, 10, 0);
    now_ms += 450;
    check_answer(ask(0, "a", 0), 6, 10, 10, 5);
    check_answer(ask(0, "a", 7), 8, 10, 10, 0);
    check_answer(ask(0, "a", -9), 6, 10, 10, 0);
    now_ms += 1000;
    check_answer(ask(0, "a", 4), 11, 10, 10, 6);
}

static void test_reset(void **state) {
    (void)state;
    make_inbox();
    push_durable("a", 3);
    struct waiter *waiter = wait_for(0, "a", 4);
    assert_int_equal(waiter->answers, 1);
    assert_true(waiter->ok && waiter->reset);
    assert_int_equal(waiter->ts, 3);
    assert_int_equal(waiter->count, 0);
    waiter = wait_for(0, "a", INT64_MAX);
    assert_true(waiter->reset);
}

static void test_limit_and_bytes_in_memory(void **state) {
    (void)state;
    make_inbox();
    push_durable("a", 100);
    check_answer(start(0, "a", 10, 1, true), 11, 11, 100, 0);
    check_answer(start(0, "a", 10, 7, true), 11, 17, 100, 0);
    check_answer(start(0, "a", -10, 7, true), 91, 97, 100, 0);
    enum { LEN = 300000 };
    char *body = calloc(1, 2 << 20);
    for (int i = 0; i < 8; i++) {
        push_body("b", (struct slice){body, LEN});
        answer_append(true);
    }
    check_answer(ask(0, "b", 0), 1, READ_MAX_BYTES / LEN, 8, 0);
    check_answer(ask(0, "b", 6), 7, 8, 8, 0);
    push_body("c", (struct slice){body, 2 << 20});
    push("c");
    answer_append(true);
    answer_append(true);
    check_answer(ask(0, "c", 0), 1, 1, 2, 0);
    free(body);
}

/* --- Pushing and waking ----------------------------------------------------------------------- */

static void test_push(void **state) {
    (void)state;
    make_inbox();
    assert_non_null(push("a"));
    assert_int_equal(pushes_done, 0);
    answer_append(true);
    assert_int_equal(pushes_done, 1);
    assert_int_equal(last_pushed_ts, 1);
    assert_int_equal(counters.pushes, 1);
    struct waiter *waiter = wait_for(0, "a", 1);
    assert_int_equal(counters.polls_parked, 1);
    push("a");
    answer_append(false);
    run_wakes();
    assert_int_equal(pushes_failed, 1);
    assert_int_equal(counters.pushes, 1);
    assert_int_equal(waiter->answers, 0); /* what is not stored is not delivered */
    push("a");
    turn();
    assert_int_equal(waiter->answers, 0); /* nor is it before it is stored */
    answer_append(true);
    run_wakes();
    check_answer(waiter, 2, 2, 2, 0);
    inbox_cancel_push(push("a"));
    answer_append(true);
    assert_int_equal(pushes_without_owner, 1);
    check_answer(ask(0, "a", 2), 3, 3, 3, 0);
}

static void test_channels_are_apart(void **state) {
    (void)state;
    make_inbox();
    wait_for(0, "a", 0);
    wait_for(1, "b", 0);
    answer_read(true);
    answer_read(true);
    push_durable("b", 1);
    run_wakes();
    assert_int_equal(waiters[0].answers, 0);
    check_answer(&waiters[1], 1, 1, 1, 0);
    assert_int_equal(counters.polls_parked, 1);
}

/* All that wait for the same share one answer; they are woken in the order in which they parked. */
static void test_shared_answer(void **state) {
    (void)state;
    make_inbox();
    push_durable("a", 1);
    for (int i = 0; i < 300; i++)
        wait_for(i, "a", 1);
    push_durable("a", 1);
    run_wakes();
    assert_int_equal(answers_made, 1);
    for (int i = 0; i < 300; i++) {
        check_answer(&waiters[i], 2, 2, 2, 0);
        assert_int_equal(waiters[i].order, i);
    }
    for (int i = 0; i < 20; i++)
        start(i, "a", 2, i < 10 ? 1 : 2, true);
    push_durable("a", 2);
    run_wakes();
    assert_int_equal(answers_made, 3);
    for (int i = 0; i < 20; i++)
        check_answer(&waiters[i], 3, i < 10 ? 3 : 4, 4, 0);
}

/* Many are woken in slices, a bounded number in a turn of the loop. */
static void test_slices(void **state) {
    (void)state;
    make_inbox();
    push_durable("a", 1);
    for (int i = 0; i < 2000; i++)
        wait_for(i, "a", 1);
    push_durable("a", 1);
    int turns = 0, before = polls_done;
    for (; uv_loop_alive(&loop); turns++) {
        turn();
        assert_true(polls_done - before <= 512);
        before = polls_done;
    }
    assert_true(turns >= 4);
    for (int i = 0; i < 2000; i++)
        check_answer(&waiters[i], 2, 2, 2, 0);
    assert_int_equal(counters.polls_parked, 0);
}

/* A small channel does not wait for a large one's end. */
static void test_slices_are_fair(void **state) {
    (void)state;
    make_inbox();
    push_durable("a", 1);
    push_durable("b", 1);
    for (int i = 0; i < 2500; i++)
        wait_for(i, "a", 1);
    wait_for(2500, "b", 1);
    push_durable("a", 1);
    push_durable("b", 1);
    turn();
    turn();
    assert_int_equal(waiters[2500].answers, 1);
    assert_true(polls_done < 2000);
}

/* Between two slices more is pushed, some hang up, and others park: nobody misses or doubles anything. */
static void test_between_slices(void **state) {
    (void)state;
    make_inbox();
    push_durable("a", 1);
    for (int i = 0; i < 1500; i++)
        wait_for(i, "a", 1);
    push_durable("a", 1);
    turn();
    turn();
    assert_true(polls_done > 0 && polls_done < 1500);
    for (int i = 1400; i < 1450; i++)
        inbox_cancel(&waiters[i].poll);
    wait_for(2000, "a", 2); /* parks behind those that are not woken yet */
    assert_int_equal(waiters[2000].answers, 0);
    check_answer(ask(2001, "a", 1), 2, 2, 2, 0);
    push_durable("a", 1);
    run_wakes();
    for (int i = 0; i < 1500; i++) {
        if (i >= 1400 && i < 1450) {
            assert_int_equal(waiters[i].answers, 0);
            continue;
        }
        assert_int_equal(waiters[i].answers, 1);
        assert_int_equal(waiters[i].first, 2);
        assert_int_equal(waiters[i].missed, 0);
        assert_in_range(waiters[i].last, 2, 3);
    }
    assert_int_equal(waiters[1499].last, 3);
    check_answer(&waiters[2000], 3, 3, 3, 0);
    assert_int_equal(counters.polls_parked, 0);
}

/* More updates in one go than a channel keeps: whoever waited gets them all. */
static void test_burst_beyond_the_bound(void **state) {
    (void)state;
    options.channel_max_updates = 3;
    make_inbox();
    push_durable("a", 1);
    for (int i = 0; i < 1200; i++)
        wait_for(i, "a", 1);
    push_durable("a", 400);
    run_wakes();
    for (int i = 0; i < 1200; i++)
        check_answer(&waiters[i], 2, 401, 401, 0);
    /* Afterwards the bound holds again. */
    struct waiter *waiter = ask(0, "a", 1);
    if (!list_empty(&reads))
        answer_read(true);
    check_answer(waiter, 399, 401, 401, 397);
    push_durable("a", 1);
    waiter = ask(0, "a", 1);
    if (!list_empty(&reads))
        answer_read(true);
    check_answer(waiter, 400, 402, 402, 398);
}

/* --- Cancelling ------------------------------------------------------------------------------- */

static void test_cancel_in_each_state(void **state) {
    (void)state;
    make_inbox();
    preload("a", 900);
    inbox_cancel(&waiters[0].poll); /* idle */
    wait_for(0, "a", 0);            /* its read is the load */
    wait_for(1, "a", 900);          /* loading */
    wait_for(2, "a", 900);
    inbox_cancel(&waiters[0].poll);
    inbox_cancel(&waiters[1].poll);
    assert_int_equal(waiters[1].poll.state, POLL_IDLE);
    answer_read(true);
    assert_int_equal(polls_done, 0);
    assert_int_equal(counters.polls_parked, 1);
    wait_for(3, "a", 900); /* parked */
    inbox_cancel(&waiters[3].poll);
    inbox_cancel(&waiters[3].poll); /* twice is harmless */
    wait_for(4, "a", 5);            /* reading */
    assert_int_equal(waiters[4].poll.state, POLL_READING);
    inbox_cancel(&waiters[4].poll);
    answer_read(true);
    assert_int_equal(polls_done, 0);
    assert_int_equal(counters.polls_parked, 1);
    push_durable("a", 1);
    run_wakes();
    assert_int_equal(polls_done, 1);
    check_answer(&waiters[2], 901, 901, 901, 0);
    /* A load all of whose polls are gone, which fails. */
    wait_for(0, "b", 0);
    wait_for(1, "b", 0);
    inbox_cancel(&waiters[0].poll);
    inbox_cancel(&waiters[1].poll);
    answer_read(false);
    assert_int_equal(polls_done, 1);
}

/* --- Pushing while loading -------------------------------------------------------------------- */

static void test_push_while_loading(void **state) {
    (void)state;
    make_inbox();
    preload("a", 3);
    wait_for(0, "a", 0); /* makes the load */
    wait_for(1, "a", 0);
    wait_for(2, "a", 3);
    wait_for(3, "a", 4);
    wait_for(4, "a", 2);
    push_durable("a", 1); /* the store did this before the read */
    while (!list_empty(&reads))
        answer_read(true);
    run_wakes();
    check_answer(&waiters[0], 1, 4, 4, 0);
    check_answer(&waiters[1], 1, 4, 4, 0);
    check_answer(&waiters[2], 4, 4, 4, 0);
    check_answer(&waiters[4], 3, 4, 4, 0);
    assert_int_equal(waiters[3].answers, 0);
    assert_int_equal(counters.polls_parked, 1);
    push_durable("a", 1);
    run_wakes();
    check_answer(&waiters[3], 5, 5, 5, 0);
}

/* The read was done first, then the append: whoever waits for the next one gets it. */
static void test_push_behind_the_load(void **state) {
    (void)state;
    make_inbox();
    preload("a", 3);
    wait_for(0, "a", 3);
    wait_for(1, "a", -1);
    push("a");
    while (!list_empty(&reads))
        answer_read(true);
    check_answer(&waiters[1], 3, 3, 3, 0);
    assert_int_equal(waiters[0].answers, 0);
    answer_append(true);
    run_wakes();
    check_answer(&waiters[0], 4, 4, 4, 0);
}

/* A load that fails behind a push: the channel is known through the push. */
static void test_failed_load_behind_a_push(void **state) {
    (void)state;
    make_inbox();
    preload("a", 3);
    wait_for(0, "a", 4);
    wait_for(1, "a", 4);
    push_durable("a", 1);
    answer_read(false);
    assert_int_equal(waiters[0].answers, 1);
    assert_false(waiters[0].ok);
    assert_int_equal(waiters[1].answers, 0);
    push_durable("a", 1);
    run_wakes();
    check_answer(&waiters[1], 5, 5, 5, 0);
}

/* --- The cache -------------------------------------------------------------------------------- */

static void test_cache_is_trimmed(void **state) {
    (void)state;
    options.cache_max_bytes = 100000;
    make_inbox();
    char body[1000], name[16];
    memset(body, ' ', sizeof body);
    wait_for(0, "waiting", 0);
    answer_read(true);
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < 500; i++) {
            snprintf(name, sizeof name, "c%d", i);
            push_body(name, (struct slice){body, sizeof body});
            answer_append(true);
            assert_true(counters.cache_bytes <= options.cache_max_bytes);
        }
    assert_true(counters.cache_bytes > options.cache_max_bytes / 2); /* and not for nothing */
    assert_in_range(counters.channels_resident, 10, 200);
    /* The recently used are there, the others are read again; nothing is lost. */
    check_answer(ask(1, "c499", 2), 3, 3, 3, 0);
    struct waiter *waiter = ask(1, "c0", 0);
    assert_int_equal(waiter->answers, 0);
    answer_read(true);
    check_answer(waiter, 1, 3, 3, 0);
    /* A channel with a poll stays. */
    assert_int_equal(waiters[0].poll.state, POLL_PARKED);
    push_durable("waiting", 1);
    run_wakes();
    check_answer(&waiters[0], 1, 1, 1, 0);
}

/* Polls that wait keep their channels, but a burst on them is delivered even when the cache is too small. */
static void test_cache_too_small(void **state) {
    (void)state;
    options.cache_max_bytes = 1;
    options.channel_max_updates = 3; /* the store does not have all of it any more */
    make_inbox();
    for (int i = 0; i < 700; i++) {
        wait_for(i, "a", 0);
        if (i == 0)
            answer_read(true);
    }
    push_durable("a", 20);
    run_wakes();
    while (!list_empty(&reads))
        answer_read(true);
    for (int i = 0; i < 700; i++)
        check_answer(&waiters[i], 1, 20, 20, 0);
    struct waiter *waiter = ask(0, "a", 19);
    if (!list_empty(&reads))
        answer_read(true);
    check_answer(waiter, 20, 20, 20, 0);
}

/* --- Everything at once ----------------------------------------------------------------------- */

static uint64_t seed;

static uint32_t random_below(uint32_t bound) {
    seed = seed * 6364136223846793005 + 1442695040888963407;
    return (uint32_t)(seed >> 33) % bound;
}

/* A consumer polls on from where it was; what it gets follows without a gap, unless it failed. */
static void run_consumers(uint64_t cache_max_bytes, uint64_t first_seed) {
    enum { CONSUMERS = 900, NAMES = 6 };
    static const char *const names[NAMES] = {"a", "b", "c", "d", "e", "f"};
    static uint64_t cursors[CONSUMERS];
    static bool is_under_way[CONSUMERS];
    memset(cursors, 0, sizeof cursors);
    memset(is_under_way, 0, sizeof is_under_way);
    options.cache_max_bytes = cache_max_bytes;
    options.channel_max_updates = 1000000;
    make_inbox();
    seed = first_seed;
    uint64_t delivered = 0;
    for (int step = 0; step < 40000; step++) {
        int i = (int)random_below(CONSUMERS);
        const char *name = names[i % NAMES];
        uint32_t what = random_below(100);
        if (what < 55 && !is_under_way[i]) {
            start(i, name, (int64_t)cursors[i],
                  random_below(4) ? READ_MAX_UPDATES : 1 + random_below(3), random_below(10) > 0);
            is_under_way[i] = true;
        } else if (what < 60 && is_under_way[i]) {
            inbox_cancel(&waiters[i].poll);
            is_under_way[i] = waiters[i].answers > 0;
        } else if (what < 68) {
            push(name);
        } else if (what < 80 && !list_empty(&appends)) {
            answer_append(random_below(10) > 0);
        } else if (what < 92 && !list_empty(&reads)) {
            answer_read(random_below(20) > 0);
        } else if (what < 96) {
            turn();
        }
        for (int j = i; j < i + 2 && j < CONSUMERS; j++) {
            struct waiter *waiter = &waiters[j];
            if (!is_under_way[j] || !waiter->answers)
                continue;
            is_under_way[j] = false;
            if (!waiter->ok)
                continue;
            if (waiter->missed || waiter->reset ||
                (waiter->count && waiter->first != cursors[j] + 1) ||
                waiter->ts != cursors[j] + waiter->count || waiter->answers != 1)
                fail_msg("step %d, consumer %d at %llu: %u updates from %llu, ts %llu", step, j,
                         (unsigned long long)cursors[j], waiter->count,
                         (unsigned long long)waiter->first, (unsigned long long)waiter->ts);
            cursors[j] = waiter->ts;
            delivered += waiter->count;
        }
    }
    assert_true(delivered > 10000);
    /* At the end everybody who waits has been told everything. */
    while (!list_empty(&appends) || !list_empty(&reads) || uv_loop_alive(&loop)) {
        if (!list_empty(&appends))
            answer_append(true);
        if (!list_empty(&reads))
            answer_read(true);
        turn();
    }
    for (int i = 0; i < CONSUMERS; i++)
        if (is_under_way[i] && !waiters[i].answers) {
            assert_int_equal(waiters[i].poll.state, POLL_PARKED);
            assert_int_equal(waiters[i].poll.ts, fake_channel(names[i % NAMES], 1)->total);
        }
}

static void test_consumers(void **state) {
    (void)state;
    run_consumers(64 << 20, 1);
}

static void test_consumers_with_a_small_cache(void **state) {
    (void)state;
    run_consumers(3000, 2);
}

#define INBOX_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        INBOX_TEST(test_first_poll_loads),
        INBOX_TEST(test_unknown_channel),
        INBOX_TEST(test_one_load_for_all),
        INBOX_TEST(test_parks_once),
        INBOX_TEST(test_failed_load),
        INBOX_TEST(test_backlog_is_read),
        INBOX_TEST(test_missed),
        INBOX_TEST(test_expired_in_memory),
        INBOX_TEST(test_reset),
        INBOX_TEST(test_limit_and_bytes_in_memory),
        INBOX_TEST(test_push),
        INBOX_TEST(test_channels_are_apart),
        INBOX_TEST(test_shared_answer),
        INBOX_TEST(test_slices),
        INBOX_TEST(test_slices_are_fair),
        INBOX_TEST(test_between_slices),
        INBOX_TEST(test_burst_beyond_the_bound),
        INBOX_TEST(test_cancel_in_each_state),
        INBOX_TEST(test_push_while_loading),
        INBOX_TEST(test_push_behind_the_load),
        INBOX_TEST(test_failed_load_behind_a_push),
        INBOX_TEST(test_cache_is_trimmed),
        INBOX_TEST(test_cache_too_small),
        INBOX_TEST(test_consumers),
        INBOX_TEST(test_consumers_with_a_small_cache),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
