"""`longline completion`: bash, zsh and fish complete commands, options and their values with what it prints."""

import os
import pty
import re
import select
import shutil
import subprocess
import time

import pytest
from commands import is_refused, run
from longline_server import BINARY, PATIENCE_S

COMMANDS = {"send", "tail", "forward", "exec", "doctor", "serve", "health", "new", "check", "backup", "completion", "help"}
LINES = [
    ("longline ", COMMANDS),
    ("longline fo", {"forward"}),
    ("longline --", {"--help", "--version"}),
    ("longline forward --on", {"--on-reject"}),
    ("longline forward --k", {"--keep-host"}),
    ("longline forward http://h/x --on-reject s", {"stop", "skip"}),
    ("longline forward http://h/x --on-reject=st", {"stop"}),
    ("longline exec http://h/x --state pl", {"place"}),
    ("longline exec http://h/x --state=place/k", {"place/kept"}),
    ("longline tail --k", set()),
    ("longline tail h", set()),
    ("longline tail --since p", set()),
    ("longline send http://h/x -d @p", {"@payload.json", "@place"}),
    ("longline send http://h/x --data=@pa", {"@payload.json"}),
    ("longline send http://h/x --data p", set()),
    ("longline new --", {"--keys", "--json", "--help"}),
    ("longline serve --data-p", {"--data-provider", "--data-path"}),
    ("longline serve --data-provider m", {"memory"}),
    ("longline serve --data-path=pay", {"payload.json"}),
    ("longline health --lis", {"--listen"}),
    ("longline health --purge o", {"on", "off"}),
    ("longline check pay", {"payload.json"}),
    ("longline completion z", {"zsh"}),
    ("longline help ta", {"tail"}),
    ("longline help --", {"--man", "--help"}),
    ("longline help tail --f", set()),
]
# What is typed before a tab, and what then stands there.
TYPED = [
    ("longline fo", "longline forward "),
    ("longline --ver", "--version"),
    ("longline forward --on", "--on-reject="),
    ("longline forward --on-reject=st", "--on-reject=stop"),
    ("longline forward --keep", "--keep-host"),
    ("longline send http://h/x -d @pay", "@payload.json"),
    ("longline exec http://h/x --state=pla", "--state=place/"),
    ("longline serve --data-provider=m", "--data-provider=memory"),
    ("longline health --purge of", "--purge off"),
    ("longline new --k", "--keys"),
    ("longline check pay", "check payload.json"),
    ("longline help doc", "help doctor"),
    ("longline exec http://h/x --on", "--on-reject="),
    ("longline tail http://h/x --fu", "--full"),
    ("longline exec http://h/x -- cat pay", "cat payload.json"),
]


def script_of(shell):
    ended = run("completion", shell)
    assert ended.returncode == 0 and ended.stderr == ""
    return ended.stdout


def needs(shell):
    return pytest.mark.skipif(not shutil.which(shell), reason=f"{shell} is not installed")


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "payload.json").write_text("{}")
    (tmp_path / "place").mkdir()
    (tmp_path / "place/kept").write_text("")
    return tmp_path


def offers_of(lines):
    """The words that a shell offers: without what it shows beside them, and what stands before a value."""
    words = (re.sub(r"^--[\w-]+=(?=.)", "", line.split("\t")[0]) for line in lines)
    return {word.strip("= ").rstrip("/") for word in words} - {""}


def bash(line, cwd):
    """What bash offers for the last word of the line."""
    ask = """
source <(printf %s "$SCRIPT")
COMP_LINE=$LINE COMP_POINT=${#LINE} word=${LINE##* }
compopt() { :; }
_longline longline "${word##*=}"
printf '%s\n' "${COMPREPLY[@]}"
"""
    environment = {**os.environ, "SCRIPT": script_of("bash"), "LINE": line}
    ended = subprocess.run(["bash", "-c", ask], cwd=cwd, env=environment, capture_output=True, text=True, timeout=4 * PATIENCE_S)
    assert ended.stderr == ""
    return offers_of(ended.stdout.splitlines())


def fish(line, cwd):
    ask = 'echo "$SCRIPT" | source; complete -C "$LINE"'
    environment = {**os.environ, "SCRIPT": script_of("fish"), "LINE": line, "HOME": str(cwd)}
    ended = subprocess.run(["fish", "--no-config", "-c", ask], cwd=cwd, env=environment, capture_output=True, text=True, timeout=4 * PATIENCE_S)
    return offers_of(ended.stdout.splitlines())


@needs("bash")
@pytest.mark.parametrize("line,offered", LINES)
def test_bash(directory, line, offered):
    assert bash(line, directory) == offered


@needs("fish")
@pytest.mark.parametrize("line,offered", LINES)
def test_fish(directory, line, offered):
    """Fish 4 offers as well what only holds the word."""
    word = re.split("[ =]", line)[-1]
    assert {each for each in fish(line, directory) if each.startswith(word)} == offered


@pytest.mark.parametrize("shell", [pytest.param(bash, marks=needs("bash")), pytest.param(fish, marks=needs("fish"))])
def test_a_command_of_its_own(directory, shell):
    assert "printf" in shell("longline exec http://h/x -- prin", directory)
    assert shell("longline exec http://h/x -- cat pay", directory) == {"payload.json"}
    assert "exec" in shell("longline exec", directory)


class Terminal:
    """A shell on a terminal, which is where it completes."""

    def __init__(self, directory, *command):
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.environ.update(HOME=str(directory), TERM="dumb", PS1="", PATH=f"{BINARY.parent}:{os.environ['PATH']}")
            os.chdir(directory)
            os.execvp(command[0], command)
        self.shown = ""

    def say(self, text):
        self.shown = ""
        os.write(self.terminal, text.encode())

    def wait_for(self, text):
        end = time.monotonic() + PATIENCE_S
        while text not in self.shown:
            assert time.monotonic() < end, f"no {text!r} in {self.shown!r}"
            if select.select([self.terminal], [], [], 0.1)[0]:
                self.shown += os.read(self.terminal, 65536).decode("utf-8", "replace")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)


def complete_typed(terminal, setup):
    terminal.say(f"{setup}; echo rea''dy\n")
    terminal.wait_for("ready")
    for typed, shown in TYPED:
        terminal.say(f"\x15{typed}\t")
        terminal.wait_for(shown)


@needs("bash")
def test_bash_on_a_terminal(directory):
    with Terminal(directory, "bash", "--norc", "--noprofile", "-i") as terminal:
        complete_typed(terminal, "source <(longline completion bash)")


@needs("zsh")
def test_zsh_on_a_terminal(directory):
    (directory / "_longline").write_text(script_of("zsh"))
    with Terminal(directory, "zsh", "-f", "-i") as terminal:
        complete_typed(terminal, "fpath=($PWD $fpath); autoload -U compinit; compinit -u -D")


def test_bad_usage_is_one_line():
    for arguments in ([], ["tcsh"], ["bash", "zsh"]):
        is_refused(run("completion", *arguments), 64)
