"""Lua scripts over the Lua client, in each interpreter and in a double of Garry's Mod."""

import json
import subprocess
import threading

import pytest
from drivers import REPOSITORY
from longline_server import wait_until

CLIENT = REPOSITORY / "clients/lua"
PATIENCE_S = 30


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
