"""Every command in the Markdown files is run, and what it prints is compared with what the page shows."""

import ast
import json
import re
import subprocess
from collections import Counter

import pytest
import yaml

from commands import Target
from doc_blocks import HIDDEN, Session, blocks, commands, is_as_shown
from longline_server import REPOSITORY, wait_until
from redis_server import free_port

pytestmark = pytest.mark.providers("sqlite")  # test_by_hand.py runs on every store

FILES = subprocess.check_output(["git", "ls-files", "*.md"], cwd=REPOSITORY, text=True).split()
BLOCKS = {path: list(blocks(path)) for path in FILES}
ALL = [block for found in BLOCKS.values() for block in found]
COMMANDS = {"sh", "bash", "console"}
# A block that is only indented, and begins like a command.
INDENTED = re.compile(r"(?<=\n\n)    (?:\$ |# |\w+=\S|(?:script|examples|build)/\S+|(?:curl|longline|docker|sudo|cd|mkdir|python3|echo|npm) ).*")
# Suffix, and what reads it without running it.
PARSERS = {"js": ("mjs", "node", "--check"), "lua": ("lua", "luac5.1", "-p"), "php": ("php", "php", "-l"), "ruby": ("rb", "ruby", "-c")}
# Programs, settings and pictures: no commands.
OTHERS = {"c", "cs", "go", "html", "ini", "js", "json", "lua", "nginx", "php", "powershell", "python", "ruby", "sql", "text", "toml", "ts", "yaml"}


# Who reads these has built longline, and installed nothing.
NOT_INSTALLED = {"README.md", "docs/start.md"}


def is_run(block):
    return (block.language in COMMANDS or "file" in block.says) and not {"not run", "run by"} & set(block.says)


PAGES = [path for path, found in BLOCKS.items() if any(map(is_run, found))]


def check(said, shown, block, command):
    assert is_as_shown(said, shown), f"{block}: {command}\nsaid:\n" + "\n".join(said) + "\nshown:\n" + "\n".join(shown)


def run_last(session, block, command, shown):
    """A command that waits for something, or that never ends."""
    running = session.launch(command)
    if "meanwhile" in block.says:
        session.wait_for_parked()
        session.run(block.says["meanwhile"])
    ends = not {"goes on", "stays"} & set(block.says)

    def has_said_it():
        said = running.said()
        if block.language == "console":
            return is_as_shown(said, shown)
        return said

    try:
        wait_until((lambda: not running.is_alive()) if ends else has_said_it, command)
    except AssertionError:
        pass
    if "stays" in block.says:
        session.keep(block.says["stays"], running)
    else:
        running.stop()
    if block.language == "console":
        check(running.said(), shown, block, command)
    else:
        assert has_said_it(), f"{block}: {command}: it says nothing"


def run_block(session, block):
    if "file" in block.says:
        return session.save(block.says["file"], block.text)
    if "stop" in block.says:
        session.stop(block.says["stop"])
    if "first" in block.says:
        session.run(block.says["first"])
    console = block.language == "console"
    found = commands(block.text, "$ " if console else "")
    assert found, block
    waits = {"meanwhile", "goes on", "stays"} & set(block.says)
    for number, (command, shown) in enumerate(found, 1):
        if waits and number == len(found):
            run_last(session, block, command, shown)
            continue
        said, status = session.run(command)
        if console:
            check(said, shown, block, command)
        else:
            assert status == 0, f"{block}: {command}: status {status}: {said}"


@pytest.mark.parametrize("path", PAGES)
def test_every_command_of_a_page(path, start, tmp_path):
    """A page is one session with one server, unless a block asks for another one."""
    session = target = None
    try:
        for number, block in enumerate(filter(is_run, BLOCKS[path])):
            if not session or "server" in block.says:
                if session:
                    session.__exit__()
                settings = block.says.get("server", "").split()
                if settings == ["none"]:
                    port = free_port()
                else:
                    port = start(**dict(setting.split("=", 1) for setting in settings)).port
                target = target or Target()
                directory = tmp_path / f"session-{number}"
                directory.mkdir()
                session = Session(directory, port, target.port, path not in NOT_INSTALLED)
            if "target" in block.says:
                statuses = iter(map(int, block.says["target"].split()))
                target.answer = lambda number, received, statuses=statuses: next(statuses, 200)
            run_block(session, block)
    finally:
        if session:
            session.__exit__()
        if target:
            target.__exit__()


def test_no_block_is_left_out_without_a_word():
    unknown = [str(block) for block in ALL if block.language not in COMMANDS | OTHERS]
    assert not unknown, "say what language it is in"
    assert not [(path, found) for path in FILES for found in INDENTED.findall((REPOSITORY / path).read_text("utf-8"))]
    assert not [str(block) for block in ALL if set(block.says) - HIDDEN]
    assert not [str(block) for block in ALL if "not run" in block.says and not block.says["not run"]]
    assert not [str(block) for block in ALL if "run by" in block.says and not (REPOSITORY / block.says["run by"]).exists()]


def test_those_that_cannot_run_here_are_counted():
    """When you add one, be sure that it cannot run, and count it here."""
    assert Counter(block.path for block in ALL if "not run" in block.says) == {
        "README.md": 1,
        "clients/python/README.md": 1,
        "docs/backup.md": 1,
        "docs/docker.md": 5,
        "docs/install.md": 5,
        "docs/benchmarks.md": 1,
        "docs/proxies.md": 2,
        "docs/redis.md": 1,
        "docs/scaling.md": 1,
        "docs/service.md": 1,
        "docs/start.md": 6,
        "docs/upgrade.md": 1,
        "examples/telegram-bot/README.md": 1,
        "tests/mutations/README.md": 1,
    }


@pytest.mark.parametrize("block", filter(is_run, ALL), ids=str)
def test_a_block_that_is_run_leaves_this_machine_alone(block):
    """It installs nothing, and ends or signals nobody else's processes."""
    assert not re.search(r"\b(sudo|pkill|killall|systemctl|apt(-get)?|docker) ", re.sub(r"#.*", "", block.text))


def parse(block, directory):
    """Fails if the block is not what it says it is."""
    if block.language == "python":
        compile(block.text, str(block), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
    elif block.language == "json":
        json.loads(block.text)
    elif block.language == "yaml":
        yaml.safe_load(block.text)
    else:
        file = directory / f"block.{PARSERS[block.language][0]}"
        file.write_text(block.text, "utf-8")
        subprocess.run([*PARSERS[block.language][1:], file], check=True, capture_output=True)


@pytest.mark.parametrize("block", [block for block in ALL if block.language in {"python", "json", "yaml", *PARSERS}], ids=str)
def test_a_program_on_a_page_can_be_read(block, tmp_path):
    parse(block, tmp_path)


def test_what_is_shown_is_compared():
    assert is_as_shown(["a", '{"at":1795506304321}', ""], ["a", '{"at":1111111111111}'])
    assert is_as_shown(["a", "b", "c", "dxe"], ["a", "…", "d…e"])
    for said, shown in ((["a"], ["b"]), (["a", "b"], ["a"]), (["a"], ["a", "b"]), ([], ["a"]), (["b", "a"], ["a", "b"])):
        assert not is_as_shown(said, shown)


def test_a_command_may_take_more_than_one_line():
    text = "$ curl \\\n    -d 1 x\nOK\n$ cat <<E\na\nE\na\n# a comment\n"
    assert commands(text, "$ ") == [("curl \\\n    -d 1 x", ["OK"]), ("cat <<E\na\nE", ["a", "# a comment"])]
    assert commands("if true; then\n  echo a\nfi\n# no\necho b\n") == [("if true; then\n  echo a\nfi", []), ("echo b", [])]
