"""What an operator looks at: health, metrics and the log. None of it contains a channel's name."""

import json
import re
import signal

from longline_server import wait_until

METRICS = """
longline_connections longline_connections_accepted_total longline_pushes_total longline_push_bytes_total
longline_polls_total longline_polls_parked longline_updates_delivered_total longline_channels_resident
longline_cache_bytes longline_buffer_bytes longline_store_commits_total longline_store_commit_seconds_sum
longline_store_commit_seconds_count longline_store_errors_total longline_store_reads_total longline_store_updates
longline_store_bytes longline_store_swept_total longline_rate_limited_total process_resident_memory_bytes
process_cpu_seconds_total process_start_time_seconds longline_uptime_seconds longline_upgrades_total longline_build_info
longline_http_requests_total
""".split()


def test_health(server, provider):
    reply = server.get("/-/health")
    health = reply.json()
    assert reply.status == 200
    assert health["ok"] is True and health["status"] == "serving" and health["provider"] == provider
    assert health["version"]


def test_every_metric_is_there_with_its_help_and_type(server, channel):
    server.push(channel)
    reply = server.get("/-/metrics")
    assert reply.status == 200 and reply.headers["content-type"].startswith("text/plain")
    samples = server.metrics()
    assert not [name for name in METRICS if name not in samples]
    helped = set(re.findall(r"^# HELP (\S+) \S", reply.text, re.M))
    typed = dict(re.findall(r"^# TYPE (\S+) (counter|gauge|summary|histogram)$", reply.text, re.M))
    for name in METRICS:
        family = re.sub(r"_(sum|count)$", "", name)
        assert family in helped and family in typed, family
    for line in reply.text.splitlines():
        assert re.fullmatch(r'# .+|[a-z_]+(\{[a-z_]+="[^"\\]*"(,[a-z_]+="[^"\\]*")*\})? [-+0-9.e]+', line), line


def test_metrics_count_what_happens(serve, provider):
    server = serve()
    channel = server.channel()
    before = server.metrics()
    for _ in range(3):
        server.push(channel, '{"n":1}')
    server.get(channel)
    server.get(channel + "?ts=2")
    server.get(channel + "?ts=x")
    after = server.metrics()

    def grown(name):
        return after[name] - before.get(name, 0)

    assert grown("longline_pushes_total") == 3
    assert grown("longline_push_bytes_total") == 3 * len('{"n":1}')
    assert grown("longline_polls_total") in (2, 3)
    assert grown("longline_updates_delivered_total") == 4
    assert grown("longline_store_commit_seconds_count") == grown("longline_store_commits_total") >= 1
    assert grown('longline_http_requests_total{status="400"}') == 1
    assert grown('longline_http_requests_total{status="200"}') >= 6
    if provider != "redis":  # which cannot count what all its servers keep
        server.wait_for_metric("longline_store_updates", 3)
    assert after["longline_connections"] == 1
    if provider != "redis":  # which keeps only channels with a waiting poll in memory
        assert after["longline_channels_resident"] >= 1
    assert after["longline_store_errors_total"] == 0
    assert after["longline_buffer_bytes"] < 1 << 20


def test_parked_polls_and_connections_are_counted(serve):
    server = serve()
    channel = server.channel()
    clients = [server.client() for _ in range(10)]
    for client in clients:
        client.send_request("GET", channel + "?sleep=60")
    server.wait_for_parked(10)
    assert server.metric("longline_connections") == 11
    for client in clients:
        client.close()
    server.wait_for_parked(0)
    server.wait_for_metric("longline_connections", 1)


def test_the_log_can_be_read_by_a_person(serve):
    server = serve()
    server.push(server.channel())
    server.stop(signal.SIGINT)
    for line in server.log().splitlines():
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (debug|info|warn|error) +\S.*", line), line


def test_the_log_can_be_json(serve):
    server = serve(LOG_FORMAT="json")
    server.stop()
    lines = [json.loads(line) for line in server.log().splitlines()]
    assert {"time", "level", "event"} <= set.intersection(*[set(line) for line in lines])
    (listening,) = [line for line in lines if line["event"] == "listening"]
    assert listening["level"] == "info" and listening["address"].startswith("127.0.0.1:")


def test_a_quieter_log(start):
    server = start(LOG_LEVEL="info")
    server.push(server.channel())
    assert not re.search(r"Z debug ", server.log())


def test_a_channel_name_is_told_by_nothing(serve):
    """A server's log is checked when it stops. This checks all else, for all kinds of requests."""
    server = serve(RATE_LIMIT_LIMIT=12, MAX_BODY=1000)
    channel = server.channel()
    secret = channel[1:]
    replies = [
        server.post(channel, "{}"),
        server.post(channel, "not json", {"Content-Type": "application/json"}),
        server.post(channel, "x" * 2000),
        server.get(channel + "?ts=x"),
        server.get(channel + "?ts=99"),
        server.get(channel + "/other"),
        server.get(channel + "%zz"),
        server.get(channel + "x" * 300),
        server.request("DELETE", channel, "{}"),
        server.request("PROPFIND", channel, "{}"),
    ]
    with server.client() as client:
        client.send(b"GET %s?%s HTTP/1.1\r\nHost: x\r\n\r\n" % (channel.encode(), b"x" * 9000))
        replies.append(client.read_reply())
    with server.client() as client:
        client.send(b"GET %s HTTP/1.1\r\nHost : x\r\n\r\n" % channel.encode())
        replies.append(client.read_reply())
    replies += [server.get(channel) for _ in range(12)]
    assert {200, 400, 404, 405, 413, 414, 429} <= {reply.status for reply in replies}
    replies += [server.get("/-/metrics"), server.get("/-/health"), server.get("/")]
    for reply in replies:
        assert secret not in reply.head.decode("latin-1") + reply.text


def test_the_suite_would_notice_a_name_in_the_log(start):
    server = start()
    channel = server.channel()
    with open(server.log_path, "a") as log:
        log.write(f"oops {channel}\n")
    try:
        server.finish()
    except AssertionError as found:
        assert "secret" in str(found)
    else:
        raise AssertionError("not noticed")
    server.channels.clear()
    assert wait_until(lambda: server.process is None)
