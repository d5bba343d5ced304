"""`longline doctor`: it names what stands between this machine and the server, and what to change."""

import json
import re
import ssl
import time

import pytest
from authority import Authority
from between import Between
from commands import Command, Target, is_refused, run
from longline_server import wait_until
from redis_server import free_port

WELL, BAD, USAGE, UNREACHABLE = 0, 1, 64, 69
TOPICS = ["connection", "server", "round trip", "address", "clock", "body", "stream", "idle poll", "idle stream"]


@pytest.fixture
def server(start):
    return start(DATA_PROVIDER="memory")


def doctor(url, *options, **environment):
    """Its exit code, and its findings by topic, in order."""
    ended = run("doctor", url, "--json", "--sleep=1.5", *options, **environment)
    assert ended.stderr == "", ended
    findings = [json.loads(line) for line in ended.stdout.splitlines()]
    return ended.returncode, {finding["topic"]: finding for finding in findings}


def bad(findings):
    return [topic for topic, finding in findings.items() if not finding["ok"]]


def seconds_in(finding, pattern):
    """How long something took, as a finding says."""
    return float(re.match(pattern, finding["text"])[1])


def test_a_good_server(server):
    channel = server.channel()
    code, findings = doctor(server.url(channel))
    assert (code, list(findings)) == (WELL, TOPICS)
    assert "127.0.0.1" in findings["address"]["text"] and "32.0 MiB pass" in findings["body"]["text"]
    assert seconds_in(findings["idle poll"], r"it lasts (\d+\.\d) s, and is answered$") >= 1.5
    assert re.fullmatch(r"an update comes \d+ ms after its push began", findings["stream"]["text"])
    assert findings["idle stream"]["text"].startswith("not cut for 1.5 s")
    assert server.get(channel).total == 0, "the user's channel is not touched"


def test_for_people(server):
    ended = run("doctor", server.url(server.channel()), "--sleep=0.1")
    assert ended.returncode == WELL and [line[5:17].strip() for line in ended.stdout.splitlines()] == TOPICS
    assert all(line.startswith("ok   ") for line in ended.stdout.splitlines()) and ended.stderr == ""


def test_a_proxy_that_cuts_idle_polls(server):
    def rule(received):
        if "sleep=" not in received.target:
            return "pass"
        time.sleep(0.6)  # which is what such a proxy does
        return 504, {}, b"<html>"

    with Between(server, rule) as proxy:
        code, findings = doctor(proxy.url + "/x")
    assert (code, bad(findings)) == (BAD, ["idle poll"])
    assert seconds_in(findings["idle poll"], r"cut after (\d+\.\d) s: status 504") >= 0.6
    assert "proxy_read_timeout" in findings["idle poll"]["advice"] and "timeout server" in findings["idle poll"]["advice"]


def test_a_proxy_that_takes_no_more_than_1_mb(server):
    with Between(server, lambda received: (413, {}, b"<html>") if len(received.body) > 1_000_000 else "pass") as proxy:
        code, findings = doctor(proxy.url + "/x")
    assert (code, bad(findings)) == (BAD, ["body"])
    assert "0.5 MiB pass, 1.0 MiB do not: status 413" in findings["body"]["text"] and "client_max_body_size" in findings["body"]["advice"]


def test_the_servers_own_limit_is_none_of_the_proxys(start):
    server = start(DATA_PROVIDER="memory", MAX_BODY="2000000")
    code, findings = doctor(server.url(server.channel()))
    assert code == WELL and "1.0 MiB pass; more is beyond the server's own MAX_BODY" in findings["body"]["text"]


def test_a_proxy_that_does_not_show_health(server):
    with Between(server, lambda received: 404 if received.target.startswith("/-/") else "pass") as proxy:
        code, findings = doctor(proxy.url + "/x")
    assert (code, list(findings)) == (WELL, TOPICS) and "/-/health is not shown" in findings["server"]["text"]


def test_a_server_of_another_kind():
    with Target(lambda number, received: (404, {}, b"<html>")) as other:
        code, findings = doctor(other.url + "/x")
        assert {got.method for got in other.received} == {"GET"}, "nothing is pushed"
    assert (code, bad(findings)) == (UNREACHABLE, ["server"]) and "status 404, and not from longline" in findings["server"]["text"]


def test_an_address_with_something_behind_the_channel(server):
    """What looks like the address of the server is the user's channel."""
    channel = server.channel()
    for behind in ("/getUpdates", "/v1/alerts"):
        code, findings = doctor(server.url(channel) + behind)
        assert (code, bad(findings)) == (UNREACHABLE, ["server"]) and "nothing behind it" in findings["server"]["advice"]
    assert server.get(channel).total == 0


def test_below_a_prefix(server):
    """A server that a proxy shows under a path of its own."""
    with Between(server, prefix="/hooks") as proxy:
        for address in ("/hooks/secret?x#y", "/hooks/#secret", "/hooks/-/chat#secret/room"):
            assert doctor(proxy.url + address)[0] == WELL


def test_a_server_that_does_not_purge(start):
    server = start(DATA_PROVIDER="memory", PURGE="off")
    code, findings = doctor(server.url(server.channel()))
    assert code == WELL and "PURGE=off" in findings["traces"]["text"]


def test_stopped_while_it_waits(server, tmp_path):
    """It ends at once, and has purged what it pushed."""
    doctor = Command(tmp_path / "doctor", "doctor", server.url(server.channel()), "--json")
    try:
        doctor.wait_for_line('"topic":"stream"')
        server.wait_for_metric("longline_purges_total", 1)
        server.wait_for_metric("longline_streams", 1)
        assert doctor.terminate() == BAD and len(doctor.lines) == TOPICS.index("idle poll")
    finally:
        doctor.kill()
    server.wait_for_metric("longline_store_updates", 0)


@pytest.mark.timed
def test_stopped_while_it_sends(server, tmp_path):
    """It leaves nothing behind either: a push that is under way has a second."""
    doctor = Command(tmp_path / "doctor", "doctor", server.url(server.channel()), "--json")
    try:
        wait_until(lambda: server.metric("longline_pushes_total") >= 8, "some pushes")
        assert doctor.terminate() == BAD
    finally:
        doctor.kill()
    server.wait_for_metric("longline_purges_total", 1)
    server.wait_for_metric("longline_store_updates", 0)


def tls_context(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("IP:127.0.0.1"))
    return context


def test_certificates(server, tmp_path, clock):
    """One that ends soon, one that has ended, and one of an authority that is not known."""
    authority = Authority(tmp_path / "authority")
    with Between(server, context=tls_context(authority)) as proxy:
        url = proxy.url.replace("http:", "https:") + "/x"
        code, findings = doctor(url, CURL_CA_BUNDLE=str(authority.certificate))
        assert (code, bad(findings)) == (BAD, ["certificate"]) and findings["certificate"]["text"] in ("1 days left", "2 days left")
        clock.set(30)
        code, findings = doctor(url, CURL_CA_BUNDLE=str(authority.certificate), **clock.settings)
        assert (code, list(findings)) == (UNREACHABLE, ["certificate"])
        assert "expired" in findings["certificate"]["text"] and "Renew" in findings["certificate"]["advice"]
        code, findings = doctor(url)
        assert (code, list(findings)) == (UNREACHABLE, ["certificate"])
        assert "issuer" in findings["certificate"]["text"] and "chain" in findings["certificate"]["advice"]


def test_clocks_that_differ(server, clock):
    clock.set(3)
    code, findings = doctor(server.url(server.channel()), **clock.settings)
    assert (code, bad(findings)) == (BAD, ["clock"]) and "s behind" in findings["clock"]["text"]


def test_nobody_there():
    code, findings = doctor(f"http://127.0.0.1:{free_port()}/x")
    assert (code, bad(findings)) == (UNREACHABLE, ["connection"])
    assert doctor("http://nowhere.invalid/x")[0] == UNREACHABLE


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["http://h/x", "y"], ["http://h/x", "--sleep=90"], ["http://h/x", "--as=a"]])
def test_bad_usage_is_one_line(arguments):
    is_refused(run("doctor", *arguments), USAGE)
