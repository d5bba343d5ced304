"""`longline exec`: a command for every update, which gets its exact body and nothing that a shell could take for words."""

import contextlib
import errno
import json
import os
import random
import signal
import subprocess
from pathlib import Path

import pytest
from commands import Command, is_refused, run
from longline_server import BINARY, wait_until
from program import PYTHON

USAGE, REJECTED, NO_COMMAND, LOCKED = 64, 65, 69, 75


@pytest.fixture
def server(start):
    return start(DATA_PROVIDER="memory")


@pytest.fixture
def execute(tmp_path):
    """execute(URL, COMMAND, OPTION…) starts one; all are killed in the end."""
    with contextlib.ExitStack() as stack:
        counter = iter(range(1000))

        def start(url, command, *options, **environment):
            settings = {"XDG_STATE_HOME": str(tmp_path / "state"), **environment}
            running = Command(tmp_path / f"exec-{next(counter)}", "exec", url, "--backoff=0.05", *options, "--", *command, **settings)
            stack.callback(running.kill)
            return running

        yield start


def ready(server, command):
    server.wait_for_parked(1)
    return command


def python(source):
    return [PYTHON, "-c", f"import json, os, sys, time\n{source}"]


SHOW = python("print(json.dumps({'body': list(sys.stdin.buffer.read()), 'arguments': sys.argv[1:], 'environment': dict(os.environ)}), flush=True)")


def test_the_body_and_the_request(server, execute):
    channel = server.channel()
    command = ready(server, execute(server.url(channel), [*SHOW, "mine", "two words"], SECRET="x", TZ="UTC"))
    body = bytes(range(256))
    headers = {"X-GitHub-Event": "push; rm -rf", "X_GitHub_Event": "forged", "X-A.B": "no", "Content-Type": "a/b"}
    server.request("PUT", channel + "/v1/$(id)?q=`id`&x=%0A", body, headers)
    command.wait_for(lambda lines: lines, "its output")
    shown = json.loads(command.lines[0])
    assert bytes(shown["body"]) == body and shown["arguments"] == ["mine", "two words"]
    environment = {name: value for name, value in shown["environment"].items() if name.startswith("LONGLINE")}
    at = environment.pop("LONGLINE_AT")
    assert int(at) > 1.7e12
    assert environment.pop("LONGLINE_HEADER_HOST") and environment.pop("LONGLINE_HEADER_CONTENT_LENGTH") == "256"
    assert environment == {
        "LONGLINE_TS": "1",
        "LONGLINE_METHOD": "PUT",
        "LONGLINE_PATH": "/v1/$(id)",
        "LONGLINE_QUERY": "q=`id`&x=%0A",
        "LONGLINE_FROM": "127.0.0.1",
        "LONGLINE_HEADER_X_GITHUB_EVENT": "push; rm -rf",
        "LONGLINE_HEADER_CONTENT_TYPE": "a/b",
    }
    rest = set(shown["environment"]) - set(environment) - {"LONGLINE_AT", "LONGLINE_HEADER_HOST", "LONGLINE_HEADER_CONTENT_LENGTH"}
    assert "PATH" in rest and "TZ" in rest and "SECRET" not in rest
    assert rest <= {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "TERM"}
    command.wait_for_note("exit 0")


def test_a_large_body_that_nobody_reads(server, execute):
    channel = server.channel()
    command = ready(server, execute(server.url(channel), ["sh", "-c", "echo $LONGLINE_TS"]))
    for _ in range(3):
        server.push(channel, b'"' + b"x" * 1_000_000 + b'"')
    command.wait_for(lambda lines: lines == ["1", "2", "3"], "three")


def test_what_fails_is_run_again(server, execute, tmp_path):
    """By its exit code, by a signal: nothing is skipped, nothing overtakes."""
    channel, count = server.channel(), tmp_path / "count"
    source = f"""
n = os.path.getsize({str(count)!r})
open({str(count)!r}, 'a').write('x')
print(os.environ['LONGLINE_TS'], n, flush=True)
if n == 1: os.kill(os.getpid(), 9)
sys.exit([1, 0, 75, 127, 0][min(n, 4)])
"""
    count.write_text("")
    command = ready(server, execute(server.url(channel), python(source)))
    server.push(channel, b"1")
    server.push(channel, b"2")
    command.wait_for(lambda lines: lines == ["1 0", "1 1", "1 2", "1 3", "1 4", "2 5"], "all attempts")
    for words in ("exit 1 ", "ended by signal 9", "exit 75 ", "exit 127 "):
        assert words in command.stderr


def test_a_refusal_stops_it_or_is_skipped(server, execute):
    channel = server.channel()
    stops = ready(server, execute(server.url(channel), ["sh", "-c", "exit 65"]))
    server.push(channel)
    server.push(channel)
    assert stops.wait() == REJECTED and "update 1 is refused" in stops.stderr
    skips = execute(server.url(channel), ["sh", "-c", "echo $LONGLINE_TS; exit 65"], "--on-reject=skip", "--ts=0")
    skips.wait_for(lambda lines: lines == ["1", "2"], "both")


def test_a_command_that_hangs(server, execute, tmp_path):
    """It ends with all that it started, also with what does not listen."""
    channel = server.channel()
    pids = tmp_path / "pids"
    script = f"""(trap '' TERM; exec sleep 1000) & echo $! >>{pids}; sleep 1000; echo never"""
    command = ready(server, execute(server.url(channel), ["sh", "-c", script], "--timeout=0.3", "--json"))
    server.push(channel)
    command.wait_for_note('"error":"not done in time"')
    assert not command.lines
    failed = json.loads(command.stderr.splitlines()[0])
    assert failed["result"] == "failed" and failed["ts"] == 1 and failed["again_in_ms"] > 0
    # A machine that is slow starts nothing in so short a time, at the first attempt.
    child = int(wait_until(lambda: pids.exists() and pids.read_text().split(), "what it starts")[0])
    wait_until(lambda: is_gone(child), "the end of what it started")


def is_gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


ENDS_WELL = """
import signal
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print(os.environ['LONGLINE_TS'], flush=True)
time.sleep(1000)
"""


def test_who_ends_because_it_must_has_not_confirmed(server, execute, tmp_path):
    """Many programs exit with 0 on SIGTERM, in the middle of their work."""
    channel = server.channel()
    command = ready(server, execute(server.url(channel), python(ENDS_WELL), f"--state={tmp_path}/place"))
    server.push(channel)
    command.wait_for_line("1")
    assert command.terminate() == 0
    assert (tmp_path / "place").read_text().startswith("0 ")
    late = execute(server.url(channel), python(ENDS_WELL), f"--state={tmp_path}/place", "--timeout=2")
    late.wait_for(lambda lines: lines[:2] == ["1", "1"], "another attempt")


def test_the_command_has_nothing_else_that_is_open(server, execute):
    """Above all not the connection to the server."""
    channel = server.channel()
    source = """
for name in os.listdir("/proc/self/fd"):
    try: print(name, os.readlink("/proc/self/fd/" + name))
    except OSError: pass
print("end", flush=True)
"""
    command = ready(server, execute(server.url(channel), python(source)))
    server.push(channel)
    command.wait_for_line("end")
    assert sorted(line.split()[0] for line in command.lines) == ["0", "1", "2", "end"]


def test_a_kill_ends_the_command_too(server, execute, tmp_path):
    """Or the next exec would run it a second time beside it."""
    channel = server.channel()
    command = ready(server, execute(server.url(channel), python("print(os.getpid(), flush=True)\ntime.sleep(1000)")))
    server.push(channel)
    command.wait_for(lambda lines: lines, "its number")
    command.kill()
    wait_until(lambda: is_gone(int(command.lines[0])), "its end")


def test_the_command_has_no_terminal(server, execute):
    """As a job in the background it would stop at the first word that it asks for, and say nothing."""
    channel = server.channel()
    source = """
try: open("/dev/tty")
except OSError as error: print(error.errno, os.getsid(0) == os.getpid(), flush=True)
"""
    command = ready(server, execute(server.url(channel), python(source)))
    server.push(channel)
    command.wait_for(lambda lines: lines == [f"{errno.ENXIO} True"], "its words")


def test_it_may_have_no_standard_files(server, tmp_path):
    """Nothing that it opens takes their place."""
    channel = server.channel()
    seen = tmp_path / "seen"
    words = [BINARY, "exec", server.url(channel), f"--state={tmp_path}/place", "--", "sh", "-c", f"readlink /proc/$$/fd/1 >{seen}"]
    process = subprocess.Popen(["sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh", *words])
    try:
        server.wait_for_parked(1)
        server.push(channel)
        wait_until(lambda: (tmp_path / "place").read_text().startswith("1 "), "its confirmation")
        assert [os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in range(3)] == ["/dev/null"] * 3
    finally:
        process.terminate()
        process.wait()


def test_a_signal_that_was_ignored_stays_so(server, execute):
    """As under nohup."""
    channel = server.channel()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        command = ready(server, execute(server.url(channel), ["sh", "-c", "echo $LONGLINE_TS"]))
    finally:
        signal.signal(signal.SIGHUP, before)
    command.process.send_signal(signal.SIGHUP)
    server.push(channel)
    command.wait_for_line("1")
    assert command.process.poll() is None


def test_a_signal_ends_a_command_that_does_not(server, execute, tmp_path):
    channel = server.channel()
    command = ready(server, execute(server.url(channel), python("print(1, flush=True)\ntime.sleep(1000)"), f"--state={tmp_path}/place"))
    server.push(channel)
    command.wait_for_line("1")
    command.process.send_signal(signal.SIGINT)
    assert command.wait() == 0
    assert (tmp_path / "place").read_text().startswith("0 "), "it is not confirmed"


def test_killed_at_random(server, execute, tmp_path):
    """No update is skipped; at most the one that was not confirmed comes again."""
    channel, seen, choose = server.channel(), tmp_path / "seen", random.Random(3)
    seen.write_text("")
    command = ["sh", "-c", 'echo $LONGLINE_TS >>"$0"', str(seen)]
    ready(server, execute(server.url(channel), command)).kill()
    for _ in range(60):
        server.push(channel)
    for _ in range(8):
        running = execute(server.url(channel), command)
        until = len(seen.read_text().split()) + choose.randrange(1, 10)
        running.wait_for(lambda _: len(seen.read_text().split()) >= until or "60" in seen.read_text().split(), "more")
        running.kill()
    execute(server.url(channel), command)
    wait_until(lambda: "60" in seen.read_text().split(), "the last one")
    got = list(map(int, seen.read_text().split()))
    assert sorted(set(got)) == list(range(1, 61)) and got == sorted(got)
    assert len(got) <= 60 + 9, "one for each kill"


def test_no_such_command(server, execute):
    channel = server.channel()
    server.push(channel)
    command = execute(server.url(channel), ["nowhere-to-be-found"], "--ts=0")
    assert command.wait() == NO_COMMAND and "nowhere-to-be-found: No such file" in command.stderr


def test_the_second_copy_says_so(server, execute, tmp_path):
    channel = server.channel()
    ready(server, execute(server.url(channel), ["true", "1"]))
    same = run("exec", server.url(channel), "--", "true", "1", XDG_STATE_HOME=str(tmp_path / "state"))
    assert "another copy" in is_refused(same, LOCKED)
    execute(server.url(channel), ["true", "2"])
    server.wait_for_parked(2)


@pytest.mark.parametrize("arguments", [[], ["http://h/x"], ["http://h/x", "--"], ["nonsense", "--", "true"], ["http://h/x", "ls", "-l"], ["http://h/x", "--keep-host", "--", "true"]])
def test_bad_usage_is_one_line(arguments, tmp_path):
    is_refused(run("exec", *arguments, XDG_STATE_HOME=str(tmp_path)), USAGE)
