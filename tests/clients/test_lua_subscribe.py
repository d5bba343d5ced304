"""The Lua client: subscriptions over copas."""

import re

from lua_script import CLIENT, ODD, ODD_UPDATES, THROWS, check_odd, check_throws
from standin import reply
from stops import check_stops_at_once

# --- subscribe ---


def test_upstreams_script_works_unchanged(lua, server):
    channel = server.channel()
    source = """
    package.preload["long-polling.client"] = function() return longline end
    local kupol = require("long-polling.client")
    local polling = kupol.new(URL)
    polling:subscribe(function(updtbl) print(updtbl.key) end, nil, 30)
    polling:publish({key = "value"})
    copas.loop()
    """
    script = lua(source, URL=server.url(channel))
    script.wait_for_printed(1)
    server.wait_for_parked(1)
    server.push(channel, b'{"key":"another"}')
    script.wait_for_printed(2)
    assert script.printed == ["value", "another"]


def test_upstreams_threads_publish_while_a_poll_waits(lua, server):
    source = """
    local client = longline.new(URL)
    local got = {}
    client:subscribe(function(update, last_id) got[#got + 1] = update.counter; out(update.counter, last_id) end, nil, 30)
    longline.thread_new(function()
      for i = 1, 10 do
        assert(client:publish({ any = "value", counter = i }))
        longline.thread_pause(.01)
      end
    end)
    until_(function() return #got == 10 end)
    """
    assert lua(source, URL=server.url(server.channel())).finish() == [[n, n] for n in range(1, 11)]


def test_a_handler_may_wait(lua, server):
    source = """
    local client = longline.new(URL)
    function client.on_error(err) out(err) end
    client:subscribe(function(update, ts)
      longline.thread_pause(0.01)
      if ts < 3 then assert(client:publish({ n = update.n + 1 })) end
      out(update.n, ts)
      if ts == 3 then client:stop() end
    end)
    client:publish_async({ n = 1 })
    until_(function() return coroutine.status(client.thread) == "dead" end)
    """
    assert lua(source, URL=server.url(server.channel())).finish() == [[1, 1], [2, 2], [3, 3]]


def readme_example(word):
    """The first one that holds the word."""
    examples = re.findall(r"```lua\n(.*?)```", (CLIENT / "README.md").read_text("utf-8"), re.DOTALL)
    return next(example for example in examples if word in example)


def test_the_readmes_example_of_several_channels(lua, stand_in):
    page = {"ts": 7, "updates": [{}]}
    server = stand_in([{"reply": {"json": {"ok": True, "channels": {"SecretA": page, "SecretB": page}}}}])
    script = lua(readme_example("longline.group") + "copas.loop()", SERVER=server.url.rsplit("/", 1)[0])
    script.wait_for_printed(2)
    assert sorted(script.printed) == ["a\t7", "b\t7"]


def test_the_readmes_example(lua, server):
    channel = server.channel()
    example = readme_example("subscribe")
    assert "https://lp.example.com/SecretPath" in example
    script = lua(example.replace("https://lp.example.com/SecretPath", server.url(channel)))
    script.wait_for_printed(2)
    assert sorted(script.printed) == ["1\tvalue", "true\t200\t1"]


def test_a_poll_that_does_not_wait_is_not_repeated_at_once(lua, stand_in):
    empty = {"expect": {"ts": "0", "sleep": "0"}, "reply": {"json": {"ok": True, "ts": 0, "updates": []}}}
    server = stand_in([empty])
    lua("longline.new(URL):subscribe(print, 0, 0) copas.loop()", URL=server.url)
    server.wait_for_held()
    # Half of the backoff; the clocks differ a bit.
    assert server.requests[1].at - server.requests[0].at >= 0.24
    assert not server.problems


def test_odd_updates_hold_nothing_up(lua, odd_updates):
    check_odd(lua(ODD + f"until_(function() return client.ts == {len(ODD_UPDATES)} end)", URL=odd_updates).finish())


def test_a_handler_that_throws(lua, four_updates):
    script = lua(THROWS + "until_(function() return client.ts == 4 end)", URL=four_updates)
    check_throws(script.finish())


def test_callbacks_that_throw(lua, start_server):
    server = start_server(DATA_PROVIDER="memory", CHANNEL_STORAGE_MAXSIZE=2)
    channel = server.channel()
    for n in range(1, 5):
        server.push(channel, b'{"n":%d}' % n)
    source = """
    local client = longline.new(URL)
    function client.on_missed() error("of on_missed") end
    function client.save() error("of save") end
    function client.on_error(err) out(err) error("of on_error") end
    client:subscribe(function(_, ts) out(ts) end, 0, 60)
    until_(function() return client.ts == 4 end)
    """
    told = [one[0] for one in lua(source, URL=server.url(channel)).finish()]
    assert told[0].startswith("on_missed: ") and "of on_missed" in told[0]
    assert [one for one in told if isinstance(one, int)] == [3, 4]
    assert told[2].startswith("save: ")


def test_without_callbacks_a_line_is_printed_that_does_not_tell_the_secret(lua, start_server, refused_url):
    server = start_server(DATA_PROVIDER="memory", CHANNEL_STORAGE_MAXSIZE=2)
    channel = server.channel()
    for _ in range(4):
        server.push(channel)
    source = """
    for _, ts in ipairs({ 1, 9 }) do
      local client = longline.new(URL)
      client:subscribe(function() end, ts, 60)
      until_(function() return client.ts == 4 end)
      client:stop()
    end
    local client, lines = longline.new((URL:gsub("//", "//user:word@"):gsub("/[^/]*$", "/%%%%zz"))), 0
    client:subscribe(function() end)
    until_(function() return coroutine.status(client.thread) == "dead" end)
    local client = longline.new(REFUSED)
    client.backoff = 0.001
    client:subscribe(function() end)
    for _ = 1, 20 do copas.step(0.001) end
    client:stop()
    """
    script = lua(source, URL=server.url(channel), REFUSED=refused_url)
    script.finish()
    where = f"longline (127.0.0.1:{server.port}): "
    assert script.printed[:2] == [
        where + "1 updates are no longer kept and were missed",
        where + "the channel began anew; going on after 4",
    ]
    assert script.printed[2].startswith(where + "400: A channel name has")
    assert script.printed[2].endswith("(the subscription has ended)")
    assert script.printed[3].endswith("): connection refused")
    assert channel[1:] not in "".join(script.printed) and "word" not in "".join(script.printed)


# --- the cursor ---


def test_where_the_last_ones_begin_is_found_before_a_poll_can_be_cut(lua, stand_in):
    """A poll of ts=-2 that waits and is cut would lose all but the last two of what came meanwhile."""
    found = {"expect": {"ts": "-2", "sleep": "0"}, "reply": {"json": {"ok": True, "ts": 4, "skipped": 4, "updates": []}}}
    cut = {"expect": {"ts": "4", "sleep": "25"}, "delay_ms": 600, "close": True}
    server = stand_in([found, cut, {**reply(7, {}, {}, {}), "expect": {"ts": "4"}}])
    source = """
    local client = longline.new(URL)
    client.where = "method:POST"
    client:subscribe(function(_, ts) out(ts) end, -2)
    until_(function() return client.ts == 7 end)
    """
    assert lua(source, URL=server.url).finish() == [[5], [6], [7]]
    assert not server.problems


KEEPS = """
local client = longline.new(URL)
client.load = function()
  local file = io.open(FILE)
  if not file then return nil end
  local ts = file:read("*n")
  file:close()
  return ts
end
client.save = function(ts)
  local file = assert(io.open(FILE, "w"))
  file:write(("%.0f"):format(ts))
  file:close()
end
local count = 0
client:subscribe(function(update, ts)
  out(update.n, ts)
  count = count + 1
  if count == tonumber(COUNT) then client:stop() end
end, -3, 60)
until_(function() return coroutine.status(client.thread) == "dead" end)
out("end", client.ts)
"""


def test_the_cursor_is_kept_across_restarts(lua, server, four_updates, tmp_path):
    kept = tmp_path / "cursor"
    # -3 counts only in the first run, and a handler's stop() takes effect before the next update.
    assert lua(KEEPS, URL=four_updates, FILE=kept, COUNT=1).finish() == [[2, 2], ["end", 2]]
    assert kept.read_text() == "2"
    assert lua(KEEPS, URL=four_updates, FILE=kept, COUNT=2).finish() == [[3, 3], [4, 4], ["end", 4]]
    assert kept.read_text() == "4"


def test_the_cursor_of_the_last_ones_is_kept_before_they_are_handled(lua, four_updates):
    source = """
    local client = longline.new(URL)
    function client.save(ts) out("save", ts) end
    client:subscribe(function(_, ts) out("handler", ts) client:stop() end, -2)
    until_(function() return coroutine.status(client.thread) == "dead" end)
    """
    assert lua(source, URL=four_updates).finish() == [["save", 2], ["handler", 3], ["save", 3]]


def test_a_handler_that_outlives_its_subscription_does_not_move_the_cursor_back(lua, four_updates):
    source = """
    local client = longline.new(URL)
    function client.save(ts) out("save", ts) end
    client:subscribe(function()
      client:stop()
      client:subscribe(function(_, ts) out("new", ts) end, 3)
      repeat longline.thread_pause(0.01) until client.ts == 4
    end)
    local old = client.thread
    until_(function() return coroutine.status(old) == "dead" end)
    out("end", client.ts)
    """
    assert lua(source, URL=four_updates).finish() == [["new", 4], ["save", 4], ["end", 4]]


def test_a_load_that_fails_ends_the_subscription(lua, stand_in):
    server = stand_in([])
    source = """
    for _, load in ipairs({ function() error("of load") end, function() return "twelve" end }) do
      local client = longline.new(URL)
      client.load = load
      function client.on_error(err, status, final) out(err, final) end
      client:subscribe(function() end)
      until_(function() return coroutine.status(client.thread) == "dead" end)
    end
    """
    told = lua(source, URL=server.url).finish()
    assert "of load" in told[0][0] and told[0][1] is True
    assert told[1] == ["load: returned no number: twelve", True]
    assert server.requests == []

# --- cuts ---


def test_what_has_waited_and_is_no_cut(lua, stand_in):
    """It is told at once, in place of asking again first."""
    proxy = stand_in([{"delay_ms": 700, "reply": {"status": 502, "text": ""}}])
    source = """
    local http_get, calls, told = longline.http_get, {}, 0
    local cases = {
      timeout = function() longline.thread_pause(0.6) return false, "timeout" end,
      unsent = function(request) longline.thread_pause(0.6) request.unsent = true return false, "no such host" end,
      throws = function() longline.thread_pause(0.6) error("of http_get") end,
      now = function() longline.thread_pause(0.6) return false, "closed" end,
      late = function() longline.thread_pause(5.2) return false, "closed" end,
      tunnel = function(request) return http_get("https://example.invalid/c", request) end,
    }
    function longline.http_get(url, request)
      local name = url:match("(%l+)%?")
      calls[name] = (calls[name] or 0) + 1
      return cases[name](request)
    end
    longline.proxy = PROXY
    for name in pairs(cases) do
      local client = longline.new("http://localhost/" .. name)
      function client.on_error() out(name, calls[name]) told = told + 1 client:stop() end
      client:subscribe(print, name == "now" and "now" or 0, name == "late" and 0.1 or 25)
    end
    until_(function() return told == 6 end)
    """
    told = lua(source, PROXY=proxy.url).finish()
    assert sorted(told) == [[name, 1] for name in ("late", "now", "throws", "timeout", "tunnel", "unsent")]


# --- stop ---


STOPS = """
local client = longline.new(URL)
client.backoff = 60
function client.on_error(err, status) out("error", status) end
client:subscribe(function(_, ts) out("update", ts) end, 0, 60)
until_(line_is_there)
io.read("*l")
local asked_at = socket.gettime()
client:stop()
until_(function() return coroutine.status(client.thread) == "dead" end)
out("ms", (socket.gettime() - asked_at) * 1000)
until_(line_is_there)
"""


def check_script_stops_at_once(start):
    """start() returns a script that waits for a line, and a check for after the stop."""

    def stop():
        script, check = start()
        script.say()
        script.wait_for(lambda _: script.told and script.told[-1][0] == "ms", "the stop")
        seconds = script.told[-1][1] / 1000
        check()
        script.say()
        script.finish()
        assert [one[0] for one in script.told] in (["ms"], ["error", "ms"]), script.told
        return seconds

    check_stops_at_once(stop, tries=3)


def test_stop_while_waiting(lua, server):
    channel = server.channel()

    def start():
        server.wait_for_parked(0)
        script = lua(STOPS, URL=server.url(channel))
        server.wait_for_parked(1)

        def after():
            # The program goes on without the connection, and nothing is delivered any more.
            server.wait_for_parked(0)

        return script, after

    check_script_stops_at_once(start)


def test_stop_in_backoff(lua, refused_url):
    def start():
        script = lua(STOPS, URL=refused_url)
        script.wait_for_told(1)
        return script, lambda: None

    check_script_stops_at_once(start)
