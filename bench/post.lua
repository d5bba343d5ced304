-- POST a JSON body of 200 bytes, over many channels in turn.
-- wrk -s bench/post.lua http://127.0.0.1:PORT -- longline|nchan [CHANNELS]
package.path = (os.getenv("BENCH_DIR") or "bench") .. "/?.lua;" .. package.path
local common = require("common")

function init(args)
    local dialect, channels = common.arguments(args)
    local path = dialect == "longline" and "/ch%d" or "/pub?id=ch%d"
    local headers = { ["Content-Type"] = "application/json" }
    local body = common.body(200)
    local requests = {}
    for channel = 0, channels - 1 do
        requests[channel + 1] = wrk.format("POST", string.format(path, channel), headers, body)
    end
    request = common.walk(requests)
end
