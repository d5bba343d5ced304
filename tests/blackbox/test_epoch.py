"""epoch: nobody is fooled by a server that has lost data, and nobody is reset who has lost none."""

import re
import shutil

import pytest

from doc_blocks import run_script, scripts
from longline_server import wait_until

EPOCH = re.compile(r"^[0-9a-f]{16}$")


def fill(server, channel, count, life=1):
    for _ in range(count):
        server.push(channel, '{"life":%d}' % life)


def epoch_of(server, channel):
    epoch = server.get(f"{channel}?ts=now&epoch=").json()["epoch"]
    assert EPOCH.match(epoch) and epoch != "0" * 16, epoch
    return epoch


def check_reset(reply, ts, epoch):
    assert reply.json() == {"ok": True, "ts": ts, "epoch": epoch, "reset": True, "updates": []}


# --- What a reply says --------------------------------------------------------------------------


def test_only_who_asks_is_told(server, channel):
    fill(server, channel, 2)
    assert server.get(channel).json().keys() == {"ok", "ts", "updates"}
    for query in ("epoch=", "epoch", "ts=1&epoch=&sleep=60", "limit=1&epoch", "ts=-1&epoch=", "since=10m&epoch="):
        reply = server.get(f"{channel}?{query}").json()
        assert EPOCH.match(reply["epoch"]) and "reset" not in reply
    assert server.get(f"{channel}/getUpdates?epoch=").json()["epoch"] == epoch_of(server, channel)


def test_the_order_of_the_fields(server, channel):
    fill(server, channel, 1)
    epoch = epoch_of(server, channel)
    assert server.get(f"{channel}?epoch=").text == f'{{"ok":true,"ts":1,"epoch":"{epoch}","updates":[{{"life":1}}]}}'


def test_a_channel_that_does_not_exist_yet(server, channel):
    for query in ("epoch=", "ts=0&epoch=0", "ts=now&epoch=", "ts=0&epoch=123"):
        assert server.get(f"{channel}?{query}").text == '{"ok":true,"ts":0,"epoch":"0","updates":[]}'
    with server.client() as client:
        client.send_request("GET", f"{channel}?ts=0&epoch=0&sleep=60")
        server.wait_for_parked(1)
        fill(server, channel, 1)
        reply = client.read_reply().json()
    assert (reply["ts"], reply["updates"]) == (1, [{"life": 1}])
    wait_until(lambda: EPOCH.match(server.get(f"{channel}?ts=1&epoch=").json()["epoch"]), "the epoch")
    assert "reset" not in server.get(f"{channel}?ts=1&epoch=0").json()


def test_the_epoch_of_a_channel_stays(server, channel):
    fill(server, channel, 1)
    epoch = epoch_of(server, channel)
    for ts in range(1, 5):
        reply = server.get(f"{channel}?ts={ts}&epoch={epoch}").json()
        assert reply == {"ok": True, "ts": ts, "epoch": epoch, "updates": []}
        fill(server, channel, 1)
        reply = server.get(f"{channel}?ts={ts}&epoch={epoch}").json()
        assert reply == {"ok": True, "ts": ts + 1, "epoch": epoch, "updates": [{"life": 1}]}


def test_each_channel_has_its_own(server):
    one, two = server.channel(), server.channel()
    fill(server, one, 1)
    fill(server, two, 1)
    assert epoch_of(server, one) != epoch_of(server, two)


def test_a_parked_poll_hears_the_epoch(server, channel):
    fill(server, channel, 1)
    epoch = epoch_of(server, channel)
    with server.client() as client, server.client() as plain:
        client.send_request("GET", f"{channel}?ts=1&epoch={epoch}&sleep=60")
        plain.send_request("GET", f"{channel}?ts=1&sleep=60")
        server.wait_for_parked(2)
        fill(server, channel, 1)
        assert client.read_reply().json() == {"ok": True, "ts": 2, "epoch": epoch, "updates": [{"life": 1}]}
        assert plain.read_reply().json() == {"ok": True, "ts": 2, "updates": [{"life": 1}]}


# --- Another epoch ------------------------------------------------------------------------------


@pytest.mark.parametrize("foreign", ["0123456789abcdef", "x", "FFFFFFFFFFFFFFFF", "1" * 40, "%zz", "0" * 17])
def test_an_epoch_that_is_not_the_channels(server, channel, foreign):
    fill(server, channel, 3)
    epoch = epoch_of(server, channel)
    for ts in (1, 3):
        check_reset(server.get(f"{channel}?ts={ts}&epoch={foreign}"), 0, epoch)
        check_reset(server.get(f"{channel}?ts={ts}&epoch={foreign}&sleep=60"), 0, epoch)
        check_reset(server.get(f"{channel}?ts={ts}&epoch={foreign}&where=body.life:9"), 0, epoch)
    check_reset(server.get(f"{channel}?ts=9&epoch={foreign}"), 0, epoch)


def test_without_a_cursor_there_is_never_a_reset(server, channel):
    fill(server, channel, 3)
    epoch = epoch_of(server, channel)
    for query in ("ts=0", "ts=-1", "ts=-9", "ts=now", "since=10m", ""):
        reply = server.get(f"{channel}?{query}&epoch=0123456789abcdef").json()
        assert reply["epoch"] == epoch and "reset" not in reply


@pytest.mark.parametrize("where", ["", "&where=body.life:2"])
@pytest.mark.parametrize("query", ["ts=0", "ts=-1", "ts=now", "since=10m"])
def test_nor_while_it_waits(server, channel, query, where):
    """A filter may have passed over updates by then: those are of the data that are there."""
    if where or query == "ts=now":  # the others do not wait then
        fill(server, channel, 3)
    with server.client() as client:
        client.send_request("GET", f"{channel}?{query}&epoch=0123456789abcdef{where}&sleep=60")
        server.wait_for_parked(1)
        fill(server, channel, 1)
        if where:
            fill(server, channel, 1, life=2)
        reply = client.read_reply().json()
    assert "reset" not in reply and len(reply["updates"]) == 1, reply


def test_a_cursor_ahead_with_the_right_epoch(server, channel):
    fill(server, channel, 3)
    epoch = epoch_of(server, channel)
    for query in (f"epoch={epoch}", "epoch="):
        check_reset(server.get(f"{channel}?ts=4&{query}"), 3, epoch)
    assert server.get(f"{channel}?ts=4").json() == {"ok": True, "ts": 3, "reset": True, "updates": []}


def test_a_cursor_of_a_channel_that_is_gone(server, channel):
    check_reset(server.get(f"{channel}?ts=4&epoch=0123456789abcdef&sleep=60"), 0, "0")
    check_reset(server.get(f"{channel}?ts=4&epoch="), 0, "0")


# --- What is lost -------------------------------------------------------------------------------


@pytest.mark.providers("sqlite", "redis")
def test_a_stop_and_a_start_lose_nothing(serve):
    server = serve()
    channel = server.channel()
    fill(server, channel, 3)
    epoch = epoch_of(server, channel)
    for _ in range(3):
        server.restart()
        assert server.get(f"{channel}?ts=3&epoch={epoch}").json() == {"ok": True, "ts": 3, "epoch": epoch, "updates": []}


@pytest.mark.providers("sqlite", "redis")
def test_a_kill_loses_nothing_that_was_acknowledged(serve):
    """The epoch may become another; who has seen what is there is not reset."""
    server = serve()
    channel = server.channel()
    ts, epoch = 0, ""
    for _ in range(5):
        fill(server, channel, 3)
        reply = server.get(f"{channel}?ts={ts}&epoch={epoch}").json()
        assert "reset" not in reply and len(reply["updates"]) == 3
        ts, epoch = reply["ts"], reply["epoch"]
        server.kill9()
        server.start()
        reply = server.get(f"{channel}?ts={ts}&epoch={epoch}").json()
        assert "reset" not in reply and reply["updates"] == []


@pytest.mark.providers("memory")
def test_memory_is_lost_with_its_process(serve):
    server = serve()
    channel = server.channel()
    fill(server, channel, 3)
    epoch = epoch_of(server, channel)
    server.restart()
    check_reset(server.get(f"{channel}?ts=3&epoch={epoch}"), 0, "0")
    fill(server, channel, 5, life=2)
    new = epoch_of(server, channel)
    assert new != epoch
    check_reset(server.get(f"{channel}?ts=3&epoch={epoch}&sleep=60"), 0, new)
    reply = server.get(f"{channel}?ts=0&epoch={new}").json()
    assert reply["updates"] == [{"life": 2}] * 5 and "reset" not in reply


@pytest.mark.providers("sqlite")
@pytest.mark.parametrize("end", ["stop", "kill9"])
def test_a_file_that_is_gone(serve, end):
    """Its counter has passed the consumer's ts when it comes back."""
    server = serve()
    channel = server.channel()
    fill(server, channel, 3)
    epoch = epoch_of(server, channel)
    getattr(server, end)()
    for path in server.directory.glob("longline.db*"):
        path.unlink()
    server.start()
    check_reset(server.get(f"{channel}?ts=3&epoch={epoch}"), 0, "0")
    fill(server, channel, 5, life=2)
    new = epoch_of(server, channel)
    check_reset(server.get(f"{channel}?ts=3&epoch={epoch}&sleep=60"), 0, new)
    assert server.get(f"{channel}?ts=0&epoch={new}").updates == [{"life": 2}] * 5


*BACKUPS, RESTORE = scripts("docs/backup.md")


@pytest.mark.providers("sqlite")
@pytest.mark.parametrize("backup", BACKUPS, ids=["backup", "vacuum"])
@pytest.mark.parametrize("end", ["stop", "kill9"])
def test_a_backup_that_is_restored(serve, backup, end):
    """Consumers go on where what they saw and what is there part, also when the counter has passed their ts."""
    server = serve()
    channel, other = server.channel(), server.channel()
    fill(server, channel, 5)
    fill(server, other, 2)
    run_script(server, backup)
    fill(server, channel, 4)
    epoch, same = epoch_of(server, channel), epoch_of(server, other)
    getattr(server, end)()
    run_script(server, RESTORE)
    server.start()
    fill(server, channel, 7, life=2)
    new = epoch_of(server, channel)
    assert new != epoch
    check_reset(server.get(f"{channel}?ts=9&epoch={epoch}&sleep=60"), 5, new)
    assert server.get(f"{channel}?ts=5&epoch={new}").updates == [{"life": 2}] * 7
    # Those who have seen nothing that is gone are not reset.
    assert server.get(f"{channel}?ts=5&epoch={epoch}").json() == {"ok": True, "ts": 12, "epoch": new, "updates": [{"life": 2}] * 7}
    assert "reset" not in server.get(f"{other}?ts=2&epoch={same}").json()


@pytest.mark.providers("sqlite")
def test_a_copy_of_the_whole_directory(serve):
    server = serve()
    channel = server.channel()
    fill(server, channel, 3)
    server.stop()
    copy = server.directory.parent / "copy"
    shutil.copytree(server.directory, copy)
    server.start()
    fill(server, channel, 2)
    epoch = epoch_of(server, channel)
    server.stop()
    for path in server.directory.glob("longline.db*"):
        path.unlink()
    for path in copy.glob("longline.db*"):
        shutil.copy2(path, server.directory)
    server.start()
    fill(server, channel, 4, life=2)
    check_reset(server.get(f"{channel}?ts=5&epoch={epoch}"), 3, epoch_of(server, channel))


def test_a_flushed_redis(redis, start):
    server = start(**redis.settings())
    channel = server.channel()
    fill(server, channel, 3)
    epoch = epoch_of(server, channel)
    with server.client() as parked:
        parked.send_request("GET", f"{channel}?ts=3&epoch={epoch}&sleep=60")
        server.wait_for_parked(1)
        redis.command("FLUSHALL")
        fill(server, channel, 5, life=2)
        reply = parked.read_reply().json()
        assert (reply["reset"], reply["ts"], reply["updates"]) == (True, 0, [])
    new = epoch_of(server, channel)
    assert new != epoch
    check_reset(server.get(f"{channel}?ts=3&epoch={epoch}"), 0, new)
    assert server.get(f"{channel}?ts=0&epoch={new}").updates == [{"life": 2}] * 5
