-- The Lua client's driver for the tests that all clients share: see tests/clients/README.md.
--
--     lua5.1 driver.lua [--gmod] URL TS SLEEP [OPTIONS]       (--gmod needs luajit)

local here = arg[0]:match("^(.*)/[^/]*$") or "."
local path = here .. "/../longline.lua"

local in_gmod, arguments = false, {}
for _, argument in ipairs(arg) do
  if argument == "--gmod" then in_gmod = true else arguments[#arguments + 1] = argument end
end
local url, ts, sleep = arguments[1], arguments[2], tonumber(arguments[3])
ts = ts == "now" and ts or tonumber(ts)

local plain = dofile(path)
local socket = require "socket"

local function say(event)
  io.write(plain.json_encode(event), "\n")
  io.flush()
end

local gmod = in_gmod and dofile(here .. "/gmod.lua")
local longline = in_gmod and gmod.include(path) or plain
local client = longline.new(url)
for name, value in pairs(require("cjson").decode(arguments[4] or "{}")) do client[name] = value end
local backoff_ms = tonumber(os.getenv("BACKOFF_MS"))
if backoff_ms then client.backoff = backoff_ms / 1000 end

local exit_code

function client.on_missed(count) say({ missed = count }) end
function client.on_reset(at) say({ reset = at }) end
function client.on_error(err, status, final)
  io.stderr:write(tostring(err), "\n")
  if not final then return end
  say({ error = err, status = status })
  exit_code = 3
end

client:subscribe(function(update, id)
  say({ update = update, ts = id })
  if update.throw then error("told to throw") end
end, ts, sleep)

-- Whether stdin has been closed; asks select, as a read would wait.
local stdin = { getfd = function() return 0 end, dirty = function() return false end }
local function stdin_is_closed()
  local ready = socket.select({ stdin }, nil, 0)
  return ready[1] ~= nil and io.read(1) == nil
end

local function done()
  if not exit_code and stdin_is_closed() then
    client:stop()
    say({ stopped = true, ts = client.ts })
    exit_code = 0
  end
  return exit_code
end

if in_gmod then
  gmod.run(done)
  if #gmod.errors > 0 then exit_code = 1 end
else
  local copas = require "copas"
  while not done() do copas.step(0.01) end
end
os.exit(exit_code)
