"""The Lua client: epochs, named consumers, full updates, several channels; what HTTP() of the game may do."""

import json

from standin import refusal, reply

FIRST, SECOND = "00c0ffee00c0ffee", "fedcba9876543210"


def say(**members):
    return {"reply": {"json": {"ok": True, **members}}}


def test_the_epoch_is_kept_with_the_cursor(lua, stand_in):
    server = stand_in([reply(6, {"n": 6}, epoch=FIRST), reply(0, epoch=SECOND, reset=True), reply(1, {"m": 1}, epoch=SECOND)])
    source = """
    local client = longline.new(URL)
    function client.load() return "5", "00000000000000aa" end
    function client.save(ts, epoch) out("save", ts, epoch) end
    function client.on_reset(ts) out("reset", ts, client.ts, client.epoch) end
    client:subscribe(function(update, ts) out(update.n or update.m, ts, client.epoch) if update.m then client:stop() end end)
    until_(function() return coroutine.status(client.thread) == "dead" end)
    """
    assert lua(source, URL=server.url).finish() == [
        [6, 6, FIRST],
        ["save", 6, FIRST],
        ["reset", 0, 6, FIRST],
        ["save", 0, SECOND],
        [1, 1, SECOND],
        ["save", 1, SECOND],
    ]
    assert [(r.query["ts"], r.query["epoch"]) for r in server.requests] == [("5", "00000000000000aa"), ("6", FIRST), ("0", SECOND)]


def test_lag(lua, stand_in):
    server = stand_in([reply(2, {"n": 1}, {"n": 2}, lag=7)])
    source = """
    local client = longline.new(URL)
    client.name = "bot"
    client:subscribe(function(_, ts) out(ts, client.lag) end)
    until_(function() return client.ts == 2 end)
    """
    assert lua(source, URL=server.url).finish() == [[1, 7], [2, 7]]
    assert "ts" not in server.requests[0].query and server.requests[0].query["as"] == "bot"


def test_consumers_and_forget_consumer(lua, stand_in):
    bot = {"name": "bot", "ts": 41, "lag": 3, "at": 1795506304321}
    server = stand_in([say(ts=44, consumers=[bot]), say(), refusal(404), say(ts=0, updates=[]), refusal(400, "No such name")])
    source = """
    local client = longline.new(URL .. "/?appname=x")
    out(client:consumers())
    out(client:forget_consumer("bot é&1"))
    out(client:consumers())
    out(client:consumers())
    out(client:forget_consumer(""))
    """
    assert lua(source, URL=server.url).finish() == [
        [[bot]],
        [True],
        [False, "404: No", 404],
        [False, "the reply is not longline's", 200],
        [False, "400: No such name", 400],
    ]
    assert [f"{r.method} {r.target}" for r in server.requests[:2]] == [
        "GET /conformance-channel/consumers",
        "DELETE /conformance-channel?as=bot%20%C3%A9%261",
    ]


def test_garrysmod_consumers_and_forget_consumer(game, stand_in):
    server = stand_in([say(ts=0, consumers=[]), say()])
    source = """
    local done
    longline.thread_new(function()
      out(#longline.new(URL):consumers())
      out(longline.new(URL):forget_consumer("bot"))
      done = true
    end)
    gmod.run(function() return done end)
    """
    assert game(source, URL=server.url).finish() == [[0], [True]]
    assert server.requests[1].method == "DELETE"


def test_view_full(lua, server):
    channel = server.channel()
    server.push(channel, b'{"n":1}', {"X-GitHub-Event": "push"})
    server.push(channel, b'{"ts":99}')
    source = """
    local client = longline.new(URL .. "?view=full")
    client:subscribe(function(entry, ts)
      out(ts, entry.ts, entry.headers["x-github-event"], entry.raw, entry.body)
      if ts == 2 then client:stop() end
    end)
    until_(function() return coroutine.status(client.thread) == "dead" end)
    """
    assert lua(source, URL=server.url(channel)).finish() == [
        [1, 1, "push", '{"n":1}', {"n": 1}],
        [2, 2, None, '{"ts":99}', {"ts": 99}],
    ]


def test_full_updates_have_their_own_ts_where_some_are_left_out(lua, stand_in):
    entries = [{"ts": 3, "body": {}}, {"ts": 8, "body": {}}]
    server = stand_in([reply(9, *entries, skipped=7), reply(12, {"ts": 1}, {"ts": 2}, skipped=1)])
    source = """
    local function run(url)
      local client = longline.new(url)
      client:subscribe(function(_, ts) out(ts) end)
      until_(function() return client.ts == 9 or client.ts == 12 end)
      client:stop()
    end
    run(URL .. "?view=full")
    run(URL)
    """
    # Without view=full, a `ts` in an update is the sender's.
    assert lua(source, URL=server.url).finish() == [[3], [8], [10], [12]]


# --- the game ---


def test_garrysmod_whose_http_makes_no_request(game, server):
    """It returns nil, false in newer builds, and calls neither callback."""
    source = """
    local HTTP, results = gmod.globals.HTTP, { "nil", "false" }
    gmod.globals.HTTP = function(parameters)
      local result = table.remove(results, 1)
      if result == "nil" then return nil end
      if result == "false" then return false end
      return HTTP(parameters)
    end
    longline = gmod.include(CLIENT .. "/longline.lua")
    local client = longline.new(URL)
    client.backoff = 0.01
    function client.on_error(err) out(err) end
    client:subscribe(function(update) out(update.n) client:stop() end)
    gmod.run(function() return coroutine.status(client.thread) == "dead" end)
    """
    channel = server.channel()
    server.push(channel, b'{"n":1}')
    assert game(source, URL=server.url(channel)).finish() == [["HTTP() made no request"]] * 2 + [[1]]


# --- several channels ---


GROUP = """
local a, b = longline.new(BASE .. "/a"), longline.new(BASE .. "/b%20%22")
local group = longline.group({ a, b })
group.backoff = 0.01
function group.on_error(...) out("error", ...) end
function a.on_missed(count) out("a missed", count) end
function b.on_reset(ts) out("b reset", ts) end
function b.save(ts, epoch) out("b save", ts, epoch) end
"""
UNTIL_DEAD = "until_(function() return coroutine.status(group.thread) == 'dead' end)"


def body_of(request):
    return json.loads(request.body)


def test_several_channels(lua, stand_in):
    page_a = {"ts": 4, "epoch": FIRST, "missed": 2, "updates": [{"n": 3}, {"n": 4}]}
    server = stand_in(
        [
            reply(7, epoch=SECOND),
            say(channels={"a": page_a}),
            say(channels={}),
            say(channels={'b "': {"ts": 0, "epoch": FIRST, "reset": True, "updates": []}}),
            say(channels={"a": {"error_code": 503, "error_description": "No"}}),
            {"close": True},
            say(channels={'b "': {"ts": 1, "epoch": FIRST, "updates": [{"n": 1}]}}),
        ]
    )
    source = GROUP + """
    group.where = "query.app:x y"
    b.ts = "now"
    group:subscribe(function(update, ts, client) out(client == a and "a" or "b", update.n, ts) if client == b then group:stop() end end, 10)
    """
    told = lua(source + UNTIL_DEAD, BASE=server.url.rsplit("/", 1)[0]).finish()
    assert told == [
        ["b save", 7, SECOND],
        ["a missed", 2],
        ["a", 3, 3],
        ["a", 4, 4],
        ["b reset", 0],
        ["b save", 0, FIRST],
        ["error", "No", 503, False],
        ["error", "closed", None, False],
        ["b", 1, 1],
        ["b save", 1, FIRST],
    ]
    assert server.requests[0].target.startswith("/b%20%22?ts=now&")
    polls = server.requests[1:]
    assert {r.path for r in polls} == {"/-/poll"} and {r.method for r in polls} == {"POST"}
    assert polls[0].query == {"sleep": "10", "limit": "100", "where": "query.app:x y", "epoch": ""}
    assert body_of(polls[0]) == {"a": {"ts": 0, "epoch": ""}, 'b "': {"ts": 7, "epoch": SECOND}}
    assert body_of(polls[1]) == {"a": {"ts": 4, "epoch": FIRST}, 'b "': {"ts": 7, "epoch": SECOND}}
    assert body_of(polls[3]) == {"a": {"ts": 4, "epoch": FIRST}, 'b "': {"ts": 0, "epoch": FIRST}}


def test_several_channels_end_when_longline_says_that_the_request_is_wrong(lua, stand_in):
    server = stand_in([refusal(400, "No"), refusal(400, "No")])
    source = GROUP + "group:subscribe(print)" + UNTIL_DEAD.replace("until_", "\nuntil_")
    assert lua(source, BASE=server.url.rsplit("/", 1)[0]).finish() == [["error", "400: No", 400, True]]


def test_garrysmod_several_channels(game, stand_in):
    server = stand_in([say(channels={"a": {"ts": 1, "updates": [{"n": 1}]}})])
    source = GROUP + """
    group:subscribe(function(update, ts, client) out(client == a, update.n, ts) group:stop() end)
    gmod.run(function() return coroutine.status(group.thread) == "dead" end)
    """
    assert game(source, BASE=server.url.rsplit("/", 1)[0]).finish() == [[True, 1, 1]]
    assert server.requests[0].query["sleep"] == "25"


def test_groups_that_cannot_be(lua):
    source = """
    out((select(2, pcall(longline.group, { longline.new("http://a/x"), longline.new("http://b/y") }))))
    out((select(2, pcall(longline.group, { longline.new("http://a/x"), longline.new("http://a/%78?n=1") }))))
    out((select(2, pcall(longline.group, {}))))
    """
    told = [one[0] for one in lua(source).finish()]
    assert "one server" in told[0] and "twice" in told[1] and "a list of clients" in told[2]
