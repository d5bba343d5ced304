/*
 * A server in this process, over the memory store: what a client sends goes through http, api and
 * inbox, and what they say comes back on its socket.
 */
#pragma once

#include "support.h"

#include "api/api.h"
#include "base/buf.h"
#include "base/counters.h"
#include "http/budget.h"

extern uv_loop_t loop;
extern struct conn_shared connections;

/* Set before server_up(): the store, NULL: one in memory; and what is called in each turn. */
extern struct store *given_store;
extern void (*on_turn)(void);
extern bool uses_io_uring;

/* It begins, and ends: then nothing may be left of any request. */
int server_up(void **state);
int server_down(void **state);
/* Ends what the last connections have left, with a new conn_shared. */
void connections_up(void);
void connections_down(void);

/* Turns the loop until nothing is under way: no connection, no poll, no byte of the budget. */
void until_idle(void);
/* Turns it once, and waits at most a millisecond for anything to do. */
void turn(void);
#define PATIENCE_NS 120000000000
/* Turns it until the condition is true. */
#define UNTIL(condition)                                                                           \
    for (uint64_t end_ns = uv_hrtime() + PATIENCE_NS; !(condition); turn())                        \
    assert_true(uv_hrtime() < end_ns)

/* A client's socket. */
int client_new(void);
/* What it sends; the server reads it meanwhile. */
void client_send(int client, struct slice bytes);
/* Adds to `got` what has come, as far as there is room; false when the server has closed. */
bool client_read(int client, struct buf *got);
bool has_text(const struct buf *got, const char *text);

/* One request on a connection of its own, until the server closes that, or has said `until`; NULL:
 * it says nothing in particular. The status; 0: there was none. `got` has all of it. */
int request(const struct buf *text, const char *until, struct buf *got);
/* Writes one: `head` ends with the last header's line, the body is `times` copies of `body`. */
void put_request(struct buf *out, const char *head, const char *body, unsigned times);
/* Pushes an update: `times` copies of `body`, as text. */
void push(const char *channel, const char *body, unsigned times);
