// Many keep-alive HTTP/1.1 connections on one epoll, each with one request at a time.
//
// This client measures: anything unexpected (a closed connection, a reply that it cannot read, a
// request that does not fit the socket's buffer) ends the program with one line on stderr.
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct client;
struct client_conn;

// A reply in the read buffer. It is gone when the callback returns.
struct reply {
    int status;
    const char *head;
    size_t head_size;
    const char *body;
    size_t body_size;
    uint64_t at_ns; // when its last byte was read
};

typedef void (*client_on_reply)(struct client_conn *conn, const struct reply *reply);

struct client_conn {
    int fd;
    bool busy;    // a request is out
    size_t index; // the caller's
    void *data;   // the caller's
    client_on_reply on_reply;
    char *partial; // the part of a reply that has arrived so far, if it comes in pieces
    size_t partial_size;
};

// The monotonic clock.
uint64_t now_ns(void);

// Prints one line on stderr and exits with 1.
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

// Zeroed memory. Dies if there is none.
void *allocate(size_t count, size_t size);

struct client *client_new(void);

// Connects, which blocks, and adds the connection to the client's epoll.
void client_open(struct client *client, struct client_conn *conn, const struct sockaddr_in *server);

// Sends one request. client_turn() will pass the reply to conn->on_reply.
void client_send(struct client_conn *conn, const char *request, size_t size);

// Waits at most timeout_ms and handles what has arrived. Returns the number of replies.
size_t client_turn(struct client *client, int timeout_ms);

// Copies the value of a header into out, with a NUL. Returns false if the reply has no such header.
bool reply_header(const struct reply *reply, const char *name, char *out, size_t size);

#endif
