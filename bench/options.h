// The command line of the load client.
#ifndef BENCH_OPTIONS_H
#define BENCH_OPTIONS_H

#include "dialect.h"
#include "process.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>

enum {
    WINDOW_MAX = 256, // publishes out at once
    BODY_MAX = 3072,
};

struct options {
    const char *mode;
    const struct dialect *dialect;
    struct sockaddr_in server;
    struct sockaddr_in publish_server; // the same as server, or another on the same store
    struct processes processes;
    size_t polls;
    size_t channels; // 0: the mode decides
    size_t rounds;
    size_t window;
    size_t connections;
    size_t body_size;
    size_t seed;
    size_t deadline_seconds;
    bool secret_names;
    const char *path;
    const char *parameters;
};

extern const char options_help[];

// Dies on an option that it cannot read.
struct options options_parse(int argc, char **argv);

#endif
