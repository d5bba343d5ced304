/*
 * What longline answers: the route table, from a request to its handler. docs/protocol.md describes
 * it for users; the handlers are push.h, poll.h, report.h and http/asset.h.
 */
#pragma once

#include "http/conn.h"
#include "http/limiter.h"
#include "http/proxy.h"
#include "inbox/inbox.h"

/* A process has one; set it before the first request. */
extern struct api {
    struct inbox *inbox;
    struct store *store;
    const struct conn_shared *connections;
    struct limiter *limiter; /* NULL: no limit */
    struct proxy_trust *trust;
    const char *provider;
    bool capture_headers;
    bool may_purge;
    uint64_t keep_updates, keep_seconds; /* of a channel, for health */
    uint64_t poll_max_ms;
    uint64_t store_due_ms; /* wheel_now_ms() until which a store that is away is on its way */
    bool is_draining;
} api;

extern const struct handler api_handler;
extern const struct inbox_events api_inbox_events;
