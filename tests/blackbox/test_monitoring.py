"""What packaging/ has for monitoring: its metrics exist, its rules hold, and consumers' lags are among the metrics."""

import json
import re
import shutil
import subprocess

import pytest

from longline_server import REPOSITORY, wait_until

DASHBOARD = REPOSITORY / "packaging/grafana/longline.json"
RULES = REPOSITORY / "packaging/prometheus/alerts.yml"
RULE_TESTS = REPOSITORY / "packaging/prometheus/alerts_test.yml"
PAGE = (REPOSITORY / "docs/monitoring.md").read_text("utf-8")
NAME = re.compile(r"\b(?:longline|process)_[a-z_]+")


def exported(server):
    """The names of all metrics, those without a sample as yet included."""
    text = server.get("/-/metrics").text
    names = {}
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M):
        names.update({name + end: kind for end in (("_sum", "_count") if kind == "summary" else ("",))})
    return names


def test_every_metric_has_its_line_in_the_docs(server):
    told = set(re.findall(r"`((?:longline|process)_[a-z_]+?)(?:_sum)?(?:\{[^`]*)?`", PAGE))
    there = {re.sub(r"_(sum|count)$", "", name) if kind == "summary" else name for name, kind in exported(server).items()}
    assert there and not there - told, "they are missing in docs/monitoring.md"


def test_every_event_of_the_log_has_its_line_in_the_docs():
    sources = [file.read_text("utf-8") for file in (REPOSITORY / "src").rglob("*.c")]
    events = {event for text in sources for event in re.findall(r'\blog_(?:debug|info|warn|error)\(\s*"([^"]+)"', text)}
    assert len(events) > 40
    assert not {event for event in events if f"`{event}`" not in PAGE}, "they are missing in docs/monitoring.md"


def expressions(value):
    """Every query of the dashboard, wherever it is."""
    if isinstance(value, dict):
        yield from (text for key in ("expr", "definition") if isinstance(text := value.get(key), str))
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from expressions(part)


def test_every_metric_of_the_dashboard_exists(server):
    names = exported(server)
    queries = list(expressions(json.loads(DASHBOARD.read_text("utf-8"))))
    used = {name for query in queries for name in NAME.findall(query)}
    assert len(used) > 25 and used <= set(names), used - set(names)
    for query in queries:
        for name in re.findall(r"(?:rate|increase)\(([a-z_]+)", query):
            assert names[name] in ("counter", "summary"), query


def test_every_metric_that_there_is_is_in_the_dashboard(server):
    """But for those that say nothing over time."""
    used = set(NAME.findall(" ".join(expressions(json.loads(DASHBOARD.read_text("utf-8"))))))
    quiet = {
        "longline_connections_accepted_total",
        "longline_channels_resident",
        "longline_filter_looks_total",
        "longline_store_watches",
        "longline_uptime_seconds",
    }
    assert set(exported(server)) - used == quiet


@pytest.mark.parametrize("file", [RULES, RULE_TESTS], ids=lambda path: path.name)
def test_every_metric_of_the_rules_exists(server, file):
    text = re.sub(r"^ *#.*$", "", file.read_text("utf-8"), flags=re.M)
    used = set(NAME.findall(text))
    assert len(used) > 5 and used <= set(exported(server)), used - set(exported(server))


def test_panels_have_their_own_ids_and_places():
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
@pytest.mark.parametrize("arguments", [("check", RULES), ("test", RULE_TESTS)], ids=lambda a: a[0])
def test_promtool(arguments):
    command, file = arguments
    done = subprocess.run(["promtool", command, "rules", file], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "SUCCESS" in done.stdout, done.stdout + done.stderr


def lags(server):
    metrics = server.metrics()
    return tuple(metrics[f"longline_consumers{name}"] for name in ("", "_behind", "_lag", "_lag_max"))


def test_the_lags_of_consumers(serve):
    server = serve()
    assert lags(server) == (0, 0, 0, 0)
    one, two = server.channel(), server.channel()
    for channel, count in ((one, 5), (two, 2)):
        for _ in range(count):
            server.push(channel)
    server.get(f"{one}?as=a")  # confirms nothing yet
    server.get(f"{one}?as=b&ts=3")
    server.get(f"{two}?as=a&ts=2")
    assert lags(server) == (3, 2, 5 + 2, 5)
    server.get(f"{one}?as=a&ts=5")
    server.get(f"{one}?as=b&ts=5")
    assert lags(server) == (3, 0, 0, 0)
    assert server.metric("longline_consumers_oldest_unread_seconds") == 0
    server.push(two)
    assert server.get(f"{two}?as=a").updates, "a node on Redis learns of it, and it is not confirmed"
    assert lags(server) == (3, 1, 1, 1)
    assert server.request("DELETE", f"{two}?as=a").status == 200
    wait_until(lambda: lags(server) == (2, 0, 0, 0), "it to be forgotten")


def test_the_oldest_unread_is_the_one_behind_the_consumer(serve):
    """Not the oldest that is kept, which is a second older."""
    server = serve()

    def uptime():
        return server.metric("longline_uptime_seconds")

    channel = server.channel()
    server.push(channel)
    first = uptime()
    server.get(f"{channel}?as=a&ts=1")
    with server.client() as client, server.client() as stream:  # it waits, so it has seen all
        stream.send_request("GET", f"{channel}?feed=lines&ts=1")  # so that a node on Redis has what is new
        client.send_request("GET", f"{channel}?as=a&ts=1&sleep=60")
        server.wait_for_parked(2)
        wait_until(lambda: uptime() > first + 1, "the first to age")
        assert server.metric("longline_consumers_oldest_unread_seconds") == 0
        second = uptime()
        server.push(channel)
        client.read_reply()
        assert server.metric("longline_consumers_oldest_unread_seconds") < uptime() - second + 0.5
        age = server.metric("longline_consumers_oldest_unread_seconds")
        assert lags(server) == (1, 1, 1, 1), "it is answered, and has not confirmed"
        wait_until(lambda: server.metric("longline_consumers_oldest_unread_seconds") > age, "it to age")
