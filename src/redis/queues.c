/*
 * Operations that wait: until they get a place, until they are sent, or until they are given up.
 *
 * pending (to get a place) → the queue of a lane → sent. Those whose node is not known are nowhere,
 * and get a place when the topology changes; those that a node could not do yet are tried again
 * later. A lane's queue is only looked at while the lane can take more. So a turn of the loop costs
 * the same however many are waiting; and whatever must look at them all does so in slices.
 *
 * Redis gets no more than it answers soon. Pushes: what it does in some tens of milliseconds.
 * Reads: as many as REPLIES_MAX_BYTES has room for, going by the replies before.
 */
#include "redis/parts.h"

enum {
    PLACES = 4096,      /* given in a turn */
    GIVEN_UP = 512,     /* operations given up in a turn */
    RETRY_MS = 50,      /* until an operation that a cluster cannot do yet is tried again */
    APPENDS_MAX = 1024, /* pushes under way at a node */
    READS_MAX = 256,    /* reads under way at a node */
    READS_MIN = 16,     /* ... however long the replies are */
    REPLIES_MAX_BYTES = 16 << 20,
    EXTENSIONS_MAX = 9, /* a read whose Redis is busy waits so many times longer */
};

static struct op *op_at(struct list *link) {
    return container_of(link, struct op, queue_link);
}

/* --- A place ---------------------------------------------------------------------------------- */

void queues_add(struct op *op) {
    list_append(&op->store->pending, &op->queue_link);
    turn_end(&op->store->flush);
}

void queues_add_later(struct op *op) {
    op->retry_ms = uv_now(op->store->topology.loop) + RETRY_MS;
    list_append(&op->store->later, &op->queue_link);
}

void queues_set_ask_node(struct op *op, struct redis_node *node) {
    if (op->ask_node)
        op->ask_node->holds--;
    op->ask_node = node;
    if (node)
        node->holds++;
}

struct redis_node *queues_node_of(struct op *op) {
    const struct redis_topology *topology = &op->store->topology;
    if (op->ask_node)
        return op->ask_node;
    if (!topology->slots || !topology->is_known)
        return redis_topology_node(topology, channel_of(op));
    if (!op->has_slot)
        op->slot = (uint16_t)redis_layout_slot(&topology->layout, channel_of(op));
    op->has_slot = true;
    return topology->slots[op->slot];
}

static void place(struct redis_store *store) {
    struct list *link;
    for (int i = 0; i < PLACES && (link = list_shift(&store->pending)); i++) {
        struct op *op = op_at(link);
        struct redis_node *node = queues_node_of(op);
        if (!node && store->topology.slots)
            op->error = STORE_CLUSTER_DOWN;
        list_append(node ? &node->lanes[lane_of(op)].queue : &store->nowhere, link);
    }
}

static void place_those_of_before(struct redis_store *store) {
    uint64_t now_ms = uv_now(store->topology.loop);
    for (int i = 0; i < PLACES && !list_empty(&store->later); i++) {
        struct op *op = op_at(store->later.next);
        if (op->retry_ms > now_ms)
            return;
        list_remove(&op->queue_link);
        list_append(&store->pending, &op->queue_link);
    }
}

void queues_settle(struct redis_store *store) {
    struct list *nodes = &store->topology.nodes;
    list_splice(&store->pending, &store->nowhere);
    for (struct list *link = nodes->next; link != nodes; link = link->next)
        for (int kind = 0; kind < REDIS_LANES; kind++)
            list_splice(&store->pending,
                        &container_of(link, struct redis_node, link)->lanes[kind].queue);
    turn_end(&store->flush);
}

/* --- Sending ---------------------------------------------------------------------------------- */

static unsigned most_under_way(const struct redis_lane *lane) {
    if (lane->kind == REDIS_LANE_APPEND)
        return APPENDS_MAX;
    size_t most = lane->reply_bytes ? REPLIES_MAX_BYTES / lane->reply_bytes : READS_MAX;
    return most < READS_MIN ? READS_MIN : most > READS_MAX ? READS_MAX : (unsigned)most;
}

/* A long reply counts at once, and is forgotten slowly. */
void queues_got_reply(struct redis_lane *lane, unsigned count, const redisReply *reply,
                      size_t bytes) {
    lane->under_way -= count;
    if (!reply)
        return;
    lane->answered_ms = uv_now(lane->conn.loop);
    if (reply->type == REDIS_REPLY_ERROR)
        return; /* NOSCRIPT says nothing of how long the others will be */
    if (bytes >= lane->reply_bytes)
        lane->reply_bytes = bytes;
    else
        lane->reply_bytes -= (lane->reply_bytes - bytes + 15) / 16;
}

static bool has_room(const struct redis_lane *lane, uint64_t now_ms) {
    bool must_wait = lane->kind == REDIS_LANE_APPEND && lane->node->is_waiting;
    return !must_wait && lane->under_way < most_under_way(lane) && redis_lane_is_ready(lane) &&
           !redis_conn_is_behind(&lane->conn, now_ms);
}

bool queues_is_late(const struct op *op, uint64_t now_ms) {
    return op->due_ms <= now_ms;
}

static void send_lane(struct redis_store *store, struct redis_lane *lane) {
    uint64_t now_ms = uv_now(store->topology.loop);
    for (int i = 0; i < PLACES && !list_empty(&lane->queue) && has_room(lane, now_ms); i++) {
        struct op *op = op_at(lane->queue.next);
        if (queues_is_late(op, now_ms))
            break;
        if (queues_node_of(op) == lane->node) {
            commands_send(lane);
        } else { /* another node serves it by now */
            list_remove(&op->queue_link);
            list_append(&store->pending, &op->queue_link);
        }
    }
}

void queues_send(struct redis_store *store) {
    struct list *nodes = &store->topology.nodes;
    place_those_of_before(store);
    place(store);
    for (struct list *link = nodes->next; link != nodes; link = link->next)
        for (int kind = REDIS_LANE_APPEND; kind <= REDIS_LANE_READ; kind++)
            send_lane(store, &container_of(link, struct redis_node, link)->lanes[kind]);
    if (!list_empty(&store->pending))
        turn_next(&store->flush);
}

/* --- Giving up -------------------------------------------------------------------------------- */

/* A Redis that answers others will come to this one. */
static bool may_go_on(const struct op *op, const struct redis_lane *lane, uint64_t now_ms) {
    uint64_t timeout_ms = (uint64_t)op->store->redis->timeout_ms;
    bool is_refused = op->error != STORE_AWAY;
    return !is_write(op) && !is_refused && op->extensions < EXTENSIONS_MAX && lane &&
           redis_lane_is_ready(lane) && now_ms - lane->answered_ms < timeout_ms;
}

static void give_up(struct op *op) {
    list_remove(&op->link);
    operations_give_up(op);
}

static void give_up_late(struct list *ops, uint64_t now_ms, int *left) {
    for (; *left && !list_empty(ops); --*left) {
        struct op *op = container_of(ops->next, struct op, link);
        if (op->due_ms > now_ms)
            return;
        const struct redis_node *node = op->is_sent ? op->node : queues_node_of(op);
        if (may_go_on(op, node ? &node->lanes[REDIS_LANE_READ] : NULL, now_ms)) {
            op->extensions++;
            op->due_ms = now_ms + (uint64_t)op->store->redis->timeout_ms;
            list_remove(&op->link);
            list_append(ops, &op->link);
        } else {
            give_up(op);
        }
    }
}

static void give_up_all(struct list *queue, int *left) {
    for (; *left && !list_empty(queue); --*left)
        give_up(op_at(queue->next));
}

/* When Redis has been away for long, nobody waits for it. */
static void give_up_waiting(struct redis_store *store, uint64_t now_ms, int *left) {
    struct list *nodes = &store->topology.nodes;
    if (now_ms - store->up_ms < (uint64_t)store->redis->timeout_ms)
        return;
    give_up_all(&store->nowhere, left);
    for (struct list *link = nodes->next; link != nodes; link = link->next)
        for (int kind = REDIS_LANE_APPEND; kind <= REDIS_LANE_READ; kind++) {
            struct redis_lane *lane = &container_of(link, struct redis_node, link)->lanes[kind];
            if (!redis_lane_is_ready(lane))
                give_up_all(&lane->queue, left);
        }
}

static void give_up_some(struct redis_store *store) {
    uint64_t now_ms = uv_now(store->topology.loop);
    int left = GIVEN_UP;
    give_up_late(&store->appends, now_ms, &left);
    give_up_late(&store->reads, now_ms, &left);
    give_up_waiting(store, now_ms, &left);
    if (!left)
        turn_next(&store->giving_up);
}

void queues_on_giving_up(struct turn_task *task) {
    give_up_some(container_of(task, struct redis_store, giving_up));
}

void queues_tick(struct redis_store *store) {
    give_up_some(store); /* first: of what has been sent, the fate is not known */
    queues_send(store);
}
