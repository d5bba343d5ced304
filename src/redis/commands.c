/*
 * Commands: how operations are sent. A read is a script of its own, and so is what is done with
 * cursors. Appends go together, several in one script: those of one channel become one run of ids,
 * and the channels one after another.
 *
 * In a cluster only appends of one channel go together: two channels of one slot may, while it is
 * moving, be at different nodes.
 */
#include "base/log.h"
#include "redis/parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { /* of one command; a single append may be more */
       PUSHES_MAX = 64,
       UPDATES_MAX = 256,
       PUSHES_MAX_BYTES = 256 << 10,
};

#define TS_FAR ((int64_t)1 << 60)

static struct op *op_at(struct list *link) {
    return container_of(link, struct op, queue_link);
}

/* --- What goes together ----------------------------------------------------------------------- */

static bool is_same_channel(const struct op *a, const struct op *b) {
    return append_of(a)->hash == append_of(b)->hash && slice_equal(channel_of(a), channel_of(b));
}

/* The last member of its channel; NULL: there is none. */
static struct op *last_of_channel(struct op *first, const struct op *op) {
    for (struct list *link = first->members.prev; link != &first->members; link = link->prev)
        if (is_same_channel(op_at(link), op))
            return op_at(link);
    return NULL;
}

static void join(struct op *first, struct op *op, struct op *last) {
    list_remove(&op->queue_link);
    list_append(last ? last->queue_link.next : &first->members, &op->queue_link);
    op->begins_channel = !last;
}

/* Takes the first of the queue, and whatever may go along; the number of updates. */
static struct op *gather(struct redis_lane *lane) {
    struct op *first = op_at(lane->queue.next);
    list_init(&first->members);
    join(first, first, NULL);
    if (!first->is_append || first->ask_node || first->goes_alone)
        return first;
    size_t bytes = store_append_size(append_of(first)), updates = first->count;
    uint64_t now_ms = uv_now(first->store->topology.loop);
    struct list *next = lane->queue.next;
    for (int looked = 1; looked < PUSHES_MAX && next != &lane->queue; looked++) {
        struct op *op = op_at(next);
        next = next->next;
        if (op->is_purge || op->ask_node || op->goes_alone || queues_is_late(op, now_ms) ||
            queues_node_of(op) != lane->node)
            break;
        struct op *last = last_of_channel(first, op);
        if (!last && first->store->topology.slots)
            continue;
        bytes += store_append_size(append_of(op));
        updates += op->count;
        if (bytes > PUSHES_MAX_BYTES || updates > UPDATES_MAX)
            break;
        join(first, op, last);
    }
    return first;
}

/* --- Bytes ------------------------------------------------------------------------------------ */

static void on_asking_reply(struct redis_call *call, const redisReply *reply) {
    if (reply && reply->type == REDIS_REPLY_ERROR)
        log_debug("redis refused ASKING", "reason", redis_reason(reply->str).text, NULL);
    free(call);
}

/* Sends the command that must go before one that was redirected by ASK. */
static void send_asking(struct redis_conn *conn) {
    struct redis_call *call = calloc(1, sizeof *call);
    if (!call)
        return; /* the node will redirect once more */
    call->done = on_asking_reply;
    redis_conn_words(conn, call, "ASKING", NULL);
}

/* EVALSHA hash keys, or EVAL text keys. */
static void begin_script(struct redis_conn *conn, const struct redis_script *script, bool is_known,
                         int keys, int arguments) {
    redis_conn_command(conn, 3 + keys + arguments);
    redis_conn_argument(conn, is_known ? SLICE("EVALSHA") : SLICE("EVAL"));
    redis_conn_argument(conn, is_known ? (struct slice){script->sha, 40} : slice_of(script->text));
    redis_conn_number(conn, keys);
}

static void put_keys(const struct op *op, struct redis_conn *conn) {
    for (int key = REDIS_KEY_TOTAL; key <= REDIS_KEY_META; key++)
        redis_store_put_key(op->store, conn, (enum redis_key)key, channel_of(op));
}

/* The members of a command. */
struct members {
    struct list *first;
    int channels, updates;
    bool is_script_known;
    bool has_ids;
};

static struct members count_members(struct op *first) {
    struct members members = {.first = &first->members, .is_script_known = true};
    for (struct list *link = members.first->next; link != members.first; link = link->next) {
        const struct op *op = op_at(link);
        members.channels += op->begins_channel;
        members.updates += (int)op->count;
        members.is_script_known &= !op->needs_script;
        members.has_ids |= append_of(op)->deliveries != NULL;
    }
    return members;
}

static void put_settings(const struct redis_store *store, struct redis_conn *conn) {
    int64_t year_ms = (int64_t)365 * 86400 * 1000, ttl_ms = store->options.ttl_ms;
    int64_t longer_ms = ttl_ms + ttl_ms / 100 + 1;
    redis_conn_number(conn, (int64_t)store->options.channel_max_updates);
    redis_conn_number(conn, ttl_ms);
    redis_conn_number(conn, longer_ms);
    redis_conn_number(conn, longer_ms > year_ms ? longer_ms : year_ms);
    redis_conn_argument(conn,
                        store->topology.layout.is_cluster ? SLICE("SPUBLISH") : SLICE("PUBLISH"));
}

static void put_bodies(const struct op *op, struct redis_conn *conn) {
    const struct store_append *append = append_of(op);
    for (uint32_t i = 0; i < append->count; i++)
        redis_conn_argument(conn, update_body(append->updates[i]));
}

static void put_records(const struct op *op, struct redis_conn *conn) {
    const struct store_append *append = append_of(op);
    struct buf *record = &op->store->record;
    for (uint32_t i = 0; i < append->count; i++) {
        buf_reset(record, 65536);
        redis_record_write(record, append->updates[i]);
        conn->out.failed |= record->failed; /* nothing of it must be sent */
        redis_conn_argument(conn, (struct slice){record->data, record->len});
    }
}

/* As redis_script_append_known has it. */
static void put_ids(struct list *from, const struct list *end, struct redis_conn *conn) {
    static const char digits[] = "0123456789abcdef";
    struct buf *ids = &op_at(from)->store->record;
    buf_reset(ids, 65536);
    for (struct list *link = from; link != end; link = link->next) {
        const struct store_append *append = append_of(op_at(link));
        for (uint32_t i = 0; i < append->count; i++) {
            struct delivery none = {0};
            const struct delivery *delivery = append->deliveries ? &append->deliveries[i] : &none;
            buf_putc(ids, !delivery->has_id ? '-' : delivery->is_once ? 'o' : 'm');
            for (int j = 0; j < DELIVERY_ID_BYTES; j++) {
                buf_putc(ids, digits[delivery->id[j] >> 4]);
                buf_putc(ids, digits[delivery->id[j] & 15]);
            }
        }
    }
    conn->out.failed |= ids->failed;
    redis_conn_argument(conn, (struct slice){ids->data, ids->len});
}

/* The channel whose first member is at `from`; returns where the next one begins. */
static struct list *put_channel(struct list *from, const struct members *members,
                                struct redis_conn *conn) {
    struct list *end = from;
    int64_t updates = 0;
    do {
        updates += op_at(end)->count;
        end = end->next;
    } while (end != members->first && !op_at(end)->begins_channel);
    const struct op *op = op_at(from);
    redis_store_put_key(op->store, conn, REDIS_KEY_NEWS, channel_of(op));
    redis_conn_number(conn, updates);
    if (members->has_ids) {
        redis_store_put_key(op->store, conn, REDIS_KEY_SEEN, channel_of(op));
        put_ids(from, end, conn);
    }
    for (struct list *link = from; link != end; link = link->next)
        put_bodies(op_at(link), conn);
    for (struct list *link = from; link != end; link = link->next)
        put_records(op_at(link), conn);
    return end;
}

static void send_appends(struct op *first, struct redis_conn *conn) {
    struct members members = count_members(first);
    begin_script(conn, members.has_ids ? &redis_script_append_known : &redis_script_append,
                 members.is_script_known, 3 * members.channels,
                 5 + (members.has_ids ? 4 : 2) * members.channels + 2 * members.updates);
    for (struct list *link = members.first->next; link != members.first; link = link->next)
        if (op_at(link)->begins_channel)
            put_keys(op_at(link), conn);
    put_settings(first->store, conn);
    for (struct list *link = members.first->next; link != members.first;)
        link = put_channel(link, &members, conn);
}

/* As redis_script_read has it. */
static void put_position(struct redis_conn *conn, int64_t position) {
    char text[40] = "now";
    if (position_is_since(position))
        snprintf(text, sizeof text, "since %" PRId64, position_since_ms(position));
    else if (position != POSITION_NOW) /* what is far beyond all that Redis counts stays there */
        snprintf(text, sizeof text, "%" PRId64, position > TS_FAR ? TS_FAR : position);
    redis_conn_argument(conn, slice_of(text));
}

static void put_epoch(const struct op *op, struct redis_conn *conn) {
    const struct store_read *read = read_of(op);
    char seen[17] = "";
    if (read->seen_epoch)
        snprintf(seen, sizeof seen, "%016" PRIx64, read->seen_epoch);
    redis_store_put_key(op->store, conn, REDIS_KEY_EPOCH, channel_of(op));
    redis_conn_argument(conn, slice_of(seen));
    redis_conn_number(conn, read->wants_epoch && !op->was_redirected);
}

static void send_read(const struct op *op, struct redis_conn *conn) {
    const struct redis_store *store = op->store;
    const struct store_read *read = read_of(op);
    begin_script(conn, &redis_script_read, !op->needs_script, 3, 8);
    put_keys(op, conn);
    put_position(conn, read->position);
    redis_conn_number(conn, read->limit);
    redis_conn_number(conn, READ_MAX_BYTES);
    redis_conn_number(conn, (int64_t)store->options.channel_max_updates);
    redis_conn_number(conn, store->options.ttl_ms);
    put_epoch(op, conn);
}

static void send_cursors(const struct op *op, struct redis_conn *conn) {
    const struct store_cursors *cursors = cursors_of(op);
    begin_script(conn, &redis_script_cursors, !op->needs_script, 2, cursors_arguments(cursors));
    redis_store_put_key(op->store, conn, REDIS_KEY_TOTAL, channel_of(op));
    redis_store_put_key(op->store, conn, REDIS_KEY_CONSUMERS, channel_of(op));
    cursors_put(op->store, cursors, conn);
}

static void send_purge(const struct op *op, struct redis_conn *conn) {
    begin_script(conn, &redis_script_purge, !op->needs_script, 3, PURGE_ARGUMENTS);
    put_keys(op, conn);
    purges_put(op->store, purge_of(op), conn);
}

void commands_send(struct redis_lane *lane) {
    struct op *first = gather(lane);
    first->was_redirected = first->ask_node != NULL;
    if (first->ask_node)
        send_asking(&lane->conn);
    queues_set_ask_node(first, NULL);
    if (first->is_append)
        send_appends(first, &lane->conn);
    else if (first->is_purge)
        send_purge(first, &lane->conn);
    else if (first->is_cursors)
        send_cursors(first, &lane->conn);
    else
        send_read(first, &lane->conn);
    for (struct list *link = first->members.next; link != &first->members; link = link->next) {
        struct op *op = op_at(link);
        op->node = lane->node;
        op->is_sent = true;
        op->was_redirected = first->was_redirected;
        lane->under_way++;
    }
    lane->node->wants_wait |= is_write(first);
    first->sent_ns = uv_hrtime();
    first->call.done = operations_got_reply;
    redis_conn_sent(&lane->conn, &first->call);
}
