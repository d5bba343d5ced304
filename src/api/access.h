/*
 * What each kind of name may do: the one table of rights. A plain secret may do all, as may an r_
 * key; a v_ key reads, and a w_ key sends.
 */
#pragma once

#include "base/keys.h"
#include "http/status.h"

/* What a request asks for. */
enum right {
    RIGHT_NONE, /* nothing of the channel: its reply is the same for all */
    RIGHT_SEND,
    RIGHT_READ,
    RIGHT_DELETE,
    RIGHTS,
};

/* HTTP_NO_ERROR, or an error that says which address is needed and nothing of the channel. Pure. */
enum http_error access_check(enum key_kind kind, enum right right);
