"""The commands: --help, `longline help`, the man page and docs/cli.md know the same options and exit codes."""

import os
import re
import shutil
import subprocess

import pytest
from commands import is_refused, run
from longline_server import BINARY, REPOSITORY

COMMANDS = ("serve", "health", "new", "check", "backup", "send", "tail", "forward", "exec", "doctor", "completion", "help")
CLIENTS = ("send", "tail", "forward", "exec", "doctor")
PAGE = (REPOSITORY / "docs/cli.md").read_text("utf-8")
INSTALLED = {
    "man/man1/longline.1": ("help", "--man"),
    "bash-completion/completions/longline": ("completion", "bash"),
    "zsh/site-functions/_longline": ("completion", "zsh"),
    "fish/vendor_completions.d/longline.fish": ("completion", "fish"),
}
# Letter, name and text of an option, as --help has them.
OPTION = re.compile(r"^  (?:-(\w), |    )--([\w-]+)(?: .*?)?  +(\S.*(?:\n {29,}\S.*)*)", re.M)


def printed(*arguments):
    ended = run(*arguments)
    assert ended.returncode == 0 and ended.stderr == ""
    return ended.stdout


def help_of(command):
    text = printed(command, "--help")
    assert max(map(len, text.splitlines())) <= 100
    return text


def codes_of(text):
    return re.findall(r"^ +(\d+)  \w", text[text.index("Exit codes:") :], re.M)


def words_of(text):
    """A text as it is read: without roff, line breaks and quotes."""
    text = re.sub(r"\\f[BIR]|\\&", "", text).replace("\\-", "-").replace(".Pp\n", "")
    return " ".join(re.sub(r"\\\(oq|\\\(cq|`", "", text).replace("\\(ti", "~").split())


@pytest.fixture(scope="module")
def man():
    return printed("help", "--man")


def test_help_lists_every_command():
    text = printed("help")
    assert text == printed("--help") == printed("-h") and max(map(len, text.splitlines())) <= 100
    assert re.findall(r"^  longline ([a-z]+)", text, re.M) == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(command):
    text = help_of(command)
    assert text.startswith(f"Usage: longline {command} ")
    assert text == printed("help", command) == printed(command, "-h")
    assert command in ("serve", "health", "backup") or text == printed(command, "word", "-h")
    codes = codes_of(text)
    assert codes == sorted(codes, key=int) and codes[0] == "0" and len(codes) > 1


@pytest.mark.parametrize("command", COMMANDS)
def test_the_man_page_says_what_help_says(command, man):
    text = help_of(command)
    about = text.split("\n\n", 1)[1].split("\n  ", 1)[0]
    assert words_of(about) in words_of(man) and f".It Cm {command} " in man and f".Cm {command}\n" in man
    for letter, name, said in OPTION.findall(text):
        tag = f".It Fl {letter} , Fl -{name}" if letter else f".It Fl -{name}"
        assert words_of(said) in words_of(man[man.index(tag) :].split("\n.It", 1)[0]), name
    for code in codes_of(text):
        assert f".It {code}\n" in man


def test_the_man_page_says_every_setting(man):
    settings = re.findall(r"^  ([A-Z_]+), --[a-z-]+  \(default: (.*)\)\n((?:      .*\n)+)", help_of("serve"), re.M)
    assert len(settings) > 35
    for name, default, about in settings:
        entry = words_of(man[man.index(f".It Ev {name}\n") :].split("\n.It", 1)[0])
        assert words_of(about) in entry, name
        assert default == "none" or f"The default is {default}." in entry, name


@pytest.mark.parametrize("command", CLIENTS)
def test_the_page_has_every_option_and_command(command):
    assert f"## {command}\n" in PAGE
    options = OPTION.findall(help_of(command))
    assert ("h", "help", "print this") in options
    for letter, name, _ in options:
        assert f"--{name}" in PAGE or letter and f"-{letter} " in PAGE, name


def test_the_page_has_every_exit_code():
    told = set().union(*(codes_of(help_of(command)) for command in CLIENTS))
    assert told == set(re.findall(r"^\| (\d+) \|", PAGE, re.M))


def test_what_does_not_exist_is_one_line():
    assert "nosuch" in is_refused(run("help", "nosuch"), 64)
    for arguments in (["send", "tail"], ["--man", "tail"], ["--nope"]):
        is_refused(run("help", *arguments), 64)


@pytest.mark.skipif(not shutil.which("meson"), reason="meson is not installed")
def test_an_installation_has_man_page_and_completions(tmp_path):
    install = ["meson", "install", "--no-rebuild", "--quiet", "-C", BINARY.parent, "--destdir", tmp_path]
    subprocess.run(install, check=True, capture_output=True)
    (share,) = tmp_path.rglob("share")
    assert os.access(share.parent / "bin/longline", os.X_OK)
    for path, arguments in INSTALLED.items():
        assert (share / path).read_text("utf-8") == printed(*arguments)
