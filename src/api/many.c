#include "api/many.h"
#include "api/api.h"
#include "api/handover.h"
#include "api/make_update.h"
#include "api/many_body.h"
#include "api/page.h"
#include "api/poll.h"
#include "api/poll_query.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"
#include "base/turn.h"
#include "base/worker.h"
#include "http/budget.h"

#include <sodium.h>
#include <stdlib.h>

/* A channel of it. */
struct member {
    struct poll poll;
    struct many *many;
    struct slice key;  /* between its quotes, as it was sent */
    struct slice name; /* of the channel */
    int64_t asked_ts;
    uint64_t asked_epoch;
    struct answer *answer; /* to be told, with updates of its own; NULL: nothing */
    size_t size;           /* bytes of those */
    uint64_t purges;       /* inbox_purges() when it was given */
    uint8_t error;         /* enum http_error: its store's */
};

struct many {
    struct exchange *exchange; /* NULL: the client has hung up while the worker writes */
    struct turn_task settle;   /* replies, if it is time */
    struct filter *filter;     /* of all its polls; NULL: none */
    struct work work;          /* writes a large reply */
    struct reply *reply;
    struct lines headers;
    unsigned flags;
    bool is_full;
    bool is_over;    /* a poll has something to say */
    bool is_expired; /* there is nothing to wait for but the outcome of the polls */
    bool is_late;    /* MANY_LATE_MS have begun */
    bool is_writing;
    bool has_no_room;      /* for an answer that it should tell */
    enum http_error error; /* of the whole; none so far */
    enum http_error first_failure;
    uint32_t failed;     /* members */
    uint32_t left_out;   /* answers, of which one is `last` */
    uint32_t start;      /* of equal answers, those from this member on come first */
    struct member *last; /* whose answer is told beyond MANY_REPLY_BYTES */
    size_t told_bytes;   /* of updates of the other answers */
    size_t own_bytes;    /* counted in BUFFER_SIZE, and so are */
    size_t answer_bytes; /* those of the answers */
    size_t work_bytes;   /* counted while the worker writes */
    uint32_t count;
    struct member members[]; /* behind them, their keys and names */
};

static struct member *end_of(struct many *many) {
    return many->members + many->count;
}

/* --- Answers ---------------------------------------------------------------------------------- */

static size_t answer_bytes(const struct member *member) {
    const struct answer *answer = member->answer;
    return sizeof *answer + answer->count * sizeof(struct update *) + member->size;
}

/* Counts the answer, or no more. */
static void count_answer(struct member *member, bool is_taken) {
    size_t bytes = answer_bytes(member);
    if (is_taken) {
        budget_take(bytes);
        member->many->answer_bytes += bytes;
    } else {
        budget_give(bytes);
        member->many->answer_bytes -= bytes;
    }
}

/* Whether there is room for so many bytes more of it. */
static bool has_room(const struct many *many, size_t bytes) {
    return budget_has_more_for_one(bytes, many->own_bytes + many->answer_bytes);
}

static void drop_answer(struct member *member) {
    if (!member->answer)
        return;
    count_answer(member, false);
    for (uint32_t i = 0; i < member->answer->count; i++)
        update_unref(member->answer->updates[i]);
    free(member->answer);
    member->answer = NULL;
}

/* False when there is no room for it. */
static bool take_answer(struct member *member, const struct answer *answer) {
    size_t list_bytes = answer->count * sizeof(struct update *);
    member->size = 0;
    for (uint32_t i = 0; i < answer->count; i++)
        member->size += update_size(answer->updates[i]);
    struct answer *own = has_room(member->many, sizeof *own + list_bytes + member->size)
                             ? malloc(sizeof *own + list_bytes)
                             : NULL;
    if (!own)
        return false;
    *own = *answer;
    own->updates = (struct update **)(own + 1);
    for (uint32_t i = 0; i < answer->count; i++)
        own->updates[i] = update_ref(answer->updates[i]);
    member->answer = own;
    member->purges = inbox_purges(api.inbox);
    count_answer(member, true);
    return true;
}

/* Whether the client needs a ts to go on from: it has asked from `now`, or for the last K. */
static bool needs_cursor(const struct member *member) {
    return member->asked_ts < 0;
}

/* Leaves of the answer where it begins. */
static void empty_answer(struct member *member) {
    struct answer start = *member->answer;
    answer_cut(&start, 0);
    drop_answer(member);
    if (!take_answer(member, &start))
        member->many->error = ERROR_BUSY;
}

static bool may_be_purged(const struct member *member) {
    const struct answer *answer = member->answer;
    return answer && answer->count &&
           inbox_may_be_purged(api.inbox, member->name, answer->updates[0]->ts, member->purges);
}

/* Leaves out what may be purged since it was given: the next poll asks for it again. */
static void leave_out_purged(struct many *many) {
    for (struct member *member = many->members; member < end_of(many); member++) {
        if (!may_be_purged(member))
            continue;
        if (member != many->last)
            many->told_bytes -= member->size;
        empty_answer(member);
    }
}

/* The place of a member among those whose answers are of one size. */
static uint32_t rank_of(const struct many *many, const struct member *member) {
    return ((uint32_t)(member - many->members) + many->count - many->start) % many->count;
}

/* The largest answer but the last. */
static struct member *largest_of(struct many *many) {
    struct member *largest = NULL;
    for (struct member *member = many->members; member < end_of(many); member++) {
        if (!member->answer || member == many->last)
            continue;
        if (!largest || member->size > largest->size ||
            (member->size == largest->size && rank_of(many, member) > rank_of(many, largest)))
            largest = member;
    }
    return largest;
}

/* An answer is too large: it is the last one, or comes with the next poll. Each that is left out
 * has the same chance. */
static void leave_out(struct many *many, struct member *member) {
    struct member *loser = member;
    if (randombytes_uniform(++many->left_out) == 0) {
        loser = many->last;
        many->last = member;
    }
    if (loser && needs_cursor(loser))
        empty_answer(loser);
    else if (loser)
        drop_answer(loser);
}

/* As much of the answer as there is room for. */
static void take_some(struct many *many, struct member *member, const struct answer *answer) {
    struct answer part = *answer;
    while (!take_answer(member, &part)) {
        if (!part.count) {
            many->error = ERROR_BUSY;
            return;
        }
        if (!answer_cut(&part, part.count / 2))
            answer_cut(&part, 0);
        many->has_no_room |= !part.count;
        if (!part.count && !needs_cursor(member))
            return;
    }
}

static void tell(struct many *many, struct member *member, const struct answer *answer) {
    take_some(many, member, answer);
    if (!member->answer)
        return;
    many->told_bytes += member->size;
    while (many->told_bytes > MANY_REPLY_BYTES) {
        struct member *largest = largest_of(many);
        many->told_bytes -= largest->size;
        leave_out(many, largest);
    }
}

/* Whether the client does not know it already. */
static bool is_news(const struct member *member, const struct answer *answer) {
    return answer->count || answer->missed || answer->reset || answer->skipped ||
           (int64_t)answer->ts != member->asked_ts ||
           (member->poll.wants_epoch && answer->epoch != member->asked_epoch);
}

void many_poll_done(struct poll *poll, const struct answer *answer) {
    struct member *member = container_of(poll, struct member, poll);
    struct many *many = member->many;
    turn_end(&many->settle);
    if (answer->error) {
        member->error = (uint8_t)store_http_error(answer->error);
        if (!many->failed++)
            many->first_failure = member->error;
        return;
    }
    bool has_news = is_news(member, answer);
    many->is_over |= has_news || poll->may_wait; /* if it may wait, it does not any more */
    if (has_news)
        tell(many, member, answer);
}

/* --- The end ---------------------------------------------------------------------------------- */

/* Whether the poll's outcome is not known yet. */
static bool is_under_way(const struct poll *poll) {
    return poll->state != POLL_IDLE && poll->state != POLL_PARKED;
}

/* How far a poll has got whose outcome comes too late, as far as that is known. */
static void tell_progress(struct many *many, struct member *member) {
    const struct poll *poll = &member->poll;
    if (!needs_cursor(member) || poll->ts < 0)
        return;
    struct answer progress = {
        .ts = (uint64_t)poll->ts, .skipped = poll->skipped, .total = UINT64_MAX /* not known */};
    tell(many, member, &progress);
}

/* Ends its polls. With `is_told`, they say how far they have got. */
static void end_polls(struct many *many, bool is_told) {
    for (struct member *member = many->members; member < end_of(many); member++) {
        if (is_told && is_under_way(&member->poll))
            tell_progress(many, member);
        else if (is_told && member->poll.state == POLL_PARKED)
            inbox_expire(api.inbox, &member->poll, false);
        inbox_cancel(api.inbox, &member->poll);
    }
    turn_cancel(&many->settle);
    if (many->filter)
        inbox_filter_unref(api.inbox, many->filter);
    many->filter = NULL;
}

static void free_many(struct many *many) {
    end_polls(many, false);
    for (struct member *member = many->members; member < end_of(many); member++)
        drop_answer(member);
    budget_give(many->own_bytes);
    free(many);
}

/* Lets go of the exchange, which goes on without it. */
static struct exchange *detach(struct many *many) {
    struct exchange *exchange = many->exchange;
    struct ask *ask = ask_of(exchange);
    ask->kind = ASK_NOTHING;
    many->exchange = NULL;
    return exchange;
}

static void fail(struct many *many, enum http_error error) {
    struct exchange *exchange = detach(many);
    free_many(many);
    reply_error(exchange, error);
}

void many_cancel(struct many *many) {
    detach(many);
    if (!many->is_writing)
        free_many(many);
}

/* --- The reply -------------------------------------------------------------------------------- */

static void write_member(struct buf *out, const struct member *member, bool is_full) {
    buf_putc(out, '"');
    buf_append(out, member->key.data, member->key.len);
    buf_puts(out, "\":{");
    if (member->answer) {
        struct page_form form = {.is_full = is_full, .has_epoch = member->poll.wants_epoch};
        page_write(out, member->answer, &form);
    } else {
        buf_printf(out, "\"error_code\":%d,\"error_description\":\"%s\"",
                   http_status_code(http_error_status(member->error)),
                   http_error_description(member->error));
    }
    buf_putc(out, '}');
}

/* Bytes of the updates in the reply. */
static size_t reply_bytes(const struct many *many) {
    return many->told_bytes + (many->last ? many->last->size : 0);
}

/* NULL when memory is out. */
static struct reply *write_reply(const struct many *many) {
    struct buf body = {0};
    buf_reserve(&body, many->own_bytes + reply_bytes(many)); /* most need no more */
    buf_puts(&body, "{\"ok\":true,\"channels\":{");
    size_t opening_len = body.len;
    for (uint32_t i = 0; i < many->count; i++) {
        const struct member *member = &many->members[i];
        if (!member->answer && !member->error)
            continue;
        if (body.len > opening_len)
            buf_putc(&body, ',');
        write_member(&body, member, many->is_full);
    }
    buf_puts(&body, "}}");
    struct reply *reply = NULL;
    if (!body.failed)
        reply = reply_new(HTTP_OK, many->flags, REPLY_JSON, lines_slice(&many->headers),
                          (struct slice){body.data, body.len});
    buf_deinit(&body);
    return reply;
}

/* The reply is written, or memory was out for it. */
static void finish(struct many *many) {
    struct reply *reply = many->reply;
    uint32_t count = 0;
    for (struct member *member = many->members; member < end_of(many); member++)
        count += member->answer ? member->answer->count : 0;
    struct exchange *exchange = many->exchange ? detach(many) : NULL;
    free_many(many);
    if (exchange)
        poll_reply(exchange, reply, count);
    else if (reply)
        reply_unref(reply);
}

/* work.run: on the worker's thread. */
static void write_large(struct work *work) {
    struct many *many = container_of(work, struct many, work);
    many->reply = write_reply(many);
}

/* work.done */
static void large_written(struct work *work) {
    struct many *many = container_of(work, struct many, work);
    budget_give(many->work_bytes);
    finish(many);
}

/* Bytes for the text and the reply; in the full view a body stands twice. */
static size_t bytes_to_write(const struct many *many) {
    return (many->is_full ? 4 : 2) * reply_bytes(many);
}

/* The second half of a member's updates comes with the next poll. False when it has but one. */
static bool halve(struct many *many, struct member *member) {
    struct answer *answer = member->answer;
    uint32_t count = answer->count;
    if (count < 2)
        return false;
    size_t size = member->size;
    count_answer(member, false);
    bool is_cut = answer_cut(answer, count / 2);
    for (uint32_t i = answer->count; i < count; i++) {
        member->size -= update_size(answer->updates[i]);
        update_unref(answer->updates[i]);
    }
    count_answer(member, true);
    if (member != many->last)
        many->told_bytes -= size - member->size;
    return is_cut;
}

/* Leaves an answer to the next poll, or half of the only one; false when that is one update. */
static bool shrink(struct many *many) {
    struct member *largest = largest_of(many), *loser = many->last;
    if (!loser || (largest && largest->size && randombytes_uniform(2)))
        loser = largest;
    if (loser->size == reply_bytes(many))
        return halve(many, loser);
    if (loser == many->last)
        many->last = NULL;
    else
        many->told_bytes -= loser->size;
    if (needs_cursor(loser))
        empty_answer(loser);
    else
        drop_answer(loser);
    return true;
}

/* Leaves out what there is no room to write, as long as something remains. */
static void make_room(struct many *many) {
    while (!many->error && reply_bytes(many) > MANY_LARGE_BYTES &&
           !has_room(many, bytes_to_write(many)))
        if (!shrink(many))
            many->error = ERROR_BUSY;
    if (many->has_no_room && !reply_bytes(many))
        many->error = ERROR_BUSY;
}

static void reply_large(struct many *many) {
    many->work_bytes = bytes_to_write(many);
    budget_take(many->work_bytes);
    many->is_writing = true;
    many->work = (struct work){.run = write_large, .done = large_written};
    worker_submit(&many->work);
}

static void reply_now(struct many *many) {
    end_polls(many, true);
    leave_out_purged(many);
    make_room(many);
    if (many->error) {
        fail(many, many->error);
        return;
    }
    lines_add_limit(&many->headers, many->exchange);
    many->flags = exchange_flags(many->exchange);
    if (reply_bytes(many) > MANY_LARGE_BYTES) {
        reply_large(many);
        return;
    }
    many->reply = write_reply(many);
    finish(many);
}

/* --- Waiting ---------------------------------------------------------------------------------- */

static bool has_polls_under_way(struct many *many) {
    for (struct member *member = many->members; member < end_of(many); member++)
        if (is_under_way(&member->poll))
            return true;
    return false;
}

/* The polls whose outcome is not known yet are waited for, but not parked any more. */
static void hurry(struct many *many) {
    for (struct member *member = many->members; member < end_of(many); member++)
        if (is_under_way(&member->poll))
            member->poll.may_wait = false;
    if (!many->is_late)
        exchange_wait(many->exchange, MANY_LATE_MS);
    many->is_late = true;
}

/* turn_task */
static void on_turn_end(struct turn_task *task) {
    struct many *many = container_of(task, struct many, settle);
    if (many->error)
        fail(many, many->error);
    else if (many->failed == many->count)
        fail(many, many->first_failure);
    else if ((many->is_over || many->is_expired) && !has_polls_under_way(many))
        reply_now(many);
    else if (many->is_over)
        hurry(many);
}

void many_expire(struct many *many) {
    if (many->is_writing)
        return;
    if (many->is_late) {
        reply_now(many);
        return;
    }
    many->is_expired = true;
    for (struct member *member = many->members; member < end_of(many); member++) {
        member->poll.may_wait = false;
        if (member->poll.state == POLL_PARKED)
            inbox_expire(api.inbox, &member->poll, !api.is_draining);
    }
    turn_end(&many->settle);
}

/* --- Asking ----------------------------------------------------------------------------------- */

/* Copies it to `*text`, and moves that behind it. */
static struct slice put_text(char **text, struct slice from) {
    struct slice copy = {*text, from.len};
    memcpy(*text, from.data, from.len);
    *text += from.len;
    return copy;
}

static void set_members(struct many *many, const struct many_body *body,
                        const struct poll_query *query) {
    char *text = (char *)(many->members + many->count);
    for (uint32_t i = 0; i < many->count; i++) {
        const struct many_channel *channel = &body->channels[i];
        struct member *member = &many->members[i];
        *member = (struct member){
            .poll = {.ts = channel->position,
                     .epoch = channel->has_epoch ? channel->epoch : query->epoch,
                     .filter = many->filter,
                     .limit = (uint16_t)query->limit,
                     .may_wait = !many->is_expired,
                     .wants_epoch = channel->has_epoch || query->has_epoch,
                     .is_one_of_many = true},
            .many = many,
            .key = put_text(&text, channel->key),
            .name = put_text(&text, channel->name),
            .asked_ts = channel->position,
        };
        member->asked_epoch = member->poll.epoch;
    }
}

/* NULL when there is no room for it. */
static struct many *many_new(const struct many_body *body, const struct poll_query *query) {
    size_t bytes = sizeof(struct many) + body->count * sizeof(struct member);
    for (uint32_t i = 0; i < body->count; i++)
        bytes += body->channels[i].key.len + body->channels[i].name.len;
    size_t counted = bytes + (size_t)body->count * MANY_CHANNEL_BYTES;
    struct many *many = budget_has(counted) ? malloc(bytes) : NULL;
    if (!many)
        return NULL;
    budget_take(counted);
    *many = (struct many){
        .own_bytes = counted,
        .count = body->count,
        .start = randombytes_uniform(body->count),
        .is_full = query->is_full,
    };
    turn_task_init(&many->settle, on_turn_end);
    return many;
}

static enum http_error begin_polls(struct many *many, const struct many_body *body) {
    for (uint32_t i = 0; i < many->count; i++)
        if (!inbox_poll(api.inbox, body->channels[i].name, &many->members[i].poll))
            return ERROR_BUSY;
    return HTTP_NO_ERROR;
}

static enum http_error begin(struct exchange *exchange, const struct many_body *body,
                             const struct poll_query *query) {
    struct many *many = many_new(body, query);
    if (!many)
        return ERROR_BUSY;
    struct ask *ask = ask_of(exchange);
    ask->kind = ASK_MANY;
    ask->many = many;
    many->exchange = exchange;
    uint64_t sleep_ms = query->sleep_ms < api.poll_max_ms ? query->sleep_ms : api.poll_max_ms;
    many->is_expired = !sleep_ms || api.is_draining;
    enum http_error error = poll_filter(&query->where, &many->filter);
    set_members(many, body, query);
    if (!many->is_expired)
        exchange_wait(exchange, sleep_ms);
    log_debug("poll", "channels", log_number(many->count).text, "sleep_ms",
              log_number(sleep_ms).text, NULL);
    if (!error)
        error = begin_polls(many, body);
    if (error) {
        detach(many);
        free_many(many);
    }
    return error;
}

void many_handle(struct exchange *exchange, const struct request *request, struct slice query) {
    struct poll_query asked;
    struct payload payload = {0};
    struct many_body body = {0};
    enum http_error error = poll_query_parse(&asked, query, clock_wall_ms);
    if (!error && (asked.has_position || asked.name_len || asked.feed))
        error = ERROR_MANY_QUERY;
    if (!error)
        error = many_body_read(request, &payload, &body);
    if (!error)
        error = begin(exchange, &body, &asked);
    many_body_deinit(&body);
    payload_deinit(&payload);
    poll_query_deinit(&asked);
    if (error)
        reply_error(exchange, error);
}

/* --- Handing over ----------------------------------------------------------------------------- */

bool many_can_save(const struct many *many) {
    if (many->is_writing || many->is_over || many->is_expired || many->error ||
        turn_is_due(&many->settle))
        return false;
    for (uint32_t i = 0; i < many->count; i++)
        if (many->members[i].poll.state != POLL_IDLE &&
            !inbox_can_take_out(api.inbox, &many->members[i].poll))
            return false;
    return true;
}

/* One whose store has failed asks again from the beginning. */
static void save_member(struct member *member, struct pack *out) {
    struct poll *poll = &member->poll;
    struct poll_place place = {.channel_len = (uint16_t)member->name.len};
    memcpy(place.channel, member->name.data, member->name.len);
    if (poll->state == POLL_IDLE) {
        poll->ts = member->asked_ts;
        poll->epoch = member->asked_epoch;
    } else {
        inbox_take_out(api.inbox, poll, &place);
    }
    pack_bytes(out, member->key);
    handover_save_place(&place, out);
    pack_number(out, pack_signed(member->asked_ts));
    pack_number(out, member->asked_epoch);
    pack_number(out, pack_signed(poll->ts));
    pack_number(out, poll->epoch);
    pack_number(out, poll->wants_epoch);
    pack_number(out, poll->skipped);
}

void many_save(struct many *many, struct pack *out) {
    pack_number(out, many->is_full);
    pack_number(out, many->members[0].poll.limit);
    pack_bytes(out, many->filter ? filter_text(many->filter) : SLICE(""));
    pack_number(out, many->count);
    for (struct member *member = many->members; member < end_of(many); member++)
        save_member(member, out);
    detach(many);
    free_many(many);
}

/* What is saved of a channel beside what a body says of it. */
struct member_progress {
    struct poll_place place;
    int64_t ts;
    uint64_t epoch;
    uint32_t skipped;
};

static void read_member(struct unpack *in, struct many_channel *channel,
                        struct member_progress *progress) {
    channel->key = unpack_bytes(in);
    handover_read_place(in, &progress->place);
    channel->name = (struct slice){progress->place.channel, progress->place.channel_len};
    channel->position = unpack_signed(unpack_number(in));
    channel->epoch = unpack_number(in);
    progress->ts = unpack_signed(unpack_number(in));
    progress->epoch = unpack_number(in);
    channel->has_epoch = unpack_up_to(in, 1);
    progress->skipped = (uint32_t)unpack_up_to(in, UINT32_MAX);
}

static bool put_back(struct member *member, const struct member_progress *progress) {
    struct poll *poll = &member->poll;
    poll->ts = progress->ts;
    poll->epoch = progress->epoch;
    poll->skipped = progress->skipped;
    poll->was_parked = true;
    return inbox_put_back(api.inbox, poll, &progress->place);
}

bool many_restore(struct exchange *exchange, struct unpack *in) {
    struct many_body body = {.count = 0};
    struct member_progress progress[MANY_CHANNELS_MAX];
    struct poll_query asked = {.is_full = unpack_up_to(in, 1)};
    asked.limit = (uint32_t)unpack_up_to(in, READ_MAX_UPDATES);
    struct slice where = unpack_bytes(in);
    body.count = (uint32_t)unpack_up_to(in, MANY_CHANNELS_MAX);
    for (uint32_t i = 0; i < body.count; i++)
        read_member(in, &body.channels[i], &progress[i]);
    if (in->failed || !body.count || !asked.limit)
        return false;
    struct buf text = {.data = (char *)where.data, .len = where.len, .is_borrowed = true};
    struct many *many = many_new(&body, &asked);
    enum http_error error = many ? poll_filter(&text, &many->filter) : ERROR_BUSY;
    if (many) {
        ask_of(exchange)->kind = ASK_MANY;
        ask_of(exchange)->many = many;
        many->exchange = exchange;
        set_members(many, &body, &asked);
    }
    for (uint32_t i = 0; i < body.count && !error; i++)
        if (!put_back(&many->members[i], &progress[i]))
            error = ERROR_BUSY;
    if (error && many)
        fail(many, error);
    else if (error)
        reply_error(exchange, error);
    return true;
}
