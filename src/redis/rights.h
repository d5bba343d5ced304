/*
 * What stands against serving, although Redis answers: rights that the user lacks, and whatever
 * Redis would say to a push now. A script that changes nothing finds out (Redis 7 or later).
 */
#pragma once

#include "base/buf.h"
#include "inbox/store.h"
#include "redis/layout.h"
#include <hiredis/hiredis.h>

struct redis_rights {
    enum store_error error; /* STORE_OK: nothing is known to be wrong */
    char missing[256];      /* "INCR lpolling:total:*, SUBSCRIBE lpolling:news:*"; "" none */
    char optional[256];     /* the same of those without which pushes and polls are served */
    char obstacle[160];     /* what Redis says to pushes; "" nothing */
};

/*
 * ARGV: the keys of a channel "*", in the order of enum redis_key; "yes" in a cluster; "yes" with
 * REDIS_WAIT. Returns the rights that are missing, as texts; those that are optional begin with a
 * question mark. It is a script that may write, so Redis refuses it for the reasons for which it
 * would refuse a push.
 */
extern const char redis_rights_script[];

enum { REDIS_RIGHTS_ARGUMENTS = REDIS_KEYS + 2 };

/* Takes over what the script replied. Pure. */
void redis_rights_read(struct redis_rights *rights, const redisReply *reply);
