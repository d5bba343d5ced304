#include "redis/layout.h"
#include "base/json.h"
#include "base/text.h"

#define OPENSSL_SUPPRESS_DEPRECATED /* SHA1_*(), see hash_script() */
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>

/*
 * A push is stored whole or not at all, and Redis does not roll a script back. So for each channel,
 * all that could refuse it comes first: the reads, which the types of the keys or the user's rights
 * could refuse; the rights for the counter and the updates; and the counter, which ends at 2^53,
 * from where on Lua's numbers skip some. INCRBY refuses what is no whole number, so it is the first
 * write; it is undone where the counter is at its end, or the records refuse to be written. What
 * else refuses writes (memory, a replica, the disk) refuses the first one. What follows must not
 * fail any more: it is tried, and the reply says what it came to. A channel that is refused leaves
 * the others alone.
 *
 * Where the right to INCRBY is missing, or cannot be seen, the counter is read instead, and counted
 * up last. Redis before 7 does not say what a user may do, but its rights for a command are the
 * same for all keys of the script. So an INCR of a list shows them: it is refused as the wrong
 * type, or because the user may not. A channel without a list gets one for that moment.
 *
 * What costs Redis time is the number of scripts and commands, and what they add to its append-only
 * file. So a script takes what several pushes bring; lists are trimmed when they are a sixteenth,
 * and at least 8, over a bound of 16 or more; what is too old is deleted with every eighth push, up
 * to 16; and the TTL is set to a hundredth more than is asked for, and again when that hundredth
 * has passed. Reads apply the bounds exactly. An update of upstream's, which has no record, goes by
 * count.
 *
 * The epoch is made with the counter, and its TTL is renewed with the counter's. What goes wrong
 * with it is no reason to refuse a push, nor to complain with each: rights.h tells of it.
 */
#define PUSH                                                                                       \
    "local call, safe_call = redis.call, redis.pcall\n"                                            \
    "local match, find, format, floor = string.match, string.find, string.format, math.floor\n"    \
    "local max, ttl = tonumber(ARGV[1]), tonumber(ARGV[2])\n"                                      \
    "local time = call('TIME')\n"                                                                  \
    "local at = time[1] * 1000 + floor(time[2] / 1000)\n"                                          \
    "local at_text = format(' %.0f ', at)\n"                                                       \
    "local may = redis.acl_check_cmd\n"                                                            \
    "local counts = may and pcall(may, 'INCRBY', KEYS[1], '1')\n"                                  \
    "local damaged = redis.error_reply('DAMAGED the counter is not a whole number below 2^53')\n"  \
    "local trim_above = max < 16 and max or max + math.max(8, floor(max / 16))\n"                  \
    "local told, trouble = '', ''\n"                                                               \
    "local function try(...)\n"                                                                    \
    "  local got = safe_call(...)\n"                                                               \
    "  if type(got) == 'table' and got.err then trouble, got = got.err, nil end\n"                 \
    "  return got\n"                                                                               \
    "end\n"                                                                                        \
    "local function refused_incr(list)\n"                                                          \
    "  local got = safe_call('INCR', list)\n"                                                      \
    "  if not find(got.err, 'WRONGTYPE') then return got end\n"                                    \
    "end\n"                                                                                        \
    "local function refused(counter, updates, meta, len)\n"                                        \
    "  if may then\n"                                                                              \
    "    if may('RPUSH', updates, '') and may('INCR', counter) then return end\n"                  \
    "    return redis.error_reply('NOPERM the user may not RPUSH and INCR the keys of a push')\n"  \
    "  end\n"                                                                                      \
    "  if len > 0 then return refused_incr(updates) end\n"                                         \
    "  if call('LLEN', meta) > 0 then return refused_incr(meta) end\n"                             \
    "  call('RPUSH', meta, '')\n"                                                                  \
    "  local got = refused_incr(meta)\n"                                                           \
    "  if not try('LPOP', meta) then try('LTRIM', meta, '1', '0') end\n"                           \
    "  return got\n"                                                                               \
    "end\n"                                                                                        \
    "local function append(list, values, first, last)\n"                                           \
    "  if first == last then return safe_call('RPUSH', list, values[first]) end\n"                 \
    "  local len\n"                                                                                \
    "  for from = first, last, 1000 do\n"                                                          \
    "    len = safe_call('RPUSH', list, unpack(values, from, math.min(from + 999, last)))\n"       \
    "    if type(len) ~= 'number' then break end\n"                                                \
    "  end\n"                                                                                      \
    "  return len\n"                                                                               \
    "end\n"                                                                                        \
    "local function count_up(counter, updates, by, count)\n"                                       \
    "  if not counts or not may('INCRBY', counter, by) or not may('RPUSH', updates, '') then "     \
    "return end\n"                                                                                 \
    "  local total = safe_call('INCRBY', counter, by)\n"                                           \
    "  if type(total) == 'number' then\n"                                                          \
    "    if total >= count and total <= 9007199254740991 then return total - count end\n"          \
    "    call('INCRBY', counter, '-' .. by)\n"                                                     \
    "  elseif not find(total.err, 'not an integer') and not find(total.err, 'overflow') then\n"    \
    "    return nil, total\n"                                                                      \
    "  end\n"                                                                                      \
    "  return nil, damaged\n"                                                                      \
    "end\n"                                                                                        \
    "local function count_down(counter, by, total)\n"                                              \
    "  call('INCRBY', counter, '-' .. by)\n"                                                       \
    "  if total == 0 and safe_call('PEXPIRE', counter, '0') ~= 1 then safe_call('DEL', counter) "  \
    "end\n"                                                                                        \
    "end\n"                                                                                        \
    "local function add(counter, count)\n"                                                         \
    "  local got = count > 1 and (not may or counts and may('INCRBY', counter, count)) and\n"      \
    "    safe_call('INCRBY', counter, count)\n"                                                    \
    "  if type(got) == 'number' then return end\n"                                                 \
    "  for i = 1, count do call('INCR', counter) end\n"                                            \
    "end\n"                                                                                        \
    "local function tidy(updates, meta, total, times)\n"                                           \
    "  for i = 1, times do\n"                                                                      \
    "    local first = try('LINDEX', meta, '0') or ''\n"                                           \
    "    local old, old_at = match(first, '^(%d+) (%d+)')\n"                                       \
    "    if not old or tonumber(old_at) >= at - ttl then break end\n"                              \
    "    if not try('LPOP', meta) then break end\n"                                                \
    "    if total - call('LLEN', updates) + 1 == tonumber(old) then try('LPOP', updates) end\n"    \
    "  end\n"                                                                                      \
    "end\n"                                                                                        \
    "local function beside(counter, updates, kind)\n"                                              \
    "  local i = 1\n"                                                                              \
    "  while string.byte(counter, i) == string.byte(updates, i) do i = i + 1 end\n"                \
    "  return string.sub(counter, 1, i - 1) .. kind .. string.sub(counter, i + 6)\n"               \
    "end\n"                                                                                        \
    "local function begin(counter, updates)\n"                                                     \
    "  local hash = redis.sha1hex(counter .. ' ' .. time[1] .. ' ' .. time[2])\n"                  \
    "  safe_call('SET', beside(counter, updates, 'epoch:'), string.sub(hash, 1, 16), 'PX', "       \
    "ARGV[4])\n"                                                                                   \
    "  safe_call('PEXPIRE', beside(counter, updates, 'consumers:'), '0')\n"                        \
    "end\n"                                                                                        \
    "local function read_total(counter, count)\n"                                                  \
    "  local text = call('GET', counter) or '0'\n"                                                 \
    "  local total = tonumber(match(text, '^[1-9]%d*$') or text == '0' and 0)\n"                   \
    "  if not total or total + count > 9007199254740991 then return nil, damaged end\n"            \
    "  return total\n"                                                                             \
    "end\n"                                                                                        \
    "local function push(counter, updates, meta, news, values, arg, count)\n"                      \
    "  local len = call('LLEN', updates)\n"                                                        \
    "  local left = call('PTTL', updates)\n"                                                       \
    "  local by = count == 1 and '1' or format('%d', count)\n"                                     \
    "  local counted, no = count_up(counter, updates, by, count)\n"                                \
    "  local total = counted\n"                                                                    \
    "  if not counted and not no then\n"                                                           \
    "    total, no = read_total(counter, count)\n"                                                 \
    "    no = no or refused(counter, updates, meta, len)\n"                                        \
    "  end\n"                                                                                      \
    "  if no then return no end\n"                                                                 \
    "  local digits = total + count < 2147483648 and '%d' or '%.0f'\n"                             \
    "  local list = {}\n"                                                                          \
    "  for i = 1, count do\n"                                                                      \
    "    list[i] = format(digits, total + i) .. at_text .. values[arg + count + i]\n"              \
    "  end\n"                                                                                      \
    "  local records = append(meta, list, 1, count)\n"                                             \
    "  if type(records) ~= 'number' then\n"                                                        \
    "    if counted then count_down(counter, by, total) end\n"                                     \
    "    return records\n"                                                                         \
    "  end\n"                                                                                      \
    "  len = append(updates, values, arg + 1, arg + count)\n"                                      \
    "  if type(len) ~= 'number' then return len end\n"                                             \
    "  if not counted then add(counter, count) end\n"                                              \
    "  local eighths = floor((total + count) / 8) - floor(total / 8)\n"                            \
    "  if len > trim_above or records > trim_above then\n"                                         \
    "    try('LTRIM', updates, '-' .. ARGV[1], '-1')\n"                                            \
    "    try('LTRIM', meta, '-' .. ARGV[1], '-1')\n"                                               \
    "  end\n"                                                                                      \
    "  if eighths > 0 then tidy(updates, meta, total + count, math.min(eighths, 16) * 16) end\n"   \
    "  if total == 0 or len == count or records == count or left < ttl then\n"                     \
    "    try('PEXPIRE', updates, ARGV[3])\n"                                                       \
    "    try('PEXPIRE', meta, ARGV[3])\n"                                                          \
    "    try('PEXPIRE', counter, ARGV[4])\n"                                                       \
    "    if total > 0 then safe_call('PEXPIRE', beside(counter, updates, 'epoch:'), ARGV[4]) "     \
    "end\n"                                                                                        \
    "  end\n"                                                                                      \
    "  if total == 0 then begin(counter, updates) end\n"                                           \
    "  for i = 1, count do\n"                                                                      \
    "    local got = safe_call(ARGV[5], news, list[i] .. values[arg + i])\n"                       \
    "    if type(got) == 'table' then\n"                                                           \
    "      told = got.err\n"                                                                       \
    "      break\n"                                                                                \
    "    end\n"                                                                                    \
    "  end\n"                                                                                      \
    "  return total + count\n"                                                                     \
    "end\n"

struct redis_script redis_script_append = {
    .text = PUSH
    "local keys, argv, results, arg = KEYS, ARGV, {at, '', ''}, 6\n"
    "for key = 1, #keys, 3 do\n"
    "  local count = argv[arg + 1] == '1' and 1 or tonumber(argv[arg + 1])\n"
    "  local ok, got = pcall(push, keys[key], keys[key + 1], keys[key + 2], argv[arg], argv, "
    "arg + 1, count)\n"
    "  if not ok and type(got) ~= 'table' then got = {err = tostring(got)} end\n"
    "  results[#results + 1] = got\n"
    "  arg = arg + 2 + 2 * count\n"
    "end\n"
    "results[2], results[3] = told, trouble\n"
    "return results\n",
};

/*
 * Ids stand in a hash: each with its update's ts and time, and its place in a queue of them, which
 * is in the same hash, by number. What goes wrong there is no reason to refuse an update. A counter
 * may be lost without them, by eviction for one: an id that names an update beyond it is not known.
 */
struct redis_script redis_script_append_known = {
    .text = PUSH
    "local known_ms, most = 86400000, 10000\n"
    "local function seen_ts(seen, id, total)\n"
    "  local got = redis.pcall('HGET', seen, id)\n"
    "  local ts, its_at = string.match(type(got) == 'string' and got or '', '^(%d+) (%d+) ')\n"
    "  local is_known = ts and tonumber(its_at) > at - known_ms and tonumber(ts) <= total\n"
    "  return is_known and tonumber(ts) or 0\n"
    "end\n"
    "local function forget(seen, first, next, times)\n"
    "  for i = 1, times do\n"
    "    local id = first < next and try('HGET', seen, first)\n"
    "    if not id then break end\n"
    "    local its_at, place = string.match(try('HGET', seen, id) or '', '^%d+ (%d+) (%d+)$')\n"
    "    local is_its = place and tonumber(place) == first\n"
    "    if is_its and next - first <= most and tonumber(its_at) > at - known_ms then break "
    "end\n"
    "    if is_its then try('HDEL', seen, id) end\n"
    "    try('HDEL', seen, first)\n"
    "    first = first + 1\n"
    "  end\n"
    "  return first\n"
    "end\n"
    "local function remember(seen, fresh)\n"
    "  local first = tonumber(try('HGET', seen, 'first') or 0)\n"
    "  local next = tonumber(try('HGET', seen, 'next') or 0)\n"
    "  for _, new in ipairs(fresh) do\n"
    "    local entry = string.format('%.0f %.0f %.0f', new.ts, at, next)\n"
    "    if not try('HSET', seen, new.id, entry, next, new.id) then return end\n"
    "    next = next + 1\n"
    "  end\n"
    "  first = forget(seen, first, next, #fresh + 16)\n"
    "  try('HSET', seen, 'first', first, 'next', next)\n"
    "  try('PEXPIRE', seen, known_ms)\n"
    "end\n"
    "local function push_known(counter, updates, meta, arg)\n"
    "  local news, count, seen, ids = ARGV[arg], tonumber(ARGV[arg + 1]), ARGV[arg + 2], "
    "ARGV[arg + 3]\n"
    "  local text = redis.call('GET', counter) or '0'\n"
    "  local total = tonumber(text) or 0\n"
    "  if total == 0 then try('PEXPIRE', seen, '0') end\n"
    "  local result, values, records, fresh, known = {total}, {}, {}, {}, {}\n"
    "  for i = 1, count do\n"
    "    local kind, id = string.sub(ids, 33 * i - 32, 33 * i - 32), string.sub(ids, 33 * i - "
    "31, 33 * i)\n"
    "    local same = kind ~= '-' and (known[id] or seen_ts(seen, id, total)) or 0\n"
    "    result[i + 1] = same\n"
    "    if kind == 'o' and same > 0 then\n"
    "      result[i + 1] = -same\n"
    "    else\n"
    "      local record = ARGV[arg + 3 + count + i]\n"
    "      values[#values + 1] = ARGV[arg + 3 + i]\n"
    "      if kind ~= '-' then record = string.sub(record, 1, -21) .. string.format('%020.0f', "
    "same) end\n"
    "      records[#records + 1] = record\n"
    "      if kind ~= '-' and same == 0 then\n"
    "        known[id] = total + #values\n"
    "        fresh[#fresh + 1] = {id = id, ts = known[id]}\n"
    "      end\n"
    "    end\n"
    "  end\n"
    "  if #values == 0 then return result end\n"
    "  for i = 1, #records do values[#values + 1] = records[i] end\n"
    "  local got = push(counter, updates, meta, news, values, 0, #records)\n"
    "  if type(got) ~= 'number' then return got end\n"
    "  if #fresh > 0 then remember(seen, fresh) end\n"
    "  result[1] = got\n"
    "  return result\n"
    "end\n"
    "local results, arg = {at, '', ''}, 6\n"
    "for key = 1, #KEYS, 3 do\n"
    "  local ok, got = pcall(push_known, KEYS[key], KEYS[key + 1], KEYS[key + 2], arg)\n"
    "  if not ok and type(got) ~= 'table' then got = {err = tostring(got)} end\n"
    "  results[#results + 1] = got\n"
    "  arg = arg + 4 + 2 * tonumber(ARGV[arg + 1])\n"
    "end\n"
    "results[2], results[3] = told, trouble\n"
    "return results\n",
};

/*
 * Items are fetched a few at a time, as long as the bytes so far allow: nobody holds Redis up for
 * more than one page. Where there is a record for every update, records are read along with their
 * updates: lists of one length that begin with the same update, or go on with the same one, have
 * no holes behind it. Else (upstream has pushed) they are looked for from the place on where they
 * would stand.
 *
 * A time is looked for by its distance from the newest record, doubled and then halved: a list is
 * walked from its nearer end, and most ask for what was a moment ago. What is no record, up to 8 in
 * a row, is passed over.
 *
 * The epoch of a channel that lua-long-polling's servers push to has nobody who renews its TTL: a
 * read that may make one brings it near the counter's.
 */
struct redis_script redis_script_read = {
    .text =
        "local count = redis.call('GET', KEYS[1]) or '0'\n"
        "local total = string.match(count, '^%d+$') and tonumber(count)\n"
        "if not total or total > 9007199254740991 or string.match(count, '^0.') then\n"
        "  return redis.error_reply('DAMAGED the counter is not a whole number below 2^53')\n"
        "end\n"
        "local len = math.min(redis.call('LLEN', KEYS[2]), total)\n"
        "local limit, max_bytes = tonumber(ARGV[2]), tonumber(ARGV[3])\n"
        "local gone = total - math.min(len, tonumber(ARGV[4]))\n"
        "local time\n"
        "local function cutoff()\n"
        "  time = time or redis.call('TIME')\n"
        "  return time[1] * 1000 + math.floor(time[2] / 1000) - tonumber(ARGV[5])\n"
        "end\n"
        "local function make_epoch()\n"
        "  time = time or redis.call('TIME')\n"
        "  local left = redis.pcall('PTTL', KEYS[1])\n"
        "  local made = string.sub(redis.sha1hex(KEYS[1] .. ' ' .. time[1] .. ' ' .. time[2]), 1, "
        "16)\n"
        "  local got = {}\n"
        "  if type(left) == 'number' and left < 0 then got = redis.pcall('SET', ARGV[6], made) "
        "end\n"
        "  if type(left) == 'number' and left > 0 then\n"
        "    got = redis.pcall('SET', ARGV[6], made, 'PX', left)\n"
        "  end\n"
        "  return got.ok and made or ''\n"
        "end\n"
        "local function keep_epoch()\n"
        "  local left, its = redis.pcall('PTTL', KEYS[1]), redis.pcall('PTTL', ARGV[6])\n"
        "  if type(left) ~= 'number' or type(its) ~= 'number' or left <= 0 then return end\n"
        "  if its < left * 7 / 8 or its > left + 1000 then redis.pcall('PEXPIRE', ARGV[6], left) "
        "end\n"
        "end\n"
        "local function find_epoch()\n"
        "  local got = redis.pcall('GET', ARGV[6])\n"
        "  if not got and ARGV[8] == '1' then return make_epoch() end\n"
        "  if type(got) ~= 'string' then return '' end\n"
        "  if ARGV[8] == '1' then keep_epoch() end\n"
        "  local is_ours = #got == 16 and not string.find(got, '[^0-9a-f]') and string.find(got, "
        "'[^0]')\n"
        "  return is_ours and got or string.sub(redis.sha1hex(got), 1, 16)\n"
        "end\n"
        "local function before(ms)\n"
        "  local most = math.min(redis.call('LLEN', KEYS[3]), total - gone)\n"
        "  local function is_older(place)\n"
        "    for i = place, math.min(place + 7, most) do\n"
        "      local record = redis.call('LINDEX', KEYS[3], -i) or ''\n"
        "      local its, at = string.match(record, '^(%d+) (%d+) ')\n"
        "      if its and tonumber(its) <= total then return tonumber(at) < ms, tonumber(its) end\n"
        "    end\n"
        "  end\n"
        "  local newer, place, found = 0, 1, gone\n"
        "  while place <= most do\n"
        "    local is, its = is_older(place)\n"
        "    if is then\n"
        "      found = its\n"
        "      break\n"
        "    end\n"
        "    newer, place = place, place * 2\n"
        "  end\n"
        "  place = math.min(place, most + 1)\n"
        "  while place - newer > 1 do\n"
        "    local middle = math.floor((newer + place) / 2)\n"
        "    local is, its = is_older(middle)\n"
        "    if is then place, found = middle, its else newer = middle end\n"
        "  end\n"
        "  return math.max(gone, found)\n"
        "end\n"
        "local epoch, since = total > 0 and find_epoch() or '', string.match(ARGV[1], '^since "
        "(%d+)$')\n"
        "local position = ARGV[1] == 'now' and total or since and before(math.max(tonumber(since), "
        "cutoff()))\n"
        "position = position or tonumber(ARGV[1])\n"
        "if position < 0 then position = math.max(0, total + position) end\n"
        "local is_asked = string.match(ARGV[1], '^[1-9]') and ARGV[7] ~= ''\n"
        "if is_asked and (total == 0 or (epoch ~= '' and epoch ~= ARGV[7])) then\n"
        "  return {total, gone, 1, {}, {}, 0, epoch, 0, 1}\n"
        "end\n"
        "local after = math.max(position, gone)\n"
        "local bodies, records, bytes, first = {}, {}, 0, after + 1\n"
        "if after >= total then return {total, gone, first, {}, {}, 0, epoch, position, 0} end\n"
        "local oldest = cutoff()\n"
        "local function ts_of(record) return tonumber(string.match(record or '', '^(%d+) ')) end\n"
        "local function record_ts(index) return ts_of(redis.call('LINDEX', KEYS[3], index) or "
        "'') end\n"
        "local function more(size) return bytes * 2 < max_bytes and math.min(size * 2, 16) or "
        "size end\n"
        "local full = redis.call('LLEN', KEYS[3]) == len\n"
        "if full then\n"
        "  local head = record_ts(-len)\n"
        "  full = head == total - len + 1 or (len == 1 and not head) or\n"
        "    (len > 1 and record_ts(1 - len) == total - len + 2)\n"
        "end\n"
        "local ts, size, is_full = first, 1, false\n"
        "while ts <= total and #bodies < limit and bytes < max_bytes and not is_full do\n"
        "  local count = math.min(size, limit - #bodies, total - ts + 1)\n"
        "  local from = ts - total - 1\n"
        "  local some = redis.call('LRANGE', KEYS[2], from, from + count - 1)\n"
        "  local beside = full and redis.call('LRANGE', KEYS[3], from, from + count - 1) or {}\n"
        "  for i = 1, count do\n"
        "    local its, at\n"
        "    if full and #bodies == 0 then its, at = string.match(beside[i], '^(%d+) (%d+)') end\n"
        "    if its and tonumber(its) == ts + i - 1 and tonumber(at) < oldest then\n"
        "      first = ts + i\n"
        "      gone = ts + i - 1\n"
        "    else\n"
        "      local more_bytes = bytes + #some[i] + (full and #beside[i] or 0)\n"
        "      is_full = #bodies > 0 and more_bytes > max_bytes\n"
        "      if is_full then break end\n"
        "      bytes = more_bytes\n"
        "      bodies[#bodies + 1] = some[i]\n"
        "      if full then records[#records + 1] = beside[i] end\n"
        "    end\n"
        "  end\n"
        "  ts = ts + count\n"
        "  size = more(size)\n"
        "end\n"
        "local index = not full and #bodies > 0 and first - total - 1 or 0\n"
        "local is_over = false\n"
        "size = 1\n"
        "while index < 0 and not is_over do\n"
        "  local some = redis.call('LRANGE', KEYS[3], index, math.min(index + size - 1, -1))\n"
        "  index = index + size\n"
        "  for _, record in ipairs(some) do\n"
        "    local at = ts_of(record) or 0\n"
        "    if at >= first then bytes = bytes + #record end\n"
        "    is_over = at >= first + #bodies or (at > first and bytes > max_bytes)\n"
        "    if is_over then\n"
        "      for i = #bodies, at - first + 1, -1 do bodies[i] = nil end\n"
        "      break\n"
        "    end\n"
        "    if at >= first then records[#records + 1] = record end\n"
        "  end\n"
        "  size = more(size)\n"
        "end\n"
        "return {total, gone, first, bodies, records, full and 1 or 0, epoch, position, 0}\n",
};

/* OpenSSL's newer way allocates, and crashes where it cannot. */
static void hash_script(struct redis_script *script) {
    unsigned char digest[SHA_DIGEST_LENGTH];
    SHA_CTX sha;
    SHA1_Init(&sha);
    SHA1_Update(&sha, script->text, strlen(script->text));
    SHA1_Final(digest, &sha);
    for (size_t i = 0; i < sizeof digest; i++)
        snprintf(script->sha + 2 * i, 3, "%02x", digest[i]);
}

void redis_layout_init(void) {
    hash_script(&redis_script_append);
    hash_script(&redis_script_append_known);
    hash_script(&redis_script_read);
    hash_script(&redis_script_cursors);
    hash_script(&redis_script_purge);
}

/* --- Keys ------------------------------------------------------------------------------------- */

static bool needs_code(char c) {
    return c == '%' || c == '{' || c == '}';
}

static void put_tag(struct buf *out, struct slice channel) {
    for (size_t i = 0; i < channel.len; i++)
        if (needs_code(channel.data[i]))
            buf_printf(out, "%%%02X", (unsigned char)channel.data[i]);
        else
            buf_putc(out, channel.data[i]);
}

/* What stands between the prefix and the channel; `room` is for what is none of the usual. */
static const char *kind_of(const struct redis_layout *layout, enum redis_key key, char room[40]) {
    static const char *const kinds[REDIS_KEYS] = {
        "total:", "updates:", "meta:", "news:", "seen:", "epoch:", "consumers:"};
    if (key != REDIS_KEY_NEWS || !layout->db)
        return kinds[key];
    snprintf(room, 40, "news@%lld:", (long long)layout->db);
    return room;
}

void redis_layout_key(const struct redis_layout *layout, struct buf *out, enum redis_key key,
                      struct slice channel) {
    char room[40];
    buf_puts(out, layout->prefix);
    buf_puts(out, kind_of(layout, key, room));
    if (!layout->is_cluster) {
        buf_append(out, channel.data, channel.len);
        return;
    }
    buf_putc(out, '{');
    put_tag(out, channel);
    buf_putc(out, '}');
}

/* Takes `start` off the front; false when the text begins otherwise. */
static bool take_start(struct slice *text, const char *start) {
    size_t len = strlen(start);
    if (text->len < len || memcmp(text->data, start, len) != 0)
        return false;
    *text = (struct slice){text->data + len, text->len - len};
    return true;
}

bool redis_layout_channel(const struct redis_layout *layout, struct slice name, char *out,
                          size_t *len) {
    char room[40];
    struct slice rest = name;
    if (!take_start(&rest, layout->prefix) ||
        !take_start(&rest, kind_of(layout, REDIS_KEY_NEWS, room)) || !rest.len)
        return false;
    if (!layout->is_cluster) {
        memcpy(out, rest.data, rest.len);
        *len = rest.len;
        return true;
    }
    if (rest.len < 3 || rest.data[0] != '{' || rest.data[rest.len - 1] != '}')
        return false;
    long decoded = text_decode_percent((struct slice){rest.data + 1, rest.len - 2}, out);
    *len = decoded > 0 ? (size_t)decoded : 0;
    return decoded > 0;
}

/* What a cluster hashes of a key: what stands in its first pair of braces, if anything does. */
static struct slice hash_tag(struct slice key) {
    const char *open = key.len ? memchr(key.data, '{', key.len) : NULL;
    const char *close = open ? memchr(open, '}', key.len - (size_t)(open - key.data)) : NULL;
    return close && close > open + 1 ? (struct slice){open + 1, (size_t)(close - open) - 1} : key;
}

unsigned redis_layout_slot(const struct redis_layout *layout, struct slice channel) {
    struct buf key = {0};
    redis_layout_key(layout, &key, REDIS_KEY_TOTAL, channel);
    struct slice tag = hash_tag((struct slice){key.data, key.len});
    unsigned crc = 0; /* CRC16 (XMODEM) */
    for (size_t i = 0; i < tag.len; i++) {
        crc ^= (unsigned)(unsigned char)tag.data[i] << 8;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc << 1 ^ (crc & 0x8000 ? 0x1021 : 0)) & 0xffff;
    }
    buf_deinit(&key);
    return crc % REDIS_SLOTS;
}

/* --- Records ---------------------------------------------------------------------------------- */

void redis_record_write(struct buf *out, const struct update *update) {
    struct slice query = update_query(update), headers = update_headers(update),
                 method = update_method(update);
    size_t lengths[] = {query.len, headers.len, method.len};
    buf_put_number(out, update->body_len);
    buf_puts(out, update->has_raw ? " " : " -1");
    if (update->has_raw)
        buf_put_number(out, update->raw_len);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        buf_putc(out, ' ');
        buf_put_number(out, lengths[i]);
    }
    buf_putc(out, '\n');
    if (update->has_raw)
        buf_append(out, update_raw(update).data, update->raw_len);
    buf_append(out, query.data, query.len);
    buf_append(out, headers.data, headers.len);
    buf_append(out, method.data, method.len);
}

/* Reads a number and the byte behind it, which must be `end`. */
static bool take_number(struct slice *text, char end, int64_t *number) {
    size_t i = 0;
    bool is_negative = text->len && text->data[0] == '-';
    i += is_negative;
    *number = 0;
    size_t digits = i;
    for (; i < text->len && text->data[i] >= '0' && text->data[i] <= '9'; i++) {
        if (i - digits >= 18)
            return false;
        *number = *number * 10 + (text->data[i] - '0');
    }
    if (i == digits || i == text->len || text->data[i] != end)
        return false;
    if (is_negative)
        *number = -*number;
    *text = (struct slice){text->data + i + 1, text->len - i - 1};
    return true;
}

static bool take_bytes(struct slice *text, int64_t len, struct slice *bytes) {
    if (len < 0 || (uint64_t)len > text->len)
        return false;
    *bytes = (struct slice){text->data, (size_t)len};
    *text = (struct slice){text->data + len, text->len - (size_t)len};
    return true;
}

bool redis_record_parse(struct slice text, struct redis_record *record) {
    int64_t numbers[7];
    for (int i = 0; i < 7; i++)
        if (!take_number(&text, i < 6 ? ' ' : '\n', &numbers[i]))
            return false;
    *record = (struct redis_record){.ts = (uint64_t)numbers[0], .at_ms = numbers[1]};
    if (numbers[0] < 1 || numbers[1] < 0 || numbers[2] < 0 || numbers[6] > UINT16_MAX)
        return false;
    record->body_len = (size_t)numbers[2];
    record->parts.has_raw = numbers[3] >= 0;
    bool ok = (!record->parts.has_raw || take_bytes(&text, numbers[3], &record->parts.raw)) &&
              take_bytes(&text, numbers[4], &record->parts.query) &&
              take_bytes(&text, numbers[5], &record->parts.headers) &&
              take_bytes(&text, numbers[6], &record->parts.method);
    record->rest = text;
    return ok;
}

uint64_t redis_record_ts(struct slice text) {
    int64_t ts;
    return take_number(&text, ' ', &ts) && ts > 0 ? (uint64_t)ts : 0;
}

static bool is_text_for_all(struct slice text) {
    enum json_kind kind = json_check(text);
    return kind != JSON_INVALID && kind != JSON_TOO_DEEP;
}

enum redis_item redis_item_judge(struct slice body, const struct slice *text, uint64_t ts,
                                 struct redis_record *record) {
    if (!is_text_for_all(body))
        return REDIS_ITEM_DAMAGED;
    if (!text)
        return REDIS_ITEM_BARE;
    if (!redis_record_parse(*text, record) || record->ts != ts)
        return REDIS_ITEM_DAMAGED;
    if (record->body_len != body.len)
        return REDIS_ITEM_BARE; /* somebody has set another text */
    struct slice headers = record->parts.headers;
    bool is_sound = !headers.len || json_check(headers) == JSON_OBJECT;
    return is_sound ? REDIS_ITEM_WHOLE : REDIS_ITEM_DAMAGED;
}

struct update *redis_record_update(const struct redis_record *record, struct slice body,
                                   uint64_t ts) {
    struct update_parts parts = {.method = SLICE("POST")};
    if (record)
        parts = record->parts;
    parts.body = body;
    struct update *update = update_new(&parts);
    if (update) {
        update->ts = ts;
        update->at_ms = update->born_ms = record ? record->at_ms : 0;
    }
    return update;
}
