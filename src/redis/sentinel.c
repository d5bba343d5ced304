#include "redis/sentinel.h"
#include "base/log.h"
#include "redis/topology_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ASK_MS = 100,        /* a failover takes longer from its start to the promotion */
    STALL_MS = 500,      /* a Sentinel that is silent for so long has no say */
    REJOIN_MS = 500,     /* one whose connection was lost is waited for so long */
    HOME_AWAY_MS = 3000, /* a master that has been away for so long may be forgotten */
};

struct redis_sentinel {
    struct redis_sentinels *all;
    struct redis_conn conn;
    struct redis_call state_call, master_call;
    struct redis_word *word; /* in all->words */
    bool is_asked;
    bool is_ignorant; /* it knows no such master */
    bool was_ready;
    uint64_t lost_ms; /* when its connection was lost last */
};

struct redis_sentinels {
    struct redis_topology *topology;
    size_t count;
    struct redis_sentinel each[REDIS_SENTINELS_MAX];
    struct redis_word words[REDIS_SENTINELS_MAX]; /* in answer to the last question */
    unsigned waiting;                             /* answers that are to come */
    uint64_t asked_ms;
    long long epoch; /* of the configuration that is gone by */
};

/* --- What they say ---------------------------------------------------------------------------- */

static const struct redis_word *newest_word(const struct redis_word *words, size_t count) {
    const struct redis_word *newest = NULL;
    for (size_t i = 0; i < count; i++)
        if (words[i].is_told && (!newest || words[i].epoch > newest->epoch))
            newest = &words[i];
    return newest;
}

static size_t count_told(const struct redis_word *words, size_t count) {
    size_t told = 0;
    for (size_t i = 0; i < count; i++)
        told += words[i].is_told;
    return told;
}

static bool is_being_replaced(const struct redis_address *master, const struct redis_word *words,
                              size_t count) {
    for (size_t i = 0; i < count; i++)
        if (words[i].is_told && words[i].is_failing_over &&
            redis_address_equal(&words[i].master, master))
            return true;
    return false;
}

struct redis_verdict redis_sentinel_judge(const struct redis_word *words, size_t count,
                                          long long known_epoch, bool is_master_away) {
    const struct redis_word *newest = newest_word(words, count);
    bool are_most = count_told(words, count) * 2 > count;
    if (!newest || (newest->epoch < known_epoch && !(is_master_away && are_most)))
        return (struct redis_verdict){NULL, false};
    return (struct redis_verdict){newest, !is_being_replaced(&newest->master, words, count)};
}

/* --- What follows ----------------------------------------------------------------------------- */

static void set_home(struct redis_topology *topology, const struct redis_address *address) {
    if (topology->home && redis_address_equal(&topology->home->address, address))
        return;
    log_info("redis master", "address", redis_address_text(address).text, NULL);
    topology->home = node_get(topology, address);
    topology->is_known = topology->home != NULL;
    topology->events->changed(topology);
}

/* All who were asked have answered, or are gone. */
static void conclude(struct redis_sentinels *sentinels) {
    struct redis_topology *topology = sentinels->topology;
    uint64_t away_ms = uv_now(topology->loop) - topology->home_well_ms;
    struct redis_verdict verdict = redis_sentinel_judge(sentinels->words, sentinels->count,
                                                        sentinels->epoch, away_ms >= HOME_AWAY_MS);
    if (!verdict.word)
        return;
    sentinels->epoch = verdict.word->epoch;
    set_home(topology, &verdict.word->master);
    if (verdict.is_sure)
        topology_settle_doubts(topology, NULL, topology->questions);
    else if (topology->home)
        topology_doubt_node(topology->home);
}

/* --- Answers ---------------------------------------------------------------------------------- */

/* The value of a field of a reply that is a list of names and values; "" when there is none. */
static const char *field_of(const redisReply *reply, const char *name) {
    for (size_t i = 0; i + 1 < reply->elements; i += 2)
        if (reply->element[i]->str && strcmp(reply->element[i]->str, name) == 0)
            return reply->element[i + 1]->str ? reply->element[i + 1]->str : "";
    return "";
}

/* `flags` may hold failover_in_progress. */
static void on_state(struct redis_call *call, const redisReply *reply) {
    struct redis_sentinel *sentinel = container_of(call, struct redis_sentinel, state_call);
    if (!reply || reply->type != REDIS_REPLY_ARRAY)
        return;
    sentinel->word->epoch = atoll(field_of(reply, "config-epoch"));
    sentinel->word->is_failing_over = strstr(field_of(reply, "flags"), "failover_in_progress");
    /* In the end it names the new master already, while the state is still that of the old one. */
    snprintf(sentinel->word->master.host, sizeof sentinel->word->master.host, "%s",
             field_of(reply, "ip"));
    sentinel->word->master.port = (uint16_t)atoi(field_of(reply, "port"));
}

/* False when the reply is no address. */
static bool take_master(struct redis_word *word, const redisReply *reply) {
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
        reply->element[0]->type != REDIS_REPLY_STRING ||
        reply->element[1]->type != REDIS_REPLY_STRING)
        return false;
    struct redis_address master = {.port = (uint16_t)atoi(reply->element[1]->str)};
    snprintf(master.host, sizeof master.host, "%s", reply->element[0]->str);
    if (!redis_address_equal(&word->master, &master))
        word->is_failing_over = false;
    word->master = master;
    word->is_told = true;
    return true;
}

static void on_master(struct redis_call *call, const redisReply *reply) {
    struct redis_sentinel *sentinel = container_of(call, struct redis_sentinel, master_call);
    struct redis_sentinels *all = sentinel->all;
    if (!sentinel->is_asked)
        return;
    sentinel->is_asked = false;
    all->waiting--;
    sentinel->is_ignorant = reply && !take_master(sentinel->word, reply);
    if (sentinel->is_ignorant) {
        char reason[160];
        snprintf(reason, sizeof reason, "the sentinel knows no master named \"%s\"",
                 all->topology->options->master);
        redis_conn_fail(&sentinel->conn, reply->type == REDIS_REPLY_ERROR ? reply->str : reason);
    }
    if (!all->waiting)
        conclude(all);
}

/* --- Connections ------------------------------------------------------------------------------ */

static struct redis_sentinel *of_conn(struct redis_conn *conn) {
    return container_of(conn, struct redis_sentinel, conn);
}

static void sentinel_ready(struct redis_conn *conn) {
    of_conn(conn)->was_ready = true;
    sentinel_ask(of_conn(conn)->all);
}

static void sentinel_down(struct redis_conn *conn, const char *reason) {
    struct redis_sentinel *sentinel = of_conn(conn);
    struct redis_sentinels *all = sentinel->all;
    if (sentinel->was_ready)
        sentinel->lost_ms = uv_now(conn->loop);
    sentinel->was_ready = false;
    bool is_any_ready = false;
    for (size_t i = 0; i < all->count; i++)
        is_any_ready |= redis_conn_is_ready(&all->each[i].conn);
    if (!is_any_ready && !redis_topology_is_up(all->topology))
        topology_note_away(all->topology, &conn->address, reason);
}

/* What it says may be as old as the silence; or this process was frozen itself. */
static bool sentinel_silent(struct redis_conn *conn) {
    redis_conn_fail(conn, "the sentinel was silent");
    return true;
}

static const struct redis_conn_events sentinel_events = {sentinel_ready, sentinel_down, NULL,
                                                         sentinel_silent};

/*
 * Whether one may be there in a moment, and know better than those that are. When this process was
 * frozen, all connections are lost, and the Sentinel that was frozen with it must not be the only
 * one to be heard.
 */
static bool is_expecting(const struct redis_sentinels *sentinels) {
    uint64_t now_ms = uv_now(sentinels->topology->loop);
    for (size_t i = 0; i < sentinels->count; i++) {
        const struct redis_sentinel *sentinel = &sentinels->each[i];
        bool is_first_try = sentinel->conn.tries <= 1 && sentinel->conn.state != REDIS_CONN_DOWN;
        bool is_lost = sentinel->lost_ms && now_ms - sentinel->lost_ms < REJOIN_MS;
        if (!redis_conn_is_ready(&sentinel->conn) && !sentinel->is_ignorant &&
            (is_first_try || is_lost))
            return true;
    }
    return false;
}

static void ask_one(struct redis_sentinel *sentinel) {
    const char *name = sentinel->all->topology->options->master;
    sentinel->is_asked = true;
    sentinel->all->waiting++;
    redis_conn_words(&sentinel->conn, &sentinel->state_call, "SENTINEL", "MASTER", name, NULL);
    redis_conn_words(&sentinel->conn, &sentinel->master_call, "SENTINEL", "get-master-addr-by-name",
                     name, NULL);
}

void sentinel_ask(struct redis_sentinels *sentinels) {
    struct redis_topology *topology = sentinels->topology;
    if (sentinels->waiting || is_expecting(sentinels))
        return;
    memset(sentinels->words, 0, sizeof sentinels->words);
    for (size_t i = 0; i < sentinels->count; i++)
        if (redis_conn_is_ready(&sentinels->each[i].conn))
            ask_one(&sentinels->each[i]);
    if (!sentinels->waiting)
        return;
    topology->questions++;
    sentinels->asked_ms = uv_now(topology->loop);
}

void sentinel_tick(struct redis_sentinels *sentinels, uint64_t now_ms) {
    for (size_t i = 0; i < sentinels->count; i++)
        redis_conn_tick(&sentinels->each[i].conn, now_ms);
    if (now_ms - sentinels->asked_ms >= ASK_MS || topology_has_doubts(sentinels->topology))
        sentinel_ask(sentinels);
}

/* --- Opening and closing ---------------------------------------------------------------------- */

struct redis_sentinels *sentinel_new(struct redis_topology *topology) {
    const struct redis_options *options = topology->options;
    struct redis_sentinels *all = calloc(1, sizeof *all);
    if (!all)
        return NULL;
    all->topology = topology;
    all->count = options->sentinel_count;
    for (size_t i = 0; i < all->count; i++) {
        struct redis_sentinel *sentinel = &all->each[i];
        struct redis_conn *conn = &sentinel->conn;
        sentinel->all = all;
        sentinel->word = &all->words[i];
        sentinel->state_call.done = on_state;
        sentinel->master_call.done = on_master;
        redis_conn_init(conn, topology->loop, options, topology->tls, &sentinel_events);
        conn->pass = *options->sentinel_pass ? options->sentinel_pass : NULL;
        conn->db = 0;
        if (conn->stall_ms > STALL_MS)
            conn->stall_ms = STALL_MS;
    }
    return all;
}

void sentinel_open(struct redis_sentinels *sentinels) {
    for (size_t i = 0; i < sentinels->count; i++)
        redis_conn_open(&sentinels->each[i].conn, &sentinels->topology->options->sentinels[i]);
}

void sentinel_free(struct redis_sentinels *sentinels) {
    for (size_t i = 0; sentinels && i < sentinels->count; i++) {
        sentinels->each[i].is_asked = false;
        redis_conn_close(&sentinels->each[i].conn);
    }
    free(sentinels);
}
