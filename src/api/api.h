/*
 * What longline answers: the route table and its handlers, from a request to the inbox and back.
 * docs/protocol.md describes it for users.
 */
#pragma once

#include "base/config.h"
#include "http/conn.h"
#include "http/limiter.h"
#include "http/proxy.h"
#include "inbox/inbox.h"

enum { SLEEP_MAX_MS = 60000 };

struct api {
    struct inbox *inbox;
    struct store *store;
    struct limiter *limiter; /* NULL: no limit */
    struct proxy_trust *trust;
    const char *provider;
    bool capture_headers;
    uint64_t keep_updates, keep_seconds; /* of a channel; what health says of it */
    bool is_draining;
};

/* Before the first request. `api` is used for the life of the process. */
void api_init(struct api *api);

extern const struct handler api_handler;
extern const struct inbox_events api_inbox_events;
