"""Lua scripts over the Lua client, in each interpreter and in a double of Garry's Mod."""

import json

import pytest
from program import REPOSITORY, Program

CLIENT = REPOSITORY / "clients/lua"


# The start of every script. out(…) tells the test something; until_(condition) runs copas' loop.
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


class Script(Program):
    """A Lua script that runs.

    `told` is what it has passed to out(…), each a list; `printed` is everything else it has written.
    """

    def __init__(self, directory, interpreter, source, variables, copas=True):
        head = "".join(f"{name} = {json.dumps(str(value))}\n" for name, value in {**variables, "CLIENT": CLIENT}.items())
        head += f"COPAS = {'true' if copas else 'false'}\n"
        path = directory.with_suffix(".lua")
        path.write_text(head + PRELUDE + source)
        self._told, self._printed = [], []
        super().__init__(directory, [interpreter, path], environment={"LUA_PATH": f"{CLIENT}/?.lua;;"})

    def hear(self, line):
        super().hear(line)
        if line.startswith('{"values":'):
            values = json.loads(line)["values"]
            self._told.append(list(values) if isinstance(values, list) else [])
        else:
            self._printed.append(line)

    @property
    def told(self):
        self.listen()
        return self._told

    @property
    def printed(self):
        self.listen()
        return self._printed

    def wait_for_told(self, count):
        self.wait_for(lambda _: len(self.told) >= count, f"{count} calls of out()")

    def wait_for_printed(self, count):
        self.wait_for(lambda _: len(self.printed) >= count, f"{count} printed lines")

    def finish(self):
        """Waits for its end, which must be a clean one. Returns what it told."""
        assert self.wait() == 0 and self.stderr == "", self.describe()
        return self.told


@pytest.fixture(params=["lua5.1", "luajit"])
def interpreter(request):
    return request.param


@pytest.fixture
def start_script(tmp_path):
    scripts = []

    def start(interpreter, source, copas=True, **variables):
        scripts.append(Script(tmp_path / f"script-{len(scripts)}", interpreter, source, variables, copas))
        return scripts[-1]

    yield start
    for script in scripts:
        script.kill()


@pytest.fixture
def lua(start_script, interpreter):
    """lua(source, NAME=value, …) starts a script over copas in each interpreter."""
    return lambda source, **variables: start_script(interpreter, 'longline = require "longline"\n' + source, **variables)


@pytest.fixture
def game(start_script):
    """game(source, …) starts a script beside the Garry's Mod double, with `gmod` and `longline`."""
    return lambda source, **variables: start_script("luajit", GMOD + source, copas=False, **variables)


# JSON that the server accepts and some decoders may not.
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
