-- The Lua client of longline: pushes updates to a channel, and gets each of its updates once, in
-- order.
--
--     local longline = require "longline"                  -- Garry's Mod: include("longline.lua")
--     local client = longline.new("https://lp.example.com/SecretPath")
--     client:subscribe(function(update, ts) print(ts, update.key) end)
--     client:publish({ key = "value" })
--
-- It runs on Lua 5.1 and LuaJIT over copas, luasocket and cjson (luasec for https), and in Garry's
-- Mod. What differs between them is in seven functions, set at the end of this file. Another
-- environment can set its own:
--
--     longline.http_get(url, request)         → body, status, headers | false, error
--     longline.http_post(url, body, request)  → the same
--     longline.http_delete(url, request)      → the same; forget_consumer and purge need it
--     longline.thread_new(f, …)               runs f(…) as a thread
--     longline.thread_pause(seconds, request) lets the other threads run for that long
--     longline.json_encode(table)             → text | nil, error, or throws
--     longline.json_decode(text)              → table | nil, error, or throws
--
-- `headers` may be nil, but publish_batch needs them; the names are in lower case. `request` may be
-- nil; its `timeout` is how many seconds the reply may take, its `type` the Content-Type of the
-- body (nil: JSON). The function may set its `cancel`, which stop() calls to end the wait, and its
-- `unsent`, if the request has not reached the server.
--
-- A subscription is one thread (see keep_polling): poll, deliver, poll again; after an error pause
-- and ask again. Its cursor is the last update that was handled, and moves only after the handler
-- has returned. client.ts is the cursor of the newest subscription: an older one may still be in its
-- handler. With it goes client.epoch, which names the data that the cursor belongs to.

local longline = { _VERSION = "longline 0.1.0" }

local SLEEP_S = 25             -- Many proxies cut what lasts longer.
local SLEEP_LEAST_S = 1        -- A cut makes no poll shorter than that.
local CUT_AFTER_S = 0.5        -- A poll that has waited for so long was cut; a sooner end is a failure,
local CUT_LATE_S = 5           -- and so is one so long after its time.
local CUT_PAUSE_S = 0.5        -- The longest pause after the third cut in a row.
local REPLY_GRACE_S = 15       -- How much longer than `sleep` a reply may take.
local PUBLISH_TIMEOUT_S = 30
local RETRY_AFTER_MAX_S = 60
local PAGE = 100               -- Updates in one reply.

local unpack = unpack or table.unpack
local clock = os.time -- An environment may have a finer one.

-- A pcall and an xpcall in which handlers may yield. Plain Lua 5.1 needs coxpcall: see over_copas.
local pcall, xpcall = pcall, xpcall

local function can_yield_in_pcall()
  return coroutine.wrap(function() return pcall(coroutine.yield, true) end)() == true
end

-- -------------------------------------------------------------------------------------------- keys

local KEY_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
local KEY_SIZE = 26
local LESSER = { r_ = "v_", v_ = "w_" } -- A key may do everything (r_), read (v_) or send (w_).

-- A bitwise operation on numbers of 32 bits: `of_two` says what it makes of two bits (0, 1) each.
-- Plain Lua 5.1 has none, and this is fast enough for a few hashes.
local function bitwise(of_two)
  local nibbles = {}
  for both = 0, 255 do
    local x, y, made = math.floor(both / 16), both % 16, 0
    for bit = 0, 3 do
      local power = 2 ^ bit
      made = made + power * of_two(math.floor(x / power) % 2, math.floor(y / power) % 2)
    end
    nibbles[both] = made
  end
  return function(x, y)
    local made, power = 0, 1
    for _ = 1, 8 do
      local low_x, low_y = x % 16, y % 16
      made, power = made + power * nibbles[16 * low_x + low_y], power * 16
      x, y = (x - low_x) / 16, (y - low_y) / 16
    end
    return made
  end
end

local function turn_right(word, count)
  local low = word % 2 ^ count
  return (word - low) / 2 ^ count + low * 2 ^ (32 - count)
end

-- SHA-256 of a text of one block (55 bytes at most), as a list of eight words.
local function sha256(text)
  local xor, band = bitwise(function(x, y) return (x + y) % 2 end), bitwise(function(x, y) return x * y end)
  local function turns(word, first, second, last) -- The last is a word already.
    return xor(xor(turn_right(word, first), turn_right(word, second)), last)
  end
  local constants, hash, n = {}, {}, 1
  while #constants < 64 do -- The fractions of the roots of the first primes.
    n = n + 1
    local is_prime = true
    for divisor = 2, math.sqrt(n) do is_prime = is_prime and n % divisor ~= 0 end
    if is_prime then
      constants[#constants + 1] = math.floor(n ^ (1 / 3) % 1 * 2 ^ 32)
      if #hash < 8 then hash[#hash + 1] = math.floor(n ^ 0.5 % 1 * 2 ^ 32) end
    end
  end

  local words = {}
  local block = text .. "\128" .. ("\0"):rep(61 - #text) .. string.char(math.floor(#text / 32), #text * 8 % 256)
  for index = 1, 16 do
    local a, b, c, d = block:byte(4 * index - 3, 4 * index)
    words[index] = ((a * 256 + b) * 256 + c) * 256 + d
  end
  for index = 17, 64 do
    local x, y = words[index - 15], words[index - 2]
    local first = turns(x, 7, 18, math.floor(x / 8))
    words[index] = (words[index - 16] + first + words[index - 7] + turns(y, 17, 19, math.floor(y / 1024))) % 2 ^ 32
  end

  local a, b, c, d, e, f, g, h = unpack(hash)
  for index = 1, 64 do
    local chosen = band(e, f) + band(2 ^ 32 - 1 - e, g)
    local first = h + turns(e, 6, 11, turn_right(e, 25)) + chosen + constants[index] + words[index]
    local second = turns(a, 2, 13, turn_right(a, 22)) + xor(xor(band(a, b), band(a, c)), band(b, c))
    a, b, c, d, e, f, g, h = (first + second) % 2 ^ 32, a, b, c, (d + first) % 2 ^ 32, e, f, g
  end
  for index, word in ipairs({ a, b, c, d, e, f, g, h }) do hash[index] = (hash[index] + word) % 2 ^ 32 end
  return hash
end

-- The key that may do less: of r_ the v_, of v_ the w_. None can be derived back.
local function next_key(key)
  local words, letters = sha256("longline:" .. key), {}
  for index = 0, KEY_SIZE - 1 do
    local value = 0
    for bit = 5 * index, 5 * index + 4 do
      value = 2 * value + math.floor(words[math.floor(bit / 32) + 1] / 2 ^ (31 - bit % 32)) % 2
    end
    letters[index + 1] = KEY_LETTERS:sub(value + 1, value + 1)
  end
  return LESSER[key:sub(1, 2)] .. table.concat(letters)
end

-- The same address with the key of this kind; nil if it cannot be told from this one.
local function url_of_kind(url, kind)
  local path, query = url:match("^([^?]*)(.*)$")
  local before, key, after = path:match("^(.*/)([rvw]_[a-z2-7]+)(/*)$")
  if not key or #key ~= 2 + KEY_SIZE or key:sub(1, 2) > kind then return nil end
  if not before:find("^%a+://[^/]+/") then return nil end
  while key:sub(1, 2) ~= kind do key = next_key(key) end
  return before .. key .. after .. query
end

local Client = {}
Client.__index = Client

-- A client of one channel. If `url` has a query, it is merged into every update that is published.
-- With ?view=full, updates come with the whole request: { ts =, at =, headers =, body =, raw =, … }.
-- client.read_only_url and client.send_only_url are the addresses that only read and only send, or
-- nil if `url` cannot tell them.
function longline.new(url)
  assert(type(url) == "string", "longline.new: the URL of a channel is expected")
  url = url:match("^[^#]*")
  local full = ("&" .. (url:match("%?(.*)") or "") .. "&"):find("&view=full&", 1, true) ~= nil
  return setmetatable({
    url = url, read_only_url = url_of_kind(url, "v_"), send_only_url = url_of_kind(url, "w_"), full = full,
    backoff = 0.5, backoff_max = 30, subscriptions = {},
  }, Client)
end

-- -------------------------------------------------------------------------------- telling the user

-- The URL's path is the channel's secret, so no message has it.
function Client:log(format, ...)
  local host = self.url:match("^%a+://([^/?#]+)") or "?"
  print(("longline (%s): "):format(host:gsub("^.*@", "")) .. format:format(...))
end

-- Calls f. Returns true and its results, or false and the error with a traceback.
local function call(f, ...)
  local arguments, count = { ... }, select("#", ...)
  return xpcall(function() return f(unpack(arguments, 1, count)) end, function(err)
    local text = tostring(err)
    -- coxpcall has already added the traceback.
    return text:find("\nstack traceback:", 1, true) and text or debug.traceback(text, 2)
  end)
end

-- The same for a function that waits. If the interpreter cannot catch its error, that ends the
-- thread.
local function call_waiting(f, ...)
  if can_yield_in_pcall() then return call(f, ...) end
  return true, f(...)
end

local defaults = {
  on_missed = function(self, count) self:log("%.0f updates are no longer kept and were missed", count) end,
  on_reset = function(self, ts) self:log("the channel began anew; going on after %.0f", ts) end,
  on_error = function(self, err, _, final) self:log("%s%s", err, final and " (the subscription has ended)" or "") end,
}

-- Calls the user's on_… field, or prints a line if it is not set.
local function tell(self, name, ...)
  local callback = self[name]
  if not callback then return defaults[name](self, ...) end
  local ok, err = call(callback, ...)
  if ok then return end
  if name == "on_error" then self:log("on_error: %s", err) else tell(self, "on_error", name .. ": " .. err) end
end

-- ----------------------------------------------------------------------------------------- publish

-- The JSON text with U+FFFD for every \ud800 to \udfff that is not half of a pair. JSON allows such
-- strings and the server passes them on, but some decoders refuse a whole reply because of one.
local function without_half_pairs(text)
  text = text:gsub("\\\\", "\1") -- JSON has no control characters, so these marks are free.
  text = text:gsub("\\(u[dD][89abAB]%x%x)\\(u[dD][c-fC-F]%x%x)", "\2%1\2%2")
  text = text:gsub("\\u[dD][89a-fA-F]%x%x", "\\ufffd")
  return (text:gsub("[\1\2]", { ["\1"] = "\\\\", ["\2"] = "\\" }))
end

-- The table that the JSON text describes, or nil.
local function decode(text)
  local ok, value = pcall(longline.json_decode, text)
  if not ok or type(value) ~= "table" then ok, value = pcall(longline.json_decode, without_half_pairs(text)) end
  return ok and type(value) == "table" and value or nil
end

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

-- The text as a JSON string.
local function encode_string(text)
  return '"' .. text:gsub('[%c"\\]', function(c) return ESCAPES[c] or ("\\u%04x"):format(c:byte()) end) .. '"'
end

-- What an error's reply says about it, or "".
local function description(body, status, headers)
  local reply = decode(body)
  local text = reply and reply.error_description
  if type(text) == "string" then return text end
  if type(status) ~= "number" or status < 300 or status >= 400 then return "" end
  -- Name only the host that it leads to: the path is the channel's secret.
  local host = tostring(headers and headers.location or ""):match("^https?://[^/?#@]+")
  return "redirects are not followed, set the URL that it leads to" .. (host and ", at " .. host or "")
end

-- The update's JSON text; or nil and an error.
local function encoded(update)
  if type(update) ~= "table" then return nil, "an update is a table" end
  local ok, text, err = pcall(longline.json_encode, update)
  if ok and text then return text end
  return nil, "cannot be written as JSON: " .. tostring(ok and err or text)
end

-- What is wrong with the receipt of a batch, if anything: another server takes it for one update.
local function batch_error(headers, size)
  local count = headers and headers["x-updates"]
  if not count then return "the server does not know batches; it has stored the text as one update" end
  -- Fewer, if the address has .once and some had come before.
  if not tonumber(count) or tonumber(count) > size then return ("the server has stored %s updates, not %d"):format(count, size) end
end

-- `batch_size` is nil for a single update.
local function post(client, text, kind, batch_size)
  local body, status, headers = longline.http_post(client.url, text, { timeout = PUBLISH_TIMEOUT_S, type = kind })
  if not body then return false, status end
  if status == 200 or status == 201 or (status == nil and body == "OK") then
    local err = batch_size and batch_error(headers, batch_size)
    if err then return false, status, err end
    return true, status, tonumber(headers and headers["x-total-updates"])
  end
  return false, status, description(body, status, headers)
end

-- Stores the table as one update. Returns true, 200 and its ts; or false, the status and the
-- server's words; or false and an error. It never tries again, because without a reply it may have
-- been stored.
function Client:publish(update)
  local text, err = encoded(update)
  if not text then return false, err end
  return post(self, text)
end

-- The same for a list of tables, each of them an update: all are stored, or none. The ts is the
-- last one's. From a server that does not know batches, false, 200 and an error: it has stored the
-- text as one update.
function Client:publish_batch(updates)
  local lines = {}
  for i, update in ipairs(updates) do
    local text, err = encoded(update)
    if not text then return false, err end
    lines[i] = text:gsub("[\r\n]", " ") -- between values, if json_encode writes any
  end
  return post(self, table.concat(lines, "\n"), "application/x-ndjson", #lines)
end

-- The same as publish in its own thread. callback(ok, code, …) gets what publish returns.
function Client:publish_async(update, callback)
  longline.thread_new(function()
    local result = { self:publish(update) }
    if not callback then return end
    local ok, err = call(callback, unpack(result, 1, 3))
    if not ok then tell(self, "on_error", err) end
  end)
end

-- --------------------------------------------------------------------------------------------- get

-- Whether the body is longline's own error: a 4xx without it is a proxy's.
local function is_own_error(body, status)
  local reply = decode(body)
  return reply ~= nil and reply.ok == false and reply.error_code == status
end

-- The reply if it is a 200 with a table that fits(table); or false, an error, and what is known
-- about it: its status and headers, and whether it is longline's own.
local function read_reply(fits, body, status, headers)
  if not body then return false, tostring(status or "no reply"), {} end
  if status ~= nil and status ~= 200 then
    local text = description(body, status, headers)
    local info = { status = tonumber(status), headers = headers, own = is_own_error(body, tonumber(status)) }
    return false, tostring(status) .. (text ~= "" and ": " .. text or ""), info
  end
  local reply = decode(body)
  if not reply or not fits(reply) then return false, "the reply is not longline's", { status = 200 } end
  return reply, body
end

local function is_page(reply) return type(reply.ts) == "number" and type(reply.updates) == "table" end

-- One poll. Returns the reply and its text, or what read_reply returns for an error.
local function poll(self, query, request)
  local separator = self.url:find("?", 1, true) and "&" or "?"
  return read_reply(is_page, longline.http_get(self.url .. separator .. query, request))
end

local function reply_timeout(sleep) return math.max(sleep, 0) + REPLY_GRACE_S end

local function encode_query(text)
  return (tostring(text):gsub("[^%w%-._~]", function(c) return ("%%%02X"):format(c:byte()) end))
end

-- A cursor as the protocol writes it.
local function encode_ts(ts) return type(ts) == "number" and ("%.0f"):format(ts) or tostring(ts) end

-- A number of seconds, to the millisecond.
local function encode_seconds(seconds) return ("%.14g"):format(math.floor(seconds * 1000 + 0.5) / 1000) end

-- "&where=…" for each condition in `where`: nil, a string, or a list of strings.
local function encode_where(where)
  local parts = {}
  for _, condition in ipairs(type(where) == "table" and where or { where }) do
    parts[#parts + 1] = "&where=" .. encode_query(condition)
  end
  return table.concat(parts)
end

-- One poll: the updates after `ts` (-K: the last K; "now": only what comes; nil: all that are kept)
-- that client.where wants, waiting up to `timeout` seconds for one. Returns the reply
-- { ts =, updates =, missed =, reset = } and its text, or false, an error and the status.
function Client:get(ts, timeout)
  local query = "ts=" .. (ts and encode_ts(ts) or "") .. "&sleep=" .. (timeout and encode_seconds(timeout) or "")
  local reply, body, info = poll(self, query .. encode_where(self.where), { timeout = reply_timeout(timeout or 0) })
  if reply then return reply, body end
  return false, body, info.status
end

-- The channel's address with `path` below it.
local function below(self, path) return (self.url:gsub("%?.*", ""):gsub("/+$", "")) .. path end

local CALL = { timeout = PUBLISH_TIMEOUT_S }

-- The channel's named consumers: a list of { name =, ts =, lag =, at = }; or false, an error and the
-- status.
function Client:consumers()
  local function fits(reply) return type(reply.consumers) == "table" end
  local reply, err, info = read_reply(fits, longline.http_get(below(self, "/consumers"), CALL))
  if reply then return reply.consumers end
  return false, err, info.status
end

-- Makes the server forget a named consumer. Returns true; or false, an error and the status.
function Client:forget_consumer(name)
  local function fits(reply) return reply.ok == true end
  local reply, err, info = read_reply(fits, longline.http_delete(below(self, "?as=" .. encode_query(name)), CALL))
  if reply then return true end
  return false, err, info.status
end

-- Removes the updates up to the ts `upto` for good; all of them, if it is called without. Returns
-- the ts up to which they are gone, 0 if there were none; or false, an error and the status. That
-- `upto` is nil by a slip must not remove all: it is an error.
function Client:purge(...)
  local upto, query = ..., ""
  if select("#", ...) > 0 then
    assert(type(upto) == "number" and upto >= 0 and upto % 1 == 0, "purge: the ts of an update is expected, or nothing")
    query = ("?upto=%.0f"):format(upto)
  end
  local function fits(reply) return reply.ok == true and type(reply.gone) == "number" end
  local reply, err, info = read_reply(fits, longline.http_delete(below(self, query), CALL))
  if reply then return reply.gone end
  return false, err, info.status
end

-- ------------------------------------------------------------------------------------- the pace

-- From 0 to 1. Each client has its own generator, because math.random may be unseeded and is not
-- ours to seed. The address of a new table differs between programs.
local function random(self)
  local last = self.random
  if not last then
    last = 1
    for byte in (tostring({}) .. self.url):gmatch(".") do last = (last * 31 + byte:byte()) % 2147483647 end
  end
  self.random = math.max(last, 1) * 16807 % 2147483647
  return self.random / 2147483647
end

-- Between half and all of it: clients that failed together must not come back together.
local function jitter(self, seconds) return seconds * (0.5 + 0.5 * random(self)) end

-- The seconds that a reply tells us to wait, or nil.
local function retry_after(headers)
  local told = tonumber(tostring(headers and headers["retry-after"] or ""):match("^%s*(%d+)%s*$"))
  return told and told > 0 and math.min(told, RETRY_AFTER_MAX_S) or nil
end

-- How long to wait after the `failures`th error in a row.
local function backoff(self, failures, info)
  local told = (info.status == 429 or info.status == 503) and retry_after(info.headers)
  if told then return told * (1 + 0.5 * random(self)) end
  return jitter(self, math.min(self.backoff * 2 ^ math.min(failures - 1, 30), self.backoff_max))
end

-- Whether trying again cannot help: longline itself says that the request is wrong. What a proxy
-- says may pass.
local function is_final(info)
  local status = info.status
  return info.own and status >= 400 and status < 500 and status ~= 408 and status ~= 425 and status ~= 429
end

-- Whether a poll that has failed has waited for too long for something in between: "cut", by a proxy,
-- which is no failure; "silence", which is one; or nil.
local function waited_in_vain(err, info, request, took)
  local status = info.status
  if request.sleep <= 0 or request.unsent or took < CUT_AFTER_S then return nil end
  if info.own or retry_after(info.headers) or (status and status ~= 408 and status < 500) then return nil end
  -- "timeout", "timed out", "no reply in time"
  local timed_out = not status and err:lower():find("time", 1, true)
  return (timed_out or took > request.sleep + CUT_LATE_S) and "silence" or "cut"
end

-- ask(request) polls for up to request.sleep seconds, or sets that to 0 and does not wait; it returns
-- what read_reply returns. take(reply) takes a reply, and returns whether it says nothing new. owner
-- has backoff and on_error. This goes on until stop() or a final error.
local function keep_polling(owner, subscription, sleep, ask, take)
  local failures, cuts, wait = 0, 0, sleep
  while not subscription.stopped do
    local asked_at = clock()
    local request = { timeout = reply_timeout(wait), sleep = wait }
    subscription.request = request
    local ok, reply, err, info = call_waiting(ask, request)
    if subscription.stopped then break end
    if not ok then reply, err, info, request.unsent = false, reply, {}, true end
    local took, pause = clock() - asked_at, nil
    local in_vain = not reply and waited_in_vain(err, info, request, took)
    if in_vain then wait = math.min(sleep, math.max(SLEEP_LEAST_S, 0.75 * math.min(took, wait))) end
    if reply then
      failures, cuts = 0, 0
      -- An empty reply at once (sleep 0, a server that ends, a proxy that does not wait): do not
      -- spin.
      if take(reply) and took < owner.backoff then pause = jitter(owner, owner.backoff) end
      if took >= 0.9 * wait then wait = math.min(sleep, wait * 1.25) end
    elseif in_vain == "cut" then
      failures, cuts = 0, cuts + 1
      -- Several in a row: the server may be away behind a proxy that is slow to say so.
      if cuts > 1 then tell(owner, "on_error", err, info.status, false) end
      if cuts > 2 then pause = jitter(owner, CUT_PAUSE_S) end
    else
      failures, cuts = failures + 1, 0
      local final = is_final(info)
      tell(owner, "on_error", err, info.status, final and true or false)
      if final then break end
      pause = backoff(owner, failures, info)
    end
    if pause and not subscription.stopped then
      subscription.request = {}
      ok, err = call_waiting(longline.thread_pause, pause, subscription.request)
      if not ok then
        tell(owner, "on_error", "thread_pause: " .. err, nil, true)
        break
      end
    end
  end
  owner.subscriptions[subscription] = nil
end

-- --------------------------------------------------------------------------------------- subscribe

-- Moves the cursor.
local function move(self, subscription, ts, epoch)
  if subscription.ts == ts and subscription.epoch == epoch then return end
  subscription.ts, subscription.epoch = ts, epoch
  if self.current ~= subscription then return end
  self.ts, self.epoch = ts, epoch
  if not self.save then return end
  local ok, err = call(self.save, ts, epoch)
  if not ok then tell(self, "on_error", "save: " .. err) end
end

-- The ts of a reply's first update, less one. What a filter has left out may be anywhere: then it is
-- the least that it can be.
local function before_first(reply)
  return reply.ts - #reply.updates - (type(reply.skipped) == "number" and reply.skipped or 0)
end

-- Whether the server must still find what this cursor means: "now", the last K, or (nil) a time.
local function is_to_be_found(ts) return type(ts) ~= "number" or ts < 0 end

-- Hands a reply's updates to the handler, one by one, until stop() is called. Returns whether the
-- reply says nothing new.
local function deliver(self, subscription, reply)
  local function stopped() return subscription.stopped end
  local asked, count, first = subscription.ts, #reply.updates, before_first(reply)
  local epoch = type(reply.epoch) == "string" and reply.epoch or subscription.epoch
  if type(reply.lag) == "number" then self.lag = reply.lag end
  if count > 0 then
    -- The handlers see of which data the updates are. The cursor is of that data too, as there was no reset.
    subscription.epoch = epoch
    if self.current == subscription then self.epoch = epoch end
    -- Now we know where "the last K", or what the server had to find, begin.
    if is_to_be_found(asked) then move(self, subscription, first, epoch) end
  end
  if type(reply.missed) == "number" and reply.missed > 0 then tell(self, "on_missed", reply.missed) end
  if reply.reset == true and not stopped() then tell(self, "on_reset", reply.ts) end
  for index, update in ipairs(reply.updates) do
    if stopped() then return end
    local ts = index == count and reply.ts or first + index
    if self.full and type(update) == "table" and type(update.ts) == "number" then ts = update.ts end
    local ok, err = call(subscription.handler, update, ts, subscription.client)
    if not ok then tell(self, "on_error", ("the handler, in update %.0f: %s"):format(ts, err)) end
    move(self, subscription, ts, epoch)
  end
  if not stopped() then move(self, subscription, reply.ts, epoch) end
  return subscription.ts == asked
end

-- Sets where the subscription starts: what load() returns, or else `ts`. Returns whether it can:
-- if load() fails, starting anywhere else would lose or repeat updates.
local function start(self, subscription, ts, epoch)
  if self.load then
    local ok, loaded, loaded_epoch = call(self.load)
    if not ok or (loaded ~= nil and not tonumber(loaded)) then
      local err = ok and "returned no number: " .. tostring(loaded) or loaded
      tell(self, "on_error", "load: " .. err, nil, true)
      return false
    end
    if loaded ~= nil then ts, epoch = tonumber(loaded), loaded_epoch end
  end
  subscription.ts, subscription.epoch = ts, epoch and tostring(epoch) or ""
  if self.current == subscription and type(ts) == "number" then self.ts, self.epoch = ts, subscription.epoch end
  return true
end

-- Where the next poll begins. A name without a ts goes on after what it has confirmed. What the
-- server must find is asked for without waiting: after a poll that was cut it would be another place.
local function where_to_begin(self, subscription, request)
  local ts, place = subscription.ts, ""
  if ts or self.since then
    place = ts and "ts=" .. encode_ts(ts) .. "&" or "since=" .. encode_query(self.since) .. "&"
    if is_to_be_found(ts) then request.sleep = 0 end
  end
  return place .. "sleep=" .. encode_seconds(request.sleep)
end

-- A subscription's thread.
local function run(self, subscription, ts, sleep)
  if not ts and not self.since and not self.name then ts = 0 end
  if not start(self, subscription, ts) then
    self.subscriptions[subscription] = nil
    return
  end
  local function ask(request)
    local name = self.name and "&as=" .. encode_query(self.name) or ""
    local query = ("%s&limit=%d%s%s&epoch=%s"):format(where_to_begin(self, subscription, request), PAGE,
      encode_where(self.where), name, encode_query(subscription.epoch))
    return poll(self, query, request)
  end
  keep_polling(self, subscription, sleep, ask, function(reply) return deliver(self, subscription, reply) end)
end

-- Makes a subscription of the owner's, a client or a group, that `run(subscription)` serves in its
-- own thread.
local function begin(owner, handler, run_it)
  assert(type(handler) == "function", "subscribe: a handler is expected")
  local subscription = { handler = handler, request = {}, stopped = false }
  owner.subscriptions[subscription] = true
  owner.current = subscription
  owner.thread = longline.thread_new(function() run_it(subscription) end)
end

-- Calls handler(update, ts) for every update after `ts`, in order and in its own thread, until
-- stop(). Each poll waits up to `timeout` seconds (25). `ts` may be "now"; see `start` and
-- `where_to_begin` for where it begins. A client should have one subscription at a time, because it
-- has one cursor.
function Client:subscribe(handler, ts, timeout)
  begin(self, handler, function(subscription)
    run(self, subscription, ts == "now" and ts or tonumber(ts), tonumber(timeout) or SLEEP_S)
  end)
end

-- Ends the subscriptions: a waiting poll is abandoned, and no handler is called any more.
function Client:stop()
  local subscriptions = self.subscriptions
  self.subscriptions = {}
  for subscription in pairs(subscriptions) do
    subscription.stopped = true
    local cancel = subscription.request.cancel
    if cancel then cancel() end
  end
end

-- --------------------------------------------------------------------------------- several channels

local Group = { stop = Client.stop, log = Client.log }
Group.__index = Group

-- The server of a channel's address, and the channel's name.
local function split_address(url)
  local server, segment = url:gsub("%?.*", ""):gsub("/+$", ""):match("^(.*)/([^/]+)$")
  assert(server, "longline.group: the URL of a channel is expected")
  return server, (segment:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- Clients of up to 64 channels of one server, which one poll waits for. Each client keeps its own
-- cursor, `load`, `save`, `on_missed` and `on_reset`; the group has `where`, `backoff` and
-- `on_error`. If one URL has view=full, it is for all of them.
function longline.group(clients)
  local group = { clients = {}, backoff = 0.5, backoff_max = 30, subscriptions = {} }
  for _, client in ipairs(clients) do
    local server, name = split_address(client.url)
    assert(not group.server or group.server == server, "longline.group: all channels must be on one server")
    assert(not group.clients[name], "longline.group: a channel is there twice")
    group.server, group.clients[name], group.full = server, client, group.full or client.full
  end
  assert(group.server, "longline.group: a list of clients is expected")
  group.url = group.server .. "/-/poll"
  return setmetatable(group, Group)
end

-- The cursors as the body of a poll.
local function encode_cursors(cursors)
  local parts = {}
  for name, cursor in pairs(cursors) do
    parts[#parts + 1] = encode_string(name) .. ':{"ts":' .. encode_ts(cursor.ts)
      .. ',"epoch":' .. encode_string(cursor.epoch) .. "}"
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

-- Takes the reply to a poll of several channels. Returns whether it says nothing new.
local function deliver_channels(self, subscription, cursors, reply)
  local is_idle = true
  for name, page in pairs(reply.channels) do
    local client, cursor = self.clients[name], cursors[name]
    if subscription.stopped then return true end
    if cursor and type(page) == "table" and is_page(page) then
      if not deliver(client, cursor, page) then is_idle = false end
    elseif cursor and type(page) == "table" then
      tell(self, "on_error", tostring(page.error_description), tonumber(page.error_code), false)
    end
  end
  return is_idle
end

-- Finds where "now" is, and where the last K begin: the reply to a poll of several does not say it
-- of a channel that has nothing. Returns like poll.
local function find_begin(self, name, cursor, request)
  local client = self.clients[name]
  request.sleep = 0
  local query = ("?ts=%s&limit=%d&epoch=%s%s%s"):format(encode_ts(cursor.ts), PAGE, encode_query(cursor.epoch),
    self.full and "&view=full" or "", encode_where(self.where))
  local reply, err, info = read_reply(is_page, longline.http_get(below(client, query), request))
  if not reply then return reply, err, info end
  return { channels = { [name] = reply } }
end

local function run_group(self, subscription, sleep)
  local cursors = {}
  for name, client in pairs(self.clients) do
    -- A cursor is a subscription of its client's, which the group's stop() ends.
    local cursor = setmetatable({ client = client }, { __index = subscription })
    client.current, client.full = cursor, self.full
    if not start(client, cursor, client.ts or 0, client.epoch) then
      self.subscriptions[subscription] = nil
      return
    end
    cursors[name] = cursor
  end
  local function fits(reply) return type(reply.channels) == "table" end
  local function ask(request)
    for name, cursor in pairs(cursors) do
      if is_to_be_found(cursor.ts) then return find_begin(self, name, cursor, request) end
    end
    local query = ("?sleep=%s&limit=%d%s%s&epoch="):format(encode_seconds(request.sleep), PAGE,
      self.full and "&view=full" or "", encode_where(self.where))
    return read_reply(fits, longline.http_post(self.url .. query, encode_cursors(cursors), request))
  end
  keep_polling(self, subscription, sleep, ask, function(reply) return deliver_channels(self, subscription, cursors, reply) end)
end

-- Calls handler(update, ts, client) for every update of each channel, until stop(): after client.ts,
-- if it is set ("now": only what comes), or else all that are kept.
function Group:subscribe(handler, timeout)
  begin(self, handler, function(subscription) run_group(self, subscription, tonumber(timeout) or SLEEP_S) end)
end

-- ------------------------------------------------------------------------------------- Garry's Mod

-- Sets the functions of an environment that has one for all: http(method, url, body, request).
local function set_http(http)
  function longline.http_get(url, request) return http("GET", url, nil, request) end
  function longline.http_delete(url, request) return http("DELETE", url, nil, request) end
  function longline.http_post(url, body, request) return http("POST", url, body, request) end
end

local function resume(co, ...)
  local ok, err = coroutine.resume(co, ...)
  if not ok then error(debug.traceback(co, tostring(err)), 0) end
end

-- Calls begin(done) and returns, in this thread, what done(…) is first called with.
local function await(begin)
  local co = coroutine.running()
  if not co then error("longline: only a thread can wait; use publish_async, or longline.thread_new", 4) end
  local result, over, waiting
  begin(function(...)
    if over then return end
    over, result = true, { n = select("#", ...), ... }
    if waiting then resume(co) end
  end)
  if not over then
    waiting = true
    coroutine.yield()
  end
  local got = result
  result = nil -- A timer may hold `done` for a minute; it must not hold the body.
  return unpack(got, 1, got.n)
end

-- Needs HTTP, timer.Simple, util.TableToJSON and util.JSONToTable.
local function over_garrysmod(G)
  local HTTP, timer, util = G.HTTP, G.timer, G.util
  clock = rawget(G, "SysTime") or clock

  set_http(function(method, url, body, request)
    local timeout = request and request.timeout or PUBLISH_TIMEOUT_S
    return await(function(done)
      local kind = body and (request and request.type or "application/json")
      local parameters = { method = method, url = url, body = body, type = kind, timeout = timeout }
      function parameters.success(status, reply, headers)
        local lower = {}
        for name, value in pairs(headers or {}) do lower[tostring(name):lower()] = value end
        done(reply or "", status, lower)
      end
      function parameters.failed(err)
        if request then request.unsent = err == "error" end -- Steam's; what is cut is "unsuccessful".
        done(false, tostring(err or "failed"))
      end
      if request then request.cancel = function() done(false, "stopped") end end
      timer.Simple(timeout + 5, function() done(false, "no reply in time") end)
      -- It returns true; nil, or false in newer builds, if it made no request. Then it may be that
      -- neither callback comes.
      if not HTTP(parameters) then done(false, "HTTP() made no request") end
    end)
  end)

  function longline.thread_new(f, ...)
    local co = coroutine.create(f)
    resume(co, ...)
    return co
  end

  function longline.thread_pause(seconds, request)
    await(function(done)
      if request then request.cancel = done end
      timer.Simple(seconds, function() done() end)
    end)
  end

  longline.json_encode = util.TableToJSON

  -- Without the limit on the length, and without turning keys that look like numbers into numbers.
  function longline.json_decode(text) return util.JSONToTable(text, true, true) end
end

-- --------------------------------------------------------------------------------- JSON over cjson

-- cjson writes 14 digits of a number, too few for an id of more than 46 bits. So we encode
-- ourselves.
local encode

local function encode_number(number)
  if number ~= number or number == math.huge or number == -math.huge then error("not a finite number", 0) end
  if number == math.floor(number) and math.abs(number) <= 2 ^ 53 then return ("%.0f"):format(number) end
  local text = ("%.14g"):format(number)
  return tonumber(text) == number and text or ("%.17g"):format(number)
end

-- The length of a table that is an array (it may have a few holes, as in cjson), or nil.
local function array_length(t)
  local count, length = 0, 0
  for key in pairs(t) do
    if type(key) ~= "number" or key < 1 or key ~= math.floor(key) then return nil end
    count, length = count + 1, math.max(length, key)
  end
  if count > 0 and (length <= 10 or length <= 2 * count) then return length end
end

local function encode_table(t, depth)
  if depth > 500 then error("nested deeper than 500 levels", 0) end
  local parts, length = {}, array_length(t)
  if length then
    for index = 1, length do parts[index] = encode(t[index], depth) end
    return "[" .. table.concat(parts, ",") .. "]"
  end
  for key, value in pairs(t) do
    if type(key) == "number" then key = encode_number(key) end
    if type(key) ~= "string" then error("a " .. type(key) .. " is no key", 0) end
    parts[#parts + 1] = encode_string(key) .. ":" .. encode(value, depth)
  end
  return "{" .. table.concat(parts, ",") .. "}"
end

-- The only userdata is cjson.null.
function encode(value, depth)
  local kind = type(value)
  if kind == "table" then return encode_table(value, depth + 1) end
  if kind == "string" then return encode_string(value) end
  if kind == "number" then return encode_number(value) end
  if kind == "boolean" then return tostring(value) end
  if kind == "nil" or tostring(value) == "userdata: NULL" or tostring(value) == "userdata: (nil)" then return "null" end
  error("a " .. kind .. " is no JSON", 0)
end

-- ----------------------------------------------------------------------------- copas and luasocket

-- Where common systems have their certificates, for longline.tls.cafile.
local CA_FILES = {
  "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem",
  "/usr/local/share/certs/ca-root-nss.crt",
}

-- The settings for luasec's ssl.wrap.
longline.tls = {
  mode = "client", protocol = "any", verify = "peer",
  options = { "all", "no_sslv2", "no_sslv3", "no_tlsv1", "no_tlsv1_1" },
}

-- Splits http(s)://[user:password@]host[:port][/path][?query]. Returns nil for anything else.
local function parse_url(url)
  local scheme, authority, target = url:match("^(%a+)://([^/?#]+)([^#]*)")
  scheme = scheme and scheme:lower()
  if scheme ~= "http" and scheme ~= "https" then return nil end
  local user, address = authority:match("^(.*)@([^@]*)$")
  address = address or authority
  local host, port = address:match("^%[([%x:.]+)%]:?(%d*)$")
  if not host then host, port = address:match("^([^:]+):?(%d*)$") end
  if not host then return nil end
  if target:sub(1, 1) ~= "/" then target = "/" .. target end
  target = target:gsub("[%c \128-\255]", function(c) return ("%%%02X"):format(c:byte()) end)
  return {
    tls = scheme == "https", user = user, host = host, address = address, target = target,
    port = tonumber(port) or (scheme == "https" and 443 or 80),
  }
end

-- The first of these variables of the environment that is not empty.
local function variable(...)
  for _, name in ipairs({ ... }) do
    local value = os.getenv(name)
    if value and value ~= "" then return value end
  end
end

local function ipv4_number(text)
  local a, b, c, d = text:match("^(%d+)%.(%d+)%.(%d+)%.(%d+)$")
  return a and ((a * 256 + b) * 256 + c) * 256 + d
end

-- Whether NO_PROXY names the host: by itself, a domain above it, an IPv4 network around it, or "*".
local function is_exempt(host, list)
  host = host:lower():gsub("%.$", "")
  local number = ipv4_number(host)
  for entry in list:lower():gmatch("[^%s,]+") do
    local network, bits = entry:match("^([%d.]+)/(%d+)$")
    local base = number and network and ipv4_number(network)
    if base and math.floor(base / 2 ^ (32 - bits)) == math.floor(number / 2 ^ (32 - bits)) then return true end
    local name = entry:gsub("^%.+", ""):gsub("%.$", ""):gsub("[%[%]]", "")
    if entry == "*" or host == name or (not number and host:sub(-#name - 1) == "." .. name) then return true end
  end
  return false
end

-- The proxy that leads to the host: longline.proxy (false: none), or what the environment says, as
-- curl reads it. Returns nil for none, or false and an error.
local function proxy_for(where)
  local url = longline.proxy
  if url == nil and not is_exempt(where.host, variable("no_proxy", "NO_PROXY") or "") then
    -- In a CGI program HTTP_PROXY is the Proxy header of whoever sent the request.
    local upper = not os.getenv("REQUEST_METHOD") and "HTTP_PROXY" or "http_proxy"
    url = where.tls and variable("https_proxy", "HTTPS_PROXY") or not where.tls and variable("http_proxy", upper)
  end
  if not url or url == "" then return nil end
  local proxy = parse_url(url:find("://", 1, true) and url or "http://" .. url)
  if not proxy or proxy.tls then return false, "a proxy's address begins with http:// and a host" end
  if not proxy.address:find(":%d+$") then proxy.port = 1080 end
  return proxy
end

-- Whether a certificate's name, which may begin with "*.", matches the host.
local function name_fits(name, host)
  name, host = name:lower(), host:lower()
  if name == host then return true end
  return name:sub(1, 2) == "*." and name:sub(2) == host:match("^[^.]+(%..+)$")
end

-- luasec checks who signed a certificate, but not whom it was issued to.
local function certificate_fits(certificate, host)
  local names = certificate and certificate:extensions()["2.5.29.17"] or {}
  for _, kind in ipairs({ "dNSName", "iPAddress" }) do
    for _, name in ipairs(type(names[kind]) == "table" and names[kind] or {}) do
      if name_fits(name, host) then return true end
    end
  end
  return false
end

-- copas' timers: a function after(seconds, f) → cancel(). Debian's copas has none of its own.
local function timers_over(copas, socket)
  if copas.sleep then
    return function(seconds, f)
      local live = true
      local thread = copas.addthread(function()
        if live then copas.sleep(seconds) end
        if live then f() end
      end)
      return function()
        live = false
        copas.wakeup(thread)
      end
    end
  end
  -- Run them before each step of copas' loop, which then waits no longer than until the next one.
  local timers, step = {}, copas.step
  function copas.step(timeout)
    local now, due, next_s = socket.gettime(), {}, nil
    for timer in pairs(timers) do
      if timer.at <= now then due[#due + 1] = timer else next_s = math.min(next_s or math.huge, timer.at - now) end
    end
    for _, timer in ipairs(due) do
      if timers[timer] then timers[timer] = nil; timer.f() end
    end
    if #due > 0 then next_s = 0 end -- They may have set others.
    if next_s and (not timeout or timeout < 0 or next_s < timeout) then timeout = next_s end
    return step(timeout)
  end
  return function(seconds, f)
    local timer = { at = socket.gettime() + seconds, f = f }
    timers[timer] = true
    return function() timers[timer] = nil end
  end
end

-- A function wait(socket, "read" or "write", seconds, request) → true | nil, "timeout" or
-- "stopped". In the main program, outside of every coroutine, it blocks; any other coroutine must
-- be copas'. Without a socket it only waits.
--
-- copas' own waits cannot be ended, and older releases do not limit them. So copas gets an object
-- of ours to wait for: copas.receive and copas.connect try it once, are told "timeout", yield until
-- select says that it is ready, and try again. select asks it for its descriptor, and whether it is
-- "dirty", which means: ready in any case.
local function waiting_over(copas, socket)
  local idle = assert((socket.udp4 or socket.udp)()) -- Never readable, always writable.
  local after = timers_over(copas, socket)

  local function block(skt, what, seconds)
    if not skt then
      socket.sleep(seconds)
      return nil, "timeout"
    end
    local _, _, err = socket.select(what == "read" and { skt } or nil, what == "write" and { skt } or nil, seconds)
    if err then return nil, err end
    return true
  end

  return function(skt, what, seconds, request)
    local co, is_main = coroutine.running()
    if not co or is_main then return block(skt, what, seconds) end
    local given_up, tried
    local function try()
      if tried then return true end
      tried = true
      return nil, "timeout"
    end
    local object = { receive = try, connect = try, settimeout = function() end, close = function() end }
    function object.getfd() return (given_up and idle or skt or idle):getfd() end
    function object.dirty() return given_up ~= nil end
    local cancel_timer = after(seconds, function() given_up = given_up or "timeout" end)
    if request then request.cancel = function() given_up = given_up or "stopped" end end
    if what == "read" then copas.receive(object) else copas.connect(object) end
    cancel_timer()
    if request then request.cancel = nil end
    if given_up then return nil, given_up end
    return true
  end
end

-- One HTTP request on its own connection. It throws errors as { message }, which over_copas
-- catches.
local Connection = {}
Connection.__index = Connection

local function try(value, err, ...)
  if value then return value, err, ... end
  error({ tostring(err or "failed") }, 0)
end

-- Calls attempt() until it is done, and waits in between as its error says, `patience_s` at a time.
function Connection:repeat_until_done(what, patience_s, attempt)
  while true do
    local value, err = attempt()
    if value then return value end
    if err == "wantread" or err == "wantwrite" then
      what = err:sub(5)
    elseif err ~= "timeout" then
      try(nil, err)
    end
    try(self.wait(self.skt, what, patience_s, self.request))
  end
end

-- Asks the proxy for a tunnel to the host.
function Connection:dig(where, proxy)
  local address = where.address:find("%]$") or not where.address:find(":%d+$") and where.address
  address = address and where.address .. ":" .. where.port or where.address
  local lines = { "CONNECT " .. address .. " HTTP/1.1", "Host: " .. address, proxy.authorization }
  self:send(table.concat(lines, "\r\n") .. "\r\n\r\n")
  local status = self:receive_head()
  if status < 200 or status > 299 then try(nil, "the proxy answered with status " .. status) end
end

-- Connects to the first address of the host that accepts. (A connect of luasocket's that may not
-- block stays with the last address, and "localhost" often has two.)
function Connection:connect(socket, where)
  local list = socket.dns.getaddrinfo and try(socket.dns.getaddrinfo(where.host)) or { { addr = where.host } }
  local err
  for _, entry in ipairs(list) do
    local new = entry.family == "inet6" and socket.tcp6 or entry.family == "inet" and socket.tcp4 or socket.tcp
    self:close()
    self.skt = try(new())
    self.skt:settimeout(0)
    local ok
    ok, err = self.skt:connect(entry.addr, where.port)
    if not ok and err == "timeout" then
      ok, err = self.wait(self.skt, "write", REPLY_GRACE_S, self.request)
      if ok then
        ok, err = self.skt:connect(entry.addr, where.port)
        ok = ok or err == "already connected"
      end
    end
    if ok then return end
    if err == "stopped" then break end
  end
  try(nil, err)
end

function Connection:secure(where)
  local found, ssl = pcall(require, "ssl")
  if not found then try(nil, "https needs luasec") end
  local settings = {}
  for name, value in pairs(longline.tls) do settings[name] = value end
  for _, path in ipairs(CA_FILES) do
    if settings.cafile or settings.capath then break end
    local file = io.open(path)
    if file then
      file:close()
      settings.cafile = path
    end
  end
  self.skt = try(ssl.wrap(self.skt, settings))
  self.skt:settimeout(0)
  local is_address = where.host:find("^[%d.]+$") or where.host:find(":", 1, true)
  if not is_address then self.skt:sni(where.host) end
  self:repeat_until_done("read", REPLY_GRACE_S, function() return self.skt:dohandshake() end)
  if settings.verify ~= "none" and not certificate_fits(self.skt:getpeercertificate(), where.host) then
    try(nil, "the certificate is not " .. where.host .. "'s")
  end
end

function Connection:send(data)
  local sent = 0
  self:repeat_until_done("write", REPLY_GRACE_S, function()
    local last, err, partial = self.skt:send(data, sent + 1)
    sent = last or partial or sent
    return last, err
  end)
end

-- A line, or that many bytes, or ("*a") everything up to the end.
function Connection:receive(pattern)
  local part
  return self:repeat_until_done("read", self.request.timeout or PUBLISH_TIMEOUT_S, function()
    local data, err
    data, err, part = self.skt:receive(pattern, part)
    if err == "closed" and pattern == "*a" then return part end
    return data, err
  end)
end

function Connection:receive_bytes(count)
  local parts = {}
  while count > 0 do
    local part = self:receive(math.min(count, 16384))
    parts[#parts + 1] = part
    count = count - #part
  end
  return table.concat(parts)
end

function Connection:receive_chunks()
  local parts = {}
  while true do
    local size = tonumber(self:receive("*l"):match("^%x+") or try(nil, "a broken chunk"), 16)
    if size == 0 then return table.concat(parts) end
    parts[#parts + 1] = self:receive_bytes(size)
    self:receive("*l")
  end
end

function Connection:receive_head()
  local status = tonumber(self:receive("*l"):match("^HTTP/1%.%d (%d%d%d)") or try(nil, "no HTTP reply"))
  local headers = {}
  while true do
    local line = self:receive("*l")
    if line == "" then return status, headers end
    local name, value = line:match("^([^:]+):%s*(.-)%s*$")
    if name then headers[name:lower()] = value end
  end
end

function Connection:receive_reply()
  local status, headers
  repeat status, headers = self:receive_head() until status >= 200
  if status == 204 or status == 304 then return "", status, headers end
  if (headers["transfer-encoding"] or ""):lower():find("chunked", 1, true) then
    return self:receive_chunks(), status, headers
  end
  local length = headers["content-length"]
  if not length then return self:receive("*a"), status, headers end
  return self:receive_bytes(tonumber(length) or try(nil, "a broken Content-Length")), status, headers
end

function Connection:close()
  if self.skt then self.skt:close() end
  self.skt = nil
end

-- The value of an Authorization header for the user of an URL.
local function basic(user)
  local plain = user:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
  return "Basic " .. require("mime").b64(plain)
end

-- `proxy` is one that takes the whole request, or nil.
local function request_text(method, where, proxy, body, kind)
  local target = proxy and "http://" .. where.address .. where.target or where.target
  local lines = {
    method .. " " .. target .. " HTTP/1.1", "Host: " .. where.address, "User-Agent: longline-lua/0.1.0",
    "Accept: application/json", "Connection: close",
  }
  if where.user then lines[#lines + 1] = "Authorization: " .. basic(where.user) end
  if proxy then lines[#lines + 1] = proxy.authorization end
  if body then
    lines[#lines + 1] = "Content-Type: " .. (kind or "application/json")
    lines[#lines + 1] = "Content-Length: " .. #body
  end
  return table.concat(lines, "\r\n") .. "\r\n\r\n" .. (body or "")
end

local function over_copas(copas, socket)
  local wait = waiting_over(copas, socket)
  clock = socket.gettime
  local has_coxpcall, coxpcall = pcall(require, "coxpcall")
  if has_coxpcall then pcall, xpcall = coxpcall.pcall, coxpcall.xpcall end

  set_http(function(method, url, body, request)
    local where = parse_url(url)
    if not where then return false, "the URL is not one of http or https" end
    local proxy, wrong = proxy_for(where)
    if proxy == false then return false, wrong end
    if proxy and proxy.user then proxy.authorization = "Proxy-Authorization: " .. basic(proxy.user) end
    local connection = setmetatable({ wait = wait, request = request or {} }, Connection)
    local ok, reply, status, headers = pcall(function()
      connection.request.unsent = true
      connection:connect(socket, proxy or where)
      if proxy and where.tls then connection:dig(where, proxy) end
      if where.tls then connection:secure(where) end
      connection:send(request_text(method, where, not where.tls and proxy or nil, body, connection.request.type))
      connection.request.unsent = false
      return connection:receive_reply()
    end)
    connection:close()
    if ok then return reply, status, headers end
    if type(reply) == "table" then return false, reply[1] end
    error(reply, 0)
  end)

  longline.thread_new = copas.addthread
  function longline.thread_pause(seconds, request) wait(nil, "read", seconds, request) end
end

-- ------------------------------------------------------------------------------- which environment

-- Recognises Garry's Mod by what we use of it: GM and GAMEMODE do not exist yet in lua/autorun.
local function is_garrysmod(G)
  local function has(module, name)
    return type(rawget(G, module)) == "table" and type(rawget(G, module)[name]) == "function"
  end
  return type(rawget(G, "HTTP")) == "function" and has("timer", "Simple") and has("util", "JSONToTable")
end

local function missing(name, needs)
  longline[name] = longline[name] or function()
    error(("longline: install %s, or set longline.%s"):format(needs, name), 2)
  end
end

if is_garrysmod(_G) then
  over_garrysmod(_G)
else
  local has_copas, copas = pcall(require, "copas")
  local has_socket, socket = pcall(require, "socket")
  if has_copas and has_socket then over_copas(copas, socket) end
  local has_cjson, cjson = pcall(require, "cjson")
  if has_cjson then longline.json_decode = cjson.decode end
  function longline.json_encode(value) return encode(value, 0) end
  for _, name in ipairs({ "http_get", "http_post", "http_delete", "thread_new", "thread_pause" }) do
    missing(name, "copas and luasocket")
  end
  missing("json_decode", "lua-cjson")
end

return longline
