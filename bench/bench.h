// What the modes share: subscribers whose polls are parked, pushes that wake them, and latencies.
//
// Everything runs on one thread and one epoll. A latency is the time from the send() of a push
// until the last byte of the subscriber's reply was read, on one clock.
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include "client.h"
#include "dialect.h"
#include "options.h"

#include <stdint.h>

// One subscriber. Its poll is out, except between two rounds.
struct subscriber {
    struct client_conn conn; // first: a conn is cast back to its subscriber
    struct cursor cursor;
    size_t channel;
};

struct bench {
    const struct options *options;
    struct client *client;
    struct client_conn control; // asks the server how many polls it holds
    size_t parked;              // what the server said last
    struct subscriber *subscribers;
    uint64_t *published_ns; // by channel: when its push was sent; 0 before
    uint64_t *latency_ns;   // one for each update that a subscriber got
    size_t received;
    size_t expired;       // polls that were answered without an update and sent again
    uint64_t received_ns; // when the newest update was read
    uint64_t progress_ns; // when a reply came last
    size_t acknowledged;  // pushes that were answered
    char body[BODY_MAX + 1];
};

// Connects to the server, which must hold no poll. Dies without --server.
void bench_init(struct bench *bench, const struct options *options);

// Opens a connection whose replies go to on_reply, with the bench as its data.
void bench_open(struct bench *bench, struct client_conn *conn, const struct sockaddr_in *server,
                client_on_reply on_reply);

// Asks the server until it says that it holds this many polls.
void bench_await_parked(struct bench *bench, size_t count);

// Opens all subscribers, spread over options->channels, and waits until their polls are parked.
void bench_park(struct bench *bench);

// Sends the polls of all subscribers again and waits until they are parked.
void bench_park_again(struct bench *bench);

// Sends a push to a channel.
void bench_push(struct bench *bench, struct client_conn *conn, size_t channel);

// An on_reply for pushes: counts them. Dies if one was refused.
void bench_on_pushed(struct client_conn *conn, const struct reply *reply);

// Runs one turn of the loop. Dies if no reply has come for half a minute.
void bench_turn(struct bench *bench);

// A pseudo-random number; `state` may start as anything.
uint64_t random_next(uint64_t *state);

void sort_numbers(uint64_t *values, size_t count);

// Prints p50, p99 and the maximum as members of a JSON object; sorts the values.
void print_latency(const char *name, uint64_t *values_ns, size_t count);

#endif
