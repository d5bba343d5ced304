/*
 * The body of a poll of many channels: a JSON object with a member for each.
 *
 *     {"channel": 41, "another": "now", "third": {"ts": 7, "epoch": "90f0e0c0a0b0d010"}}
 */
#pragma once

#include "api/make_update.h"
#include "base/buf.h"
#include "base/slice.h"
#include "http/status.h"
#include "inbox/position.h"

enum { MANY_CHANNELS_MAX = 64, MANY_BODY_MAX_BYTES = 65536 };

/* A channel that the body names, and where its poll begins. */
struct many_channel {
    struct slice key;  /* as it stands in the body between its quotes, still escaped */
    struct slice name; /* of the channel: of a key, its w_ one */
    int64_t position;
    uint64_t epoch;
    bool has_epoch;
};

struct many_body {
    struct many_channel channels[MANY_CHANNELS_MAX];
    uint32_t count; /* 1 to MANY_CHANNELS_MAX */
    struct buf names;
};

/* Reads `text`, which must stay as long as the body's slices are used; many_body_deinit() it,
 * whatever comes of it. */
enum http_error many_body_parse(struct many_body *body, struct slice text);
/* The same of a request; `payload`, which must stay as well, is the caller's to deinit. */
enum http_error many_body_read(const struct request *request, struct payload *payload,
                               struct many_body *body);
void many_body_deinit(struct many_body *body);
