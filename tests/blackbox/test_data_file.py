"""What docs/ says about the data file of a running server, its commands run as is."""

import json
import re
import threading

import pytest

from doc_blocks import run_script, scripts
from longline_server import REPOSITORY, wait_until

*BACKUPS, RESTORE = scripts("docs/backup.md")


class Pusher:
    """Pushes {"n":1}, {"n":2}, … to a channel as fast as it can, for as long as it is open."""

    def __init__(self, server, channel):
        self.server, self.channel, self.acknowledged, self.stops = server, channel, 0, False
        self.thread = threading.Thread(target=self._push)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stops = True
        self.thread.join()

    def _push(self):
        with self.server.client() as client:
            while not self.stops:
                n = self.acknowledged + 1
                assert client.post(self.channel, '{"n":%d,"x":"%s"}' % (n, "x" * 20_000)).total == n
                self.acknowledged = n


@pytest.mark.parametrize("backup", BACKUPS, ids=["backup", "vacuum"])
def test_a_backup_of_a_live_server_and_its_restore(start, backup):
    server = start(CHANNEL_STORAGE_MAXSIZE=1_000_000)
    channel = server.channel()
    with Pusher(server, channel) as pusher:
        wait_until(lambda: pusher.acknowledged > 1500, "a backlog")
        before = pusher.acknowledged
        run_script(server, backup)
        wait_until(lambda: pusher.acknowledged > before + 100, "pushes during the backup and after it")
    newest = pusher.acknowledged
    assert (server.directory / "copy.db").stat().st_mode & 0o077 == 0, "it holds secrets"

    # The write-ahead log stays behind, as after a crash. It must not get into the restored data.
    server.kill9()
    run_script(server, RESTORE)
    server.start()
    kept = [update["n"] for _, update in server.read_all(channel)]
    assert kept == list(range(1, len(kept) + 1)), "of one moment, and in order"
    assert before <= len(kept) < newest
    page = server.get(f"{channel}?ts={newest}&sleep=60").json()
    assert page == {"ok": True, "ts": len(kept), "reset": True, "updates": []}
    assert server.push(channel) == len(kept) + 1


def test_looking_into_the_data(start):
    server = start()
    channel = server.channel()
    server.push(channel, '{"action":"opened"}', {"X-GitHub-Event": "issues"})
    for app in ("mybot", "mybot", "twilio"):
        server.push(f"{channel}?appname={app}")
    newest, largest, by_app = (sql.replace("SECRET", channel[1:]) for sql in scripts("docs/data.md", "sql"))

    def rows(sql):
        done = run_script(server, f"sqlite3 -readonly -json longline.db <<'SQL'\n{sql}\nSQL\n")
        return json.loads(done or "[]")

    # The next checkpoint writes the channel's row.
    found = wait_until(lambda: len(got := rows(newest)) == 4 and got, "the checkpoint")
    assert [(row["ts"], row["event"], row["body"]) for row in found] == [
        (4, None, '{"appname":"twilio"}'),
        (3, None, '{"appname":"mybot"}'),
        (2, None, '{"appname":"mybot"}'),
        (1, "issues", '{"action":"opened"}'),
    ]
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d", row["at"]) for row in found)
    (row,) = rows(largest)
    assert (row["name"], row["total"], row["stored"]) == (channel[1:], 4, 4) and row["bytes"] > 60
    assert {row["app"]: row["updates"] for row in rows(by_app)} == {None: 1, "mybot": 2, "twilio": 1}


def test_the_disk_that_an_update_takes(start):
    """The document's figure, computed from the metrics that it names."""
    server = start(CHANNEL_STORAGE_MAXSIZE=1_000_000)
    body = json.dumps({"x": "y" * (188 - len('{"x": ""}'))})
    assert len(body) == 188
    headers = {"Content-Type": "application/json", "User-Agent": "GitHub-Hookshot/0123456"}
    channels = [server.channel() for _ in range(20)]
    before = server.metrics()
    for _ in range(50):
        for channel in channels:
            server.push(channel, body, headers)
    figure = int(re.search(r"188 bytes with four headers takes some (\d+) bytes", (REPOSITORY / "docs/sizing.md").read_text("utf-8"))[1])
    server.wait_for_metric("longline_store_updates", 1000)

    def grown():
        return server.metric("longline_store_bytes") - before["longline_store_bytes"]

    wait_until(lambda: grown() > 0.8 * 1000 * figure, "the bytes to be counted")
    assert grown() < 1.2 * 1000 * figure
