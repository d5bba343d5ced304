"""The Lua client and the real server: where a subscription begins, filters, names, epochs, several channels."""

import random
import time

import pytest
from longline_server import wait_until

UNTIL_DEAD = 'until_(function() return coroutine.status((group or client).thread) == "dead" end)'


def push_all(server, channel, *numbers):
    for n in numbers:
        server.push(channel, b'{"n":%d}' % n)


def test_now(lua, server):
    channel = server.channel()
    push_all(server, channel, 1, 2)
    server.wait_for_parked(0)  # an earlier test's poll may still be there
    script = lua(
        """
        local client = longline.new(URL)
        client:subscribe(function(update, ts) out(update.n, ts) client:stop() end, "now")
        """
        + UNTIL_DEAD.replace("group or ", ""),
        URL=server.url(channel),
    )
    server.wait_for_parked(1)
    push_all(server, channel, 3)
    assert script.finish() == [[3, 3]]


def test_since(lua, server):
    channel = server.channel()
    push_all(server, channel, 1)
    source = """
    local client = longline.new(URL)
    client.since = SINCE
    client:subscribe(function(update, ts) out(update.n, ts) if update.n == 2 then client:stop() end end)
    until_(function() return coroutine.status(client.thread) == "dead" end)
    """
    at = server.get(f"{channel}?view=full").json()["updates"][0]["at"]
    wait_until(lambda: time.time() * 1000 > at + 1, "the next millisecond")
    push_all(server, channel, 2)
    assert lua(source, URL=server.url(channel), SINCE="10m").finish() == [[1, 1], [2, 2]]
    assert lua(source, URL=server.url(channel), SINCE=f"{(at + 1) / 1000:.3f}").finish() == [[2, 2]]


def test_where(lua, server):
    channel = server.channel()
    for n in range(1, 7):
        server.push(f"{channel}?app={'shop' if n % 2 else 'blog'}", b'{"n":%d,"ref":"refs/heads/a b"}' % n)
    source = """
    local client = longline.new(URL)
    client.where = { "query.app:shop|x", "body.ref:refs/heads/a b", "!body.n:3" }
    client:subscribe(function(update, ts) out(update.n, ts) if update.n == 7 then client:stop() end end)
    until_(function() return coroutine.status(client.thread) == "dead" end)
    """
    script = lua(source, URL=server.url(channel))
    script.wait_for_told(2)
    server.wait_for_parked(1)
    server.push(channel + "?app=blog", b'{"n":7,"ref":"refs/heads/a b"}')
    server.push(channel + "?app=shop", b'{"n":7,"ref":"refs/heads/a b"}')
    assert [one[0] for one in script.finish()] == [1, 5, 7]
    script = lua(source, URL=server.url(channel) + "?view=full")
    script.wait_for_told(3)
    # A full update has its own ts.
    assert [one[1] for one in script.told] == [1, 5, 8]


def test_a_filter_that_does_not_parse_ends_the_subscription(lua, server):
    source = """
    local client = longline.new(URL)
    client.where = "nonsense"
    function client.on_error(_, status, final) out(status, final) end
    client:subscribe(print)
    until_(function() return coroutine.status(client.thread) == "dead" end)
    """
    assert lua(source, URL=server.url(server.channel())).finish() == [[400, True]]


NAMED = """
local client = longline.new(URL)
client.name = "bot é"
client:subscribe(function(update, ts) out(update.n, ts) longline.thread_pause(0.002) end, nil, 1)
until_(line_is_there)
"""


@pytest.mark.parametrize("seed", range(2))
def test_a_name_that_is_killed_gets_each_update_at_least_once_in_order(lua, server, seed):
    chance = random.Random(seed)
    channel = server.channel()
    push_all(server, channel, *range(1, 601))
    last = 0
    while last < 600:
        script = lua(NAMED, URL=server.url(channel))
        script.wait_for_told(1)
        wanted = chance.randrange(1, 250)
        script.wait_for(lambda _: len(script.told) >= wanted or script.told[-1][0] == 600, "some updates")
        script.kill()
        numbers = [one[0] for one in script.told]
        assert numbers == list(range(numbers[0], numbers[-1] + 1)) and numbers[0] <= last + 1, (last, numbers)
        # A page is not confirmed before the next poll.
        assert numbers[0] > last - 200, (last, numbers[0])
        last = max(last, numbers[-1])


def test_consumers(lua, server):
    channel = server.channel()
    push_all(server, channel, 1, 2, 3)
    source = """
    local client = longline.new(URL)
    out(#client:consumers())
    client.name = "bot"
    client:subscribe(function(_, ts) out(ts, client.lag) if ts == 3 then client:stop() end end)
    until_(function() return coroutine.status(client.thread) == "dead" end)
    client:subscribe(function() end, 2, 0)
    until_(function() return client.lag == 1 end)
    client:stop()
    local list = client:consumers()
    out(#list, list[1].name, list[1].ts, list[1].lag, list[1].at > 1e12)
    out(client:forget_consumer("bot"))
    out(client:forget_consumer("bot"))
    out(#client:consumers())
    """
    assert lua(source, URL=server.url(channel)).finish() == [[0], [1, 3], [2, 3], [3, 3], [1, "bot", 2, 1, True], [True], [True], [0]]


def test_a_server_that_has_lost_its_data(lua, start_server):
    """Also where the new channel has passed the cursor."""
    server = start_server(DATA_PROVIDER="memory")
    channel = server.channel()
    push_all(server, channel, 1, 2, 3)
    source = """
    local client = longline.new(URL)
    client.backoff = 0.01
    function client.on_error() end
    function client.on_reset(ts) out("reset", ts) end
    client:subscribe(function(update, ts) out(update.n, ts) end)
    until_(line_is_there)
    """
    script = lua(source, URL=server.url(channel))
    script.wait_for_told(3)
    server.wait_for_parked(1)
    server.kill9()
    server.start()
    push_all(server, channel, 11, 12, 13, 14, 15)
    script.wait_for_told(9)
    script.say()
    told = script.finish()
    assert told[3:] == [["reset", 0], [11, 1], [12, 2], [13, 3], [14, 4], [15, 5]]


GROUP = """
local a, b, c = longline.new(A), longline.new(B), longline.new(C)
c.ts = "now"
local group = longline.group({ a, b, c })
function group.on_error(...) out("error", ...) end
function a.save(ts, epoch) out("save", ts, #epoch) end
local names = { [a] = "a", [b] = "b", [c] = "c" }
group:subscribe(function(update, ts, client)
  out(names[client], update.n, ts)
  if client == c then group:stop() end
end)
"""


@pytest.mark.parametrize("where", ["copas", "game"])
def test_several_channels(where, start_script, game, server):
    channels = [server.channel(), server.channel() + "%20%22x", server.channel()]
    push_all(server, channels[0], 1, 2)
    push_all(server, channels[2], 1, 2)
    urls = dict(zip("ABC", map(server.url, channels)))
    if where == "game":
        script = game(GROUP + 'gmod.run(function() return coroutine.status(group.thread) == "dead" end)', **urls)
    else:
        script = start_script("luajit", 'longline = require "longline"\n' + GROUP + UNTIL_DEAD.replace(" or client", ""), **urls)
    script.wait_for_told(4)
    wait_until(lambda: server.metric("longline_polls_parked"), "the poll to wait")
    push_all(server, channels[1], 1)
    script.wait_for_told(5)
    push_all(server, channels[2], 3)
    assert script.finish() == [["a", 1, 1], ["save", 1, 16], ["a", 2, 2], ["save", 2, 16], ["b", 1, 1], ["c", 3, 3]]
