// What the two servers call the same things: how a poll, a push and the count of parked polls are asked for.
#ifndef BENCH_DIALECT_H
#define BENCH_DIALECT_H

#include "client.h"

// Where a subscriber stands in its channel: longline counts, nchan has two headers.
struct cursor {
    uint64_t ts;
    char last_modified[40];
    char etag[16];
};

struct dialect {
    const char *name;

    // Each writes one request into out and returns its size.
    size_t (*poll)(char *out, size_t size, const char *channel, const struct cursor *cursor);
    size_t (*push)(char *out, size_t size, const char *channel, const char *body);
    size_t (*status)(char *out, size_t size);

    // Moves the cursor past a poll's reply; returns false if the reply holds no update.
    bool (*advance)(const struct reply *reply, struct cursor *cursor);

    // How many polls are parked, out of the reply to a status request.
    size_t (*parked)(const struct reply *reply);
};

// Returns NULL for a name that is neither longline nor nchan.
const struct dialect *dialect_find(const char *name);

#endif
