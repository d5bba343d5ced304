"""`longline completion`: bash, zsh and fish complete commands, options and files with what it prints."""

import os
import pty
import select
import shutil
import subprocess
import time

import pytest
from commands import is_refused, run
from longline_server import BINARY, PATIENCE_S

COMMANDS = {"send", "tail", "forward", "exec", "doctor", "serve", "health", "new", "check", "completion", "help"}
LINES = [
    ("longline ", COMMANDS),
    ("longline fo", {"forward"}),
    ("longline forward --on", {"--on-reject"}),
    ("longline forward --k", {"--keep-host"}),
    ("longline tail --k", set()),
    ("longline completion z", {"zsh"}),
]


def script_of(shell):
    ended = run("completion", shell)
    assert ended.returncode == 0 and ended.stderr == ""
    return ended.stdout


def needs(shell):
    return pytest.mark.skipif(not shutil.which(shell), reason=f"{shell} is not installed")


def bash(line, cwd):
    """What bash offers for the last word of the line, which has no = in it."""
    ask = """
source <(printf %s "$SCRIPT")
COMP_WORDS=(${LINE% *} "${LINE##* }") COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
compopt() { :; }
_longline
printf '%s\\n' "${COMPREPLY[@]}"
"""
    environment = {**os.environ, "SCRIPT": script_of("bash"), "LINE": line}
    ended = subprocess.run(["bash", "-c", ask], cwd=cwd, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    assert ended.stderr == ""
    return {word.strip("= ") for word in ended.stdout.splitlines()} - {""}


def fish(line, cwd):
    ask = 'echo "$SCRIPT" | source; complete -C "$LINE"'
    environment = {**os.environ, "SCRIPT": script_of("fish"), "LINE": line, "HOME": str(cwd)}
    ended = subprocess.run(["fish", "--no-config", "-c", ask], cwd=cwd, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    return {offer.split("\t")[0].strip("= ") for offer in ended.stdout.splitlines()}


@needs("bash")
@pytest.mark.parametrize("line,offered", LINES)
def test_bash(tmp_path, line, offered):
    assert bash(line, tmp_path) == offered
    assert "printf" in bash("longline exec http://h/x -- prin", tmp_path), "a command of its own"


@needs("fish")
@pytest.mark.parametrize("line,offered", LINES)
def test_fish(tmp_path, line, offered):
    assert fish(line, tmp_path) == offered


class Zsh:
    """A zsh on a terminal, which is where it completes."""

    def __init__(self, directory):
        (directory / "_longline").write_text(script_of("zsh"))
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.environ.update(HOME=str(directory), TERM="dumb", PS1="", PATH=f"{BINARY.parent}:{os.environ['PATH']}")
            os.chdir(directory)
            os.execvp("zsh", ["zsh", "-f", "-i"])
        self.shown = ""

    def say(self, text):
        os.write(self.terminal, text.encode())

    def wait_for(self, text):
        end = time.monotonic() + PATIENCE_S
        while text not in self.shown:
            assert time.monotonic() < end, f"no {text!r} in {self.shown!r}"
            if select.select([self.terminal], [], [], 0.1)[0]:
                self.shown += os.read(self.terminal, 65536).decode("utf-8", "replace")

    def end(self):
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)


@needs("zsh")
def test_zsh(tmp_path):
    zsh = Zsh(tmp_path)
    try:
        zsh.say("fpath=($PWD $fpath); autoload -U compinit; compinit -u -D; echo rea''dy\n")
        zsh.wait_for("ready")
        zsh.say("longline fo\t")
        zsh.wait_for("longline forward")
        zsh.say("--on\t")
        zsh.wait_for("--on-reject=")
        zsh.say("stop --keep\t")
        zsh.wait_for("--keep-host")
    finally:
        zsh.end()


def test_bad_usage_is_one_line():
    for arguments in ([], ["tcsh"], ["bash", "zsh"]):
        is_refused(run("completion", *arguments), 64)
