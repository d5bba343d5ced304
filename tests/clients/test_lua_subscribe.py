"""The Lua client, in what the conformance cases leave open: its calls and what they return, its environments."""

import json
import re
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from longline_server import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
CLIENT = REPOSITORY / "clients/lua"
PATIENCE_S = 30
STOP_MS = 100
STOP_TRIES = 3

# What every script begins with. out(…) is how it tells the test something; copas' loop is run until(condition).
PRELUDE = """
io.stdout:setvbuf("line")
local longline, copas
if COPAS then copas = require "copas" end
local socket = require "socket"
local json = dofile(CLIENT .. "/longline.lua").json_encode
local function out(...)
  local values = { ... }
  for i = 1, select("#", ...) do if values[i] == nil then values[i] = require("cjson").null end end
  io.write(json({ values = values }), "\\n") io.flush()
end
local function until_(condition)
  while not condition() do copas.step(0.01) end
end
local function line_is_there()
  return socket.select({ { getfd = function() return 0 end, dirty = function() return false end } }, nil, 0)[1] ~= nil
end
"""

GMOD = """
local gmod = dofile(CLIENT .. "/tests/gmod.lua")
gmod.globals.out, gmod.globals.URL = out, URL
local longline = gmod.include(CLIENT .. "/longline.lua")
"""


class Script:
    """A Lua script that runs. `told` is what it has given to out(…), each a list."""

    def __init__(self, interpreter, path, source, variables, copas=True):
        head = "".join(f"{name} = {json.dumps(str(value))}\n" for name, value in {**variables, "CLIENT": CLIENT}.items())
        head += f"COPAS = {'true' if copas else 'false'}\n"
        path.write_text(head + PRELUDE + source)
        self.told, self.printed = [], []
        self.process = subprocess.Popen(
            [interpreter, path],
            env={"PATH": "/usr/bin:/bin", "LUA_PATH": f"{CLIENT}/?.lua;;"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._readers = [threading.Thread(target=self._read, daemon=True), threading.Thread(target=self._errors, daemon=True)]
        self.stderr = ""
        for reader in self._readers:
            reader.start()

    def _read(self):
        for line in self.process.stdout:
            if line.startswith('{"values":'):
                values = json.loads(line)["values"]
                self.told.append(list(values) if isinstance(values, list) else [])
            else:
                self.printed.append(line.rstrip("\n"))

    def _errors(self):
        self.stderr = self.process.stderr.read()

    def wait_for(self, count):
        def enough():
            assert len(self.told) >= count or self.process.poll() is None, (self.told, self.printed, self.stderr)
            return len(self.told) >= count

        wait_until(enough, f"{count} lines; there are {self.told}, {self.printed}", PATIENCE_S)

    def tell(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self):
        """Waits for its end, which must be a clean one; returns what it told."""
        try:
            code = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it does not end: {self.told}, {self.printed}") from None
        for reader in self._readers:
            reader.join(PATIENCE_S)
        assert code == 0 and self.stderr == "", (code, self.stderr, self.told, self.printed)
        return self.told

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()


@pytest.fixture(params=["lua5.1", "luajit"])
def interpreter(request):
    return request.param


@pytest.fixture
def start_script(tmp_path):
    scripts = []

    def start(interpreter, source, copas=True, **variables):
        scripts.append(Script(interpreter, tmp_path / f"script-{len(scripts)}.lua", source, variables, copas))
        return scripts[-1]

    yield start
    for script in scripts:
        script.end()


@pytest.fixture
def lua(start_script, interpreter):
    """lua(source, NAME=value, …) starts a script over copas in each interpreter."""
    return lambda source, **variables: start_script(interpreter, 'longline = require "longline"\n' + source, **variables)


@pytest.fixture
def game(start_script):
    """game(source, …) starts a script in the Garry's Mod double; the source runs outside, with `gmod` and `longline`."""
    return lambda source, **variables: start_script("luajit", GMOD + source, copas=False, **variables)


@pytest.fixture
def refused_url():
    """An address that refuses connections: bound, and not listening."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/channel"


# --- publish, get ---

PUBLISH = """
local function all()
  local client = longline.new(URL)
  out(client:publish({ n = 1 }))
  out(client:publish({ n = 2, list = { 1, "zwei", { true } } }))
  out(longline.new(URL .. "?appname=telegram"):publish({ n = 3 }))
  out(longline.new(BASE .. "/%zz"):publish({}))
  out(longline.new(REFUSED):publish({}))
  out(client:publish({ f = print }))
  out(longline.new("ftp://127.0.0.1/x"):publish({}))
end
"""


def check_publish(told, server, channel):
    assert told[0:3] == [[True, 200, 1], [True, 200, 2], [True, 200, 3]]
    assert told[3][:2] == [False, 400] and "channel name" in told[3][2]
    assert told[4] == [False, "connection refused"]
    assert told[5][0] is False and "a function is no JSON" in told[5][1]
    assert told[6] == [False, "the URL is not one of http or https"]
    updates = [update for _, update in server.read_all(channel)]
    assert updates == [{"n": 1}, {"n": 2, "list": [1, "zwei", [True]]}, {"n": 3, "appname": "telegram"}]


def base(server):
    return server.url("")


def test_publish_from_the_main_program(lua, server, refused_url):
    channel = server.channel()
    script = lua(PUBLISH + "all()", URL=server.url(channel), BASE=base(server), REFUSED=refused_url)
    check_publish(script.finish(), server, channel)


def test_publish_from_a_thread(lua, server, refused_url):
    channel = server.channel()
    source = PUBLISH + "local done\nlongline.thread_new(function() all() done = true end)\nuntil_(function() return done end)"
    script = lua(source, URL=server.url(channel), BASE=base(server), REFUSED=refused_url)
    check_publish(script.finish(), server, channel)


def test_publish_async(lua, server, refused_url):
    source = """
    local client, left = longline.new(URL), 4
    local function told(...) out(...) left = left - 1 end
    client:publish_async({ n = 1 }, told)
    client:publish_async({ n = 2 })
    until_(function() return #client:get().updates == 2 end)
    longline.new(REFUSED):publish_async({}, told)
    client.on_error = function(err) out(err) left = left - 1 end
    client:publish_async({ n = 3 }, function() left = left - 1 error("of the callback") end)
    until_(function() return left == 0 end)
    """
    told = lua(source, URL=server.url(server.channel()), REFUSED=refused_url).finish()
    assert sorted(map(json.dumps, told))[0].startswith('["')
    assert [True, 200] in [one[:2] for one in told]
    assert [False, "connection refused", None] in told
    [error] = [one[0] for one in told if len(one) == 1]
    assert "of the callback" in error and "stack traceback" in error


def test_get(lua, server, refused_url):
    channel = server.channel()
    for n in (1, 2, 3):
        server.push(channel, b'{"n":%d}' % n)
    source = """
    local client = longline.new(URL)
    out(client:get())
    out(client:get(2))
    out(client:get(-1, 0))
    out(client:get(3, 0.1))
    out(client:get(99, 10))
    out(longline.new(URL .. "?appname=x"):get(2, 0))
    out(client:get(2, -1))
    out(longline.new(REFUSED):get(0, 0))
    """
    told = lua(source, URL=server.url(channel), REFUSED=refused_url).finish()
    bodies = [json.loads(one[1]) for one in told[:6]]
    assert [one[0]["ts"] for one in told[:6]] == [3] * 6
    assert [body["updates"] for body in bodies] == [[{"n": 1}, {"n": 2}, {"n": 3}], [{"n": 3}], [{"n": 3}], [], [], [{"n": 3}]]
    assert [one[0]["updates"] for one in told[:3]] == [body["updates"] for body in bodies[:3]]
    assert told[4][0]["reset"] is True
    assert told[6] == [False, "400: sleep is a number of seconds from 0 to 60", 400]
    assert told[7][:2] == [False, "connection refused"]


def test_a_channel_with_an_untidy_name(lua, server):
    channel = server.channel()
    source = """
    out(longline.new(URL .. "naïve \\r\\n"):publish({}))
    out(longline.new(URL .. "naïve"):publish({}))
    """
    told = lua(source, URL=server.url(channel)).finish()
    assert told[0][:2] == [False, 400]
    assert told[1] == [True, 200, 1]
    assert server.read_all(channel + "na%C3%AFve") == [(1, {})]


def test_localhost_whatever_it_resolves_to(lua, server):
    channel = server.channel()
    source = """
    out(longline.new(URL):publish({}))
    longline.new(URL):publish_async({}, out)
    until_(function() return longline.new(URL):get().ts == 2 end)
    """
    told = lua(source, URL=server.url(channel).replace("127.0.0.1", "localhost")).finish()
    assert told[0] == [True, 200, 1]


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
    wait_until(lambda: script.printed, "what the script prints", PATIENCE_S)
    server.wait_for_parked(1)
    server.push(channel, b'{"key":"another"}')
    wait_until(lambda: len(script.printed) == 2, "the second update", PATIENCE_S)
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


def test_the_readmes_example(lua, server):
    channel = server.channel()
    [example] = re.findall(r"```lua\n(.*?)```", (CLIENT / "README.md").read_text("utf-8"), re.DOTALL)
    assert "https://lp.example.com/SecretPath" in example
    script = lua(example.replace("https://lp.example.com/SecretPath", server.url(channel)))
    wait_until(lambda: len(script.printed) == 2, "what the example prints", PATIENCE_S)
    assert sorted(script.printed) == ["1\tvalue", "true\t200\t1"]


def test_a_poll_that_does_not_wait_is_not_repeated_at_once(lua, stand_in):
    empty = {"expect": {"ts": "0", "sleep": "0"}, "reply": {"json": {"ok": True, "ts": 0, "updates": []}}}
    server = stand_in([empty])
    lua("longline.new(URL):subscribe(print, 0, 0) copas.loop()", URL=server.url)
    server.wait_for_held()
    assert server.requests[1].at - server.requests[0].at >= 0.24  # half of the backoff, and clocks that differ
    assert not server.problems


def test_a_fragment_in_the_url(lua, four_updates):
    """It is not the server's, and must not take the query along."""
    told = lua('out(longline.new(URL .. "#part"):get(2, 0))', URL=four_updates).finish()
    assert told[0][0]["updates"] == [{"n": 3}, {"n": 4}]


def test_an_environment_whose_functions_throw(lua, four_updates):
    source = """
    local client, http_get, thrown = longline.new(URL), longline.http_get, 0
    client.backoff = 0.01
    function client.on_error(err, _, final) out(err, final) end
    function longline.http_get(...)
      thrown = thrown + 1
      if thrown <= 2 then error("of http_get") end
      return http_get(...)
    end
    client:subscribe(function(_, ts) out(ts) client:stop() end)
    until_(function() return coroutine.status(client.thread) == "dead" end)
    function longline.http_get() return false, "no net" end
    function longline.thread_pause() error("of thread_pause") end
    client:subscribe(print)
    until_(function() return coroutine.status(client.thread) == "dead" end)
    out(next(client.subscriptions))
    """
    told = lua(source, URL=four_updates).finish()
    assert ["of http_get" in one[0] for one in told[:2]] == [True, True]
    assert [one[1] for one in told[:2]] == [False, False]
    assert told[2:4] == [[1], ["no net", False]]
    assert told[4][0].startswith("thread_pause: ") and "of thread_pause" in told[4][0] and told[4][1] is True
    assert told[5:] == [[None]]


def test_an_environment_that_cannot_yield_in_a_pcall(lua):
    """As plain Lua 5.1 without coxpcall: http_get can wait all the same."""
    source = """
    local function no_yield(f, ...)
      local co = coroutine.create(function(...) return f(...) end)
      local results = { coroutine.resume(co, ...) }
      if coroutine.status(co) == "suspended" then return false, "attempt to yield across a C-call boundary" end
      return unpack(results, 1, table.maxn(results))
    end
    pcall, xpcall = no_yield, function(f) return no_yield(f) end
    package.loaded.coxpcall, package.loaded.longline = { pcall = pcall, xpcall = xpcall }, nil
    longline = require "longline"
    function longline.http_get()
      longline.thread_pause(0.01)
      return '{"ts":1,"updates":[{}]}', 200
    end
    local client = longline.new("http://localhost/channel")
    client:subscribe(function(_, ts) out(ts) client:stop() end)
    until_(function() return coroutine.status(client.thread) == "dead" end)
    """
    assert lua(source).finish() == [[1]]


@pytest.mark.parametrize("location, where", [("https://lp.example.com/Secret", ", at https://lp.example.com"), ("/Secret", "")])
def test_redirects_are_not_followed(lua, stand_in, location, where):
    redirect = {"reply": {"status": 301, "headers": {"Location": location}, "text": "<html>Moved"}}
    server = stand_in([redirect, redirect])
    source = """
    local client = longline.new(URL)
    function client.on_error(...) out(...) end
    client:subscribe(print)
    until_(function() return coroutine.status(client.thread) == "dead" end)
    out(client:publish({}))
    """
    words = "redirects are not followed, set the URL that it leads to" + where
    assert lua(source, URL=server.url).finish() == [["301: " + words, 301, True], [False, 301, words]]
    assert [request.method for request in server.requests] == ["GET", "POST"]


# JSON that the server takes and that some decoder may not.
ODD_UPDATES = [
    r'{"s":"\ud83d"}',
    r'{"s":"\\\ud83d \\ud83d \uD83D\uDE00 \udfff \ud83d\ud83d\ude00 \\\\ud83d"}',
    r'{"\udc00":"\u0000"}',
    '{"big":1e999,"long":' + "1" * 400 + ',"small":1e-999}',
    "[" * 500 + "]" * 500,
    '{"":{"":[]},"a":1,"a":2}',
]

ODD = """
local client = longline.new(URL)
function client.on_error(err) out("error", err) end
client:subscribe(function(update, ts) if ts <= 2 then out(ts, update.s) else out(ts) end end)
"""


@pytest.fixture
def odd_updates(server):
    channel = server.channel()
    for update in ODD_UPDATES:
        server.push(channel, update.encode())
    return server.url(channel)


def check_odd(told):
    assert [one[0] for one in told] == list(range(1, len(ODD_UPDATES) + 1)), told
    assert told[0][1] == "\ufffd"
    assert told[1][1] == "\\\ufffd \\ud83d 😀 \ufffd \ufffd😀 \\\\ud83d"


def test_odd_updates_hold_nothing_up(lua, odd_updates):
    check_odd(lua(ODD + f"until_(function() return client.ts == {len(ODD_UPDATES)} end)", URL=odd_updates).finish())


def test_garrysmod_odd_updates_hold_nothing_up(game, odd_updates):
    check_odd(game(ODD + f"gmod.run(function() return client.ts == {len(ODD_UPDATES)} end)", URL=odd_updates).finish())


THROWS = """
local client = longline.new(URL)
local last
function client.on_error(err, status, final) out(err, status, final) end
client:subscribe(function(update, ts)
  last = ts
  local function deep() error("of update " .. update.n) end
  if update.n == 2 then deep() end
  if update.n == 3 then error({}) end
  out(update.n, ts)
end, nil, 60)
"""


def check_throws(told, line="of update 2"):
    assert [one for one in told if one[0] in (1, 4)] == [[1, 1], [4, 4]]
    assert len(told) == 4
    assert line in told[1][0] and "stack traceback" in told[1][0] and "deep" in told[1][0]
    assert told[1][0].startswith("the handler, in update 2: ")
    assert told[1][1:] == [None, None] and told[2][0].startswith("the handler, in update 3: table:")


@pytest.fixture
def four_updates(server):
    channel = server.channel()
    for n in range(1, 5):
        server.push(channel, b'{"n":%d}' % n)
    return server.url(channel)


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
    # -3 counts in the first run only, and stop() from within the handler takes effect before the next update.
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


def check_stops(start):
    """start() returns a script that waits for a line to stop at. On a machine with other work the best of a few counts."""
    times_ms = []
    for _ in range(STOP_TRIES):
        script, after = start()
        script.tell()
        wait_until(lambda: script.told and script.told[-1][0] == "ms", "the stop", PATIENCE_S)
        times_ms.append(script.told[-1][1])
        after()
        script.tell()
        script.finish()
        assert [one[0] for one in script.told] in (["ms"], ["error", "ms"]), script.told
        if times_ms[-1] < STOP_MS:
            return
    pytest.fail(f"stopped after {times_ms} ms")


def test_stop_while_waiting(lua, server):
    channel = server.channel()

    def start():
        server.wait_for_parked(0)
        script = lua(STOPS, URL=server.url(channel))
        server.wait_for_parked(1)

        def after():
            # The connection is gone while the program goes on, and nothing is delivered any more.
            server.wait_for_parked(0)

        return script, after

    check_stops(start)


def test_stop_in_backoff(lua, refused_url):
    def start():
        script = lua(STOPS, URL=refused_url)
        script.wait_for(1)
        return script, lambda: None

    check_stops(start)


def test_a_program_that_lets_copas_time_things_itself(lua, server, refused_url):
    """Newer releases of copas have sleep and wakeup, which the client uses then; here they are added to Debian's."""
    source = """
    local sleepers = {}
    function copas.sleep(seconds)
      local sleeper = { at = socket.gettime() + seconds, co = coroutine.running() }
      sleepers[sleeper.co] = sleeper
      coroutine.yield()
    end
    function copas.wakeup(co) if sleepers[co] then sleepers[co].at = 0 end end
    local step = copas.step
    function copas.step()
      local due = {}
      for co, sleeper in pairs(sleepers) do if sleeper.at <= socket.gettime() then due[#due + 1] = co end end
      for _, co in ipairs(due) do sleepers[co] = nil copas.addthread(co) end
      return step(0.01)
    end
    local own_step = copas.step
    package.loaded.longline = nil
    longline = require "longline"
    assert(copas.step == own_step)
    local client = longline.new(URL)
    client:subscribe(function(update, ts) out(ts) if ts == 2 then client:stop() end end)
    client:publish_async({}, function() client:publish_async({}) end)
    until_(function() return coroutine.status(client.thread) == "dead" end)
    local other = longline.new(REFUSED)
    other.backoff = 0.01
    local errors = 0
    function other.on_error(err) errors = errors + 1 if errors == 3 then out(err) other:stop() end end
    other:subscribe(function() end)
    until_(function() return coroutine.status(other.thread) == "dead" end)
    -- Nothing is left asleep: a loop that ends when all threads have ended does so.
    until_(function() return next(sleepers) == nil end)
    """
    told = lua(source, URL=server.url(server.channel()), REFUSED=refused_url).finish()
    assert told == [[1], [2], ["connection refused"]]


def test_a_reply_that_does_not_come(lua, stand_in):
    """The time that a reply may take is kept to, in copas' loop and in the main program."""
    source = """
    out(longline.http_get(URL, { timeout = 0.05 }))
    local done
    longline.thread_new(function() out(longline.http_get(URL, { timeout = 0.05 })) done = true end)
    until_(function() return done end)
    """
    assert lua(source, URL=stand_in([]).url).finish() == [[False, "timeout"]] * 2


# --- Garry's Mod ---


def test_garrysmod_publishes_and_subscribes_without_require(game, server, tmp_path):
    channel = server.channel()
    autorun = tmp_path / "autorun.lua"
    autorun.write_text(
        """
        local longline = include(CLIENT .. "/longline.lua")
        local client = longline.new(URL)
        client:subscribe(function(update, ts)
          out("update", update, ts)
          -- A handler runs in a thread, so it may publish and look at what comes back.
          if update.n == 1 then out("publish", client:publish({ n = 2 })) end
        end, nil, 30)
        client:publish_async({ n = 1 }, function(ok, code, ts) out("async", ok, code, ts) end)
        out("threw", (select(2, pcall(client.publish, client, {}))))
        longline.thread_new(function() out("bad", longline.new(BASE):publish({})) end)
        """
    )
    source = """
    gmod.globals.CLIENT, gmod.globals.BASE = CLIENT, BASE
    for _, name in ipairs({ "require", "package", "io", "socket", "loadfile" }) do
      assert(not pcall(function() return gmod.globals[name] end), name)
    end
    gmod.include(AUTORUN)
    gmod.run(line_is_there)
    assert(#gmod.errors == 0)
    """
    script = game(source, URL=server.url(channel), BASE=server.url("/%zz"), AUTORUN=autorun)
    script.wait_for(6)
    script.tell()
    told = script.finish()
    assert told[0][0] == "threw" and "use publish_async" in told[0][1]
    assert ["async", True, 200, 1] in told
    assert ["publish", True, 200, 2] in told
    assert [one for one in told if one[0] == "update"] == [["update", {"n": 1}, 1], ["update", {"n": 2}, 2]]
    [bad] = [one for one in told if one[0] == "bad"]
    assert bad[1:3] == [False, 400] and "channel name" in bad[3]


def test_garrysmod_a_handler_that_throws(game, four_updates):
    check_throws(game(THROWS + "gmod.run(function() return client.ts == 4 end)", URL=four_updates).finish())


def test_garrysmod_refused_and_get(game, refused_url, four_updates):
    source = """
    gmod.globals.GAMEMODE = {}
    local done
    longline.thread_new(function()
      out(longline.new(REFUSED):publish({}))
      out(longline.new(REFUSED):get(0, 0))
      local reply, body = longline.new(URL):get(3, 0)
      out(reply, type(body))
      out(longline.new(URL):get(3, -1))
      done = true
    end)
    gmod.run(function() return done end)
    """
    told = game(source, URL=four_updates, REFUSED=refused_url).finish()
    assert told[0] == [False, "unsuccessful"]
    assert told[1][:2] == [False, "unsuccessful"]
    assert told[2] == [{"ok": True, "ts": 4, "updates": [{"n": 4}]}, "string"]
    assert told[3] == [False, "400: sleep is a number of seconds from 0 to 60", 400]


def test_garrysmod_stop_ignores_the_late_reply(game, server):
    channel = server.channel()
    source = """
    local client = longline.new(URL)
    function client.on_error(err) out("error", err) end
    client:subscribe(function(_, ts) out("update", ts) end, 0, 60)
    gmod.run(line_is_there)
    client:stop()
    out(coroutine.status(client.thread), next(client.subscriptions))
    assert(io.read(1))
    gmod.run(line_is_there)
    assert(#gmod.errors == 0)
    """
    script = game(source, URL=server.url(channel))
    server.wait_for_parked(1)
    script.tell()
    script.wait_for(1)
    server.push(channel)
    server.wait_for_parked(0)
    script.tell()
    assert script.finish() == [["dead", None]]


def test_garrysmod_keeps_keys_that_look_like_numbers(game, server):
    channel = server.channel()
    server.push(channel, b'{"76561198000000001":{"1":"a"}}')
    source = """
    local client, got = longline.new(URL), nil
    client:subscribe(function(update) got = update end)
    gmod.run(function() return got end)
    for key, value in pairs(got) do out(type(key), key, type(next(value))) end
    """
    assert game(source, URL=server.url(channel)).finish() == [["string", "76561198000000001", "string"]]


def test_functions_of_another_environment(game, server):
    """Upstream's own functions for Garry's Mod: they return a body and a status, and know of no request."""
    source = """
    function longline.thread_new(f, ...)
      local co = coroutine.create(f)
      local function go(...)
        local ok, wait = coroutine.resume(co, ...)
        assert(ok, wait)
        if coroutine.status(co) ~= "dead" then wait(go) end
      end
      go(...)
    end
    local G = gmod.globals
    function longline.thread_pause(seconds)
      coroutine.yield(function(go) G.timer.Simple(seconds, go) end)
    end
    function longline.http_get(url)
      return coroutine.yield(function(go)
        G.http.Fetch(url, function(body, _, _, code) go(body, code) end, function(err) go(false, err) end)
      end)
    end
    function longline.http_post(url, data)
      return coroutine.yield(function(go)
        G.HTTP({ url = url, method = "POST", body = data, type = "application/json",
          success = function(_, body) go(body) end, failed = function(err) go(false, err) end })
      end)
    end
    local client, over = longline.new(URL), false
    client:publish_async({ n = 1 }, function(ok) out("published", ok) end)
    client:subscribe(function(update, ts) out("update", update.n, ts) client:stop() over = true end, nil, 5)
    gmod.run(function() return over end)
    """
    assert sorted(game(source, URL=server.url(server.channel())).finish()) == [["published", True], ["update", 1, 1]]


# --- JSON ---


def test_json_encode(lua):
    source = """
    local null = require("cjson").null
    out({ 1, 1.5, 0.1, -2 ^ 53 + 1, 2 ^ 53 - 1, 1e300, 0.1 + 0.2, 2 ^ 52 + 1 })
    out({ "", 'a"b\\\\c/\\n\\t\\r\\0\\127\\31', "naïve ✓ 😀" })
    out({ a = { b = { {}, { 1, { x = true, y = false } } } }, [5] = "five" }, { 1, nil, 3, null }, { [1000] = 1 })
    local loop = {}
    loop[1] = loop
    for _, bad in ipairs({ { 0 / 0 }, { math.huge }, { print }, { [{}] = 1 }, loop, { io.stdout } }) do
      out(pcall(longline.json_encode, bad))
    end
    """
    told = lua(source).finish()
    assert told[0] == [[1, 1.5, 0.1, -(2**53) + 1, 2**53 - 1, 1e300, 0.1 + 0.2, 2**52 + 1]]
    assert told[1] == [["", 'a"b\\c/\n\t\r\0\x7f\x1f', "naïve ✓ 😀"]]
    assert told[2] == [{"a": {"b": [{}, [1, {"x": True, "y": False}]]}, "5": "five"}, [1, None, 3, None], {"1000": 1}]
    assert [one[0] for one in told[3:]] == [False] * 6


# --- https ---


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for localhost and 127.0.0.2 that signed itself, and its key."""
    directory = tmp_path_factory.mktemp("tls")
    openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test", "-addext",
        "subjectAltName=DNS:localhost,DNS:*.example.test,IP:127.0.0.2",
        "-keyout", f"{directory}/key.pem", "-out", f"{directory}/cert.pem",
    )  # fmt: skip
    return directory


@pytest.fixture
def tls_port(certificate, server):
    """A port that speaks TLS and hands what it gets to the server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    listener = socket.create_server(("", 0))

    def pump(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        for sock in (source, target):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def serve(raw):
        try:
            client = context.wrap_socket(raw, server_side=True)
        except OSError:
            raw.close()
            return
        upstream = socket.create_connection(server.address)
        # One thread for a direction: a TLS socket is not for two at once, so the request is read whole first.
        request = b""
        while b"\r\n\r\n" not in request:
            request += client.recv(65536)
        head, _, body = request.partition(b"\r\n\r\n")
        length = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
        while length and len(body) < length[0]:
            body += client.recv(65536)
        upstream.sendall(head + b"\r\n\r\n" + body)
        pump(upstream, client)
        client.close()
        upstream.close()

    def accept():
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(raw,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_https(lua, server, tls_port, certificate):
    channel = server.channel()
    big = "x" * 300000
    source = """
    local function url(host) return "https://" .. host .. ":" .. PORT .. CHANNEL end
    out(longline.new(url("localhost")):publish({ n = 0 }))
    longline.tls.cafile = CA
    out(longline.new(url("localhost")):publish({ n = 1, big = ("x"):rep(300000) }))
    out(longline.new(url("127.0.0.2")):publish({ n = 2 }))
    out(longline.new(url("127.0.0.1")):publish({ n = 3 }))
    local client, seen = longline.new(url("localhost")), {}
    client:subscribe(function(update, ts) out("update", update.n, update.big and #update.big, ts) seen[ts] = true end)
    client:publish_async({ n = 4 })
    until_(function() return seen[3] end)
    client:stop()
    until_(function() return coroutine.status(client.thread) == "dead" end)
    """
    told = lua(source, PORT=tls_port, CHANNEL=channel, CA=certificate / "cert.pem").finish()
    assert told[0][0] is False and "certificate verify failed" in told[0][1]
    assert told[1] == [True, 200, 1]
    assert told[2] == [True, 200, 2]
    assert told[3] == [False, "the certificate is not 127.0.0.1's"]
    assert told[4:] == [["update", 1, len(big), 1], ["update", 2, None, 2], ["update", 4, None, 3]]


# --- the package ---


def test_the_rockspec_names_the_file(interpreter):
    rockspec = CLIENT / "longline-0.1.0-1.rockspec"
    script = f"""
    local rock = {{}}
    setfenv(assert(loadfile({json.dumps(str(rockspec))})), rock)()
    assert(rock.package == "longline" and rock.version == "0.1.0-1")
    for _, file in pairs(rock.build.modules) do assert(io.open({json.dumps(str(CLIENT))} .. "/" .. file)) end
    assert(rock.build.modules.longline == "longline.lua")
    """
    subprocess.run([interpreter, "-e", script], check=True)
