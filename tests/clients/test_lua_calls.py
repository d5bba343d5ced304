"""The Lua client: its calls and what they return."""

import json
import socket
import subprocess
import threading

import pytest
from lua_script import CLIENT
from proxies import request_bytes
from standin import pushed, read_request, tls_context

# --- publish and get ---


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


def test_what_is_no_update_is_refused_before_anything_is_sent(lua, stand_in):
    server = stand_in([])
    source = """
    local client = longline.new(URL)
    for _, update in ipairs({ "x", 3, true, "{}" }) do
      out(client:publish(update))
      out(client:publish_batch({ {}, update }))
    end
    out(client:publish(nil))
    """
    assert lua(source, URL=server.url).finish() == [[False, "an update is a table"]] * 9
    assert server.requests == []


def test_publish_batch(lua, server):
    channel = server.channel()
    source = """
    local client = longline.new(URL .. "?app=x")
    out(client:publish_batch({ { n = 1 }, { 2, "two\\nlines" }, { n = 3 } }))
    out(client:publish_batch({ {}, { f = print } }))
    out(client:publish_batch({}))
    local many = {}
    for n = 1, 300 do many[n] = { n = n } end
    out(client:publish_batch(many))
    longline.json_encode = function() return "{\\r\\n}\\n" end
    out(client:publish_batch({ {}, {} }))
    """
    told = lua(source, URL=server.url(channel)).finish()
    assert told[0] == [True, 200, 3]
    assert told[1][0] is False and "a function is no JSON" in told[1][1]
    assert told[2][:2] == [False, 400] and "A batch needs a line" in told[2][2]
    assert told[3:] == [[True, 200, 303], [True, 200, 305]]
    updates = [update for _, update in server.read_all(channel)]
    assert updates[:3] == [{"n": 1, "app": "x"}, {"body": [2, "two\nlines"], "app": "x"}, {"n": 3, "app": "x"}]
    assert updates[302] == {"n": 300, "app": "x"} and updates[304] == {"app": "x"}


def test_a_batch_that_the_server_takes_for_one_update(lua, stand_in):
    three = {"headers": {"X-Total-Updates": "3", "X-Updates": "3"}}
    server = stand_in([pushed(1), pushed(3, **three), pushed(3, **three)])
    source = """
    local client = longline.new(URL)
    out(client:publish_batch({ {}, {} }))
    out(client:publish_batch({ {}, {} }))
    out(client:publish_batch({ {}, {}, {} }))
    longline.http_post = function() return "OK" end
    out(client:publish_batch({ {} }))
    """
    words = "the server does not know batches; it has stored the text as one update"
    assert lua(source, URL=server.url).finish() == [
        [False, 200, words],
        [False, 200, "the server has stored 3 updates, not 2"],
        [True, 200, 3],
        [False, None, words],
    ]


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
    assert told[6] == [False, "400: sleep is a number of seconds: 25, or 2.5", 400]
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


def test_a_fragment_in_the_url(lua, four_updates):
    """It is not for the server, and it must not swallow the query."""
    told = lua('out(longline.new(URL .. "#part"):get(2, 0))', URL=four_updates).finish()
    assert told[0][0]["updates"] == [{"n": 3}, {"n": 4}]


@pytest.mark.parametrize("location, where", [("https://lp.example.com/Secret", ", at https://lp.example.com"), ("/Secret", "")])
def test_redirects_are_not_followed(lua, stand_in, location, where):
    redirect = {"reply": {"status": 301, "headers": {"Location": location}, "text": "<html>Moved"}}
    server = stand_in([redirect, redirect])
    source = """
    local client = longline.new(URL)
    function client.on_error(...) out(...) client:stop() end
    client:subscribe(print)
    until_(function() return coroutine.status(client.thread) == "dead" end)
    out(client:publish({}))
    """
    words = "redirects are not followed, set the URL that it leads to" + where
    assert lua(source, URL=server.url).finish() == [["301: " + words, 301, False], [False, 301, words]]
    assert [request.method for request in server.requests] == ["GET", "POST"]


def test_a_reply_that_does_not_come(lua, stand_in):
    """A reply's time limit is kept, in copas' loop and in the main program."""
    source = """
    out(longline.http_get(URL, { timeout = 0.05 }))
    local done
    longline.thread_new(function() out(longline.http_get(URL, { timeout = 0.05 })) done = true end)
    until_(function() return done end)
    """
    assert lua(source, URL=stand_in([]).url).finish() == [[False, "timeout"]] * 2

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


@pytest.fixture
def tls_port(authority, server):
    """A port that speaks TLS, as localhost and 127.0.0.2, and passes what it gets to the server."""
    context = tls_context(authority, "DNS:localhost", "DNS:*.example.test", "IP:127.0.0.2")
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
        # Two threads must not share a TLS socket, so read the complete request first.
        request, _ = read_request(client, b"")
        if request:
            upstream.sendall(request_bytes(request, request.target))
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


def test_https(lua, server, tls_port, authority):
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
    told = lua(source, PORT=tls_port, CHANNEL=channel, CA=authority.certificate).finish()
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
