/* Replies of Redis, from what stands on the wire. */
#pragma once

#include "support.h"

#include <hiredis/hiredis.h>

static inline redisReply *reply_of(const char *text) {
    void *reply = NULL;
    redisReader *reader = redisReaderCreate();
    assert_int_equal(redisReaderFeed(reader, text, strlen(text)), REDIS_OK);
    assert_int_equal(redisReaderGetReply(reader, &reply), REDIS_OK);
    assert_non_null(reply);
    redisReaderFree(reader);
    return reply;
}
