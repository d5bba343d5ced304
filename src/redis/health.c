/* What /-/health says of the Redis store. */
#include "redis/parts.h"

enum {
    REFUSED_MS = 5000,  /* how long a refused append or subscription counts */
    EVICTED_MS = 60000, /* how long evicted keys are spoken of */
    DAMAGED_MS = 60000, /* ... and keys that make no sense */
};

/* What all nodes that serve something have in common. */
struct survey {
    unsigned masters;                    /* whose promise is known */
    const struct redis_promise *weakest; /* the promise that is worth least counts */
    const struct redis_node *hindered;   /* one that would refuse; NULL: none */
    const struct redis_node *limited;    /* one where the user lacks optional rights; NULL: none */
    bool evicts;
    uint64_t evicted; /* keys, lately */
};

static struct survey look(const struct redis_topology *topology) {
    struct survey survey = {0};
    uint64_t now_ms = uv_now(topology->loop);
    for (struct list *link = topology->nodes.next; link != &topology->nodes; link = link->next) {
        const struct redis_node *node = container_of(link, struct redis_node, link);
        if (!redis_node_is_serving(node))
            continue;
        if (node->rights.error && !survey.hindered)
            survey.hindered = node;
        if (*node->rights.optional && !survey.limited)
            survey.limited = node;
        if (!node->promise.is_known)
            continue;
        survey.masters++;
        survey.evicts |= node->promise.evicts;
        if (node->evicted_ms && now_ms - node->evicted_ms < EVICTED_MS)
            survey.evicted += node->promise.evicted_keys;
        bool is_weaker = survey.weakest && !redis_promise_risk(survey.weakest) &&
                         redis_promise_risk(&node->promise);
        if (!survey.weakest || is_weaker)
            survey.weakest = &node->promise;
    }
    return survey;
}

static void write_promise(const struct redis_store *store, const struct survey *survey,
                          struct buf *line) {
    const struct redis_topology *topology = &store->topology;
    if (!survey->weakest) {
        buf_puts(line, "redis");
        return;
    }
    redis_promise_write(survey->weakest, line);
    if (topology->slots)
        buf_printf(line, "; a cluster of %u masters", survey->masters);
    if (redis_topology_may_fail_over(topology) && !store->redis->wait_replicas)
        buf_puts(line, "; a failover loses what the new master does not have");
}

static void write_hindrance(const struct redis_node *node, struct buf *line) {
    struct redis_address_text address = redis_address_text(&node->address);
    if (*node->rights.missing)
        buf_printf(line, "; the user has no right at %s for %s", address.text,
                   node->rights.missing);
    else
        buf_printf(line, "; %s refuses pushes: %s", address.text, node->rights.obstacle);
}

static void write_warnings(const struct redis_store *store, const struct survey *survey,
                           struct buf *line) {
    uint64_t now_ms = uv_now(store->topology.loop);
    if (survey->limited)
        buf_printf(line,
                   "; warning: delivery ids, epochs or consumers are not kept: the user has no "
                   "right at %s for %s",
                   redis_address_text(&survey->limited->address).text,
                   survey->limited->rights.optional);
    if (survey->evicts && survey->weakest && !survey->weakest->evicts)
        buf_puts(line, "; warning: the maxmemory-policy of a master evicts");
    if (survey->evicted)
        buf_printf(line, "; warning: Redis is evicting keys: %llu so far",
                   (unsigned long long)survey->evicted);
    if (store->stats.damaged)
        buf_printf(line, "; warning: damaged updates were left out %llu times",
                   (unsigned long long)store->stats.damaged);
    if (store->damaged_ms && now_ms - store->damaged_ms < DAMAGED_MS)
        buf_puts(line, "; warning: the keys of a channel are damaged");
}

static bool is_recent(const struct redis_store *store, uint64_t ms) {
    return ms && uv_now(store->topology.loop) - ms < REFUSED_MS;
}

enum store_error redis_store_health(struct store *base, struct buf *line) {
    struct redis_store *store = store_of(base);
    const struct redis_topology *topology = &store->topology;
    if (!redis_topology_is_up(topology)) {
        if (line)
            buf_printf(line, "%s%s%s", topology->away_address.text, *topology->away ? ": " : "",
                       *topology->away ? topology->away : "connecting");
        return operations_away_error(store);
    }
    struct survey survey = look(topology);
    bool is_refusing = store->refused && is_recent(store, store->refused_ms);
    bool is_deaf = is_recent(store, store->deaf_ms);
    if (line) {
        write_promise(store, &survey, line);
        if (is_refusing)
            buf_puts(line, "; the last push was not acknowledged");
        if (survey.hindered)
            write_hindrance(survey.hindered, line);
        else if (is_deaf)
            buf_printf(line, "; Redis refuses subscriptions: %s", store->deaf);
        write_warnings(store, &survey, line);
    }
    if (is_refusing)
        return store->refused;
    return survey.hindered ? survey.hindered->rights.error : is_deaf ? STORE_REFUSED : STORE_OK;
}
