-- The Lua half of a Telegram bot: it answers /ping and /id. What it does not know is for the other half.
--
--   BOT_TOKEN=… lua5.1 bot.lua READ_URL APPNAME CURSOR_FILE
--
-- APPNAME tells the bots on one channel apart: it stands in the webhook's address, SEND_URL?appname=APPNAME.
-- TELEGRAM is another Bot API than Telegram's, for trying it out.

-- The client of this checkout; with `luarocks install` this line goes.
package.path = (arg[0]:match("^.*/") or "./") .. "../../clients/lua/?.lua;" .. package.path
local longline = require("longline")
local copas = require("copas")

local API = os.getenv("TELEGRAM") or "https://api.telegram.org"
local TOKEN = os.getenv("BOT_TOKEN")

local PAUSES_S = { 1, 2, 4 }

local url, appname, cursor_file = arg[1], arg[2], arg[3]
if not cursor_file or not TOKEN then
  io.stderr:write("BOT_TOKEN=… lua5.1 bot.lua READ_URL APPNAME CURSOR_FILE\n")
  os.exit(1)
end
io.stdout:setvbuf("line")

-- Ids have up to 52 bits: exact in Lua's numbers, but not in the text that Lua makes of them by itself.
local function exact(id)
  return ("%.0f"):format(id)
end

local commands = {
  ["/ping"] = function() return "pong" end,
  ["/id"] = function(message) return exact(message.from.id) end,
}

-- Whether Telegram would say the same again: it does not know the chat, say. 429 is only "too many".
local function is_refused(status)
  return type(status) == "number" and status >= 400 and status < 500 and status ~= 429
end

-- Tries again after each of the pauses; then it throws the last error.
local function send_message(chat_id, text)
  local body = longline.json_encode({ chat_id = chat_id, text = text })
  for try = 1, #PAUSES_S + 1 do
    local _, status = longline.http_post(API .. "/bot" .. TOKEN .. "/sendMessage", body)
    if status == 200 then return end
    if not PAUSES_S[try] or is_refused(status) then error("sendMessage: " .. tostring(status)) end
    longline.thread_pause(PAUSES_S[try])
  end
end

-- Updates of other kinds (edits, buttons) and of other bots are not for us. In groups a command is /ping@the_bot.
local function handle(update)
  local message = update.message
  if update.appname ~= appname or type(message) ~= "table" or type(message.text) ~= "string" then return end
  local command = commands[message.text:match("^/[%w_]+")]
  if command then
    local answer = command(message)
    send_message(message.chat.id, answer)
    print(message.text .. " -> " .. answer)
  end
end

local bot = longline.new(url)

-- The file has the ts of the last update and the epoch of the data that it belongs to.
function bot.load()
  local file = io.open(cursor_file)
  if not file then return nil end
  local ts, epoch = file:read("*n", "*l")
  file:close()
  return ts, epoch and epoch:match("%x+")
end

-- The file holds the old ts or the new one, never half of it.
function bot.save(ts, epoch)
  local file = assert(io.open(cursor_file .. ".new", "w"))
  assert(file:write(exact(ts), " ", epoch, "\n"))
  assert(file:close())
  assert(os.rename(cursor_file .. ".new", cursor_file))
end

function bot.on_error(problem)
  io.stderr:write(problem, "\n")
end

bot:subscribe(handle)
copas.loop()
