/*
 * The store over Redis servers that the test plays: it says when their connections are ready, what
 * they reply, when a turn ends, and how late it is. Nothing is sent, and nothing takes time.
 *
 * The nodes have the ports 1 to 9.
 */
#pragma once

#include "redis/parts.h"
#include "support.h"

enum { PLAYED_TIMEOUT_MS = 1000 };

extern struct redis_store *played;

/* Opens it; no Redis is there yet. `wait_replicas`: REDIS_WAIT. */
void play_start(int64_t wait_replicas);
/* Closes it; a teardown. */
int play_end(void **state);

/* What CLUSTER SLOTS replies: "112" are three equal parts, two of them served by port 1. */
const char *play_map(const char *ports);
/* Goes on until all is up, with this map in answer to every question; "": it is no cluster. */
void play_up(const char *ports);

struct redis_node *played_node(int port);
/* The question for the map that is asked now, if none is under way; it is its node's slots_call. */
struct redis_call *play_question(void);
uint64_t played_now_ms(void);

void play_pass(uint64_t ms);
/* Ends the turn; whether something is left for the next one. */
bool play_turn(void);

/* Begin an operation; the turn goes on. */
void play_push(const char *channel, size_t bytes, uint32_t updates);
void play_read(const char *channel);
/* How many have been answered, and what the last of them came to. */
extern int played_answers;
extern enum store_error played_error;

/* What has been sent and not answered: commands of operations, WAIT and ASKING. */
int played_calls(struct redis_node *node, enum redis_lane_kind kind);
/* Replies to the first of them, with what stands on the wire. */
void play_reply(struct redis_node *node, enum redis_lane_kind kind, const char *text);
/* Replies to a question. */
void play_answer(struct redis_call *call, const char *text);
/* A message on the line for news. */
void play_message(struct redis_node *node, const char *text);

/* The reply to pushes of one channel, which has `total` updates then. */
const char *play_stored(int total);
