// What differs between the two servers: how to poll, how to push, how to count parked polls.
#ifndef BENCH_DIALECT_H
#define BENCH_DIALECT_H

#include "client.h"

// Where a subscriber is in its channel: longline has a number, nchan two headers.
struct cursor {
    uint64_t ts;
    char last_modified[40];
    char etag[16];
};

// More parameters of longline's polls, as `&name=value`; empty at first.
extern const char *longline_parameters;

struct dialect {
    const char *name;

    // Each of these writes one request into out and returns its size.
    size_t (*poll)(char *out, size_t size, const char *channel, const struct cursor *cursor);
    size_t (*push)(char *out, size_t size, const char *channel, const char *body);
    size_t (*status)(char *out, size_t size);

    // Moves the cursor past a poll's reply; returns false if the reply holds no update.
    bool (*advance)(const struct reply *reply, struct cursor *cursor);

    // How many polls are parked, according to the reply to a status request.
    size_t (*parked)(const struct reply *reply);
};

// Returns NULL for a name that is neither longline nor nchan.
const struct dialect *dialect_find(const char *name);

#endif
