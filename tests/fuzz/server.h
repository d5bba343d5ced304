/*
 * What the fuzzers of a whole server share: the server in this process, over the store in memory,
 * and its clients, each with one end of a pair of sockets.
 */
#pragma once

#include "base/buf.h"
#include "clock.h"
#include "http/conn_parts.h"

#include <assert.h>

enum { CLIENTS_MAX = 9, SERVER_FD = 900, REQUESTS_MAX = 4096 };

struct client {
    int fd;         /* its end; -1: it has closed */
    int server_fd;  /* the server's: SERVER_FD and its index; -1: it was never open */
    bool is_lax;    /* it has closed, or shut down, or left replies unread: some may be missing */
    bool is_paused; /* it reads nothing */
    bool is_ended;  /* the server has closed */
    struct buf got; /* what the server sent */
    uint32_t asked; /* requests that the handler got, */
    bool is_head[REQUESTS_MAX]; /* and what they are */
};

extern uv_loop_t *loop;
extern struct conn_shared shared;
extern struct client clients[CLIENTS_MAX];

/* Once in a process. */
void server_set_up(void);

/* For each input. */
void server_open(void);
/* Closes it, and asserts that nothing is left: no connection, no byte of the budget, no poll. */
void server_shut(void);

/* A new client; its connection is there. */
struct client *client_open(int index);
/* A pair of sockets for a client that has no connection yet; the server's end. */
int client_pair(int index);
void client_send(struct client *client, struct slice bytes);
void client_close(struct client *client);
/* Asserts that what it got are replies to what it asked, in their form. */
void client_check(struct client *client);

/* A turn of the loop; then the clients read. */
void turn(void);
void turns(int count);
