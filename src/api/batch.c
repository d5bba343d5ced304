#include "api/batch.h"
#include "api/api.h"
#include "api/make_update.h"
#include "api/push.h"
#include "base/log.h"
#include "base/turn.h"
#include "http/budget.h"

#include <stdlib.h>

struct batch {
    struct list link; /* in `waiting`, or to itself */
    struct exchange *exchange;
    struct update_maker maker;
    struct buf inflated; /* what the lines lie in, if they came compressed */
    struct inbuf kept;   /* the request, once the batch waits */
    struct slice rest;   /* the lines to come; its data is NULL when there are none */
    uint64_t line;       /* how many there were */
    bool is_bad_line;    /* the last one is at fault */
    uint32_t count, cap;
    struct update **updates;
    struct delivery *deliveries; /* with as much room, if they may have ids; else NULL */
    size_t bytes;                /* of both, counted in BUFFER_SIZE */
    size_t copies;               /* of them beyond their lines */
    size_t own_bytes;            /* counted in BUFFER_SIZE while it waits */
    size_t body_len;             /* of the request, inflated */
    size_t channel_len;
    char channel[];
};

static void run_queue(struct turn_task *task);

/* All batches of the process. */
static struct list waiting = {&waiting, &waiting};
static struct turn_task turn = {{&turn.link, &turn.link}, run_queue};
static size_t work_left = BATCH_TURN_WORK; /* for requests, in this turn */
static uint64_t storing;                   /* updates of batches that the store has */
static bool is_failing;                    /* it did not store the last batch: none waits for it */

/* --- The type --------------------------------------------------------------------------------- */

bool batch_is_type(struct slice content_type) {
    static const struct slice types[] = {
        SLICE("application/x-ndjson"),  SLICE("application/ndjson"),
        SLICE("application/jsonl"),     SLICE("application/x-jsonl"),
        SLICE("application/jsonlines"), SLICE("application/x-jsonlines"),
    };
    struct slice type;
    if (!slice_cut(&content_type, ';', &type))
        return false;
    type = slice_trim(type);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (slice_equal_nocase(type, types[i]))
            return true;
    return false;
}

/* --- Making and freeing ----------------------------------------------------------------------- */

static void free_batch(struct batch *batch) {
    list_remove(&batch->link);
    update_maker_deinit(&batch->maker);
    buf_deinit(&batch->inflated);
    inbuf_free(&batch->kept);
    budget_give(batch->own_bytes);
    free(batch);
}

static void drop_updates(struct batch *batch) {
    for (uint32_t i = 0; i < batch->count; i++)
        update_unref(batch->updates[i]);
    free(batch->updates);
    free(batch->deliveries);
    budget_give(batch->bytes);
}

void batch_cancel(struct batch *batch) {
    struct ask *ask = ask_of(batch->exchange);
    ask->kind = ASK_PUSH;
    ask->push = NULL;
    drop_updates(batch);
    free_batch(batch);
}

static struct refusal refusal_of(const struct batch *batch, enum http_error error) {
    return (struct refusal){
        .channel = {batch->channel, batch->channel_len},
        .origin = update_maker_origin(&batch->maker),
        .error = error,
        .line = batch->is_bad_line ? batch->line : 0,
        .body_bytes = (int64_t)batch->body_len,
    };
}

static void refuse(struct batch *batch, enum http_error error) {
    struct exchange *exchange = batch->exchange;
    struct refusal refusal = refusal_of(batch, error);
    refusals_note(&refusal);
    batch_cancel(batch);
    push_forget(ask_of(exchange));
    reply_error_in(exchange, refusal.line, error);
}

/* Takes over the payload. NULL when memory is out. */
static struct batch *new_batch(struct exchange *exchange, struct slice channel,
                               struct payload *payload) {
    struct batch *batch = calloc(1, sizeof *batch + channel.len);
    if (!batch)
        return NULL;
    list_init(&batch->link);
    batch->exchange = exchange;
    batch->body_len = payload->bytes.len;
    batch->channel_len = channel.len;
    memcpy(batch->channel, channel.data, channel.len);
    struct slice bom = SLICE("\xEF\xBB\xBF");
    bool has_bom = slice_starts_with(payload->bytes, bom);
    batch->rest = has_bom ? slice_after(payload->bytes, bom.len) : payload->bytes;
    batch->inflated = payload->inflated;
    payload->inflated = (struct buf){0};
    struct ask *ask = ask_of(exchange);
    ask->batch = batch;
    ask->kind = ASK_BATCH;
    return batch;
}

/* --- Updates ---------------------------------------------------------------------------------- */

/* Makes room for one more; false when memory is out. */
static bool grow(struct batch *batch) {
    if (batch->count < batch->cap)
        return true;
    uint32_t cap = batch->cap ? batch->cap * 2 : 64;
    struct update **updates = realloc(batch->updates, cap * sizeof *updates);
    if (!updates)
        return false;
    batch->updates = updates;
    if (batch->maker.source.is_any) {
        struct delivery *deliveries = realloc(batch->deliveries, cap * sizeof *deliveries);
        if (!deliveries)
            return false;
        batch->deliveries = deliveries;
    }
    batch->cap = cap;
    return true;
}

/* What an update of the batch takes beyond its line: the query twice when it is merged in. */
static size_t copies_max(const struct batch *batch) {
    const struct update_maker *maker = &batch->maker;
    return sizeof(struct update) + maker->headers.len + maker->method.len + 7 * maker->query.len;
}

/* Makes the update of a line. */
static enum http_error add_update(struct batch *batch, struct slice line) {
    if (batch->count == APPEND_MAX_UPDATES)
        return ERROR_BATCH_COUNT;
    batch->is_bad_line = line.len > BATCH_LINE_MAX_BYTES;
    if (batch->is_bad_line)
        return ERROR_BATCH_LINE;
    if (!budget_has(2 * line.len + copies_max(batch)) || !grow(batch))
        return ERROR_BUSY;
    struct update *update;
    struct payload payload = {.bytes = line, .content_type = SLICE("")};
    enum http_error error = update_maker_make(&batch->maker, &payload, &update);
    batch->is_bad_line = error && error != ERROR_BUSY;
    if (error)
        return error;
    size_t size = update_size(update), lines = (update->has_raw ? 2 : 1) * line.len;
    if (batch->deliveries)
        batch->deliveries[batch->count] = batch->maker.delivery;
    batch->updates[batch->count++] = update;
    size_t taken = size + (batch->deliveries ? sizeof *batch->deliveries : 0);
    batch->bytes += taken;
    budget_take(taken);
    batch->copies += size > lines ? size - lines : 0;
    return batch->copies > BATCH_COPIES_MAX_BYTES ? ERROR_BATCH_SIZE : HTTP_NO_ERROR;
}

/* Makes updates until `*work` is used up, which it counts down, or all lines are read. */
static enum http_error make_some(struct batch *batch, size_t *work) {
    enum http_error error = HTTP_NO_ERROR;
    struct slice line;
    while (*work && !error && slice_cut(&batch->rest, '\n', &line)) {
        size_t bytes = batch->bytes, done = BATCH_LINE_WORK + line.len;
        batch->line++;
        if (line.len && line.data[line.len - 1] == '\r')
            line.len--;
        if (skip_blank(line).len)
            error = add_update(batch, line);
        done += batch->bytes - bytes;
        *work -= done < *work ? done : *work;
    }
    return error;
}

/* All lines are read: hands the updates to the inbox. */
static void push(struct batch *batch) {
    if (!batch->count) {
        refuse(batch, ERROR_BATCH_EMPTY);
        return;
    }
    struct exchange *exchange = batch->exchange;
    struct ask *ask = ask_of(exchange);
    struct slice channel = {batch->channel, batch->channel_len};
    log_debug("push", "channel", log_secret(channel).text, "bytes", log_number(batch->bytes).text,
              "updates", log_number(batch->count).text, NULL);
    ask->kind = ASK_PUSH;
    ask->push = inbox_push_batch(api.inbox, channel, batch->updates, batch->deliveries,
                                 batch->count, exchange);
    if (ask->push) {
        budget_take(PUSH_BYTES);
        storing += batch->count;
    } else {
        struct refusal refusal = refusal_of(batch, ERROR_BUSY);
        budget_give(batch->bytes);
        push_refuse(exchange, &refusal);
    }
    free_batch(batch);
}

/* Goes on with the batch. True if it is not done: there is no work left in this turn. */
static bool go_on(struct batch *batch, size_t *work) {
    enum http_error error = make_some(batch, work);
    if (!error && batch->rest.data)
        return true;
    if (error)
        refuse(batch, error);
    else
        push(batch);
    return false;
}

/* --- The queue -------------------------------------------------------------------------------- */

static bool may_store(void) {
    return is_failing || storing < APPEND_MAX_UPDATES;
}

static void run_queue(struct turn_task *task) {
    size_t work = BATCH_TURN_WORK;
    work_left = BATCH_TURN_WORK;
    while (work && may_store() && !list_empty(&waiting))
        go_on(container_of(waiting.next, struct batch, link), &work);
    if (may_store() && !list_empty(&waiting))
        turn_next(task);
}

/* Counts what it takes while it waits. False when there is no room for it. */
static bool take_room(struct batch *batch) {
    size_t bytes = sizeof *batch + update_maker_size(&batch->maker) + batch->inflated.cap;
    if (!budget_has(bytes))
        return false;
    budget_take(bytes);
    batch->own_bytes = bytes;
    return true;
}

/* Lets the batch wait for its turn. False when there is no room for its bytes. */
static bool enqueue(struct batch *batch, const struct request *request) {
    if (!take_room(batch) || !exchange_keep(batch->exchange, request, &batch->kept))
        return false;
    if (!batch->inflated.data)
        batch->rest = request_moved(request, batch->rest, batch->kept.data);
    batch->maker.query = request_moved(request, batch->maker.query, batch->kept.data);
    list_append(&waiting, &batch->link);
    return true;
}

void batch_handle(struct exchange *exchange, const struct request *request, struct slice channel,
                  const struct sent *sent, struct payload *payload) {
    struct batch *batch = new_batch(exchange, channel, payload);
    if (!batch) {
        struct refusal refusal = push_refusal(request, channel, sent, ERROR_BUSY);
        push_refuse(exchange, &refusal);
        return;
    }
    if (!update_maker_init(&batch->maker, request, sent, api.capture_headers)) {
        refuse(batch, ERROR_BUSY);
        return;
    }
    turn_end(&turn);
    if (list_empty(&waiting) && may_store() && work_left && !go_on(batch, &work_left))
        return;
    if (!enqueue(batch, request))
        refuse(batch, ERROR_BUSY);
}

void batch_go_on(struct exchange *exchange, struct slice channel, struct update_maker *maker,
                 struct payload *payload, struct inbuf *kept) {
    struct batch *batch = new_batch(exchange, channel, payload);
    if (!batch) {
        struct refusal refusal = {
            .channel = channel,
            .origin = update_maker_origin(maker),
            .error = ERROR_BUSY,
            .body_bytes = (int64_t)payload->bytes.len,
        };
        push_refuse(exchange, &refusal);
        return;
    }
    batch->maker = *maker;
    batch->kept = *kept;
    *maker = (struct update_maker){0};
    *kept = (struct inbuf){0};
    if (!take_room(batch)) {
        refuse(batch, ERROR_BUSY);
        return;
    }
    list_append(&waiting, &batch->link);
    turn_next(&turn);
}

void batch_done(uint32_t count, bool is_stored) {
    storing -= count;
    is_failing = !is_stored;
    if (!list_empty(&waiting))
        turn_next(&turn);
}
