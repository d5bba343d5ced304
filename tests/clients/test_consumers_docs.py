"""The programs of docs/consumers.md, and the short loop of docs/start.md, as they stand there: each can be left running."""

import ast
import concurrent.futures
import contextlib
import itertools
import json
import random
import re
import shutil
import subprocess
import threading
import time

import pytest
from bad_proxy import CUTS, PASSING, BadProxy, page
from longline_server import REPOSITORY, Server, wait_until
from lua_script import ODD_UPDATES
from program import PYTHON, Program
from standin import StandIn, refusal, reply, reply_bytes

# Heading, file name, what runs it. C# and PowerShell are not in Debian.
LANGUAGES = {
    "bash": ("consumer.sh", ["bash"]),
    "Python": ("consumer.py", [PYTHON]),
    "Node": ("consumer.mjs", ["node"]),
    "Go": ("consumer.go", ["go"]),
    "PHP": ("consumer.php", ["php"]),
    "Ruby": ("consumer.rb", ["ruby"]),
}
SHORT = "the short loop"
PATIENCE_S = 60


def source_of(language):
    """The program under the language's heading; the short loop stands in docs/start.md."""
    text = (REPOSITORY / ("docs/start.md" if language == SHORT else "docs/consumers.md")).read_text("utf-8")
    if language != SHORT:
        [text] = re.findall(rf"^## {re.escape(language)}$(.*?)(?=^## |\Z)", text, re.M | re.S)
    return re.search(r"^```\w+\n(.*?)^```$", text[text.index("In Python, with nothing") if language == SHORT else 0 :], re.M | re.S)[1]


BUILDING = threading.Lock()


def go_binary(path, built=[]):
    """The program, which is built once."""
    with BUILDING:
        if not built:
            subprocess.run(["go", "build", "-o", path.with_suffix(""), path], check=True, cwd=path.parent)
            built.append(path.with_suffix(""))
        return built[0]


class Consumer:
    """One of the programs, as it is started, killed and started again with the same file."""

    def __init__(self, directory, language, replace=("", "")):
        self.language = language
        self.place = directory / "place"
        self.directory = directory
        self.heard = []  # one list of updates for each start
        self.run = None
        directory.mkdir()
        name, self.command = LANGUAGES.get(language, ("loop.py", [PYTHON]))
        path = directory / name
        source = source_of(language)
        assert replace[0] in source
        path.write_text(source.replace(*replace) if replace[0] else source)
        self.command = [*self.command, path]
        if language == "Go":
            self.command = [go_binary(path)]

    def start(self, url):
        self.heard.append([])
        arguments = [url] if self.language == SHORT else [url, self.place]
        self.run = Program(self.directory / f"run-{len(self.heard)}", [*self.command, *arguments])

    @property
    def updates(self):
        """What it has handled since it was started."""
        read = ast.literal_eval if self.language == SHORT else json.loads
        # Python's own limit is 4300 digits.
        self.heard[-1] = [read(re.sub(r"\d{4000,}", "0", line)) for line in self.run.lines]
        return self.heard[-1]

    def wait_for(self, condition, what):
        self.run.wait_for(lambda _: condition(self.updates), what, PATIENCE_S)

    def kill(self):
        if self.run:
            self.run.kill()
            self.stderr = self.run.stderr
            self.updates  # its last
            self.run = None


class Workshop:
    """Starts what a test needs, and ends it after the module."""

    def __init__(self, directory, server):
        self.directory = directory
        self.server = server
        self._numbers = itertools.count()
        self._stack = contextlib.ExitStack()

    def consumer(self, language, url, replace=("", "")):
        needed = LANGUAGES[language][1][0] if language != SHORT else PYTHON
        if not shutil.which(needed):
            pytest.skip(f"skipped: {needed} is not installed")
        consumer = Consumer(self.directory / f"consumer-{next(self._numbers)}", language, replace)
        self._stack.callback(consumer.kill)
        consumer.start(url)
        return consumer

    def proxy(self, port, mood):
        proxy = BadProxy(port, mood)
        self._stack.callback(proxy.end)
        return proxy

    def stand_in(self, script):
        stand_in = StandIn(script)
        self._stack.callback(stand_in.end)
        return stand_in

    def own_server(self):
        server = Server(self.directory / f"server-{next(self._numbers)}", SYNC="never")
        self._stack.callback(server.finish)
        return server.start().keep_address()

    def end(self):
        self._stack.close()


@pytest.fixture(scope="module")
def workshop(tmp_path_factory, shared_server):
    workshop = Workshop(tmp_path_factory.mktemp("consumers"), shared_server)
    yield workshop
    workshop.end()


@pytest.fixture(scope="module")
def side_by_side(workshop):
    """side_by_side(request, body) runs body(workshop, language) for all languages of this test at once, as
    they wait most of the time, and returns when that of this one's language is done."""
    running = {}
    pool = concurrent.futures.ThreadPoolExecutor(len(LANGUAGES) + 1)

    def run(request, body):
        for item in request.session.items:
            if item.function is request.function:
                key = body, item.callspec.params["language"]
                if key not in running:
                    running[key] = pool.submit(body, workshop, key[1])
        key = body, request.node.callspec.params["language"]
        try:
            running[key].result()
        except BaseException:
            del running[key]  # so that it can be tried again
            raise

    yield run
    pool.shutdown()


@pytest.fixture
def start_consumer(workshop):
    return workshop.consumer


every_language = pytest.mark.parametrize("language", LANGUAGES)
every_loop = pytest.mark.parametrize("language", [*LANGUAGES, SHORT])


def bad_day(language):
    """A mood: everything that a proxy can do, in a random order, with a poll that passes after each."""
    deck = [("cut", 0.65, how) for how in CUTS]
    # The short loop follows redirects.
    deck += [("say", what) for what in PASSING if language != SHORT or b" 302 " not in what]
    deck += [("half",), ("say", reply_bytes(refusal(429, Retry_After="1")["reply"])), ("say", reply_bytes(refusal(503)["reply"]))]
    random.Random(language).shuffle(deck)
    # The short loop pauses for seconds.
    deck = [each for card in deck[:: 2 if language == SHORT else 1] for each in (card, ("cut", 3, b""))]
    mood = lambda number: deck[number] if number < len(deck) else ("cut", 3, b"")
    mood.cards = len(deck)
    return mood


def survive_a_bad_day(workshop, language):
    server = workshop.own_server()
    channel = server.channel()
    mood = bad_day(language)
    proxy = workshop.proxy(server.port, mood)
    consumer = workshop.consumer(language, f"http://127.0.0.1:{proxy.port}{channel}")
    pauses = random.Random(language)
    pushed = 0
    deadline = time.monotonic() + 300
    incidents = {mood.cards // 3: "proxy", 2 * mood.cards // 3: "server"}
    while proxy.count < mood.cards:
        assert time.monotonic() < deadline and consumer.run.is_alive, consumer.run.describe()
        pushed += 1
        server.push(channel, b'{"n":%d}' % pushed)
        time.sleep(pauses.choice([0, 0.01, 0.2, 0.7, 0.9]))
        if incidents and proxy.count >= min(incidents):
            if incidents.pop(min(incidents)) == "proxy":
                proxy.go_away()
                time.sleep(0.3)
                proxy.come_back()
            else:
                server.kill9()
                time.sleep(0.3)
                server.start()
    pushed += 1
    server.push(channel, b'{"n":%d}' % pushed)
    consumer.wait_for(lambda updates: updates[-1:] == [{"n": pushed}], "the last update")
    assert consumer.updates == [{"n": n} for n in range(1, pushed + 1)]
    consumer.kill()


@pytest.mark.timed
@every_loop
def test_no_update_is_lost_or_comes_twice_on_a_bad_day(language, request, side_by_side):
    side_by_side(request, survive_a_bad_day)


@every_language
def test_a_consumer_that_is_killed_goes_on_where_it_was(language, start_consumer, server):
    channel = server.channel()
    consumer = start_consumer(language, server.url(channel))
    pushed = 0
    for part in range(4):
        for _ in range(150):
            pushed += 1
            server.push(channel, b'{"n":%d}' % pushed)
        wanted = [pushed, pushed - 40, pushed - 100, pushed][part]
        consumer.wait_for(lambda updates: updates and updates[-1]["n"] >= wanted, f"update {wanted}")
        if part < 3:
            consumer.kill()
            consumer.start(server.url(channel))
    consumer.kill()
    last = 0
    for run in consumer.heard:
        numbers = [update["n"] for update in run]
        assert not numbers or numbers == list(range(numbers[0], numbers[-1] + 1)), "out of order, or twice"
        assert not numbers or numbers[0] <= last + 1, f"{last + 1} to {numbers[0] - 1} are lost"
        last = max([last, *numbers])
    assert last == pushed


@every_language
def test_its_place_is_after_the_last_page(language, start_consumer, server):
    channel = server.channel()
    for n in (1, 2):
        server.push(channel, b'{"n":%d}' % n)
    consumer = start_consumer(language, server.url(channel))
    wait_until(lambda: consumer.place.exists() and consumer.place.read_text().split(" ")[0] == "2", "its place in the file")
    consumer.kill()
    server.push(channel, b'{"n":3}')
    consumer.start(server.url(channel))
    consumer.wait_for(lambda updates: updates, "the next update")
    assert consumer.heard == [[{"n": 1}, {"n": 2}], [{"n": 3}]]


def hear_at_once(workshop, language, mood, cuts):
    """Waits for that many cuts first. Returns the proxy, and what the program told."""
    # Not the shared server's connection: that is for one thread.
    server = workshop.own_server()
    channel = server.channel()
    proxy = workshop.proxy(server.port, mood)
    consumer = workshop.consumer(language, f"http://127.0.0.1:{proxy.port}{channel}")
    wait_until(lambda: proxy.cuts >= cuts or not consumer.run.is_alive, "cuts", PATIENCE_S)
    late = []
    for n in range(1, 7):
        server.push(channel, b'{"n":%d}' % n)
        pushed_at = time.monotonic()
        consumer.wait_for(lambda updates: len(updates) >= n, f"update {n}")
        late.append(time.monotonic() - pushed_at)
        time.sleep(0.37)
    assert max(late) < 1, late
    consumer.kill()
    return proxy, consumer.stderr


def hear_after_a_second(workshop, language):
    cuts = itertools.cycle(CUTS)

    def mood(number):
        # A failure between cuts is the first in a row. (The short loop pauses for seconds after any.)
        return ("say", b"") if number % 2 and language != SHORT else ("cut", 1, next(cuts))

    hear_at_once(workshop, language, mood, len(CUTS))


def hear_after_two_seconds(workshop, language):
    cuts = itertools.cycle(CUTS)
    proxy, told = hear_at_once(workshop, language, lambda _: ("cut", 2, next(cuts)), 3)
    if language != SHORT:
        # Most polls lasted their whole time: this is no outage.
        assert told.count("again in") <= proxy.cuts // 2, told


@pytest.mark.timed
@every_loop
def test_nothing_is_late_behind_a_proxy_that_cuts_after_a_second(language, request, side_by_side):
    side_by_side(request, hear_after_a_second)


@pytest.mark.timed
@every_loop
def test_nothing_is_late_behind_a_proxy_that_cuts_after_two_seconds(language, request, side_by_side):
    """The wait becomes 1.5 s."""
    side_by_side(request, hear_after_two_seconds)


def tell_of_an_outage(workshop, language):
    came = []

    def mood(number):
        came.append(time.monotonic())
        time.sleep(0.6)  # and no server that may answer after all, if this is late
        return "say", page(502, Connection="close")

    proxy = workshop.proxy(workshop.server.port, mood)
    consumer = workshop.consumer(language, f"http://127.0.0.1:{proxy.port}{workshop.server.channel()}")
    wait_until(lambda: proxy.count >= 7, "seven polls", PATIENCE_S)
    consumer.kill()
    waits = [after - before for before, after in zip(came, came[1:])]
    assert min(waits[2:]) >= 0.84, (waits, consumer.stderr)
    assert consumer.stderr.count("again in") in (5, 6), consumer.stderr


@pytest.mark.timed
@every_language
def test_an_outage_that_looks_like_cuts_is_told_and_paced(language, request, side_by_side):
    side_by_side(request, tell_of_an_outage)


def back_off_after_silence(workshop, language):
    server = workshop.stand_in([{"delay_ms": 1000, "close": True}, {"delay_ms": 6500, "close": True}])
    consumer = workshop.consumer(language, server.url)
    server.wait_for_held(lambda: consumer.run.is_alive)
    consumer.kill()
    first, second, third = [request.at for request in server.requests]
    assert second - first < 2 and third - second >= 6.74, server.requests
    assert consumer.stderr.count("again in") == 1, consumer.stderr


@pytest.mark.timed
@every_language
def test_what_ends_long_after_its_time_was_not_cut(language, request, side_by_side):
    side_by_side(request, back_off_after_silence)


@every_language
def test_it_ends_when_longline_says_that_the_request_is_wrong(language, start_consumer, server):
    consumer = start_consumer(language, server.url(server.channel() + "/no/channel"))
    assert consumer.run.wait() not in (0, None), consumer.run.describe()
    assert "No such path" in consumer.run.stderr
    assert consumer.updates == []


# What takes the place of a program's `handle`, and fails at the update 2.
FAILING = {
    "bash": ("handle() { printf", 'handle() { [ "$1" != \'{"n":2}\' ] && printf'),
    "Python": ("    print(json.dumps(update)", "    assert update['n'] != 2\n    print(json.dumps(update)"),
    "Node": ("    console.log(", "    if (update.n === 2) throw new Error();\n    console.log("),
    "PHP": ("    echo json_encode", "    if ($update['n'] === 2) throw new Exception();\n    echo json_encode"),
    "Ruby": ("  puts JSON", "  raise if update['n'] == 2\n  puts JSON"),
}


@pytest.mark.parametrize("language", FAILING)
def test_it_ends_when_handle_fails(language, workshop, server):
    channel = server.channel()
    for n in (1, 2, 3):
        server.push(channel, b'{"n":%d}' % n)
    consumer = workshop.consumer(language, server.url(channel), FAILING[language])
    assert consumer.run.wait() not in (0, None), consumer.run.describe()
    assert consumer.updates == [{"n": 1}] and not consumer.place.exists()


def test_bash_loses_nothing_when_jq_fails(start_consumer, server, tmp_path, monkeypatch):
    """A jq that fails on the first updates that it shows, after the first one."""
    jq = tmp_path / "jq"
    jq.write_text(f"""#!/bin/sh
case "$*" in
    "-c .updates[] "*) [ -e {tmp_path}/failed ] || {{ touch {tmp_path}/failed; {shutil.which("jq")} "$@" | head -n 1; exit 5; }};;
esac
exec {shutil.which("jq")} "$@"
""")
    jq.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    channel = server.channel()
    for n in (1, 2, 3):
        server.push(channel, b'{"n":%d}' % n)
    consumer = start_consumer("bash", server.url(channel))
    consumer.wait_for(lambda updates: updates[-1:] == [{"n": 3}], "the last update")
    assert (tmp_path / "failed").exists()
    assert consumer.updates == [{"n": 1}, {"n": 2}, {"n": 3}]


@every_language
def test_epoch_and_reset(language, start_consumer, stand_in):
    first, second = "00c0ffee00c0ffee", "fedcba9876543210"

    def poll(ts, epoch, answer):
        return {**answer, "expect": {"ts": str(ts), "epoch": epoch, "limit": None}}

    script = [
        poll(0, "", reply(2, {"n": 1}, {"n": 2}, epoch=first)),
        poll(2, first, reply(1, epoch=second, reset=True)),
        poll(1, second, reply(2, {"m": 2}, epoch=second, missed=3)),
        {"close": True, "expect": {"ts": "2", "epoch": second, "limit": None}},
        poll(2, second, reply(3, {"m": 3})),
        poll(3, second, reply(4, {"m": 4})),
    ]
    server = stand_in(script)
    consumer = start_consumer(language, server.url)
    wait_until(lambda: len(server.requests) > len(script), "all polls", PATIENCE_S)
    wait_until(lambda: consumer.place.read_text() == f"4 {second}\n", "its place in the file")
    assert consumer.updates == [{"n": 1}, {"n": 2}, {"m": 2}, {"m": 3}, {"m": 4}]
    assert "reset" in consumer.run.stderr and "missed 3" in consumer.run.stderr
    assert server.problems == [f"request 7, {server.requests[6]}: limit is not 100"], server.problems
    # What ends at once is a failure, which is told. To a program that was held up for half a second it is a cut.
    took = server.requests[4].at - server.requests[3].at
    sure = 4 if took >= 0.5 and "again in" not in consumer.run.stderr else 7
    assert [request.query["sleep"].removesuffix(".000") for request in server.requests[:sure]] == ["25"] * sure


@every_language
def test_what_nobody_expects_stops_no_program(language, start_consumer, server):
    channel = server.channel()
    odd = [*ODD_UPDATES, '{"a":1,"A":2}', r'{"\u0000a":{"":1}}', "[" * 195 + "]" * 195, '{"n":' + "7" * 5000 + "}", '"text"', "5", '{"t":"2026-11-29T10:00:00Z"}']
    for update in odd:
        server.push(channel, update.encode())
    server.push(channel, b'{"n":"end"}')
    consumer = start_consumer(language, server.url(channel))
    consumer.run.wait_for(lambda lines: lines[-1:] == ['{"n":"end"}'] or lines[-1:] == ['{"n": "end"}'], "the last update", PATIENCE_S)
    assert len(consumer.run.lines) == len(odd) + 1


def come_back_when_told(workshop, language):
    came = []

    def mood(number):
        came.append(time.monotonic())
        return ("say", reply_bytes(refusal(503, Retry_After="1")["reply"])) if number < 6 else ("pass",)

    proxy = workshop.proxy(workshop.server.port, mood)
    consumer = workshop.consumer(language, f"http://127.0.0.1:{proxy.port}{workshop.server.channel()}")
    wait_until(lambda: proxy.count >= 7, "seven polls", PATIENCE_S)
    waits = [after - before for before, after in zip(came, came[1:])]
    assert 0.99 <= min(waits) and max(waits) < 3, waits
    assert max(waits) - min(waits) > 0.02, waits  # evenly spread over half a second, six are never that close
    consumer.kill()


@pytest.mark.timed
@every_language
def test_retry_after_is_stretched_at_random(language, request, side_by_side):
    side_by_side(request, come_back_when_told)


def test_the_programs_that_are_not_run_say_so():
    text = (REPOSITORY / "docs/consumers.md").read_text("utf-8")
    sections = dict(re.findall(r"^## (.*?)$(.*?)(?=^## |\Z)", text, re.M | re.S))
    not_run = {name for name, section in sections.items() if "It was not run." in section}
    assert not_run == {name for name, section in sections.items() if "```" in section} - set(LANGUAGES)
