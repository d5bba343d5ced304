-- Payments that are pushed to longline, each given to its player exactly once.
--
-- The ledger, data/donate/ledger.txt, is the only place where money is: a player's balance is the sum of his lines. So
-- one line is at once the note that a payment was seen, the money itself, and how far longline was read, of which data
-- (its epoch); no crash can come between these. A payment that comes again, from a sender that had no reply or from longline's past, has its line already.

local longline = include("longline.lua")

local LEDGER = "donate/ledger.txt"
local ADDRESS = "donate/address.txt" -- not in the code: whoever knows the address can pay

donate = {}

local seen, balances, last_ts, last_epoch

-- A line is "ts@epoch payment steamid amount ok". What a crash has torn has no "ok" at its end, and does not count.
local function book(line)
	local ts, epoch, payment, steamid, amount = line:match("^(%d+)@?(%x*) (%S+) (%S+) (%d+) ok$")
	if not ts then return end
	last_ts, last_epoch = tonumber(ts), epoch
	if seen[payment] then return end
	seen[payment] = true
	balances[steamid] = (balances[steamid] or 0) + tonumber(amount)
end

local function read_ledger()
	seen, balances, last_ts, last_epoch = {}, {}, 0, ""
	local text = file.Read(LEDGER, "DATA") or ""
	for line in text:gmatch("[^\n]+") do book(line) end
	-- A torn line must not take the next one with it.
	if text ~= "" and text:sub(-1) ~= "\n" then file.Append(LEDGER, "\n") end
end

-- The file's size tells what file.Append may not: that the disk was full.
local function write_ledger(line)
	local before = math.max(file.Size(LEDGER, "DATA"), 0) -- -1: there is none yet
	file.Append(LEDGER, line .. "\n")
	return file.Size(LEDGER, "DATA") == before + #line + 1
end

function donate.balance(steamid)
	return balances[steamid] or 0
end

local function tell_balance(ply)
	if donate.balance(ply:SteamID()) > 0 then
		ply:ChatPrint("Your balance is " .. donate.balance(ply:SteamID()))
	end
end

local function is_payment(update)
	return type(update.payment) == "string" and #update.payment <= 64 and update.payment:match("^[%w_%-]+$")
		and type(update.steamid) == "string" and update.steamid:match("^STEAM_%d:%d:%d+$")
		and type(update.amount) == "number" and update.amount >= 1 and update.amount <= 1e9 and update.amount % 1 == 0
end

local channel

local function on_payment(update, ts)
	if not is_payment(update) then
		print("[donate] update " .. ts .. " is no payment")
		return
	end
	if seen[update.payment] then
		print("[donate] payment " .. update.payment .. " is booked already")
		return
	end
	local line = ("%.0f@%s %s %s %.0f ok"):format(ts, channel.epoch, update.payment, update.steamid, update.amount)
	if not write_ledger(line) then
		-- It is still in longline: the next start books it.
		channel:stop()
		error("[donate] the ledger cannot be written; nothing is booked until the next start")
	end
	book(line)
	print("[donate] payment " .. update.payment .. " is booked")
	local ply = player.GetBySteamID(update.steamid)
	if ply then tell_balance(ply) end
end

local function start()
	local address = (file.Read(ADDRESS, "DATA") or ""):match("%S+")
	if not address then
		print("[donate] write the address into data/" .. ADDRESS)
		return
	end
	channel = longline.new(address)
	-- A channel that began anew is read from its start: what was pushed since is not booked, and what is booked is known.
	function channel.on_reset()
		last_ts, last_epoch = 0, ""
		channel:stop()
		channel:subscribe(on_payment)
	end
	function channel.load() return last_ts, last_epoch end
	channel:subscribe(on_payment)
end

file.CreateDir("donate")
read_ledger()

-- Earlier there is no HTTP.
hook.Add("InitPostEntity", "donate", start)
hook.Add("PlayerInitialSpawn", "donate", tell_balance)
