-- The Lua client of longline: pushes updates to a channel, and gets each of its updates once, in
-- order.
--
--     local longline = require "longline"                  -- Garry's Mod: include("longline.lua")
--     local client = longline.new("https://lp.example.com/SecretPath")
--     client:subscribe(function(update, ts) print(ts, update.key) end)
--     client:publish({ key = "value" })
--
-- It runs on Lua 5.1 and LuaJIT over copas, luasocket and cjson (luasec for https), and in Garry's
-- Mod. What differs between them is in six functions, set at the end of this file. Another
-- environment can set its own:
--
--     longline.http_get(url, request)         → body, status, headers | false, error
--     longline.http_post(url, body, request)  → the same
--     longline.thread_new(f, …)               runs f(…) as a thread
--     longline.thread_pause(seconds, request) lets the other threads run for that long
--     longline.json_encode(table)             → text | nil, error, or throws
--     longline.json_decode(text)              → table | nil, error, or throws
--
-- `headers` may be nil, but publish_batch needs them; the names are in lower case. `request` may be
-- nil; its `timeout` is how many seconds the reply may take, its `type` the Content-Type of the
-- body (nil: JSON). The function may set its `cancel`, which stop() calls to end the wait.
--
-- A subscription is one thread (see run): poll, deliver, poll again; after an error pause and ask
-- again. Its cursor is the last update that was handled, and moves only after the handler has
-- returned. client.ts is the cursor of the newest subscription: an older one may still be in its
-- handler.

local longline = { _VERSION = "longline 0.1.0" }

local SLEEP_MAX_S = 60         -- The server waits no longer.
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

local Client = {}
Client.__index = Client

-- A client of one channel. If `url` has a query, it is merged into every update that is published.
function longline.new(url)
  assert(type(url) == "string", "longline.new: the URL of a channel is expected")
  return setmetatable({ url = url:match("^[^#]*"), backoff = 0.5, backoff_max = 30, subscriptions = {} }, Client)
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

-- One poll. Returns the reply and its text, or false, an error, and the status and headers, if any.
local function poll(self, query, request)
  local separator = self.url:find("?", 1, true) and "&" or "?"
  local body, status, headers = longline.http_get(self.url .. separator .. query, request)
  if not body then return false, tostring(status or "no reply") end
  if status ~= nil and status ~= 200 then
    local text = description(body, status, headers)
    return false, tostring(status) .. (text ~= "" and ": " .. text or ""), tonumber(status), headers
  end
  local reply = decode(body)
  if not reply or type(reply.ts) ~= "number" or type(reply.updates) ~= "table" then
    return false, "the reply is not longline's"
  end
  return reply, body
end

local function reply_timeout(sleep)
  return math.min(math.max(sleep, 0), SLEEP_MAX_S) + REPLY_GRACE_S
end

-- One poll: the updates after `ts` (-K: the last K; nil: all that are kept), waiting up to
-- `timeout` seconds for one. Returns the reply { ts =, updates =, missed =, reset = } and its text,
-- or false, an error and the status.
function Client:get(ts, timeout)
  local query = "ts=" .. (ts and ("%.0f"):format(ts) or "") .. "&sleep=" .. (timeout and ("%.14g"):format(timeout) or "")
  local reply, body, status = poll(self, query, { timeout = reply_timeout(timeout or 0) })
  return reply, body, status
end

-- --------------------------------------------------------------------------------------- subscribe

-- Between half and all of it: clients that failed together must not come back together. The client
-- has its own generator, because math.random may be unseeded and is not ours to seed. The address
-- of a new table differs between programs.
local function jitter(self, seconds)
  local last = self.random
  if not last then
    last = 1
    for byte in (tostring({}) .. self.url):gmatch(".") do last = (last * 31 + byte:byte()) % 2147483647 end
  end
  self.random = math.max(last, 1) * 16807 % 2147483647
  return seconds * (0.5 + 0.5 * self.random / 2147483647)
end

-- How long to wait after the `failures`th error in a row.
local function backoff(self, failures, status, headers)
  if status == 429 or status == 503 then
    local told = tostring(headers and headers["retry-after"] or ""):match("^%s*(%d+)%s*$")
    if told and tonumber(told) > 0 then return math.min(tonumber(told), RETRY_AFTER_MAX_S) end
  end
  return jitter(self, math.min(self.backoff * 2 ^ math.min(failures - 1, 30), self.backoff_max))
end

-- Whether trying again cannot help after an error with this status.
local function is_final(status)
  return status ~= nil and status >= 300 and status < 500 and status ~= 408 and status ~= 429
end

-- Moves the cursor.
local function move(self, subscription, ts)
  if subscription.ts == ts then return end
  subscription.ts = ts
  if self.current ~= subscription then return end
  self.ts = ts
  if not self.save then return end
  local ok, err = call(self.save, ts)
  if not ok then tell(self, "on_error", "save: " .. err) end
end

-- Hands a reply's updates to the handler, one by one, until stop() is called.
local function deliver(self, subscription, reply)
  local function stopped() return subscription.stopped end
  local count = #reply.updates
  -- Now we know where "the last K" begin.
  if subscription.ts < 0 and count > 0 then move(self, subscription, reply.ts - count) end
  if type(reply.missed) == "number" and reply.missed > 0 then tell(self, "on_missed", reply.missed) end
  if reply.reset == true and not stopped() then tell(self, "on_reset", reply.ts) end
  for index, update in ipairs(reply.updates) do
    if stopped() then return end
    local ts = reply.ts - count + index
    local ok, err = call(subscription.handler, update, ts)
    if not ok then tell(self, "on_error", ("the handler, in update %.0f: %s"):format(ts, err)) end
    move(self, subscription, ts)
  end
  if not stopped() then move(self, subscription, reply.ts) end
end

-- Where to start: what load() returns, or else the ts passed to subscribe, or else 0. Returns nil
-- if load() fails, since starting anywhere else would lose or repeat updates.
local function start(self, ts)
  if self.load then
    local ok, loaded = call(self.load)
    if not ok or (loaded ~= nil and not tonumber(loaded)) then
      local err = ok and "returned no number: " .. tostring(loaded) or loaded
      tell(self, "on_error", "load: " .. err, nil, true)
      return nil
    end
    ts = tonumber(loaded) or ts
  end
  return ts or 0
end

-- A subscription's thread, from its start until stop() or a final error.
local function run(self, subscription, ts, sleep)
  subscription.ts = start(self, ts)
  if self.current == subscription then self.ts = subscription.ts end
  local failures = 0
  while subscription.ts and not subscription.stopped do
    local asked, asked_at = subscription.ts, clock()
    local query = ("ts=%.0f&sleep=%.14g&limit=%d"):format(asked, sleep, PAGE)
    subscription.request = { timeout = reply_timeout(sleep) }
    local ok, reply, err, status, headers = call_waiting(poll, self, query, subscription.request)
    if subscription.stopped then break end
    if not ok then reply, err = false, reply end
    local pause
    if reply then
      failures = 0
      deliver(self, subscription, reply)
      -- An empty reply at once (sleep 0, a server that ends, a proxy that does not wait): do not
      -- spin.
      if subscription.ts == asked and clock() - asked_at < self.backoff then pause = jitter(self, self.backoff) end
    else
      failures = failures + 1
      local final = is_final(status)
      tell(self, "on_error", err, status, final)
      if final then break end
      pause = backoff(self, failures, status, headers)
    end
    if pause and not subscription.stopped then
      subscription.request = {}
      ok, err = call_waiting(longline.thread_pause, pause, subscription.request)
      if not ok then
        tell(self, "on_error", "thread_pause: " .. err, nil, true)
        break
      end
    end
  end
  self.subscriptions[subscription] = nil
end

-- Calls handler(update, ts) for every update after `ts`, in order and in its own thread, until
-- stop(). Each poll waits up to `timeout` seconds (60). See `start` for where it begins. A client
-- should have one subscription at a time, because it has one cursor.
function Client:subscribe(handler, ts, timeout)
  assert(type(handler) == "function", "subscribe: a handler is expected")
  local subscription = { handler = handler, request = {}, stopped = false }
  self.subscriptions[subscription] = true
  self.current = subscription
  self.thread = longline.thread_new(function()
    run(self, subscription, tonumber(ts), tonumber(timeout) or SLEEP_MAX_S)
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

-- ------------------------------------------------------------------------------------- Garry's Mod

-- Sets the two functions of an environment that has one for both: http(method, url, body, request).
local function set_http(http)
  function longline.http_get(url, request) return http("GET", url, nil, request) end
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
      function parameters.failed(err) done(false, tostring(err or "failed")) end
      if request then request.cancel = function() done(false, "stopped") end end
      timer.Simple(timeout + 5, function() done(false, "no reply in time") end)
      if HTTP(parameters) == false then done(false, "HTTP() failed") end
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

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function encode_string(text)
  return '"' .. text:gsub('[%c"\\]', function(c) return ESCAPES[c] or ("\\u%04x"):format(c:byte()) end) .. '"'
end

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

local function request_text(method, where, body, kind, base64)
  local lines = {
    method .. " " .. where.target .. " HTTP/1.1", "Host: " .. where.address, "User-Agent: longline-lua/0.1.0",
    "Accept: application/json", "Connection: close",
  }
  if where.user then
    local plain = where.user:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
    lines[#lines + 1] = "Authorization: Basic " .. base64(plain)
  end
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
    local connection = setmetatable({ wait = wait, request = request or {} }, Connection)
    local ok, reply, status, headers = pcall(function()
      connection:connect(socket, where)
      if where.tls then connection:secure(where) end
      local function base64(text) return (require("mime").b64(text)) end
      connection:send(request_text(method, where, body, connection.request.type, base64))
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
  for _, name in ipairs({ "http_get", "http_post", "thread_new", "thread_pause" }) do
    missing(name, "copas and luasocket")
  end
  missing("json_decode", "lua-cjson")
end

return longline
