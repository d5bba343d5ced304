/* A Redis server of the test's own, and the store over it. */
#pragma once

#include "inbox/store.h"
#include "redis/options.h"
#include "support.h"
#include <hiredis/hiredis.h>

enum { SERVERS = 2 };

struct server {
    int pid, port;
    char dir[80];
    redisContext *client;
};

extern struct server servers[SERVERS];
extern struct store *store;
extern struct store_options store_options;
extern struct redis_options redis_options;

/* Whether there is a redis-server that can be started. */
bool has_redis(void);

/* Starts servers and opens the store over them: one by itself, or two as a cluster. */
int start_one(void **state);
int start_cluster(void **state);
int stop_all(void **state);

/* Opens the store anew, with what stands in the options. */
void open_store(void);
void close_store(void);

/* What a server replies to a command, as redisCommand() has it; until the next one. */
__attribute__((format(printf, 2, 3))) const redisReply *ask(struct server *server,
                                                            const char *format, ...);
/* The same as text: a number, a text, "" for nil, or the error. */
__attribute__((format(printf, 2, 3))) const char *ask_text(struct server *server,
                                                           const char *format, ...);

/* Runs the loop until `*is_done`. */
void run_until(const bool *is_done);

/* Pushes {"n":1} to a channel; its ts, 0 where it is refused. */
uint64_t push(const char *channel);

/* Reads a channel. What it returns is valid until the next read. */
struct store_read *read_from(const char *channel, int64_t position, uint64_t seen_epoch,
                             bool wants_epoch);
