/*
 * The cursors of a channel's consumers: a hash in Redis, which all servers share.
 *
 * Two servers may save the same name at once, and a save may be repeated: the larger ts and the
 * later use stay. A ts beyond the channel's is of its life before, and counts as 0. Uses are sent
 * as ages, so that it does not matter whose clock is wrong. Both keys are declared: in a slot that
 * is moving, Redis refuses the script rather than let it see one of them; a later try finds them
 * together.
 */
#include "redis/parts.h"

#include <stdlib.h>
#include <string.h>

struct redis_script redis_script_cursors = {
    .text = "local action, ttl, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])\n"
            "local key, result = KEYS[2], {}\n"
            "local function delete(names, first, last)\n"
            "  for from = first, last, 1000 do\n"
            "    redis.call('HDEL', key, unpack(names, from, math.min(from + 999, last)))\n"
            "  end\n"
            "end\n"
            "local total = redis.call('GET', KEYS[1]) or '0'\n"
            "if total == '0' then return result end\n"
            "if action == 'forget' then\n"
            "  delete(ARGV, 4, #ARGV)\n"
            "  return result\n"
            "end\n"
            "local time = redis.call('TIME')\n"
            "local now = time[1] * 1000 + math.floor(time[2] / 1000)\n"
            "local function parse(value)\n"
            "  local ts, used = string.match(value or '', '^(%d+) (%d+)$')\n"
            "  if ts and #ts <= 16 and #used <= 16 and tonumber(used) >= now - ttl then\n"
            "    return tonumber(ts), tonumber(used)\n"
            "  end\n"
            "end\n"
            "if action == 'load' then\n"
            "  local all = redis.call('HGETALL', key)\n"
            "  for i = 1, #all, 2 do\n"
            "    local ts, used = parse(all[i + 1])\n"
            "    if ts and #result < 3 * most then\n"
            "      local next = #result\n"
            "      result[next + 1], result[next + 2], result[next + 3] = all[i], ts, used\n"
            "    end\n"
            "  end\n"
            "  return result\n"
            "end\n"
            "local count = (#ARGV - 3) / 2\n"
            "local len, mine, is_swept = redis.call('HLEN', key), {}, false\n"
            "for i = 4, 3 + count do mine[ARGV[i]] = true end\n"
            "local function has_room()\n"
            "  if len >= most and not is_swept then\n"
            "    local all, old = redis.call('HGETALL', key), {}\n"
            "    for i = 1, #all, 2 do\n"
            "      if not mine[all[i]] and not parse(all[i + 1]) then old[#old + 1] = all[i] end\n"
            "    end\n"
            "    delete(old, 1, #old)\n"
            "    len, is_swept = len - #old, true\n"
            "  end\n"
            "  return len < most\n"
            "end\n"
            "for from = 4, 3 + count, 500 do\n"
            "  local last = math.min(from + 499, 3 + count)\n"
            "  local known, fields = redis.call('HMGET', key, unpack(ARGV, from, last)), {}\n"
            "  for i = from, last do\n"
            "    local ts, age = string.match(ARGV[i + count], '^(%d+) (%d+)$')\n"
            "    local used, old = math.max(0, now - age), known[i - from + 1]\n"
            "    if tonumber(ts) > (tonumber(total) or math.huge) then ts = 0 end\n"
            "    local its_ts, its_used = parse(old)\n"
            "    if its_ts then ts, used = math.max(ts, its_ts), math.max(used, its_used) end\n"
            "    local is_used = used >= now - ttl\n"
            "    if is_used and (old or has_room()) then\n"
            "      if not old then len = len + 1 end\n"
            "      fields[#fields + 1] = ARGV[i]\n"
            "      fields[#fields + 1] = string.format('%.0f %.0f', ts, used)\n"
            "    elseif is_used then\n"
            "      result[1] = 'full'\n"
            "    end\n"
            "  end\n"
            "  if #fields > 0 then redis.call('HSET', key, unpack(fields)) end\n"
            "end\n"
            "redis.call('PEXPIRE', key, ARGV[2])\n"
            "return result\n",
};

/* Where the reply has what of each cursor. */
enum { CURSOR_NAME, CURSOR_TS, CURSOR_USED, CURSOR_PARTS };

/* --- The command ------------------------------------------------------------------------------ */

int cursors_arguments(const struct store_cursors *cursors) {
    int each = cursors->action == CURSORS_LOAD ? 0 : cursors->action == CURSORS_SAVE ? 2 : 1;
    return 3 + each * (int)cursors->count;
}

/* Milliseconds since it was used; before the store's clock was known, it says 1. */
static uint64_t age_of(const struct store_cursor *cursor, int64_t now_ms) {
    return cursor->used_ms > 1 && cursor->used_ms < now_ms ? (uint64_t)(now_ms - cursor->used_ms)
                                                           : 0;
}

static void put_values(struct redis_store *store, const struct store_cursors *cursors,
                       struct redis_conn *conn) {
    int64_t now_ms = store_now_ms(&store->base);
    struct buf *value = &store->record;
    for (uint32_t i = 0; i < cursors->count; i++) {
        buf_reset(value, 65536);
        buf_put_number(value, cursors->list[i].ts);
        buf_putc(value, ' ');
        buf_put_number(value, age_of(&cursors->list[i], now_ms));
        conn->out.failed |= value->failed; /* nothing of it must be sent */
        redis_conn_argument(conn, (struct slice){value->data, value->len});
    }
}

void cursors_put(struct redis_store *store, const struct store_cursors *cursors,
                 struct redis_conn *conn) {
    static const char *const actions[] = {
        [CURSORS_LOAD] = "load", [CURSORS_SAVE] = "save", [CURSORS_FORGET] = "forget"};
    redis_conn_argument(conn, slice_of(actions[cursors->action]));
    redis_conn_number(conn, store->options.ttl_ms);
    redis_conn_number(conn, CONSUMERS_MAX);
    if (cursors->action == CURSORS_LOAD)
        return;
    for (uint32_t i = 0; i < cursors->count; i++)
        redis_conn_argument(conn, (struct slice){cursors->list[i].name, cursors->list[i].name_len});
    if (cursors->action == CURSORS_SAVE)
        put_values(store, cursors, conn);
}

/* --- The reply -------------------------------------------------------------------------------- */

static bool is_number(const redisReply *reply) {
    return reply->type == REDIS_REPLY_INTEGER && reply->integer >= 0;
}

/* What is none is left out: anybody may write to the hash. */
static void take_cursor(struct store_cursors *cursors, redisReply *const *parts) {
    struct slice name = {parts[CURSOR_NAME]->str, parts[CURSOR_NAME]->len};
    if (parts[CURSOR_NAME]->type != REDIS_REPLY_STRING || !is_consumer_name(name) ||
        !is_number(parts[CURSOR_TS]) || !is_number(parts[CURSOR_USED]))
        return;
    struct store_cursor *cursor = &cursors->list[cursors->count++];
    cursor->ts = (uint64_t)parts[CURSOR_TS]->integer;
    cursor->used_ms = parts[CURSOR_USED]->integer;
    cursor->name_len = (uint8_t)name.len;
    memcpy(cursor->name, name.data, name.len);
}

static enum store_error take_saved(const redisReply *reply) {
    if (!reply->elements)
        return STORE_OK;
    bool is_full = reply->elements == 1 && reply->element[0]->type == REDIS_REPLY_STRING &&
                   strcmp(reply->element[0]->str, "full") == 0;
    return is_full ? STORE_CONSUMERS_FULL : STORE_FAILED;
}

static enum store_error take_loaded(struct store_cursors *cursors, const redisReply *reply) {
    size_t count = reply->elements / CURSOR_PARTS;
    if (reply->elements % CURSOR_PARTS || count > CONSUMERS_MAX)
        return STORE_FAILED;
    if (!count)
        return STORE_OK;
    cursors->list = malloc(count * sizeof *cursors->list);
    if (!cursors->list)
        return STORE_FAILED;
    for (size_t i = 0; i < count; i++)
        take_cursor(cursors, reply->element + i * CURSOR_PARTS);
    return STORE_OK;
}

enum store_error cursors_take(struct store_cursors *cursors, const redisReply *reply) {
    if (reply->type != REDIS_REPLY_ARRAY)
        return STORE_FAILED;
    return cursors->action == CURSORS_LOAD ? take_loaded(cursors, reply) : take_saved(reply);
}
