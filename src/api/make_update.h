/* How a request becomes updates: the text of each (body.h), and the request as it came. */
#pragma once

#include "api/delivery.h"
#include "api/fields.h"
#include "base/buf.h"
#include "http/request.h"
#include "http/status.h"
#include "inbox/update.h"

/* What the route knows of a push. */
struct sent {
    struct slice query; /* what follows the `?` of the target; must outlive the update's making */
    struct slice path;  /* below the channel, from its slash on; empty when there is none */
    struct slice from;  /* the sender's address, empty when it is not known */
};

/* The body of a push. */
struct payload {
    struct slice bytes;
    struct slice content_type;
    struct slice codings; /* to be undone; empty when there are none */
    bool is_opaque;       /* in a coding that is not known, or broken */
    struct buf inflated;  /* where `bytes` lie, if they were inflated */
    struct slice coded;   /* what they were before; empty if they were not */
};

/* That of a complete request, as it came. In the end payload_deinit() it. */
struct payload payload_of(const struct request *request);

/* Undoes the codings. After ERROR_BODY_SIZE, when there would be more than `max` bytes, and after
 * ERROR_BUSY, when memory is out, the payload is as before. Any thread. */
enum http_error payload_inflate(struct payload *payload, size_t max);
void payload_deinit(struct payload *payload);

/* What all updates of a request have in common. */
struct update_maker {
    struct slice query;
    struct buf method;    /* as update_method() has it */
    struct fields fields; /* of the query */
    struct buf headers;   /* as kept; empty when they are not */
    struct buf text;      /* of the update that is being made */
    struct delivery_source source;
    struct delivery delivery; /* of the update that was made last */
};

/*
 * Reads what a request's updates have in common. The maker is zeroed or deinitialized. False when
 * memory is out; in any case update_maker_deinit() it.
 */
bool update_maker_init(struct update_maker *maker, const struct request *request,
                       const struct sent *sent, bool capture_headers);
void update_maker_deinit(struct update_maker *maker);

/* Where its updates come from. */
static inline struct origin update_maker_origin(const struct update_maker *maker) {
    return origin_read((struct slice){maker->method.data, maker->method.len});
}

/* Memory it takes. */
size_t update_maker_size(const struct update_maker *maker);

/*
 * Makes the update that a payload becomes. On an error `*update` is untouched; running out of
 * memory is ERROR_BUSY.
 */
enum http_error update_maker_make(struct update_maker *maker, const struct payload *payload,
                                  struct update **update);

/* Makes the one update of a push, and its delivery. */
enum http_error make_update(const struct request *request, const struct payload *payload,
                            const struct sent *sent, bool capture_headers, struct update **update,
                            struct delivery *delivery);
