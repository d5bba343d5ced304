#include "redis/sentinel.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ASK_MS = 200,        /* from one question to the next, when nothing hints at a change */
    STALL_MS = 500,      /* a Sentinel that is silent for so long is passed over */
    HOME_AWAY_MS = 3000, /* a master that has been away for so long is not held on to */
};

static struct redis_topology *of_sentinel(struct redis_conn *conn) {
    return container_of(conn, struct redis_topology, sentinel);
}

static void set_home(struct redis_topology *topology, const struct redis_address *address) {
    struct redis_node *home = topology->home;
    if (home && redis_address_equal(&home->address, address))
        return;
    log_info("redis master", "address", redis_address_text(address).text, NULL);
    topology->home = topology_get_node(topology, address);
    topology->is_known = topology->home != NULL;
    if (home)
        topology_close_node(
            home); /* what it has not said yet counts for nothing; it is freed when it is idle */
    topology->events->changed(topology);
}

static void next_sentinel(struct redis_topology *topology) {
    topology->sentinel_index =
        (topology->sentinel_index + 1) % (unsigned)topology->options->sentinel_count;
    topology->sentinel.address = topology->options->sentinels[topology->sentinel_index];
}

/* The value of a field of a reply that is a list of names and values; NULL when there is none. */
static const char *field_of(const redisReply *reply, const char *name) {
    for (size_t i = 0; i + 1 < reply->elements; i += 2)
        if (reply->element[i]->str && strcmp(reply->element[i]->str, name) == 0)
            return reply->element[i + 1]->str;
    return NULL;
}

static void on_epoch(struct redis_call *call, const redisReply *reply) {
    struct redis_topology *topology = container_of(call, struct redis_topology, epoch_call);
    const char *epoch =
        reply && reply->type == REDIS_REPLY_ARRAY ? field_of(reply, "config-epoch") : NULL;
    topology->told_epoch = epoch ? atoll(epoch) : 0;
}

/*
 * Whether what the sentinel says is no older than what is known. One that has not heard of a
 * failover yet names the old master: its epoch is lower. When most of them say so for long, they
 * have been set up anew.
 */
static bool is_current(struct redis_topology *topology) {
    if (topology->told_epoch < topology->epoch) {
        topology->outdated |= 1U << topology->sentinel_index;
        bool is_home_well = uv_now(topology->loop) - topology->home_well_ms < HOME_AWAY_MS;
        unsigned votes = (unsigned)__builtin_popcount(topology->outdated);
        if (is_home_well || votes * 2 <= topology->options->sentinel_count)
            return false;
    }
    topology->outdated = 0;
    topology->epoch = topology->told_epoch;
    return true;
}

static void on_master(struct redis_call *call, const redisReply *reply) {
    struct redis_topology *topology = container_of(call, struct redis_topology, sentinel_call);
    topology->is_asking = false;
    if (!reply)
        return;
    if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
        reply->element[0]->type == REDIS_REPLY_STRING &&
        reply->element[1]->type == REDIS_REPLY_STRING) {
        struct redis_address address = {.port = (uint16_t)atoi(reply->element[1]->str)};
        snprintf(address.host, sizeof address.host, "%s", reply->element[0]->str);
        if (!is_current(topology)) {
            redis_conn_fail(&topology->sentinel, "the sentinel has not heard of the last failover");
            return;
        }
        set_home(topology, &address);
        topology_settle_doubts(topology, NULL, topology->questions);
        return;
    }
    char reason[160];
    snprintf(reason, sizeof reason, "the sentinel knows no master named \"%s\"",
             topology->options->master);
    redis_conn_fail(&topology->sentinel, reply->type == REDIS_REPLY_ERROR ? reply->str : reason);
}

static void sentinel_ready(struct redis_conn *conn) {
    sentinel_ask(of_sentinel(conn), uv_now(conn->loop));
}

static void sentinel_down(struct redis_conn *conn, const char *reason) {
    struct redis_topology *topology = of_sentinel(conn);
    if (!topology->home || !redis_topology_is_up(topology))
        topology_note_away(topology, &conn->address, reason);
    next_sentinel(topology);
    if (conn->retry_ms > uv_now(conn->loop) + REDIS_BACKOFF_MIN_MS && topology->sentinel_index)
        conn->retry_ms =
            uv_now(conn->loop) + REDIS_BACKOFF_MIN_MS; /* another one may answer at once */
}

/* What it says may be as old as the silence, or this process was frozen itself: another one
 * knows better. */
static bool sentinel_silent(struct redis_conn *conn) {
    redis_conn_fail(conn, "the sentinel was silent");
    return true;
}

static const struct redis_conn_events sentinel_events = {sentinel_ready, sentinel_down, NULL,
                                                         sentinel_silent};

void sentinel_ask(struct redis_topology *topology, uint64_t now_ms) {
    if (topology->is_asking || !redis_conn_is_ready(&topology->sentinel))
        return;
    topology->questions++;
    topology->is_asking = true;
    topology->is_suspect = false;
    topology->asked_ms = now_ms;
    const char *master = topology->options->master;
    redis_conn_words(&topology->sentinel, &topology->epoch_call, "SENTINEL", "MASTER", master,
                     NULL);
    redis_conn_words(&topology->sentinel, &topology->sentinel_call, "SENTINEL",
                     "get-master-addr-by-name", master, NULL);
}

void sentinel_tick(struct redis_topology *topology, uint64_t now_ms) {
    if (!topology->options->sentinel_count)
        return;
    redis_conn_tick(&topology->sentinel, now_ms);
    uint64_t wait_ms = topology->is_suspect ? TOPOLOGY_ASK_SOON_MS : ASK_MS;
    if (now_ms - topology->asked_ms >= wait_ms || topology_has_doubts(topology))
        sentinel_ask(topology, now_ms);
}

void sentinel_init(struct redis_topology *topology) {
    const struct redis_options *options = topology->options;
    struct redis_conn *conn = &topology->sentinel;
    topology->epoch_call.done = on_epoch;
    topology->sentinel_call.done = on_master;
    redis_conn_init(conn, topology->loop, options, topology->tls, &sentinel_events);
    conn->pass = *options->sentinel_pass ? options->sentinel_pass : NULL;
    conn->db = 0;
    if (conn->stall_ms > STALL_MS)
        conn->stall_ms = STALL_MS;
}
