/*
 * What doctor asks a server: requests for a path, or for a channel of its own, which it purges in
 * the end. There is nobody who could go on without memory: then it says so and exits.
 */
#pragma once

#include "base/buf.h"
#include "base/keys.h"
#include "base/slice.h"
#include "cli/exchange.h"

#include <stdbool.h>
#include <stdint.h>

enum { PROBE_ANSWER_MS = 30000 };

/* One question, and its answer. */
struct question {
    const char *method, *path; /* path: NULL is the channel's */
    const char *query;         /* with its question mark; NULL: none */
    struct slice body;
    int64_t limit_ms;            /* 0: PROBE_ANSWER_MS */
    bool limits_all, takes_gzip; /* see struct exchange_request */
    struct exchange_reply reply;
    struct exchange_transfer *transfer;
    struct curl_slist *headers;
    struct buf url;
};

struct probe {
    struct exchange *exchange;
    struct buf server; /* its address, without a slash behind it */
    char key[KEY_BYTES];
    struct question last; /* of probe_ask() */
};

/* Prepares to ask the server of that channel, whose address is sound (link.h); probe_deinit() frees
 * it. */
void probe_init(struct probe *probe, const char *url);
void probe_deinit(struct probe *probe);

/* Begins to ask; exchange_go_on() brings the answer, probe_stop() waits for no more of it, and
 * probe_end() frees it. */
void probe_start(struct probe *probe, struct question *question);
void probe_stop(struct question *question);
void probe_end(struct question *question);

/* Asks, and waits for the answer, which is there until the next one. Returns it. */
const struct exchange_reply *probe_ask(struct probe *probe, const struct question *question);

/* The body of an answer. */
struct slice probe_body(const struct exchange_reply *reply);

/* Says what came instead of the reply that was wanted; `text` is the caller's to free. */
const char *probe_what_came(const struct exchange_reply *reply, struct buf *text);
