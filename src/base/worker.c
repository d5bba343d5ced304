#include "base/worker.h"
#include "base/turn.h"

#include <signal.h>

static struct worker {
    uv_mutex_t mutex; /* guards the lists and is_stopping */
    uv_cond_t wake;
    struct list waiting, finished;
    bool is_stopping;
    uv_thread_t thread;
    bool has_thread;
    uint64_t unfinished; /* works whose done() is to come; the loop's */
    uv_async_t async;
    struct turn_task turn; /* does the work where there is no thread */
} the_worker;

/* --- The thread ------------------------------------------------------------------------------- */

static struct work *work_of(struct list *link) {
    return container_of(link, struct work, link);
}

/* Waits for the next work; NULL when the worker stops. */
static struct work *take(struct worker *worker) {
    uv_mutex_lock(&worker->mutex);
    while (list_empty(&worker->waiting) && !worker->is_stopping)
        uv_cond_wait(&worker->wake, &worker->mutex);
    struct list *link = list_shift(&worker->waiting);
    struct work *work = link ? work_of(link) : NULL;
    uv_mutex_unlock(&worker->mutex);
    return work;
}

static void hand_back(struct worker *worker, struct work *work) {
    uv_mutex_lock(&worker->mutex);
    list_append(&worker->finished, &work->link);
    uv_mutex_unlock(&worker->mutex);
    uv_async_send(&worker->async);
}

static void run_thread(void *context) {
    struct worker *worker = context;
    for (struct work *work; (work = take(worker));) {
        work->run(work);
        hand_back(worker, work);
    }
}

/* --- The loop --------------------------------------------------------------------------------- */

static void finish_all(struct worker *worker) {
    struct list finished;
    list_init(&finished);
    uv_mutex_lock(&worker->mutex);
    list_splice(&finished, &worker->finished);
    uv_mutex_unlock(&worker->mutex);
    for (struct list *link; (link = list_shift(&finished));) {
        struct work *work = work_of(link);
        if (!--worker->unfinished)
            uv_unref((uv_handle_t *)&worker->async);
        work->done(work);
    }
}

static void on_async(uv_async_t *async) {
    finish_all(container_of(async, struct worker, async));
}

/* turn_task: a work without a thread. */
static void on_turn(struct turn_task *task) {
    struct worker *worker = container_of(task, struct worker, turn);
    struct list *link = list_shift(&worker->waiting);
    if (!list_empty(&worker->waiting))
        turn_next(task);
    work_of(link)->run(work_of(link));
    list_append(&worker->finished, link);
    finish_all(worker);
}

int worker_init(uv_loop_t *loop) {
    struct worker *worker = &the_worker;
    *worker = (struct worker){0};
    int error = uv_async_init(loop, &worker->async, on_async);
    if (error)
        return error;
    uv_unref((uv_handle_t *)&worker->async);
    uv_mutex_init(&worker->mutex);
    uv_cond_init(&worker->wake);
    list_init(&worker->waiting);
    list_init(&worker->finished);
    turn_task_init(&worker->turn, on_turn);
    return 0;
}

/* A signal must reach the loop's thread, also where that does not want it just now. */
static bool start_thread(struct worker *worker) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool ok = uv_thread_create(&worker->thread, run_thread, worker) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return ok;
}

void worker_submit(struct work *work) {
    struct worker *worker = &the_worker;
    if (!worker->unfinished++) {
        uv_ref((uv_handle_t *)&worker->async);
        if (!worker->has_thread)
            worker->has_thread = start_thread(worker);
    }
    uv_mutex_lock(&worker->mutex);
    list_append(&worker->waiting, &work->link);
    uv_cond_signal(&worker->wake);
    uv_mutex_unlock(&worker->mutex);
    if (!worker->has_thread)
        turn_next(&worker->turn);
}

void worker_deinit(void) {
    struct worker *worker = &the_worker;
    uv_mutex_lock(&worker->mutex);
    worker->is_stopping = true;
    uv_cond_signal(&worker->wake);
    uv_mutex_unlock(&worker->mutex);
    if (worker->has_thread)
        uv_thread_join(&worker->thread);
    uv_mutex_destroy(&worker->mutex);
    uv_cond_destroy(&worker->wake);
    uv_close((uv_handle_t *)&worker->async, NULL);
}
