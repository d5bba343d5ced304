"""The blocks of code in the Markdown files, and a shell that runs them as a reader would.

Comments directly above a block say what a reader does not see:

    <!-- not run: WHY -->      it cannot run here; the test counts these
    <!-- run by: FILE -->      this other test, or script, runs it
    <!-- server: none -->      the page starts its own; else with these settings: <!-- server: PURGE=off -->
    <!-- first: SHELL -->      what happened before: `fresh` makes a new $URL, `push 1 2` pushes {"n":1} and {"n":2}
    <!-- meanwhile: SHELL -->  what somebody else does while the block's last command waits for an update
    <!-- goes on -->           its last command never ends by itself: it is stopped when it has said what is shown
    <!-- stays: NAME -->       the same, but it runs until the page ends, or until `<!-- stop: NAME -->` above a block
    <!-- target: 200 500 -->   what the web server at localhost:8080 answers, one after the other
    <!-- file: NAME -->        what the reader saves, and later commands find under this name

A line with only an ellipsis stands for any lines, and one within a line for any text.
"""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import threading
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from longline_server import BINARY, PATIENCE_S, REPOSITORY, wait_until

FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^ *```$", re.M | re.S)
COMMENTS = re.compile(r"(?: *<!-- .*? -->\n)+\Z")
COMMENT = re.compile(r"<!-- ([a-z ]+?)(?:: (.*?))? -->")
HIDDEN = {"not run", "run by", "server", "first", "meanwhile", "goes on", "stays", "stop", "target", "file"}

# What is another at each run.
VARIES = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"), "DATETIME"),
    (re.compile(r"\b\d\d:\d\d:\d\d\b"), "TIME"),
    (re.compile(r"(?<=listening address=)\S+"), "ADDRESS"),
    (re.compile(r'"at":\d{13}'), '"at":AT'),
    (re.compile(r"\b([rvw])_[a-z2-7]{26}\b"), r"\1_KEY"),
    (re.compile(r"(?<=/)[\w-]{22}(?![\w-])"), "SECRET"),
    (re.compile(r'(?<=\bversion=)[\d.]+|(?<="version":")[\d.]+'), "VERSION"),
    (re.compile(r"^(HMAC-)?SHA2?-?256\(stdin\)= ", re.M), "SHA2-256(stdin)= "),
    (re.compile(r"\bcurl/\d+\.\d+\.\d+"), "curl/VERSION"),
    (re.compile(r"\b\d+(\.\d+)? ms\b"), "MS"),
    (re.compile(r'"epoch":"[0-9a-f]{16}"'), '"epoch":"EPOCH"'),
    (re.compile(r"(?<=^Date: ).*$", re.M), "DATE"),
    (re.compile(r"(?<=^Retry-After: )\d+$", re.M), "N"),
    (re.compile(r"(?<=again in )\d+\.\d s"), "N s"),
)


@dataclass
class Block:
    path: str
    line: int
    language: str
    text: str
    says: dict

    def __str__(self):
        return f"{self.path}:{self.line}"


def blocks(path):
    """The fenced blocks of a file, with what the comments above them say."""
    text = (REPOSITORY / path).read_text("utf-8")
    for fence in FENCE.finditer(text):
        indent, language, code = fence.groups()
        above = COMMENTS.search(text[: fence.start()])
        says = dict(COMMENT.findall(above[0])) if above else {}
        lines = (line.removeprefix(indent) for line in code.splitlines(keepends=True))
        yield Block(path, text[: fence.start()].count("\n") + 1, language, "".join(lines), says)


def scripts(path, language="sh"):
    """The blocks of this language on a page that can run here, each as a whole."""
    return [block.text for block in blocks(path) if block.language == language and "not run" not in block.says]


def run_script(server, script):
    """Runs one beside a server, with its program and its data file; returns what it prints."""
    environment = {**os.environ, "PATH": f"{BINARY.parent}:{os.environ['PATH']}", "DATA_PATH": "longline.db"}
    command = ["bash", "-euc", script]
    done = subprocess.run(command, cwd=server.directory, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def commands(text, prompt=""):
    """The commands of a block, each with what it prints. Without a prompt, each line is a command."""
    found = []
    whole = True
    for line in text.splitlines():
        if not whole:
            found[-1][0] += "\n" + line
        elif line.startswith(prompt):
            found.append([line.removeprefix(prompt), []])
        else:
            found[-1][1].append(line)
            continue
        whole = is_whole(found[-1][0])
    return [(command, printed) for command, printed in found if command.strip() and not command.startswith("#")]


def is_whole(command):
    """Whether a shell would run it, and not wait for its next line."""
    checked = subprocess.run(["bash", "-n"], input=command + "\n", capture_output=True, text=True)
    return checked.returncode == 0 and "here-document" not in checked.stderr and not command.endswith("\\")


def plain(lines):
    """Lines without what is another at each run, and without empty ones at the end."""
    text = "\n".join(lines).rstrip("\n")
    for pattern, name in VARIES:
        text = pattern.sub(name, text)
    return text.splitlines()


def is_as_shown(said, shown):
    said, shown = plain(said), plain(shown)
    pattern = "".join(r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + "\n" for line in shown)
    return re.fullmatch(pattern, "".join(line + "\n" for line in said)) is not None


PREPARED = """
set -a
fresh() { URL=$("$HOME/build/longline" new "$SERVER"); }
push() { local n; for n; do curl -o /dev/null -d "{\\"n\\":$n}" "$URL"; done; }
set -o pipefail
fresh
"""


class Session:
    """A reader's shell, in a directory that looks like a clone. `server` says where it listens; `target` is localhost:8080.
    Unless longline `is_installed`, there is build/longline only, as for who has just built it."""

    def __init__(self, directory: Path, port, target_port=None, is_installed=True):
        self.directory, self.port, self.target_port = directory, port, target_port
        self.kept = {}
        self.number = 0
        self._prepare()
        environment = {
            "PATH": f"{directory}/bin:/usr/sbin:/usr/bin:/bin" if is_installed else "/usr/sbin:/usr/bin:/bin",
            "HOME": str(directory),
            "LC_ALL": "C.UTF-8",
            "TERM": "dumb",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LISTEN": f"127.0.0.1:{port}",
            "SERVER": f"http://127.0.0.1:{port}",
        }
        pipe = subprocess.PIPE
        self.shell = subprocess.Popen(["bash", "--norc"], cwd=directory, env=environment, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT)
        self.said = b""
        threading.Thread(target=self._listen, daemon=True).start()
        self.run(PREPARED)

    def _prepare(self):
        # What README.md tells a reader to put there, and no progress bar.
        (self.directory / ".curlrc").write_text('write-out = "\\n"\nsilent\nshow-error\n')
        (self.directory / ".npmrc").write_text("audit=false\nfund=false\nupdate-notifier=false\noffline=true\n")
        for name in ("bin", "build"):
            (self.directory / name).mkdir()
            (self.directory / name / "longline").symlink_to(BINARY)
        (self.directory / "longline").symlink_to(REPOSITORY)
        for name in ("clients", "examples", "packaging"):
            (self.directory / name).symlink_to(REPOSITORY / name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for name in list(self.kept):
            self.stop(name)
        self.shell.kill()
        self.shell.wait()

    def _listen(self):
        while chunk := os.read(self.shell.stdout.fileno(), 65536):
            self.said += chunk

    # --- addresses ---

    def _there(self, command):
        """The command with this session's ports."""
        command = command.replace("localhost:3000", f"127.0.0.1:{self.port}")
        return command.replace("localhost:8080", f"127.0.0.1:{self.target_port}")

    def _here(self, text):
        """What was said, as the page says it."""
        text = text.replace(f"127.0.0.1:{self.port}", "localhost:3000").replace("\r\n", "\n")
        return text.replace(f"127.0.0.1:{self.target_port}", "localhost:8080").splitlines()

    # --- commands ---

    def _send(self, command, how):
        """Has the shell read the command from a file, so that it cannot swallow what follows."""
        self.number += 1
        file = self.directory / f".command-{self.number}"
        file.write_text(self._there(command) + "\n")
        mark = f"\x1e{self.number}\x1e".encode()
        start = len(self.said)
        self.shell.stdin.write(how.format(file=shlex.quote(str(file))).encode() + b"; printf '\\036%d\\036%d\\036' " + b"%d $?\n" % self.number)
        self.shell.stdin.flush()

        def is_done():
            assert self.shell.poll() is None, "the command ended the shell"
            return mark in self.said[start:] and self.said[start:].split(mark)[1].endswith(b"\x1e")

        try:
            wait_until(is_done, command, 6 * PATIENCE_S)
        except AssertionError as error:
            raise AssertionError(f"{error}; it has said: {self.said[start:].decode()}") from None
        text, status = self.said[start:].split(mark)
        return self._here(text.decode()), int(status.strip(b"\x1e"))

    def run(self, command):
        """Runs it to its end: what it said, and its exit status."""
        return self._send(command, ". {file} </dev/null")

    def launch(self, command):
        """Starts it in the background, in a session of its own: returns it."""
        log = self.directory / f".said-{self.number}"
        (pid,), _ = self._send(command, f"setsid bash {{file}} </dev/null >{shlex.quote(str(log))} 2>&1 & echo $!; disown")
        return Running(int(pid), lambda: self._here(log.read_text("utf-8", "replace")) if log.exists() else [])

    def save(self, name, text):
        (self.directory / name).write_text(self._there(text), "utf-8")

    def wait_for_parked(self):
        """Waits until somebody waits for an update."""

        def is_parked():
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/metrics") as reply:
                return re.search(rb"^longline_polls_parked [1-9]", reply.read(), re.M)

        wait_until(is_parked, "a poll that waits")

    def keep(self, name, running):
        self.kept[name] = running

    def stop(self, name):
        self.kept.pop(name).stop()


class Running:
    def __init__(self, pid, said):
        self.pid, self.said = pid, said

    def is_alive(self):
        """Whether one of its processes runs. Orphans that have ended are still there where process 1 does not ask for them."""
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(group) == self.pid and state not in "ZX":
                return True
        return False

    def stop(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGTERM)
        wait_until(lambda: not self.is_alive(), "its end")
