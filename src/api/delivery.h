/*
 * The id of a delivery: what a sender says to tell a webhook that it repeats from a new one.
 *
 * It stands in a header: Webhook-Id, Svix-Id, X-GitHub-Delivery, X-Gitlab-Event-UUID,
 * X-Shopify-Webhook-Id, Idempotency-Key, or Ce-Id with Ce-Source. Or the address says where
 * (`.key=FIELD`): `header.NAME`, `query.NAME`, or `body.A.B`, the member B of the member A of the
 * update's JSON; a number is also the place in an array, from 0. In a batch a header's id is the
 * batch's, and each line has one of its own from it.
 *
 * Nothing of this is an error: a push without an id, or with one of more than
 * DELIVERY_TEXT_MAX_BYTES bytes, is stored as ever.
 */
#pragma once

#include "base/buf.h"
#include "http/request.h"
#include "inbox/store.h"

enum { DELIVERY_TEXT_MAX_BYTES = 1024 };

/* What is known of the ids of a request's updates. */
struct delivery_source {
    struct delivery delivery; /* of the request, if it has an id itself */
    struct buf path;          /* in the update's JSON, else empty */
    uint64_t count;           /* updates so far */
    bool is_any;              /* its updates may have ids */
    bool failed;              /* memory is out */
};

/* Finds out where a request has its ids; `query` is what follows the `?`. The source is zeroed.
 * Check `failed`; always delivery_source_deinit() it. */
void delivery_source_init(struct delivery_source *source, const struct request *request,
                          struct slice query);
void delivery_source_deinit(struct delivery_source *source);

/* The delivery of the request's next update, whose text is `body`. Any thread. */
struct delivery delivery_next(struct delivery_source *source, struct slice body);
