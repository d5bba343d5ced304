-- POST a batch of 100 JSON bodies of 200 bytes, over many channels in turn. longline only.
-- wrk -s bench/batch.lua http://127.0.0.1:PORT -- longline [CHANNELS]
package.path = (os.getenv("BENCH_DIR") or "bench") .. "/?.lua;" .. package.path
local common = require("common")

function init(args)
    local _, channels = common.arguments(args)
    local headers = { ["Content-Type"] = "application/x-ndjson" }
    local body = string.rep(common.body(200) .. "\n", 100)
    local requests = {}
    for channel = 0, channels - 1 do
        requests[channel + 1] = wrk.format("POST", string.format("/ch%d", channel), headers, body)
    end
    request = common.walk(requests)
end
