/*
 * Sentinel: which Redis is the master.
 *
 * All Sentinels are asked at once, ten times a second, and the newest configuration that any of
 * them names counts. One that does not answer in time, or was silent, has no say. While one of them
 * is replacing the master, nobody vouches for it.
 */
#pragma once

#include "redis/topology.h"

/* What a Sentinel says of the master. */
struct redis_word {
    bool is_told;
    bool is_failing_over; /* it is replacing this master */
    long long epoch;      /* of its configuration: each failover has a higher one */
    struct redis_address master;
};

struct redis_verdict {
    const struct redis_word *word; /* the one to go by; NULL: none */
    bool is_sure;                  /* nobody is replacing the master that it names */
};

/*
 * What follows from the words of all Sentinels. Those that have not heard of the last failover name
 * an epoch older than `known_epoch`, and do not count. If most of them do while the master has long
 * been away, they were set up anew: then they count.
 */
struct redis_verdict redis_sentinel_judge(const struct redis_word *words, size_t count,
                                          long long known_epoch, bool is_master_away);

/* NULL when memory is out. Nothing is opened yet. */
struct redis_sentinels *sentinel_new(struct redis_topology *topology);
void sentinel_open(struct redis_sentinels *sentinels);
/* Closes and frees; NULL is ignored. */
void sentinel_free(struct redis_sentinels *sentinels);

/* Asks for the master, unless a question is under way. */
void sentinel_ask(struct redis_sentinels *sentinels);
/* Asks when it is time, or when a node is in doubt. */
void sentinel_tick(struct redis_sentinels *sentinels, uint64_t now_ms);
