-- A program to work on while it runs: a game of which pushed code sees and changes the players.
--
--   lua5.1 program.lua NAME CODE_READ_URL ANSWERS_URL

-- The client of this checkout, and luadev beside this program.
local here = arg[0]:match("^.*/") or "./"
package.path = here .. "?.lua;" .. here .. "../../clients/lua/?.lua;" .. package.path
local copas = require("copas")

local name, code_url, answers_url = arg[1], arg[2], arg[3]
if not answers_url then
  io.stderr:write("lua5.1 program.lua NAME CODE_READ_URL ANSWERS_URL\n")
  os.exit(1)
end

players = { ann = 10, bob = 20 }

function give(player, points)
  players[player] = players[player] + points
  return players[player]
end

require("luadev").listen(name, code_url, answers_url)
copas.loop()
