-- A Garry's Mod server that runs the addon of examples/garrysmod-donate: clients/lua's double of the game, and what the
-- addon needs beyond it: file, hook and player.
--
--     luajit game.lua DATA_DIRECTORY [STEAMID]…     (the players that are on)
--
-- It prints what the addon prints, "STEAMID sees TEXT" for each line of a player's chat, and runs until it is killed.
-- With DISK_FULL=N no more than N bytes of a write reach the disk, and as in the game nobody is told.

local repository = (arg[0]:match("^.*/") or "./") .. "../../"
local gmod = dofile(repository .. "clients/lua/tests/gmod.lua")
local data = arg[1] .. "/"

io.stdout:setvbuf("line")

-- --- file, of the data folder only ---

local file = {}

local function write(mode, path, text)
  assert(path:match("^[%w_/]+%.txt$"), "the game writes .txt files only")
  local handle = assert(io.open(data .. path, mode))
  handle:write(text:sub(1, tonumber(os.getenv("DISK_FULL"))))
  handle:close()
end

function file.CreateDir(path)
  os.execute(("mkdir -p '%s'"):format(data .. path))
end

function file.Read(path, where)
  assert(where == "DATA", "only data/ is doubled")
  print("the game reads " .. path)
  local handle = io.open(data .. path, "rb")
  if not handle then return nil end
  local text = handle:read("*a")
  handle:close()
  return text
end

function file.Size(path, where)
  assert(where == "DATA", "only data/ is doubled")
  local handle = io.open(data .. path, "rb")
  if not handle then return -1 end
  local size = handle:seek("end")
  handle:close()
  return size
end

function file.Append(path, text)
  write("ab", path, text)
end

-- --- hook ---

local hooks = {}
local hook = {}

function hook.Add(event, name, f)
  hooks[event] = hooks[event] or {}
  hooks[event][name] = f
end

local function happens(event, ...)
  for _, f in pairs(hooks[event] or {}) do f(...) end
end

-- --- player ---

local players = {}
local player = {}

function player.GetBySteamID(steamid)
  return players[steamid] or false
end

local function new_player(steamid)
  return {
    SteamID = function() return steamid end,
    ChatPrint = function(_, text) print(steamid .. " sees " .. text) end,
  }
end

-- --- the server's start ---

gmod.globals.file, gmod.globals.hook, gmod.globals.player = file, hook, player

function gmod.globals.include(path)
  assert(path == "longline.lua")
  return gmod.include(repository .. "clients/lua/longline.lua")
end

gmod.include(repository .. "examples/garrysmod-donate/lua/autorun/server/donate.lua")
happens("InitPostEntity")
for i = 2, #arg do
  players[arg[i]] = new_player(arg[i])
  happens("PlayerInitialSpawn", players[arg[i]])
end
print("the server is up")
gmod.run(function() return false end)
