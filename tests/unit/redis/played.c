#include "played.h"

#include "base/log.h"
#include "redis/store.h"
#include "redis/topology_parts.h"
#include "reply.h"

static uv_loop_t loop;
static struct redis_options options;

struct redis_store *played;
int played_answers;
enum store_error played_error;

/* --- Time ------------------------------------------------------------------------------------- */

uint64_t played_now_ms(void) {
    return uv_now(&loop);
}

void play_pass(uint64_t ms) {
    loop.time += ms;
}

bool play_turn(void) {
    turn_cancel(&played->flush);
    played->flush.run(&played->flush);
    return turn_is_due(&played->flush);
}

/* --- What comes from Redis -------------------------------------------------------------------- */

void play_answer(struct redis_call *call, const char *text) {
    redisReply *reply = reply_of(text);
    assert_false(list_empty(&call->link));
    list_remove(&call->link);
    call->done(call, reply);
    freeReplyObject(reply);
}

void play_message(struct redis_node *node, const char *text) {
    struct redis_conn *conn = &node->lanes[REDIS_LANE_NEWS].conn;
    redisReply *reply = reply_of(text);
    conn->events->message(conn, reply);
    freeReplyObject(reply);
}

/* The first call that is no question, and how many there are; NULL: none. */
static struct redis_call *find_call(struct redis_node *node, enum redis_lane_kind kind,
                                    int *count) {
    struct list *calls = &node->lanes[kind].conn.calls;
    struct redis_call *first = NULL;
    *count = 0;
    for (struct list *link = calls->next; link != calls; link = link->next) {
        struct redis_call *call = container_of(link, struct redis_call, link);
        if (call == &node->slots_call)
            continue;
        first = first ? first : call;
        ++*count;
    }
    return first;
}

int played_calls(struct redis_node *node, enum redis_lane_kind kind) {
    int count;
    find_call(node, kind, &count);
    return count;
}

void play_reply(struct redis_node *node, enum redis_lane_kind kind, const char *text) {
    int count;
    struct redis_call *call = find_call(node, kind, &count);
    assert_non_null(call);
    play_answer(call, text);
}

const char *play_stored(int total) {
    static char text[64];
    snprintf(text, sizeof text, "*4\r\n:1000\r\n$0\r\n\r\n$0\r\n\r\n:%d\r\n", total);
    return text;
}

const char *play_map(const char *ports) {
    static char text[1024];
    int parts = (int)strlen(ports), len = snprintf(text, sizeof text, "*%d\r\n", parts);
    for (int i = 0; i < parts; i++)
        len += snprintf(text + len, sizeof text - (size_t)len,
                        "*3\r\n:%d\r\n:%d\r\n*2\r\n$9\r\n127.0.0.1\r\n:%c\r\n",
                        REDIS_SLOTS * i / parts, REDIS_SLOTS * (i + 1) / parts - 1, ports[i]);
    return text;
}

/* --- Nodes ------------------------------------------------------------------------------------ */

/* NULL: before the first, and behind the last. */
static struct redis_node *next_node(const struct redis_node *node) {
    struct list *nodes = &played->topology.nodes, *next = node ? node->link.next : nodes->next;
    return next == nodes ? NULL : container_of(next, struct redis_node, link);
}

struct redis_node *played_node(int port) {
    for (struct redis_node *node = next_node(NULL); node; node = next_node(node))
        if (node->address.port == port)
            return node;
    fail_msg("there is no node %d", port);
    return NULL;
}

/* The node that has been asked last; NULL: all have answered. */
static struct redis_node *witness(void) {
    struct redis_node *last = NULL;
    for (struct redis_node *node = next_node(NULL); node; node = next_node(node))
        if (node->is_asking_slots && (!last || node->slots_question > last->slots_question))
            last = node;
    return last;
}

struct redis_call *play_question(void) {
    redis_topology_suspect(&played->topology);
    play_pass(100);
    cluster_tick(&played->topology, played_now_ms());
    assert_non_null(witness());
    return &witness()->slots_call;
}

/* It has nothing to say to INFO and CONFIG. */
static void come_up(struct redis_node *node) {
    for (int kind = 0; kind < REDIS_LANES; kind++) {
        struct redis_conn *conn = &node->lanes[kind].conn;
        if (redis_conn_is_ready(conn))
            continue;
        conn->state = REDIS_CONN_READY;
        conn->events->ready(conn);
        if (kind == REDIS_LANE_READ) {
            play_answer(&node->info_call, "-ERR\r\n");
            play_answer(&node->config_call, "-ERR\r\n");
        }
    }
}

void play_up(const char *ports) {
    for (int i = 0; i < 20; i++) {
        for (struct redis_node *node = next_node(NULL); node; node = next_node(node))
            come_up(node);
        if (witness())
            play_answer(&witness()->slots_call, *ports ? play_map(ports) : "-ERR\r\n");
        else if (redis_topology_is_up(&played->topology))
            return;
        play_pass(100);
        cluster_tick(&played->topology, played_now_ms());
    }
    fail_msg("it does not come up");
}

/* --- The store -------------------------------------------------------------------------------- */

static int64_t wall_clock(void) {
    return 1000000;
}

void play_start(int64_t wait_replicas) {
    static const struct store_options store_options = {
        .channel_max_updates = 1000, .ttl_ms = 1000000, .wall_ms = wall_clock};
    char error[256] = "";
    log_init(LOG_LEVEL_ERROR + 1, false);
    uv_loop_init(&loop);
    turn_init(&loop);
    options = (struct redis_options){.address = {.host = "127.0.0.1", .port = 1},
                                     .prefix = "total:",
                                     .tls_ca = "",
                                     .wait_replicas = wait_replicas,
                                     .wait_ms = wait_replicas ? 500 : 0,
                                     .timeout_ms = PLAYED_TIMEOUT_MS};
    struct store *base = store_redis_open(&loop, &store_options, &options, error, sizeof error);
    if (!base)
        fail_msg("%s", error);
    played = store_of(base);
    uv_timer_stop(&played->tick);
    played_answers = 0;
}

static void on_closed(void *context) {
    *(bool *)context = true;
}

int play_end(void **state) {
    (void)state;
    bool is_closed = false;
    store_close(&played->base, on_closed, &is_closed);
    turn_deinit();
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_true(is_closed);
    return uv_loop_close(&loop);
}

/* --- Operations ------------------------------------------------------------------------------- */

static void on_push_done(struct store_op *op) {
    struct store_append *append = container_of(op, struct store_append, op);
    played_answers++;
    played_error = append->error;
    for (uint32_t i = 0; i < append->count; i++)
        update_unref(append->updates[i]);
    free(append->updates);
    free(append);
}

void play_push(const char *channel, size_t bytes, uint32_t updates) {
    size_t len = strlen(channel);
    struct store_append *append = calloc(1, sizeof *append + len);
    struct update_parts parts = {.body = {calloc(1, bytes), bytes}, .method = SLICE("POST")};
    append->updates = calloc(updates, sizeof *append->updates);
    for (append->count = 0; append->count < updates; append->count++)
        append->updates[append->count] = update_new(&parts);
    free((char *)parts.body.data);
    append->op.done = on_push_done;
    append->name_len = (uint16_t)len;
    memcpy(append->name, channel, len);
    store_append(&played->base, append);
}

static void on_read_done(struct store_op *op) {
    struct store_read *read = container_of(op, struct store_read, op);
    played_answers++;
    played_error = read->error;
    free(read);
}

void play_read(const char *channel) {
    size_t len = strlen(channel);
    struct store_read *read = calloc(1, sizeof *read + len);
    read->op.done = on_read_done;
    read->limit = READ_MAX_UPDATES;
    read->name_len = (uint16_t)len;
    memcpy(read->name, channel, len);
    store_read(&played->base, read);
}
