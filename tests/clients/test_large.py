"""Updates as large as a webhook may be, pushed and read back whole by every client, also over a slow line."""

import json
import socket
import subprocess
import threading

import pytest
from longline_server import REPOSITORY, wait_until
from program import PYTHON

SIZE = 25_000_000

# Each pushes the JSON object in the file, reads the channel, and writes the update that it gets as JSON.
PROGRAMS = {
    "python": """
import json, sys
from longline import Channel
url, path, out = sys.argv[1:]
with Channel(url) as channel:
    assert channel.push(json.load(open(path))) == 1
    entry = next(channel.entries())
    assert json.loads(entry.text) == entry.update
    open(out, "w").write(entry.text)
""",
    "python-asyncio": """
import asyncio, json, sys
from longline import AsyncChannel
url, path, out = sys.argv[1:]
async def main():
    async with AsyncChannel(url) as channel:
        assert await channel.push(json.load(open(path))) == 1
        async for entry in channel.entries():
            open(out, "w").write(entry.text)
            break
asyncio.run(main())
""",
    "node": """
import { readFileSync, writeFileSync } from 'node:fs';
const { Channel } = await import(process.env.CLIENT);
const [url, path, out] = process.argv.slice(-3);
const channel = new Channel(url);
if ((await channel.push(JSON.parse(readFileSync(path)))).ts !== 1) throw new Error('not the first');
for await (const entry of channel.entries()) {
    writeFileSync(out, JSON.stringify(entry.update));
    break;
}
""",
    "lua": """
local longline, copas = dofile(os.getenv("CLIENT")), require "copas"
local url, path, out = arg[1], arg[2], arg[3]
local function read(name) local file = assert(io.open(name)); local text = file:read("*a"); file:close(); return text end
local client, done = longline.new(url), false
client:publish_async(longline.json_decode(read(path)), function(ok, _, ts) assert(ok and ts == 1) end)
client:subscribe(function(update)
  local file = assert(io.open(out, "w"))
  file:write(longline.json_encode(update))
  file:close()
  client:stop()
  done = true
end, 0)
while not done do copas.step(0.1) end
""",
}


def command(name, directory):
    """The program's command, and the client's place in CLIENT."""
    client = {"node": "clients/js/index.js", "lua5.1": "clients/lua/longline.lua", "luajit": "clients/lua/longline.lua"}
    kind = {"lua5.1": "lua", "luajit": "lua"}.get(name, name)
    file = directory / {"node": "large.mjs", "lua": "large.lua"}.get(kind, "large.py")
    file.write_text(PROGRAMS[kind])
    interpreter = PYTHON if kind.startswith("python") else name
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY / "clients/python/src"), "CLIENT": str(REPOSITORY / client.get(name, ""))}
    return [interpreter, str(file)], environment


@pytest.fixture(scope="module")
def large():
    """25 MB of what webhooks hold, and a single long string with every kind of character."""
    commits = [{"id": f"{n:040x}", "message": f"Mend № {n}: “it” \\ \t works", "added": [], "distinct": True, "size": n / 4} for n in range(150_000)]
    update = {"commits": commits, "text": ""}
    update["text"] = "naïve 😀 \u0001\n" * ((SIZE - len(json.dumps(update, ensure_ascii=False).encode())) // 30)
    return update


@pytest.mark.parametrize("name", ["python", "python-asyncio", "node", "lua5.1", "luajit"])
def test_25_megabytes_there_and_back(name, start_server, tmp_path, large):
    server = start_server(DATA_PROVIDER="memory")
    (tmp_path / "in.json").write_text(json.dumps(large, ensure_ascii=False))
    assert SIZE * 0.8 < (tmp_path / "in.json").stat().st_size < SIZE * 1.2
    program, environment = command(name, tmp_path)
    subprocess.run([*program, server.url("/large"), tmp_path / "in.json", tmp_path / "out.json"], env=environment, check=True, timeout=300)
    assert without_empty(json.loads((tmp_path / "out.json").read_text())) == without_empty(large)


def without_empty(update):
    """An empty array is an empty table in Lua, which has only one kind."""
    return {**update, "commits": [{**commit, "added": None} for commit in update["commits"]]}


def take_slowly(listener, pauses):
    """Takes one request, with a pause before each piece, and acknowledges it."""
    connection, _ = listener.accept()
    with connection:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (piece := connection.recv(65536)):
                return
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")).split(b":")[1])
        count = len(body)
        while count < length:
            pauses.wait(0.1)
            step = count + 2_000_000
            while count < min(step, length):
                if not (piece := connection.recv(65536)):
                    return
                count += len(piece)
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Total-Updates: 1\r\nContent-Length: 2\r\n\r\nOK")


@pytest.mark.timed
def test_a_slow_line_is_not_a_silent_server(push):
    """The time-out is for a server that takes nothing, not for the whole of a large update."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        never = threading.Event()
        thread = threading.Thread(target=take_slowly, args=(listener, never))
        thread.start()
        assert push(f"http://127.0.0.1:{listener.getsockname()[1]}/c", {"a": "x" * SIZE}, timeout=0.6) == 1
        wait_until(lambda: not thread.is_alive(), "the end of the request")
