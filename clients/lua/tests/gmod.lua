-- A double of Garry's Mod for LuaJIT: the few of its globals that do HTTP, JSON and timers, with real HTTP behind them.
--
--     local gmod = dofile("gmod.lua")
--     gmod.globals.answer = 42                 -- what the test adds
--     local longline = gmod.include(path)      -- runs a file that sees the game's globals and nothing else
--     gmod.run(function() return done end)     -- ticks until then
--
-- A file that reaches for a global that the game does not have (require, io, socket, …) fails.
-- GM and GAMEMODE are not there, as in lua/autorun; gmod.globals.GAMEMODE = {} is what the game does later.

local cjson = require "cjson"
local socket = require "socket"

local gmod = { errors = {} }

-- --- the loop: coroutines that wait for a socket, and timers ---

local timers, waiting = {}, {}

-- Runs one of the game's callbacks; an error in it is the game console's.
local function protected(f, ...)
  local ok, err = xpcall(f, function(err) return debug.traceback(tostring(err), 2) end, ...)
  if not ok then
    gmod.errors[#gmod.errors + 1] = err
    io.stderr:write("[ERROR] ", err, "\n")
  end
end

local function step(co, ...)
  local ok, skt, what, deadline = coroutine.resume(co, ...)
  if not ok then error(debug.traceback(co, skt), 0) end
  if coroutine.status(co) ~= "dead" then waiting[co] = { skt = skt, what = what, deadline = deadline } end
end

local function tick(longest_s)
  local now = socket.gettime()
  local due, reading, writing, owner = {}, {}, {}, {}
  for timer in pairs(timers) do
    if timer.at <= now then due[#due + 1] = timer else longest_s = math.min(longest_s, timer.at - now) end
  end
  table.sort(due, function(a, b) return a.at < b.at end)
  for _, timer in ipairs(due) do
    timers[timer] = nil
    protected(timer.f)
  end
  if #due > 0 then longest_s = 0 end
  for co, wait in pairs(waiting) do
    local set = wait.what == "read" and reading or writing
    set[#set + 1], owner[wait.skt] = wait.skt, co
    longest_s = math.max(0, math.min(longest_s, wait.deadline - now))
  end
  local readable, writable = socket.select(reading, writing, longest_s)
  local ready = {}
  for _, set in ipairs({ readable, writable }) do
    for _, skt in ipairs(set) do ready[owner[skt]] = true end
  end
  local woken = {}
  for co, wait in pairs(waiting) do
    if ready[co] or wait.deadline <= socket.gettime() then woken[#woken + 1] = co end
  end
  for _, co in ipairs(woken) do
    waiting[co] = nil
    step(co, ready[co] or false)
  end
end

-- Ticks until done() is true, which it asks at least every 10 ms.
function gmod.run(done)
  while not done() do tick(0.01) end
end

-- --- HTTP ---

-- Does f() until it is neither nil nor waiting; nil when the time is over or the connection broke.
local function patiently(skt, what, deadline, f)
  while true do
    local value, err, part = f()
    if value then return value end
    if err ~= "timeout" then return nil, err, part end
    if not coroutine.yield(skt, what, deadline) then return nil, "over", part end
  end
end

-- The whole of a reply, taken apart after the connection's end.
local function parse(text)
  local head, body = text:match("^(.-\r\n)\r\n(.*)$")
  local status = head and tonumber(head:match("^HTTP/1%.%d (%d%d%d)"))
  if not status then return nil end
  local headers = {}
  for name, value in head:gmatch("\r\n([^:\r\n]+):[ \t]*([^\r\n]*)") do headers[name] = value end
  local function field(wanted)
    for name, value in pairs(headers) do
      if name:lower() == wanted then return value end
    end
    return nil
  end
  if field("transfer-encoding") == "chunked" then
    local parts = {}
    while true do
      local size, after = body:match("^(%x+)[^\r\n]*\r\n()")
      size = tonumber(size or "", 16)
      if not size or #body < after + size + 1 then return nil end
      if size == 0 then return status, table.concat(parts), headers end
      parts[#parts + 1] = body:sub(after, after + size - 1)
      body = body:sub(after + size + 2)
    end
  end
  local length = tonumber(field("content-length"))
  if length and #body < length then return nil end
  return status, length and body:sub(1, length) or body, headers
end

local function fetch(parameters)
  local host, port, target = parameters.url:match("^http://([%w.-]+):?(%d*)(.*)$")
  if not host then return nil, "invalid url" end
  local deadline = socket.gettime() + (parameters.timeout or 60)
  local skt = socket.tcp4()
  skt:settimeout(0)
  local ok, err = skt:connect(host, tonumber(port) or 80)
  if err == "timeout" then
    coroutine.yield(skt, "write", deadline)
    ok, err = skt:connect(host, tonumber(port) or 80)
  end
  if not ok and err ~= "already connected" then
    skt:close()
    return nil, "unsuccessful"
  end
  local body = parameters.body or ""
  local lines = {
    ("%s %s HTTP/1.1"):format(parameters.method or "GET", target), ("Host: %s:%s"):format(host, port),
    "Connection: close", "Content-Length: " .. #body, "Content-Type: " .. (parameters.type or "text/plain; charset=utf-8"),
  }
  local data, sent = table.concat(lines, "\r\n") .. "\r\n\r\n" .. body, 0
  patiently(skt, "write", deadline, function()
    local last, why, partial = skt:send(data, sent + 1)
    sent = last or partial
    return last, why
  end)
  -- The game gets whole replies only: read until one is there or the connection ends.
  local pieces = {}
  while true do
    local piece, why, part = patiently(skt, "read", deadline, function()
      local got, why, part = skt:receive(65536)
      if not got and part and part ~= "" then return part end
      return got, why
    end)
    pieces[#pieces + 1] = piece or part
    local text = table.concat(pieces)
    if not piece then
      skt:close()
      local status, whole, headers = parse(text)
      if why == "over" or not status then return nil, "unsuccessful" end
      return status, whole, headers
    end
    local complete = text:lower():find("\r\ncontent-length:", 1, true) or text:sub(-5) == "0\r\n\r\n"
    if complete then
      local status, whole, headers = parse(text)
      if status then
        skt:close()
        return status, whole, headers
      end
    end
  end
end

local function HTTP(parameters)
  step(coroutine.create(function()
    -- The game answers in a later tick, never from within HTTP().
    local status, body, headers = fetch(parameters)
    timers[{ at = socket.gettime(), f = function()
      if not status then
        if parameters.failed then parameters.failed(body) end
      elseif parameters.success then
        parameters.success(status, body, headers)
      end
    end }] = true
  end))
  return true
end

local http = {}

function http.Fetch(url, success, failure, headers)
  HTTP({
    url = url, method = "GET", headers = headers, failed = failure,
    success = function(status, body, reply_headers)
      if success then success(body, #body, reply_headers, status) end
    end,
  })
end

-- --- JSON, with the game's ways: null is nil, an empty table is [], keys that look like numbers become numbers ---

local function from_cjson(value, keep_keys)
  if value == cjson.null then return nil end
  if type(value) ~= "table" then return value end
  local result = {}
  for key, item in pairs(value) do
    result[not keep_keys and tonumber(key) or key] = from_cjson(item, keep_keys)
  end
  return result
end

local util = {}

function util.JSONToTable(text, _, keep_keys)
  local ok, value = pcall(cjson.decode, text)
  if not ok or type(value) ~= "table" then return nil end
  return from_cjson(value, keep_keys)
end

function util.TableToJSON(value)
  assert(type(value) == "table", "bad argument #1 to 'TableToJSON' (table expected)")
  return next(value) == nil and "[]" or cjson.encode(value)
end

-- --- what a file sees ---

local globals = {
  HTTP = HTTP, http = http, util = util,
  SysTime = socket.gettime,
  timer = { Simple = function(seconds, f) timers[{ at = socket.gettime() + seconds, f = f }] = true end },
  os = { time = os.time, date = os.date, clock = os.clock, difftime = os.difftime },
  debug = { traceback = debug.traceback, getinfo = debug.getinfo },
}
for _, name in ipairs({
  "assert", "error", "getfenv", "getmetatable", "ipairs", "next", "pairs", "pcall", "print", "rawequal", "rawget",
  "rawset", "select", "setfenv", "setmetatable", "tonumber", "tostring", "type", "unpack", "xpcall", "coroutine",
  "math", "string", "table", "bit",
}) do
  globals[name] = _G[name]
end
globals._G = globals

local MAY_BE_MISSING = { GM = true, GAMEMODE = true }

setmetatable(globals, { __index = function(_, name)
  if not MAY_BE_MISSING[name] then error("the game has no global " .. tostring(name), 2) end
end })

function gmod.include(path)
  return setfenv(assert(loadfile(path)), globals)()
end

globals.include = gmod.include
gmod.globals = globals

return gmod
