/*
 * What becomes of an operation whose reply has come, or cannot come any more. Decisions only: no
 * sockets, no lists.
 */
#pragma once

#include "inbox/store.h"
#include <hiredis/hiredis.h>
#include <stdbool.h>

enum redis_fate_kind {
    FATE_DONE,   /* it was done; the reply says how */
    FATE_ANSWER, /* it is answered with `error` */
    FATE_AGAIN,  /* it is sent again */
    FATE_LATER,  /* it is sent again after a pause */
    FATE_SCRIPT, /* it is sent again with the text of its script */
    FATE_MOVED,  /* it is sent to the node that the reply names */
    FATE_ASK,    /* ... but only this once */
};

struct redis_fate {
    enum redis_fate_kind kind;
    enum store_error error; /* what it is answered with: now, or when its time is up */
};

/*
 * `reply`: NULL when the connection was lost. `is_believed`: the node is a master for certain.
 * `may_fail_over`: another Redis may take its place.
 */
struct redis_fate redis_fate_of(const redisReply *reply, bool is_append, bool is_believed,
                                bool may_fail_over);

/* What the text of an error means; also the reason why a connection was lost. */
enum store_error redis_fate_error(const char *text);
