/*
 * The loop thread collects the operations of a turn and hands them over at its end. The store
 * thread takes all that wait, reads for a bounded time (and looks at cursors of consumers), commits
 * one batch of appends, and hands both back. While it commits, the next batch gathers: that is the
 * group commit. Between the threads are lists under one lock, and a uv_async_t.
 *
 * In memory there is nothing to wait for, so there is no thread: the loop does the same work itself
 * at the end of its turn, which saves every operation two switches of thread.
 */
#include "sqlite/store.h"
#include "base/turn.h"
#include "sqlite/data_lock.h"
#include "sqlite/data_stamp.h"
#include "sqlite/log_file.h"
#include "sqlite/update_log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    BATCH_MAX_UPDATES = 2048,
    BATCH_MAX_BYTES = 16 << 20,
    READ_TURN_MS = 5,          /* reads and cursors between two commits */
    LOOP_TURN_MS = 1,          /* without a thread: the same in one turn of the loop */
    ANSWERS_A_TURN = 512,      /* of the loop */
    READ_TURN_BYTES = 1 << 20, /* of updates read that the loop has not taken yet */
    MAINTENANCE_MS = 500,      /* from one maintenance to the next, at most */
    GO_ON_MS = 10,             /* the same on the loop, while there is more to do */
    STATS_MS = 200,            /* age of the figures that cost a query */
};

struct sqlite_store {
    struct store base;
    struct update_log *log; /* the store thread's, once that runs; only its clock is not */
    bool has_thread;
    bool is_ending; /* the store thread's, and so is stats_at */
    uint64_t stats_at;
    int lock_fd;      /* -1: none */
    const char *path; /* of the file that it locks */

    /* The loop thread's. */
    struct list new_appends, new_reads, new_cursors, new_purges;
    struct turn_task hand_over;
    struct list answers;    /* taken from `done` */
    struct turn_task go_on; /* answers more of them */
    uv_async_t async;
    uv_timer_t maintenance; /* without a thread */
    uv_thread_t thread;
    int open_handles;
    void (*closed)(void *context);
    void *closed_context;
    void (*settled)(void);
    struct buf *left; /* it is left, not closed; else NULL */

    /* Under the lock. */
    uv_mutex_t mutex;
    uv_cond_t wake;
    struct list appends, reads, cursors, purges; /* to be done */
    struct list done;  /* to be answered, in the order in which they were done */
    size_t done_bytes; /* of the updates read in them: then reads wait for the loop */
    bool is_waiting, stop;
    bool is_settling, is_settled;
    struct store_stats stats;
};

static struct sqlite_store *store_of(struct store *store) {
    return container_of(store, struct sqlite_store, base);
}

/* --- The store thread ------------------------------------------------------------------------- */

/* What the store thread has taken and not done yet. */
struct work {
    struct list reads, cursors, appends, purges;
};

/* Whether nothing can be done now: reads that were taken may wait for the loop to take those
 * before. */
static bool must_wait(const struct sqlite_store *store, const struct work *work) {
    if (!list_empty(&work->appends) || !list_empty(&store->appends) ||
        !list_empty(&work->cursors) || !list_empty(&store->cursors) || !list_empty(&work->purges) ||
        !list_empty(&store->purges))
        return false;
    if (store->is_settling)
        return false;
    bool is_full = store->done_bytes >= READ_TURN_BYTES;
    bool has_reads = !list_empty(&work->reads) || !list_empty(&store->reads);
    return !store->stop && (!has_reads || is_full);
}

/* Waits for work, if it may; takes all of it to the end of `work`. The loop waits for the lock, so
 * nothing here takes longer for more work. False at the end, when nothing is left to do. */
static bool take_work(struct sqlite_store *store, struct work *work, bool may_wait) {
    uv_mutex_lock(&store->mutex);
    if (may_wait && must_wait(store, work)) {
        store->is_waiting = true;
        uv_cond_timedwait(&store->wake, &store->mutex, (uint64_t)MAINTENANCE_MS * 1000000);
        store->is_waiting = false;
    }
    list_splice(&work->reads, &store->reads);
    list_splice(&work->cursors, &store->cursors);
    list_splice(&work->appends, &store->appends);
    list_splice(&work->purges, &store->purges);
    store->is_ending = store->stop;
    bool is_over = store->stop && list_empty(&work->reads) && list_empty(&work->cursors) &&
                   list_empty(&work->appends) && list_empty(&work->purges);
    uv_mutex_unlock(&store->mutex);
    return !is_over;
}

/* Moves the next batch from `appends` to `batch`. */
static void take_batch(struct list *appends, struct list *batch) {
    size_t bytes = 0;
    for (uint32_t count = 0; count < BATCH_MAX_UPDATES && bytes < BATCH_MAX_BYTES;) {
        struct list *link = list_shift(appends);
        if (!link)
            break;
        const struct store_append *append = container_of(link, struct store_append, op.link);
        count += append->count;
        bytes += store_append_size(append);
        list_append(batch, link);
    }
}

/* Hands the operations of `done`, which hold `bytes` of updates read, and the figures back to the
 * loop. */
static void hand_back(struct sqlite_store *store, struct list *done, size_t bytes,
                      struct store_stats *stats) {
    static const uint64_t stats_ns = (uint64_t)STATS_MS * 1000000;
    uint64_t now = uv_hrtime();
    if (now - store->stats_at > stats_ns) {
        store->stats_at = now;
        update_log_count_bytes(store->log, stats);
    }
    update_log_stats(store->log, stats);
    uv_mutex_lock(&store->mutex);
    bool is_empty = list_empty(done);
    list_splice(&store->done, done);
    store->done_bytes += bytes;
    store->stats = *stats;
    uv_mutex_unlock(&store->mutex);
    if (!is_empty)
        uv_async_send(&store->async);
}

static size_t read_bytes(const struct store_read *read) {
    size_t bytes = 0;
    for (uint32_t i = 0; i < read->count; i++)
        bytes += update_size(read->updates[i]);
    return bytes;
}

/* At the end nobody waits for a read any more. */
static void do_read(struct sqlite_store *store, struct store_read *read) {
    if (store->is_ending)
        read->error = STORE_FAILED;
    else
        update_log_read(store->log, read);
}

/* Does operations on cursors until `end_ns`; those done move to `done`. */
static void do_cursors(struct sqlite_store *store, struct list *cursors, struct list *done,
                       uint64_t end_ns) {
    for (struct list *link; uv_hrtime() < end_ns && (link = list_shift(cursors));) {
        update_log_cursors(store->log, container_of(link, struct store_cursors, op.link));
        list_append(done, link);
    }
}

/* Does one purge, and more until `end_ns`; those done move to `done`. */
static void do_purges(struct sqlite_store *store, struct list *purges, struct list *done,
                      uint64_t end_ns) {
    bool has_time = true;
    for (struct list *link; has_time && (link = list_shift(purges));
         has_time = uv_hrtime() < end_ns) {
        update_log_purge(store->log, container_of(link, struct store_purge, op.link));
        list_append(done, link);
    }
}

/* Does one read, and more until `end_ns`, unless they have brought `max_bytes`; those done move to
 * `done`. Returns what they brought. */
static size_t do_reads(struct sqlite_store *store, struct list *reads, struct list *done,
                       size_t max_bytes, uint64_t end_ns, struct store_stats *stats) {
    size_t bytes = 0;
    bool has_time = true;
    for (struct list *link; has_time && bytes < max_bytes && (link = list_shift(reads));
         has_time = uv_hrtime() < end_ns) {
        struct store_read *read = container_of(link, struct store_read, op.link);
        do_read(store, read);
        bytes += read_bytes(read);
        list_append(done, link);
        stats->reads++;
    }
    return bytes;
}

/* Does what waits for no commit, for a turn's time: cursors for half of it at most, so that reads
 * get on. Returns what reads brought. */
static size_t do_turn(struct sqlite_store *store, struct list *cursors, struct list *reads,
                      struct list *done, size_t max_bytes, struct store_stats *stats) {
    uint64_t ms = store->has_thread ? READ_TURN_MS : LOOP_TURN_MS;
    uint64_t now_ns = uv_hrtime(), turn_ns = ms * 1000000;
    do_cursors(store, cursors, done, now_ns + turn_ns / 2);
    return do_reads(store, reads, done, max_bytes, now_ns + turn_ns, stats);
}

/* How much reads may bring before the loop takes it. */
static size_t read_room(struct sqlite_store *store) {
    uv_mutex_lock(&store->mutex);
    size_t bytes = store->stop ? 0 : store->done_bytes;
    uv_mutex_unlock(&store->mutex);
    return bytes < READ_TURN_BYTES ? READ_TURN_BYTES - bytes : 0;
}

static void close_log(struct sqlite_store *store) {
    bool is_clean = update_log_close(store->log, store->left != NULL);
    if (is_clean && store->left)
        data_stamp_tell(store->left, store->path);
    else if (is_clean && store->lock_fd >= 0)
        data_stamp_put(store->lock_fd, store->path);
    store->log = NULL;
}

/* Commits a batch, and purges; then a slice of what purges have left. */
static void do_commits(struct sqlite_store *store, struct work *work, struct list *batch,
                       struct store_stats *stats) {
    if (!list_empty(batch)) {
        update_log_append(store->log, batch);
        hand_back(store, batch, 0, stats);
        update_log_bound_wal(store->log);
    }
    if (!list_empty(&work->purges)) {
        do_purges(store, &work->purges, batch, uv_hrtime() + (uint64_t)READ_TURN_MS * 1000000);
        hand_back(store, batch, 0, stats);
    }
    update_log_purge_some(store->log);
}

/* Does a slice of what leaving would have to do, if somebody waits for that. */
static void settle_some(struct sqlite_store *store, struct store_stats *stats) {
    uv_mutex_lock(&store->mutex);
    bool is_settling = store->is_settling;
    uv_mutex_unlock(&store->mutex);
    if (!is_settling || update_log_settle(store->log))
        return;
    update_log_stats(store->log, stats); /* the trouble that it may have had */
    uv_mutex_lock(&store->mutex);
    store->stats = *stats;
    store->is_settling = false;
    store->is_settled = true;
    uv_mutex_unlock(&store->mutex);
    uv_async_send(&store->async);
}

static void init_work(struct work *work) {
    list_init(&work->reads);
    list_init(&work->cursors);
    list_init(&work->appends);
    list_init(&work->purges);
}

static void run_store(void *context) {
    struct sqlite_store *store = context;
    struct store_stats stats = {0};
    struct work work;
    struct list batch, done;
    init_work(&work);
    list_init(&batch);
    list_init(&done);
    bool is_busy = false; /* maintenance is left over */
    uint64_t maintained_at = 0;
    while (take_work(store, &work, !is_busy)) {
        take_batch(&work.appends, &batch);
        bool has_reads = !list_empty(&work.reads) || !list_empty(&work.cursors);
        bool has_commits = !list_empty(&batch) || !list_empty(&work.purges);
        bool had_work = has_reads || has_commits;
        if (has_reads) { /* before the commit: reads need not wait for the disk */
            size_t bytes =
                do_turn(store, &work.cursors, &work.reads, &done, read_room(store), &stats);
            hand_back(store, &done, bytes, &stats);
        }
        if (has_commits)
            do_commits(store, &work, &batch, &stats);
        settle_some(store, &stats);
        is_busy = false;
        bool is_due = uv_hrtime() - maintained_at > (uint64_t)MAINTENANCE_MS * 1000000;
        if (!had_work || is_due) {
            maintained_at = uv_hrtime();
            is_busy |= update_log_maintain(store->log, !had_work);
            hand_back(store, &done, 0, &stats);
        }
    }
    close_log(store);
    uv_async_send(&store->async);
}

/* --- The loop thread -------------------------------------------------------------------------- */

static void queue_append(struct store *base, struct store_append *append) {
    struct sqlite_store *store = store_of(base);
    list_append(&store->new_appends, &append->op.link);
    turn_end(&store->hand_over);
}

static void queue_read(struct store *base, struct store_read *read) {
    struct sqlite_store *store = store_of(base);
    list_append(&store->new_reads, &read->op.link);
    turn_end(&store->hand_over);
}

static void queue_cursors(struct store *base, struct store_cursors *cursors) {
    struct sqlite_store *store = store_of(base);
    list_append(&store->new_cursors, &cursors->op.link);
    turn_end(&store->hand_over);
}

static void queue_purge(struct store *base, struct store_purge *purge) {
    struct sqlite_store *store = store_of(base);
    list_append(&store->new_purges, &purge->op.link);
    turn_end(&store->hand_over);
}

static void answer(struct list *done, uint32_t max) {
    for (struct list *link; max-- && (link = list_shift(done));) {
        struct store_op *op = container_of(link, struct store_op, link);
        op->done(op);
    }
}

static bool has_new(const struct sqlite_store *store) {
    return !list_empty(&store->new_appends) || !list_empty(&store->new_reads) ||
           !list_empty(&store->new_cursors) || !list_empty(&store->new_purges);
}

/* Without a thread: does the operations of this turn. What would take too long, and what answers
 * bring, is left for the next turn. */
static void work_on_loop(struct sqlite_store *store) {
    struct list done;
    list_init(&done);
    do_turn(store, &store->new_cursors, &store->new_reads, &done, READ_TURN_BYTES, &store->stats);
    answer(&done, UINT32_MAX);
    struct list *link;
    size_t bytes = 0;
    for (int count = 0; count < ANSWERS_A_TURN && bytes < READ_TURN_BYTES &&
                        (link = list_shift(&store->new_appends));
         count++) {
        bytes += store_append_size(container_of(link, struct store_append, op.link));
        list_append(&done, link);
    }
    if (!list_empty(&done))
        update_log_append(store->log, &done);
    answer(&done, UINT32_MAX);
    do_purges(store, &store->new_purges, &done, uv_hrtime() + (uint64_t)LOOP_TURN_MS * 1000000);
    answer(&done, UINT32_MAX);
    turn_cancel(&store->hand_over);
    if (has_new(store))
        turn_next(&store->hand_over);
}

static void on_maintenance(uv_timer_t *timer) {
    struct sqlite_store *store = container_of(timer, struct sqlite_store, maintenance);
    uint64_t end = uv_hrtime() + (uint64_t)LOOP_TURN_MS * 1000000;
    bool has_more = true;
    while (has_more && uv_hrtime() < end)
        has_more = update_log_maintain(store->log, true);
    if (has_more)
        uv_timer_start(timer, on_maintenance, GO_ON_MS, MAINTENANCE_MS);
}

/* Hands the operations of this turn to the store thread. `stop`: they are the last. */
static void hand_to_thread(struct sqlite_store *store, bool stop) {
    uv_mutex_lock(&store->mutex);
    list_splice(&store->appends, &store->new_appends);
    list_splice(&store->reads, &store->new_reads);
    list_splice(&store->cursors, &store->new_cursors);
    list_splice(&store->purges, &store->new_purges);
    store->stop |= stop;
    if (store->is_waiting)
        uv_cond_signal(&store->wake);
    uv_mutex_unlock(&store->mutex);
}

static void on_turn_end(struct turn_task *task) {
    struct sqlite_store *store = container_of(task, struct sqlite_store, hand_over);
    if (store->has_thread)
        hand_to_thread(store, false);
    else
        work_on_loop(store);
}

static void on_handle_closed(uv_handle_t *handle) {
    struct sqlite_store *store = handle->data;
    if (--store->open_handles)
        return;
    uv_mutex_destroy(&store->mutex);
    uv_cond_destroy(&store->wake);
    if (store->lock_fd >= 0)
        close(store->lock_fd);
    void (*closed)(void *) = store->closed;
    void *context = store->closed_context;
    free(store);
    closed(context);
}

static void close_handles(struct sqlite_store *store) {
    uv_close((uv_handle_t *)&store->async, on_handle_closed);
    uv_close((uv_handle_t *)&store->maintenance, on_handle_closed);
}

/* Takes what is done. Only when all that was taken before is answered: so much and no more is read
 * ahead. */
static void take_done(struct sqlite_store *store) {
    uv_mutex_lock(&store->mutex);
    list_splice(&store->answers, &store->done);
    store->done_bytes = 0;
    if (store->is_waiting)
        uv_cond_signal(&store->wake);
    uv_mutex_unlock(&store->mutex);
}

/* Answers what is done, a slice a turn. */
static void answer_some(struct sqlite_store *store) {
    take_done(store);
    answer(&store->answers, ANSWERS_A_TURN);
    if (!list_empty(&store->answers))
        turn_next(&store->go_on);
}

static void on_go_on(struct turn_task *task) {
    struct sqlite_store *store = container_of(task, struct sqlite_store, go_on);
    answer(&store->answers, ANSWERS_A_TURN);
    if (list_empty(&store->answers))
        take_done(store); /* the thread has told of it already */
    if (!list_empty(&store->answers))
        turn_next(task);
}

/* Answers all that is done. */
static void answer_all(struct sqlite_store *store) {
    turn_cancel(&store->go_on);
    answer(&store->answers, UINT32_MAX);
    take_done(store);
    answer(&store->answers, UINT32_MAX);
}

static void settle(struct store *base, void (*settled)(void)) {
    struct sqlite_store *store = store_of(base);
    if (!store->has_thread) {
        settled();
        return;
    }
    store->settled = settled;
    uv_mutex_lock(&store->mutex);
    store->is_settling = true;
    if (store->is_waiting)
        uv_cond_signal(&store->wake);
    uv_mutex_unlock(&store->mutex);
}

static void tell_settled(struct sqlite_store *store) {
    uv_mutex_lock(&store->mutex);
    bool is_settled = store->is_settled;
    store->is_settled = false;
    uv_mutex_unlock(&store->mutex);
    if (is_settled)
        store->settled();
}

static void on_async(uv_async_t *async) {
    struct sqlite_store *store = container_of(async, struct sqlite_store, async);
    if (!store->closed) {
        tell_settled(store);
        if (!turn_is_due(&store->go_on))
            answer_some(store);
        return;
    }
    answer_all(store);
    if (uv_is_closing((uv_handle_t *)async))
        return;
    uv_thread_join(&store->thread);
    answer_all(store);
    close_handles(store);
}

static void get_stats(struct store *base, struct store_stats *stats) {
    struct sqlite_store *store = store_of(base);
    if (!store->has_thread) {
        update_log_stats(store->log, &store->stats);
        update_log_count_bytes(store->log, &store->stats);
    }
    uv_mutex_lock(&store->mutex);
    *stats = store->stats;
    uv_mutex_unlock(&store->mutex);
    stats->up = 1;
}

static enum store_error get_health(struct store *base, struct buf *line) {
    struct store_stats stats;
    get_stats(base, &stats);
    if (line && stats.trouble)
        buf_puts(line, stats.trouble);
    else if (line && stats.damaged)
        buf_printf(line, "damaged updates left out: %" PRIu64 "; see longline check",
                   stats.damaged);
    return stats.trouble ? STORE_FAILED : STORE_OK;
}

static int64_t get_now_ms(const struct store *base) {
    return update_log_now_ms(container_of(base, const struct sqlite_store, base)->log);
}

static void close_store(struct store *base, void (*closed)(void *context), void *context) {
    struct sqlite_store *store = store_of(base);
    store->closed = closed;
    store->closed_context = context;
    turn_cancel(&store->hand_over);
    if (store->has_thread) {
        hand_to_thread(store, true);
        return;
    }
    while (has_new(store))
        work_on_loop(store);
    turn_cancel(&store->hand_over);
    close_log(store);
    close_handles(store);
}

static void leave_store(struct store *base, struct buf *left, void (*closed)(void *context),
                        void *context) {
    struct sqlite_store *store = store_of(base);
    store->left = store->has_thread ? left : NULL;
    close_store(base, closed, context);
}

/* --- Opening ---------------------------------------------------------------------------------- */

static void init_lists(struct sqlite_store *store) {
    struct list *lists[] = {&store->new_appends, &store->new_reads, &store->new_cursors,
                            &store->new_purges,  &store->appends,   &store->reads,
                            &store->cursors,     &store->purges,    &store->done,
                            &store->answers};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        list_init(lists[i]);
}

static void init_handles(struct sqlite_store *store, uv_loop_t *loop) {
    turn_task_init(&store->hand_over, on_turn_end);
    turn_task_init(&store->go_on, on_go_on);
    uv_async_init(loop, &store->async, on_async);
    uv_timer_init(loop, &store->maintenance);
    store->async.data = store->maintenance.data = store;
    store->open_handles = 2;
}

static bool start_work(struct sqlite_store *store) {
    if (store->has_thread)
        return uv_thread_create(&store->thread, run_store, store) == 0;
    uv_timer_start(&store->maintenance, on_maintenance, MAINTENANCE_MS, MAINTENANCE_MS);
    return true;
}

/* Takes the lock, where there is a file, and opens the log. */
static bool open_log(struct sqlite_store *store, const struct store_options *options, char *error,
                     size_t error_size) {
    bool goes_on = false;
    if (options->path) {
        store->lock_fd = data_lock(options->path, error, error_size);
        if (store->lock_fd < 0)
            return false;
        store->path = options->path;
        bool was_left = data_stamp_fits(options->left, options->path);
        goes_on = data_stamp_take(store->lock_fd, options->path) || was_left;
    }
    store->log = update_log_open(options, goes_on, error, error_size);
    if (!store->log && store->lock_fd >= 0)
        close(store->lock_fd);
    return store->log != NULL;
}

struct store *store_sqlite_open(uv_loop_t *loop, const struct store_options *options, char *error,
                                size_t error_size) {
    static const struct store_ops ops = {.append = queue_append,
                                         .read = queue_read,
                                         .cursors = queue_cursors,
                                         .purge = queue_purge,
                                         .stats = get_stats,
                                         .now_ms = get_now_ms,
                                         .health = get_health,
                                         .settle = settle,
                                         .close = close_store,
                                         .leave = leave_store};
    struct sqlite_store *store = calloc(1, sizeof *store);
    if (!store) {
        snprintf(error, error_size, "out of memory");
        return NULL;
    }
    store->base.ops = &ops;
    store->lock_fd = -1;
    store->has_thread = options->path != NULL;
    if (!open_log(store, options, error, error_size)) {
        free(store);
        return NULL;
    }
    update_log_stats(store->log, &store->stats);
    update_log_count_bytes(store->log, &store->stats);
    uv_mutex_init(&store->mutex);
    uv_cond_init(&store->wake);
    init_lists(store);
    init_handles(store, loop);
    if (start_work(store))
        return &store->base;
    /* The process ends: the handles stay as they are. */
    snprintf(error, error_size, "out of memory for a second thread");
    close_log(store);
    return NULL;
}

bool store_sqlite_knows(const char *path, char *error, size_t error_size) {
    struct log_file file;
    bool ok = log_file_open_to_read(&file, path, false, error, error_size);
    log_file_close(&file);
    return ok;
}
