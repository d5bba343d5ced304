/*
 * Purging a channel: one script cuts both lists and tells all servers.
 *
 * What would have the purge refused comes before the first cut, or is the first cut. A user who may
 * cut one list but not the other has half of it done: then it is an error, which is told to all
 * servers too, so that none of them keeps what is gone. A channel without a counter is not known,
 * but what lies in its lists goes.
 *
 * A list that goes whole is unlinked, and Redis frees it beside its work; without the right to, and
 * for a part of a list, it is cut. That takes Redis time by the bytes that go.
 *
 * Where both lists have the same length and the same ends, their items stand side by side, and are
 * cut alike. Else lua-long-polling has pushed too: then records are looked at from the newest on,
 * as long as they are of updates that stay and their ts fall. All before those go.
 */
#include "redis/parts.h"

#define TS_FAR ((uint64_t)1 << 60) /* beyond all that Redis counts */

struct redis_script redis_script_purge = {
    .text = "local count = redis.call('GET', KEYS[1]) or '0'\n"
            "local total = string.match(count, '^%d+$') and tonumber(count)\n"
            "if not total or total > 9007199254740991 or string.match(count, '^0.') then\n"
            "  return redis.error_reply('DAMAGED the counter is not a whole number below 2^53')\n"
            "end\n"
            "local lens = {redis.call('LLEN', KEYS[2]), redis.call('LLEN', KEYS[3])}\n"
            "local upto = math.min(tonumber(ARGV[1]), total)\n"
            "local keep, trouble = total - upto, nil\n"
            "local function try(...)\n"
            "  local got = redis.pcall(...)\n"
            "  if type(got) == 'table' and got.err then return nil, got end\n"
            "  return got\n"
            "end\n"
            "local function cut(list, number, left)\n"
            "  if lens[number] <= left then return end\n"
            "  lens[number] = left\n"
            "  if left == 0 and try('UNLINK', list) then return end\n"
            "  local first = left == 0 and '1' or string.format('-%.0f', left)\n"
            "  local _, no = try('LTRIM', list, first, left == 0 and '0' or '-1')\n"
            "  return no\n"
            "end\n"
            "local function record_ts(text) return tonumber(string.match(text, '^(%d+) ')) end\n"
            "local function is_beside()\n"
            "  return lens[2] == lens[1] and\n"
            "    record_ts(redis.call('LINDEX', KEYS[3], '0') or '') == total - lens[2] + 1 and\n"
            "    record_ts(redis.call('LINDEX', KEYS[3], '-1') or '') == total\n"
            "end\n"
            "local function staying()\n"
            "  local left, newer = 0, total + 1\n"
            "  for last = -1, -lens[2], -16 do\n"
            "    local some = redis.call('LRANGE', KEYS[3], last - 15, last)\n"
            "    for i = #some, 1, -1 do\n"
            "      local ts = record_ts(some[i])\n"
            "      if not ts or ts <= upto or ts >= newer then return left end\n"
            "      left, newer = left + 1, ts\n"
            "    end\n"
            "  end\n"
            "  return left\n"
            "end\n"
            "local no = cut(KEYS[2], 1, keep)\n"
            "if no then return no end\n"
            "no = cut(KEYS[3], 2, keep)\n"
            "if not no and keep > 0 and not is_beside() then no = cut(KEYS[3], 2, staying()) end\n"
            "local gone = total - math.min(keep, lens[1], tonumber(ARGV[2]))\n"
            "local _, told = try(ARGV[3], ARGV[4], string.format('purged %.0f', gone))\n"
            "return no or {gone, told and told.err or ''}\n",
};

/* Where the reply has what. */
enum { PURGE_GONE, PURGE_TOLD, PURGE_PARTS };

void purges_put(struct redis_store *store, const struct store_purge *purge,
                struct redis_conn *conn) {
    bool is_cluster = store->topology.layout.is_cluster;
    redis_conn_number(conn, (int64_t)(purge->upto < TS_FAR ? purge->upto : TS_FAR));
    redis_conn_number(conn, (int64_t)store->options.channel_max_updates);
    redis_conn_argument(conn, is_cluster ? SLICE("SPUBLISH") : SLICE("PUBLISH"));
    redis_store_put_key(store, conn, REDIS_KEY_NEWS, (struct slice){purge->name, purge->name_len});
}

bool purges_take(struct store_purge *purge, const redisReply *reply, const char **told) {
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != PURGE_PARTS ||
        reply->element[PURGE_GONE]->type != REDIS_REPLY_INTEGER ||
        reply->element[PURGE_GONE]->integer < 0 ||
        reply->element[PURGE_TOLD]->type != REDIS_REPLY_STRING)
        return false;
    purge->gone = (uint64_t)reply->element[PURGE_GONE]->integer;
    *told = reply->element[PURGE_TOLD]->len ? reply->element[PURGE_TOLD]->str : NULL;
    return true;
}

bool purges_parse(struct slice message, uint64_t *gone) {
    struct slice start = SLICE("purged ");
    return slice_starts_with(message, start) &&
           slice_number(slice_after(message, start.len), TS_FAR, gone);
}
