-- GET the one update that waits in each of many channels.
-- wrk -s bench/get.lua http://127.0.0.1:PORT -- longline|nchan [CHANNELS] [&more=parameters]
package.path = (os.getenv("BENCH_DIR") or "bench") .. "/?.lua;" .. package.path
local common = require("common")

function init(args)
    local dialect, channels = common.arguments(args)
    local path = dialect == "longline" and "/ch%d?ts=0" .. (args[3] or "") or "/sub?id=ch%d"
    local requests = {}
    for channel = 0, channels - 1 do
        requests[channel + 1] = wrk.format("GET", string.format(path, channel))
    end
    request = common.walk(requests)
end
