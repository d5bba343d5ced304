#include "api/large_push.h"
#include "api/api.h"
#include "api/batch.h"
#include "api/push.h"
#include "base/turn.h"
#include "base/worker.h"
#include "http/budget.h"

#include <stdlib.h>

struct large_push {
    struct work work;          /* its link: in `waiting`, before it begins */
    struct exchange *exchange; /* NULL: the client has hung up */
    struct update_maker maker;
    struct payload payload;
    struct inbuf kept;     /* the request */
    size_t inflated_max;   /* bytes */
    size_t own_bytes;      /* counted in BUFFER_SIZE */
    size_t work_bytes;     /* counted there while the worker has it */
    enum http_error error; /* of the work */
    struct update *update; /* its result, unless it is a batch */
    bool is_batch;
    size_t channel_len;
    char channel[];
};

static void start_next(struct turn_task *task);

static struct list waiting = {&waiting, &waiting};
static struct turn_task turn = {{&turn.link, &turn.link}, start_next};
static struct large_push *current; /* the worker has it */

static struct slice channel_of(const struct large_push *push) {
    return (struct slice){push->channel, push->channel_len};
}

static void free_push(struct large_push *push) {
    if (push->update)
        update_unref(push->update);
    update_maker_deinit(&push->maker);
    payload_deinit(&push->payload);
    inbuf_free(&push->kept);
    budget_give(push->own_bytes);
    free(push);
}

/* Lets go of the exchange, which goes on without the push. */
static struct exchange *detach(struct large_push *push) {
    struct exchange *exchange = push->exchange;
    struct ask *ask = ask_of(exchange);
    ask->kind = ASK_PUSH;
    ask->push = NULL;
    push->exchange = NULL;
    return exchange;
}

static void refuse(struct large_push *push, enum http_error error) {
    struct refusal refusal = {
        .channel = channel_of(push),
        .origin = update_maker_origin(&push->maker),
        .error = error,
        .body_bytes = (int64_t)push->payload.bytes.len,
    };
    push_refuse(detach(push), &refusal);
    free_push(push);
}

void large_push_cancel(struct large_push *push) {
    detach(push);
    if (push == current)
        return;
    list_remove(&push->work.link);
    free_push(push);
}

/* --- The work --------------------------------------------------------------------------------- */

/* work.run: on the worker's thread. */
static void make(struct work *work) {
    struct large_push *push = container_of(work, struct large_push, work);
    push->error = payload_inflate(&push->payload, push->inflated_max);
    push->is_batch &= !push->payload.is_opaque;
    if (!push->error && !push->is_batch)
        push->error = update_maker_make(&push->maker, &push->payload, &push->update);
}

/* Hands over the update. The request, which made it, is not needed any more. */
static void push_result(struct large_push *push) {
    struct update *update = push->update;
    struct delivery delivery = push->maker.delivery;
    push->update = NULL;
    payload_deinit(&push->payload);
    update_maker_deinit(&push->maker);
    push->maker = (struct update_maker){0};
    inbuf_free(&push->kept);
    push_made(detach(push), channel_of(push), update, &delivery);
}

/* work.done. The next one begins behind it: this one needs the room that it had. */
static void made(struct work *work) {
    struct large_push *push = container_of(work, struct large_push, work);
    current = NULL;
    budget_give(push->work_bytes);
    bool is_room_lacking =
        push->error == ERROR_BODY_SIZE && push->inflated_max < api.connections->body_max_bytes;
    if (!push->exchange) {
        free_push(push);
    } else if (push->error) {
        refuse(push, is_room_lacking ? ERROR_BUSY : push->error);
    } else if (push->is_batch) {
        batch_go_on(detach(push), channel_of(push), &push->maker, &push->payload, &push->kept);
        free_push(push);
    } else {
        push_result(push);
        free_push(push);
    }
    turn_end(&turn);
}

/* Takes what the work may need of BUFFER_SIZE: its text and its update, each as long as the body.
 * How long an inflated one is nobody knows: it may have a quarter of what is left. */
static bool take_room(struct large_push *push) {
    size_t len = push->payload.bytes.len;
    push->inflated_max = api.connections->body_max_bytes;
    if (push->payload.codings.len) {
        size_t most = budget_left() / 4;
        if (push->inflated_max > most)
            push->inflated_max = most;
        len = push->inflated_max;
    }
    push->work_bytes = (push->payload.codings.len ? 3 : 2) * len;
    if (!budget_has(push->work_bytes))
        return false;
    budget_take(push->work_bytes);
    return true;
}

/* turn_task. So no push is refused while its connection goes on with what lies behind it, in the
 * bytes that exchange_keep() gave it. */
static void start_next(struct turn_task *task) {
    struct list *link = current ? NULL : list_shift(&waiting);
    if (!link)
        return;
    struct large_push *push = container_of(link, struct large_push, work.link);
    if (!take_room(push)) {
        refuse(push, ERROR_BUSY);
        turn_end(task);
        return;
    }
    current = push;
    worker_submit(&push->work);
}

/* --- Requests --------------------------------------------------------------------------------- */

/* Keeps what is needed of the request. False when there is no room for it. */
static bool keep(struct large_push *push, const struct request *request, const struct sent *sent) {
    if (!update_maker_init(&push->maker, request, sent, api.capture_headers))
        return false;
    size_t bytes = sizeof *push + update_maker_size(&push->maker);
    if (!budget_has(bytes) || !exchange_keep(push->exchange, request, &push->kept))
        return false;
    budget_take(bytes);
    push->own_bytes = bytes;
    const char *base = push->kept.data;
    push->payload.bytes = request_moved(request, push->payload.bytes, base);
    push->payload.content_type = request_moved(request, push->payload.content_type, base);
    push->payload.codings = request_moved(request, push->payload.codings, base);
    push->maker.query = request_moved(request, push->maker.query, base);
    return true;
}

void large_push_handle(struct exchange *exchange, const struct request *request,
                       struct slice channel, const struct sent *sent,
                       const struct payload *payload) {
    struct large_push *push = calloc(1, sizeof *push + channel.len);
    if (!push) {
        struct refusal refusal = push_refusal(request, channel, sent, ERROR_BUSY);
        push_refuse(exchange, &refusal);
        return;
    }
    struct ask *ask = ask_of(exchange);
    ask->large_push = push;
    ask->kind = ASK_LARGE_PUSH;
    push->work = (struct work){.run = make, .done = made};
    push->exchange = exchange;
    push->payload = *payload;
    push->is_batch = batch_is_type(payload->content_type);
    push->channel_len = channel.len;
    memcpy(push->channel, channel.data, channel.len);
    if (!keep(push, request, sent)) {
        refuse(push, ERROR_BUSY);
        return;
    }
    list_append(&waiting, &push->work.link);
    turn_end(&turn);
}
