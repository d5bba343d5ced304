"""`longline backup`: a copy of one moment beside a running server, and what a restored one tells consumers."""

import contextlib
import os
import pty
import shutil
import signal
import subprocess
import termios

import pytest

from longline_server import BINARY, environment, wait_until
from test_epoch import check_reset, epoch_of, fill
from test_full_disk import small_disk  # noqa: F401

DONE, FAILED, USAGE = 0, 1, 2


def start_backup(server, file, **settings):
    settings = {"DATA_PATH": server.data_path, **settings}
    command = [BINARY, "backup", file]
    return subprocess.Popen(
        command, env=environment(settings), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def backup(server, file, **settings):
    process = start_backup(server, file, **settings)
    out, errors = process.communicate(timeout=120)
    return process.returncode, out, errors


def names(directory):
    return sorted(path.name for path in directory.iterdir() if not path.name.startswith(("longline.db", "stderr")))


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "backups"
    path.mkdir()
    return path


def test_a_copy_is_whole_private_and_has_all(start, folder):
    server = start()
    channel = server.channel()
    fill(server, channel, 7)
    code, out, errors = backup(server, folder / "copy.db")
    assert (code, errors) == (DONE, "")
    assert out.startswith("7 updates and ") and out.endswith(f"\n{folder}/copy.db is whole\n")
    assert names(folder) == ["copy.db"] and (folder / "copy.db").stat().st_mode & 0o777 == 0o600
    server.stop()
    other = start(DATA_PATH=folder / "copy.db")
    assert len(other.read_all(channel)) == 7


@pytest.mark.parametrize("end", ["stop", "kill9"])
def test_without_a_server_too(start, folder, end):
    server = start()
    channel = server.channel()
    fill(server, channel, 3)
    getattr(server, end)()
    assert backup(server, folder / "copy.db")[0] == DONE
    server.start()
    fill(server, channel, 1)
    server.stop()
    assert backup(server, folder / "later.db") == (
        DONE,
        f"4 updates and 1 channels read\n{folder}/later.db is whole\n",
        "",
    )


RESTORES = {
    "written over it": shutil.copyfile,
    "moved over it": os.replace,
    "copied with its times": lambda copy, path: (path.unlink(), shutil.copy2(copy, path)),
    "linked": lambda copy, path: (path.unlink(), os.link(copy, path)),
}


@pytest.mark.parametrize("restore", RESTORES.values(), ids=RESTORES)
@pytest.mark.parametrize("end", ["stop", "kill9"])
def test_a_restored_file_is_another_epoch(start, folder, restore, end):
    """Its counter has passed the consumer's ts when it comes back; only the epoch can tell."""
    server = start()
    channel = server.channel()
    fill(server, channel, 2)
    assert backup(server, folder / "copy.db")[0] == DONE
    fill(server, channel, 3)
    epoch = epoch_of(server, channel)
    getattr(server, end)()
    for suffix in ("-wal", "-shm"):
        server.data_path.with_name(server.data_path.name + suffix).unlink(missing_ok=True)
    restore(folder / "copy.db", server.data_path)
    server.start()
    fill(server, channel, 4, life=2)
    new = epoch_of(server, channel)
    assert new != epoch
    check_reset(server.get(f"{channel}?ts=5&epoch={epoch}&sleep=60"), 2, new)
    assert server.get(f"{channel}?ts=2&epoch={new}").updates == [{"life": 2}] * 4


def test_it_replaces_nothing(start, folder):
    server = start()
    fill(server, server.channel(), 1)
    (folder / "file").write_text("mine")
    (folder / "link").symlink_to("nowhere")
    (folder / "folder").mkdir()
    for name in names(folder) + [server.data_path]:
        code, out, errors = backup(server, folder / name)
        assert (code, out) == (FAILED, "") and errors.endswith(": is there already, and is not replaced\n")
    assert names(folder) == ["file", "folder", "link"] and (folder / "file").read_text() == "mine"


def test_what_cannot_be(start, folder):
    server = start()
    for file, settings, code, reason in (
        (folder / "no/copy.db", {}, FAILED, f"longline: {folder}/no/copy.db: No such file or directory\n"),
        (folder / "copy.db", {"DATA_PATH": folder / "no.db"}, FAILED, f"longline: {folder}/no.db: No such file or directory\n"),
        (folder / "copy.db", {"DATA_PATH": BINARY}, FAILED, f"longline: {BINARY} cannot be read: file is not a database\n"),
        (folder / "copy.db", {"DATA_PROVIDER": "memory"}, USAGE, "longline: the data is not in a file: DATA_PROVIDER is not sqlite\n"),
        (folder / "copy.db", {"SYNC": "maybe"}, USAGE, "longline: SYNC takes always, interval or never, not \"maybe\"\n"),
    ):  # fmt: skip
        assert backup(server, file, **settings)[::2] == (code, reason)
    assert names(folder) == []
    for arguments in ([], ["--data-path", "x"]):
        done = subprocess.run([BINARY, "backup", *arguments], capture_output=True, text=True, timeout=300)
        assert (done.returncode, done.stdout) == (USAGE, "") and "usage: longline backup FILE" in done.stderr


def test_a_damaged_file_makes_no_backup(start, folder):
    server = start()
    channel = server.channel()
    server.push(channel, '{"find":"me"}')
    server.stop()
    data = server.data_path.read_bytes()
    server.data_path.write_bytes(data.replace(b'"me"', b'"mf"'))
    code, out, errors = backup(server, folder / "copy.db")
    assert (code, out) == (FAILED, "") and "damaged: the content of an update, update_log.seq 1\n" in errors
    assert names(folder) == []
    server.data_path.write_bytes(data)


def test_a_flipped_bit_of_a_write_ahead_log_makes_no_backup(start, folder):
    """SQLite would leave out what stands behind it, and the copy would be whole."""
    server = start()
    channel = server.channel()
    fill(server, channel, 3)
    server.kill9()
    log = server.data_path.with_name(server.data_path.name + "-wal")
    kept = log.read_bytes()
    log.write_bytes(kept[:5000] + bytes([kept[5000] ^ 1]) + kept[5001:])
    code, out, errors = backup(server, folder / "copy.db")
    assert (code, out) == (FAILED, "") and "write-ahead log" in errors and names(folder) == []
    server.may_be_damaged = True
    server.start()  # which mends it
    assert backup(server, folder / "copy.db")[1].startswith("3 updates ")


@pytest.mark.parametrize("does_stop", [False, True], ids=["runs", "has stopped again"])
def test_a_server_that_starts_meanwhile(start, folder, does_stop):
    """The file of a stopped server is read without locks, so its pages may be of two moments."""
    server = start()
    fill(server, server.channel(), 3)
    server.stop()
    ours, theirs = pty.openpty()
    termios.tcflow(theirs, termios.TCOOFF)  # so that it waits where it tells how much is copied
    command = [BINARY, "backup", folder / "copy.db"]
    settings = environment({"DATA_PATH": server.data_path})
    with subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
        wait_until(lambda: names(folder), "the unfinished copy")
        server.start()
        fill(server, server.channel(), 1)
        if does_stop:
            server.stop()
        termios.tcflow(theirs, termios.TCOON)
        os.close(theirs)
        out = process.communicate(timeout=300)[0]
    said = all_that_was_shown(ours)
    assert (process.returncode, out, names(folder)) == (FAILED, "", []) and "a server was started meanwhile" in said


def test_a_full_disk_leaves_nothing(start, small_disk):  # noqa: F811
    server = start(CHANNEL_STORAGE_MAXSIZE=1000)
    channel = server.channel()
    for _ in range(10):
        server.push(channel, '"' + "x" * 1_000_000 + '"')
    code, out, errors = backup(server, small_disk / "copy.db")
    assert (code, out) == (FAILED, "") and errors.startswith(f"longline: {small_disk}/copy.db: ")
    assert "full" in errors or "No space left" in errors
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_that_is_stopped_leaves_nothing(start, folder, end):
    server = start(CHANNEL_STORAGE_MAXSIZE=1000)
    channel = server.channel()
    for _ in range(40):
        server.push(channel, '"' + "x" * 1_000_000 + '"')

    def is_stopped_in_time():
        process = start_backup(server, folder / "copy.db")
        wait_until(lambda: names(folder), "the unfinished copy")
        process.send_signal(end)
        process.communicate(timeout=300)
        if process.returncode == DONE:
            (folder / "copy.db").unlink()
        else:
            assert (process.returncode, names(folder)) == (-end, [])
        return process.returncode != DONE

    wait_until(is_stopped_in_time, "one that is stopped before its end")


def all_that_was_shown(terminal):
    """What came to the terminal, all of whose writers have ended; it is closed."""
    shown = b""
    with contextlib.suppress(OSError), os.fdopen(terminal, "rb", buffering=0) as ours:
        while piece := ours.read(4096):
            shown += piece
    return shown.decode()


def test_progress_on_a_terminal(start, folder):
    server = start()
    fill(server, server.channel(), 1)
    ours, theirs = pty.openpty()
    settings = environment({"DATA_PATH": server.data_path})
    done = subprocess.run([BINARY, "backup", folder / "copy.db"], env=settings, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    said = all_that_was_shown(ours)
    assert done.returncode == DONE and said == "\r100% copied; checking it\r\n"
