"""Pushed code runs in the programs that listen."""

import os
import shutil
import subprocess

import pytest

from longline_server import PATIENCE_S, wait_until
from program import EXAMPLES

LUADEV = EXAMPLES / "luadev"


@pytest.fixture(params=["lua5.1", "luajit"])
def lua(request):
    if not shutil.which(request.param):
        pytest.skip(f"no {request.param}")
    return request.param


class Code:
    """The addresses for code and for answers."""

    def __init__(self, server, addresses):
        self.server = server
        _, self.read_url, self.url = addresses()
        _, self.answers_read_url, self.answers_url = addresses()

    def push(self, code, *name):
        command = [LUADEV / "push.sh", self.url, *name]
        subprocess.run(command, input=code.encode(), check=True, timeout=PATIENCE_S, stdout=subprocess.DEVNULL)

    def answers(self):
        return self.server.get("/" + self.answers_read_url.rsplit("/", 1)[1]).updates

    def wait_for_answers(self, count):
        """The first `count` answers, without those that say that a program is listening."""

        def answers():
            found = [answer for answer in self.answers() if answer.get("result") != "listening"]
            return found if len(found) >= count else None

        found = wait_until(answers, f"{count} answers")
        assert len(found) == count, found
        return found

    def wait_for_listeners(self, names):
        wait_until(
            lambda: sorted(answer["from"] for answer in self.answers() if answer.get("result") == "listening")
            == sorted(names),
            f"{names} to listen",
        )


@pytest.fixture
def code(server, addresses):
    return Code(server, addresses)


@pytest.fixture
def programs(code, run, lua):
    """Two of them, red and blue, that listen."""
    programs = [run(lua, LUADEV / "program.lua", name, code.read_url, code.answers_url) for name in ("red", "blue")]
    code.wait_for_listeners(["red", "blue"])
    return programs


def by_name(answers):
    return {answer["from"]: answer for answer in answers}


def test_code_runs_in_all_programs_and_each_answers(code, programs):
    code.push('print("ann has", players.ann)\nprint(nil, true)\nreturn give("ann", 5), "points"')
    answers = by_name(code.wait_for_answers(2))
    expected = {"ok": True, "ts": 1, "printed": "ann has\t10\nnil\ttrue", "result": "15\tpoints"}
    assert answers == {name: {"from": name, **expected} for name in ("red", "blue")}


def test_one_is_addressed_alone(code, programs):
    code.push('give("ann", 5)', "blue")
    code.push("return players.ann")
    code.wait_for_answers(3)
    results = {answer["from"]: answer["result"] for answer in code.answers() if answer["ts"] == 2}
    assert results == {"red": "10", "blue": "15"}
    assert [answer["from"] for answer in code.answers() if answer["ts"] == 1] == ["blue"]


def test_any_name_can_be_addressed(code, run, lua):
    name = "größe & co=50%25+1#?"
    run(lua, LUADEV / "program.lua", name, code.read_url, code.answers_url)
    code.wait_for_listeners([name])
    code.push("return 1", name)
    code.push("return 2", "another")
    code.push("return 3")
    assert [answer["result"] for answer in code.wait_for_answers(2)] == ["1", "3"]


def test_broken_code_answers_with_its_error_and_the_program_lives_on(code, programs):
    broken = {
        "return return": "unexpected symbol near 'return'",
        "local x = nil\nreturn x.y": "pushed:2: attempt to index local 'x' (a nil value)",
        "error({})": "table: 0x",
        "error()": "nil",
        "(": "unexpected symbol",
    }
    for count, (text, error) in enumerate(broken.items(), start=1):
        code.push(text, "red")
        answer = code.wait_for_answers(count)[-1]
        assert answer["ok"] is False and error in answer["error"] and "result" not in answer, answer
        assert answer["error"].count("stack traceback") <= 1
    code.push("return 6 * 7", "red")
    assert code.wait_for_answers(len(broken) + 1)[-1]["result"] == "42"
    assert [program.process.poll() for program in programs] == [None, None]
    assert [program.stderr for program in programs] == ["", ""]


def test_what_was_printed_before_the_error_is_answered_too(code, programs):
    code.push('print("so far")\nerror("no further")', "red")
    (answer,) = code.wait_for_answers(1)
    assert answer["printed"] == "so far" and "no further" in answer["error"]


def test_it_keeps_its_own_variables_and_leaves_the_programs_alone(code, programs):
    code.push("mine = 1; players = 'no table'; print = nil", "red")
    code.push("return mine, players, _G.players.ann, _G.mine", "red")
    assert code.wait_for_answers(2)[1]["result"] == "1\tno table\t10\tnil"
    code.push("_G.players.ann = 99; players = _G.players", "red")
    code.push("print(players.ann)", "red")
    assert code.wait_for_answers(4)[3]["printed"] == "99"


def test_what_cannot_be_sent_as_it_is(code, programs):
    code.push('return "\\255"', "red")
    assert code.wait_for_answers(1)[0]["result"] == "ÿ"  # no UTF-8: longline reads it as windows-1252
    code.push('return ("x"):rep(1e7)', "red")
    assert len(code.wait_for_answers(2)[1]["result"]) == 32 * 1024
    code.push("", "red")
    assert "no code" in code.wait_for_answers(3)[2]["error"]


def test_code_may_wait_and_the_next_comes_after_it(code, programs):
    code.push('require("longline").thread_pause(0.2)\nreturn "first"', "red")
    code.push('return "second"', "red")
    assert [answer["result"] for answer in code.wait_for_answers(2)] == ["first", "second"]


def test_code_from_before_the_start_is_not_run(code, run, lua):
    code.push('return "old"')
    run(lua, LUADEV / "program.lua", "red", code.read_url, code.answers_url)
    code.wait_for_listeners(["red"])
    code.push('return "new"')
    (answer,) = code.wait_for_answers(1)
    assert (answer["result"], answer["ts"]) == ("new", 2)


def test_the_readmes_curl(code, programs, tmp_path):
    line = next(line.strip() for line in (LUADEV / "README.md").read_text().splitlines() if "@code.lua" in line)
    (tmp_path / "code.lua").write_text("-- & + % =\nreturn 'from curl'")
    subprocess.run(
        ["bash", "-c", line.replace("?to=red", "?to=blue")],
        cwd=tmp_path,
        env={**os.environ, "CODE": code.url},
        check=True,
        timeout=PATIENCE_S,
        capture_output=True,
    )
    (answer,) = code.wait_for_answers(1)
    assert answer == {"from": "blue", "ts": 1, "ok": True, "printed": "", "result": "from curl"}
