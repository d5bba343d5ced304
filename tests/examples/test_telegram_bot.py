"""A bot in two halves, a second bot on the same channel, and missed updates."""

import json
import shutil
import time
import urllib.error
import urllib.request
from urllib.parse import urlencode

import pytest

from longline_server import PATIENCE_S, wait_until
from program import EXAMPLES, PYTHON

BOT = EXAMPLES / "telegram-bot"
ALPHA, BETA = "111:AAA", "222:BBB"
USER_ID = 4503599627370495


class Sender:
    """The stand-in for Telegram."""

    def __init__(self, run):
        self.program = run(PYTHON, BOT / "sender.py", 0)
        self.api = self.program.wait_for_line("Bot API at").split()[-1]

    def call(self, token, method, **parameters):
        request = f"{self.api}/bot{token}/{method}"
        with urllib.request.urlopen(request, urlencode(parameters).encode(), timeout=PATIENCE_S) as reply:
            return json.loads(reply.read())

    def write(self, token, text):
        self.program.say(f"{token} {text}")

    def answers(self, token):
        records = [json.loads(line) for line in self.program.lines[1:]]
        assert all(record["chat_id"] == USER_ID for record in records)
        return [record["text"] for record in records if record["bot"] == token]

    def wait_for_answer(self, token, text):
        self.program.wait_for(lambda _: text in self.answers(token), f"{text!r} from {token}")


@pytest.fixture
def sender(run, send_url):
    """Telegram, with both bots' webhooks set to one channel."""
    sender = Sender(run)
    for token, appname in ((ALPHA, "alpha"), (BETA, "beta")):
        assert sender.call(token, "setWebhook", url=f"{send_url}?appname={appname}")["ok"]
    return sender


@pytest.fixture(params=["lua5.1", "luajit"])
def lua(request):
    if not shutil.which(request.param):
        pytest.skip(f"no {request.param}")
    return request.param


@pytest.fixture
def start_half(run, read_url, sender):
    """start_half(interpreter, token, appname) starts bot.py or bot.lua.

    Its cursor file is APPNAME-INTERPRETER.ts.
    """

    def start(interpreter, token, appname):
        program = BOT / ("bot.py" if interpreter == PYTHON else "bot.lua")
        cursor = f"{appname}-{interpreter.rsplit('/', 1)[-1]}.ts"
        return run(interpreter, program, read_url, appname, cursor, BOT_TOKEN=token, TELEGRAM=sender.api)

    return start


def test_both_halves_answer_each_its_own(sender, start_half, lua):
    halves = [start_half(lua, ALPHA, "alpha"), start_half(PYTHON, ALPHA, "alpha")]
    for text in ("/ping", "/sum 1 2 39", "/unknown", "no command", "/id", "/sum@alpha_bot a", "/ping@alpha_bot"):
        sender.write(ALPHA, text)
    # Each half answers in order, but they do not wait for each other.
    sender.program.wait_for(lambda _: len(sender.answers(ALPHA)) == 5, "five answers")
    answers = sender.answers(ALPHA)
    assert [answer for answer in answers if answer in ("pong", str(USER_ID))] == ["pong", str(USER_ID), "pong"]
    assert [answer for answer in answers if answer not in ("pong", str(USER_ID))] == ["42", "Like this: /sum 1 2 3"]
    assert [half.stderr for half in halves] == ["", ""]
    assert sender.program.stderr == ""


def test_two_bots_on_one_channel_are_told_apart(sender, start_half, lua):
    for token, appname in ((ALPHA, "alpha"), (BETA, "beta")):
        start_half(lua, token, appname)
        start_half(PYTHON, token, appname)
    sender.write(ALPHA, "/ping")
    sender.write(BETA, "/sum 20 3")
    sender.write(ALPHA, "/sum 1 0")
    sender.write(BETA, "/id")
    sender.program.wait_for(lambda lines: len(lines) == 5, "four answers")
    assert sorted(sender.answers(ALPHA)) == ["1", "pong"]
    assert sorted(sender.answers(BETA)) == ["23", str(USER_ID)]


@pytest.mark.parametrize("half", ["lua5.1", "luajit", PYTHON])
def test_what_was_missed_is_answered_once(server, target, tmp_path, sender, start_half, half):
    if not shutil.which(half):
        pytest.skip(f"no {half}")
    command = {PYTHON: "/sum 1 {}"}.get(half, "/ping {}")
    cursor = tmp_path / f"alpha-{half.rsplit('/', 1)[-1]}.ts"

    def write(number):
        sender.write(ALPHA, command.format(number))
        wait_until(lambda: server.get(target).ts == number, "the webhook to be pushed")

    def answered(program, number):
        wait_until(lambda: cursor.exists() and cursor.read_text().split(" ")[0] == str(number), f"the cursor {number}\n{program.describe()}")

    bot = start_half(half, ALPHA, "alpha")
    write(1)
    answered(bot, 1)
    bot.kill()
    write(2)
    write(3)
    server.restart()
    bot = start_half(half, ALPHA, "alpha")
    answered(bot, 3)
    bot.terminate()
    bot = start_half(half, ALPHA, "alpha")
    write(4)
    answered(bot, 4)
    expected = ["2", "3", "4", "5"] if half == PYTHON else ["pong"] * 4
    assert sender.answers(ALPHA) == expected
    assert bot.lines == [f"{command.format(4)} -> {expected[-1]}"]


@pytest.mark.parametrize("interpreter", ["lua5.1", "luajit", PYTHON])
def test_updates_of_other_kinds_do_not_stop_it(server, target, sender, start_half, interpreter):
    if not shutil.which(interpreter):
        pytest.skip(f"no {interpreter}")
    bot = start_half(interpreter, ALPHA, "alpha")
    for update in (
        b'{"update_id":1,"callback_query":{"id":"1234567890123456789","data":"/ping"}}',
        b'{"update_id":2,"message":{"message_id":1,"chat":{"id":4503599627370495},"photo":[]}}',
        b'{"update_id":3,"message":null}',
        b'{"update_id":4,"message":{"text":null}}',
        b'{"update_id":5,"message":{"message_id":1,"from":{"id":1},"chat":{"id":1},"text":"/sum 1"}}',
        b'{"update_id":6,"message":{"message_id":1,"from":{"id":1},"chat":{"id":1},"text":"/ping"}}',
        b"[1,2]",
        b"",
    ):
        server.push(target + "?appname=alpha", update)
    server.push(target, b"[1,2]")
    sender.write(ALPHA, "/sum 7" if interpreter == PYTHON else "/id")
    sender.wait_for_answer(ALPHA, "7" if interpreter == PYTHON else str(USER_ID))
    # Telegram refused the answer to an unknown chat, and the bot logged that.
    assert "400" in bot.stderr


@pytest.mark.skipif(not shutil.which("lua5.1"), reason="no lua5.1")
def test_an_answer_is_sent_again_and_what_is_given_up_is_said(server, read_url, target, run, stand_in):
    # How Telegram treats answers 10 to 12 of the Lua half and 20 to 22 of Python's. It takes the rest.
    statuses = {f"{half}{i}": each[:] for half in "12" for i, each in enumerate(([500, 429, None, 502], [403], [500]))}
    calls = []

    def answer(body):
        text = json.loads(body)["text"]
        calls.append((text, time.monotonic()))
        status = statuses[text].pop(0) if statuses[text] else 200
        return status and (status, b"")

    api = stand_in(answer)
    halves = {
        half: run(*command, read_url, "alpha", f"{half}.ts", BOT_TOKEN=ALPHA, TELEGRAM=api)
        for half, command in {"1": ("lua5.1", BOT / "bot.lua"), "2": (PYTHON, BOT / "bot.py")}.items()
    }
    for i in range(3):  # Updates 1, 3 and 5 are for the Lua half, and 2, 4 and 6 for Python's.
        for text in ("/id", f"/sum 2{i}"):
            message = {"message_id": 1, "from": {"id": 10 + i}, "chat": {"id": 1}, "text": text}
            server.push(target + "?appname=alpha", json.dumps({"message": message}).encode())
    for half, bot in halves.items():
        bot.wait_for_line(f"-> {half}2")
        times = [[at for text, at in calls if text == f"{half}{i}"] for i in range(3)]
        assert [len(each) for each in times] == [4, 1, 2]
        assert all(later - earlier > pause for earlier, later, pause in zip(times[0], times[0][1:], (1, 2, 4)))
        for number, status in ((int(half), "502"), (int(half) + 2, "403")):
            assert any(f"update {number}" in line and status in line for line in bot.stderr.splitlines()), bot.describe()
        assert f"update {int(half) + 4}" not in bot.stderr and len(bot.lines) == 1


def test_the_stand_in_refuses_a_chat_that_lost_its_last_bits(sender):
    with pytest.raises(urllib.error.HTTPError) as failure:
        sender.call(ALPHA, "sendMessage", chat_id="4.503599627371e+15", text="x")
    assert failure.value.code == 400
