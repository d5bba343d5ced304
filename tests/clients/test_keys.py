"""The keys of a channel and its purge, in the Python and the Lua client."""

import hashlib
import json
import secrets
from base64 import b32encode

import pytest
from longline_server import REPOSITORY
from python_client import AsyncChannel, Channel, LonglineError, new_keys
from standin import refusal

CONFORMANCE = json.loads((REPOSITORY / "clients/conformance.json").read_text("utf-8"))
KEYS = CONFORMANCE["keys"]
SECRET = "r_" + "s" * 26


def with_keys(text):
    """What stands for a key in clients/conformance.json becomes one."""
    for letter, key in zip("RVW", KEYS[0]):
        text = text and text.replace(letter, key)
    return text


URLS = [tuple(with_keys(case[name]) for name in ("url", "v", "w")) for case in CONFORMANCE["key_urls"]]


def next_key(key, prefix):
    return prefix + b32encode(hashlib.sha256(f"longline:{key}".encode()).digest()).decode().lower()[:26]


def random_keys(count):
    """Sets of three keys."""
    for _ in range(count):
        first = "r_" + "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(26))
        second = next_key(first, "v_")
        yield first, second, next_key(second, "w_")


def gone(upto):
    return {"reply": {"json": {"ok": True, "gone": upto}}}


# What is no reply to a purge: a page, another server's, that to ?as=.
FOREIGN = [{"reply": {"text": "<html>"}}, {"reply": {"json": {"ok": True}}}, {"reply": {"json": {"ok": True, "gone": "1"}}}]

# --- Python ---


@pytest.mark.parametrize("kind", [Channel, AsyncChannel])
def test_python_derives(kind):
    for first, second, third in [*KEYS, *random_keys(20)]:
        channel = kind(f"https://h.example/{first}")
        assert (channel.read_only_url, channel.send_only_url) == (f"https://h.example/{second}", f"https://h.example/{third}")
    for url, read_only, send_only in URLS:
        channel = kind(url)
        assert (channel.read_only_url, channel.send_only_url) == (read_only, send_only), url


def test_python_makes_keys():
    for base, before, after in [
        ("https://h.example", "https://h.example/", ""),
        ("http://h.example:81/a/", "http://h.example:81/a/", ""),
        ("https://h.example/a?b=c#d", "https://h.example/a/", "?b=c"),
    ]:
        keys = new_keys(base)
        first, second, third = (url[len(before) : len(url) - len(after)] for url in keys)
        assert keys == tuple(before + key + after for key in (first, second, third))
        assert (len(first), second, third) == (28, next_key(first, "v_"), next_key(second, "w_"))
        assert Channel(keys.url).send_only_url == keys.send_only_url
    made = {letter for _ in range(50) for letter in new_keys("http://h")[0][-26:]}
    assert made == set("abcdefghijklmnopqrstuvwxyz234567")
    assert len({new_keys("http://h") for _ in range(50)}) == 50
    for bad in ("h.example", "ftp://h.example", "http://"):
        with pytest.raises(ValueError):
            new_keys(bad)


def test_python_tells_no_key(stand_in):
    server = stand_in([refusal(403, "This address only sends")])
    channel = Channel(f"http://127.0.0.1:{server.port}/{SECRET}")
    with pytest.raises(LonglineError) as caught:
        channel.purge()
    for thing in (channel, channel.updates(), AsyncChannel(f"http://h/{SECRET}"), caught.value):
        assert "ssss" not in repr(thing) + str(thing)
    with pytest.raises(ValueError) as refused:
        new_keys(f"ftp://h/{SECRET}")
    assert "ssss" not in str(refused.value)


def test_python_purges(half, stand_in):
    server = stand_in([gone(7), gone(0), gone(5), gone(2**53 + 1), refusal(403, "This address only reads"), *FOREIGN])
    url = f"{server.url}?appname=x"
    assert half.call(url, "purge") == 7
    assert half.call(url, "purge", 0) == 0
    assert half.call(url, "purge", 5) == 5
    assert half.call(url, "purge", 2**63 - 1) == 2**53 + 1
    with pytest.raises(LonglineError, match="403 This address only reads"):
        half.call(url, "purge")
    for _ in FOREIGN:
        with pytest.raises(LonglineError) as caught:
            half.call(url, "purge")
        assert caught.value.status == 200
    for bad in ("5", 5.0, "now", None):
        with pytest.raises(TypeError):
            half.call(url, "purge", bad)
    wanted = ["", "?upto=0", "?upto=5", *[""] * 5]
    assert [(each.method, each.target) for each in server.requests] == [("DELETE", "/conformance-channel" + query) for query in wanted]


def test_python_and_the_server(half, server, keys):
    assert half.call(keys.send_only_url, "push", [1]) == 1
    assert half.call(keys.url, "push_batch", [[2], [3]]) == 3
    for call, url, *arguments in [
        ("push", keys.read_only_url, {}),
        ("push_batch", keys.read_only_url, [{}]),
        ("consumers", keys.send_only_url),
        ("purge", keys.send_only_url),
        ("purge", keys.read_only_url),
        ("forget_consumer", keys.read_only_url, "bot"),
    ]:
        with pytest.raises(LonglineError) as caught:
            half.call(url, call, *arguments)
        assert (caught.value.status, caught.value.is_final) == (403, True), call
        assert caught.value.description.startswith("This address ")
    with pytest.raises(LonglineError, match="403"):
        half.take(keys.send_only_url, 1)
    with pytest.raises(LonglineError, match="403"):
        half.take(server.url("/"), 1, many=True, ts={keys.send_only_url.rpartition("/")[2]: 0})
    names = [url.rpartition("/")[2] for url in keys[:2]]
    for name in names:
        assert half.take(server.url("/"), 1, many=True, ts={name: 2})[0] == [(name, [3])]
    assert half.take(keys.read_only_url, 3)[0] == [[1], [2], [3]]
    assert half.call(keys.url, "purge", 2) == 2
    missed = []
    assert half.take(keys.url, 1, on_missed=missed.append)[0] == [[3]]
    assert half.call(keys.url, "purge") == 3
    assert half.call(keys.send_only_url, "push", [4]) == 4
    assert half.take(keys.read_only_url, 1, on_missed=missed.append)[0] == [[4]]
    assert missed == [2, 3]

# --- Lua ---

DERIVE = """
for url in URLS:gmatch("%S+") do
  local client = longline.new(url)
  out(client.read_only_url, client.send_only_url, tostring(client):find("_", 1, true))
end
"""

RANDOM = list(random_keys(5))
DERIVED = [*URLS, *(tuple(f"http://h/{key}" for key in keys) for keys in [*KEYS, *RANDOM]), (f"http://{KEYS[0][0]}", None, None)]


def check_derived(script):
    assert script.finish() == [[read_only, send_only, None] for _, read_only, send_only in DERIVED]


def test_lua_derives(lua):
    check_derived(lua(DERIVE, URLS=" ".join(url for url, *_ in DERIVED)))


def test_the_game_derives(game):
    check_derived(game("gmod.globals.URLS = URLS\n" + DERIVE, URLS=" ".join(url for url, *_ in DERIVED)))


PURGE = """
local client = longline.new(URL .. "?appname=x&view=full")
local function all()
  out(client:purge())
  out(client:purge(0))
  out(client:purge(5))
  out(client:purge(2 ^ 53))
  for _ = 1, 4 do out(client:purge()) end
  for _, bad in ipairs({ "5", -1, 0.5, 0 / 0 }) do out(pcall(client.purge, client, bad)) end
  out(pcall(client.purge, client, client.ts))
end
"""


def check_purge(script, server):
    told = script.finish()
    assert told[:4] == [[7], [0], [5], [2**53]]
    assert told[4] == [False, "403: This address only reads", 403]
    assert told[5:8] == [[False, "the reply is not longline's", 200]] * 3
    assert len(told) == 13
    for ok, error in told[8:]:
        assert ok is False and "purge: the ts of an update is expected" in error
    wanted = ["", "?upto=0", "?upto=5", f"?upto={2**53}", *[""] * 4]
    assert [(each.method, each.target) for each in server.requests] == [("DELETE", "/conformance-channel" + query) for query in wanted]


@pytest.fixture
def purged(stand_in):
    return stand_in([gone(7), gone(0), gone(5), gone(2**53), refusal(403, "This address only reads"), *FOREIGN])


def test_lua_purges(lua, purged):
    check_purge(lua(PURGE + "all()", URL=purged.url), purged)


def test_the_game_purges(game, purged):
    source = PURGE + "local done longline.thread_new(function() all() done = true end) gmod.run(function() return done end)"
    check_purge(game(source, URL=purged.url), purged)


def test_lua_and_the_server(lua, keys):
    source = """
    local client = longline.new(URL)
    local sender, reader = longline.new(client.send_only_url), longline.new(client.read_only_url)
    for n = 1, 3 do out(sender:publish({ n = n })) end
    out(sender:get())
    out(reader:publish({}))
    out(reader:purge())
    out(client:purge(2))
    out(reader:get().missed)
    out(client:purge())
    for _, each in ipairs({ sender, longline.group({ reader, sender }) }) do
      each.on_error = function(_, status, final) out(status, final) end
      each:subscribe(print)
      until_(function() return coroutine.status(each.thread) == "dead" end)
    end
    """
    told = lua(source, URL=keys.url).finish()
    assert told[:3] == [[True, 200, 1], [True, 200, 2], [True, 200, 3]]
    assert told[3][0] is False and "v_ or r_" in told[3][1] and told[3][2] == 403
    assert told[4][:2] == [False, 403] and "w_ or r_" in told[4][2]
    assert told[5][0] is False and told[5][2] == 403
    assert told[6:] == [[2], [2], [3], [403, True], [403, True]]
