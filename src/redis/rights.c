#include "redis/rights.h"
#include "redis/fate.h"

#include <stdio.h>
#include <string.h>

const char redis_rights_script[] =
    "#!lua\n"
    "local total, updates, meta, news, seen, epoch, consumers, cluster, wait = unpack(ARGV)\n"
    "local missing = {}\n"
    "local function need(label, ...)\n"
    "  local ok, may = pcall(redis.acl_check_cmd, ...)\n"
    "  if not (ok and may) then missing[#missing + 1] = label end\n"
    "end\n"
    /* Redis 8 wants as many arguments as the command takes. */
    "local more = {PEXPIRE = {'1'}, LRANGE = {'0', '0'}, LTRIM = {'0', '0'}, RPUSH = {''},\n"
    "  LINDEX = {'0'}, PUBLISH = {''}, SPUBLISH = {''}, SET = {''}, HGET = {''}, HMGET = {''},\n"
    "  HSET = {'', ''}, HDEL = {''}}\n"
    "local function needs(names, key, optional)\n"
    "  for name in string.gmatch(names, '%S+') do\n"
    "    need((optional or '') .. name .. ' ' .. key, name, key, unpack(more[name] or {}))\n"
    "  end\n"
    "end\n"
    "need('EVALSHA', 'EVALSHA', '', '3', total, updates, meta)\n"
    "needs('GET INCR PEXPIRE', total)\n"
    "needs('LLEN LRANGE RPUSH LTRIM LPOP PTTL PEXPIRE', updates)\n"
    "needs('LLEN LRANGE RPUSH LTRIM LPOP LINDEX PEXPIRE', meta)\n"
    "need('TIME', 'TIME')\n"
    "need('PING', 'PING')\n"
    "local s = cluster == 'yes' and 'S' or ''\n"
    "needs(s .. 'PUBLISH ' .. s .. 'SUBSCRIBE ' .. s .. 'UNSUBSCRIBE', news)\n"
    "if cluster == 'yes' then\n"
    "  need('ASKING', 'ASKING')\n"
    "  need('CLUSTER SLOTS', 'CLUSTER', 'SLOTS')\n"
    "  need('CLUSTER NODES', 'CLUSTER', 'NODES')\n"
    "end\n"
    "if wait == 'yes' then need('WAIT', 'WAIT', '1', '1') end\n"
    "needs('HGET HSET HDEL PEXPIRE', seen, '?')\n"
    "needs('PTTL', total, '?')\n"
    "needs('GET SET PTTL PEXPIRE', epoch, '?')\n"
    "needs('HLEN HMGET HGETALL HSET HDEL PEXPIRE', consumers, '?')\n"
    "return missing\n";

enum { MISSING_BYTES = sizeof((struct redis_rights *)0)->missing };

/* Appends a right to a list of them; at its end, how many more there are. */
static void add(char *list, const char *right, size_t *more) {
    size_t len = strlen(list), room = MISSING_BYTES - sizeof " and 99 more";
    if (!*more && len + 2 + strlen(right) <= room)
        snprintf(list + len, MISSING_BYTES - len, "%s%s", len ? ", " : "", right);
    else
        ++*more;
}

static void end(char *list, size_t more) {
    size_t len = strlen(list);
    if (more)
        snprintf(list + len, MISSING_BYTES - len, " and %zu more", more);
}

static void read_missing(struct redis_rights *rights, const redisReply *reply) {
    size_t more = 0, more_optional = 0;
    for (size_t i = 0; i < reply->elements; i++) {
        const redisReply *one = reply->element[i];
        if (one->type != REDIS_REPLY_STRING)
            continue;
        if (*one->str == '?') {
            add(rights->optional, one->str + 1, &more_optional);
        } else {
            rights->error = STORE_REFUSED;
            add(rights->missing, one->str, &more);
        }
    }
    end(rights->missing, more);
    end(rights->optional, more_optional);
}

void redis_rights_read(struct redis_rights *rights, const redisReply *reply) {
    *rights = (struct redis_rights){.error = STORE_OK};
    if (reply->type == REDIS_REPLY_ARRAY)
        read_missing(rights, reply);
    /* "ERR" is said of the script itself: this Redis is older than 7, and says nothing. */
    if (reply->type != REDIS_REPLY_ERROR || strncmp(reply->str, "ERR", 3) == 0)
        return;
    rights->error = redis_fate_error(reply->str);
    if (rights->error == STORE_REFUSED)
        snprintf(rights->missing, sizeof rights->missing, "EVAL");
    else
        snprintf(rights->obstacle, sizeof rights->obstacle, "%s", reply->str);
}
