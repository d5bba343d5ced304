"""The Lua client: Garry's Mod and other environments."""

from lua_script import ODD, ODD_UPDATES, THROWS, check_odd, check_throws

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
    script.wait_for_told(6)
    script.say()
    told = script.finish()
    assert told[0][0] == "threw" and "use publish_async" in told[0][1]
    assert ["async", True, 200, 1] in told
    assert ["publish", True, 200, 2] in told
    assert [one for one in told if one[0] == "update"] == [["update", {"n": 1}, 1], ["update", {"n": 2}, 2]]
    [bad] = [one for one in told if one[0] == "bad"]
    assert bad[1:3] == [False, 400] and "channel name" in bad[3]


def test_garrysmod_odd_updates_hold_nothing_up(game, odd_updates):
    check_odd(game(ODD + f"gmod.run(function() return client.ts == {len(ODD_UPDATES)} end)", URL=odd_updates).finish())


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
    assert told[3] == [False, "400: sleep is a number of seconds: 25, or 2.5", 400]


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
    script.say()
    script.wait_for_told(1)
    server.push(channel)
    server.wait_for_parked(0)
    script.say()
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

# --- other environments ---


def test_functions_of_another_environment(game, server):
    """Upstream's functions for Garry's Mod: they return a body and a status, without a request."""
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
    """As in plain Lua 5.1 without coxpcall. http_get can still wait."""
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


def test_a_program_that_lets_copas_time_things_itself(lua, server, refused_url):
    """Newer copas has sleep and wakeup, which the client uses. We add them to Debian's here."""
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
