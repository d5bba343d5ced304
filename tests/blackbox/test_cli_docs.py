"""The commands that talk to a server: --help, the man page and docs/cli.md know the same options and exit codes."""

import re

import pytest
from commands import run
from longline_server import REPOSITORY

COMMANDS = ("send", "tail", "forward", "exec", "doctor")
MAN = (REPOSITORY / "docs/longline.1").read_text("utf-8")
PAGE = (REPOSITORY / "docs/cli.md").read_text("utf-8")


def help_of(command):
    ended = run(command, "--help")
    assert ended.returncode == 0 and ended.stderr == "" and max(map(len, ended.stdout.splitlines())) <= 100
    return ended.stdout


def codes_of(text):
    return set(re.findall(r"^ +(\d+)  \w", text[text.index("Exit codes:") :], re.M))


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command):
    text = help_of(command)
    assert text.startswith(f"Usage: longline {command} ")
    assert f"longline {command}" in run("--help").stdout and f"## {command}\n" in PAGE and f".Cm {command}\n" in MAN
    codes = re.findall(r"^ +(\d+)  \w", text[text.index("Exit codes:") :], re.M)
    assert codes == sorted(codes, key=int) and codes[0] == "0"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_documented(command):
    options = re.findall(r"^  (?:-(\w), |    )--([\w-]+)", help_of(command), re.M)
    assert ("h", "help") in options
    for letter, name in options:
        assert f"Fl -{name}" in MAN, name
        assert f"--{name}" in PAGE or letter and f"-{letter} " in PAGE, name
        assert not letter or f"Fl {letter} , Fl -{name}" in MAN, letter


def test_every_exit_code_is_documented():
    told = set().union(*(codes_of(help_of(command)) for command in COMMANDS))
    assert told == set(re.findall(r"^\| (\d+) \|", PAGE, re.M))
    assert told - {"0", "1"} == set(re.findall(r"^\.It (6\d|7\d)$", MAN, re.M))
