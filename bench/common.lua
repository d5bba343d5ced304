-- What the wrk scripts share: requests that are made once, before the run, and a summary in JSON.
-- The arguments after wrk's `--` are the dialect (longline or nchan) and the number of channels.
local common = {}

function common.arguments(args)
    local dialect = args[1]
    assert(dialect == "longline" or dialect == "nchan", "the dialect is longline or nchan")
    return dialect, tonumber(args[2] or 1000)
end

-- A JSON object of exactly that size, the same that bench.c pushes.
function common.body(size)
    local head, tail = '{"update_id":10000,"text":"', '"}'
    return head .. string.rep("x", size - #head - #tail) .. tail
end

-- Every thread walks all channels, each from its own place.
local threads = 0
function setup(thread)
    thread:set("place", threads * 509)
    threads = threads + 1
end

function common.walk(requests)
    local at, count = (place or 0) % #requests, #requests
    return function()
        at = at % count + 1
        return requests[at]
    end
end

function done(summary, latency, _)
    local errors = summary.errors
    io.write(string.format(
        '{"requests": %d, "seconds": %.6f, "errors": %d, "p50_us": %d, "p99_us": %d, "max_us": %d}\n',
        summary.requests, summary.duration / 1e6,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout,
        latency:percentile(50), latency:percentile(99), latency.max))
end

return common
