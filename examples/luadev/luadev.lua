-- Runs the Lua code that is pushed to an address, and pushes what came of it to another.
--
--   local luadev = require("luadev")
--   luadev.listen("red", CODE_READ_URL, ANSWERS_URL)
--
-- A piece of code is for everybody, or for the one that its push names: CODE_URL?to=red.
-- Whoever knows CODE_URL, or CODE_READ_URL, from which it follows, runs code in this program. There is nothing else that
-- protects it.

local longline = require("longline")
local coxpcall = require("coxpcall")

local luadev = {}

-- What is printed and returned may be long; this much of each is answered.
local ANSWER_MAX_BYTES = 32 * 1024

local function joined(separator, ...)
  local texts = {}
  for i = 1, select("#", ...) do texts[i] = tostring((select(i, ...))) end
  return table.concat(texts, separator)
end

local function traceback(problem)
  local text = tostring(problem)
  -- In Lua 5.1 coxpcall has added it already.
  return text:find("\nstack traceback:", 1, true) and text or debug.traceback(text, 2)
end

-- An environment of luadev's own: it sees the program's globals, and what it defines stays from one piece of code to the
-- next without touching them. (`_G.x = 1` does touch them.)
local function new_environment()
  return setmetatable({}, { __index = _G })
end

-- Runs a piece of code. Returns the answer: ok, what it printed, and what it returned or how it failed.
local function run(text, environment)
  local printed = {}
  environment.print = function(...) printed[#printed + 1] = joined("\t", ...) end

  local chunk, syntax_error = loadstring(text, "=pushed")
  if not chunk then return { ok = false, error = syntax_error } end
  setfenv(chunk, environment)

  -- coxpcall's, for code that waits (for a reply, say) to let the program go on meanwhile, in Lua 5.1 too.
  local answer = {}
  local function finish(ok, ...)
    answer.ok = ok
    answer[ok and "result" or "error"] = joined("\t", ...):sub(1, ANSWER_MAX_BYTES)
  end
  finish(coxpcall.xpcall(chunk, traceback))
  answer.printed = table.concat(printed, "\n"):sub(1, ANSWER_MAX_BYTES)
  return answer
end

-- Starts to listen. What was pushed before is not run: it was meant for the programs of its time.
function luadev.listen(name, code_url, answers_url)
  local code, answers = longline.new(code_url), longline.new(answers_url)
  local environment = new_environment()

  local function answer(ts, what)
    what.from, what.ts = name, ts
    local ok, status = answers:publish(what)
    -- Text that is no UTF-8 cannot be sent.
    if not ok then
      answers:publish({ from = name, ts = ts, ok = false, error = "the answer was refused: " .. tostring(status) })
    end
  end

  local function on_code(update, ts)
    if update.to and update.to ~= name then return end
    if type(update.body) ~= "string" then
      return answer(ts, { ok = false, error = "no code: push it as text/plain" })
    end
    answer(ts, run(update.body, environment))
  end

  longline.thread_new(function()
    local newest, problem = code:get(-1, 0)
    while not newest do
      io.stderr:write("luadev: ", problem, "\n")
      longline.thread_pause(1)
      newest, problem = code:get(-1, 0)
    end
    code:subscribe(on_code, newest.ts)
    answer(newest.ts, { ok = true, result = "listening" })
  end)
end

return luadev
