"""docs/recipes: each service's documented request against the server, and what a consumer gets of it.

The service knows the address that sends, the consumer the one that reads.
The signatures are checked as a consumer would, from view=full alone.
"""

import base64
import hashlib
import hmac
import json
from urllib.parse import parse_qsl, urlencode

import pytest

from keys import after, new_keys
from longline_server import REPOSITORY

pytestmark = pytest.mark.providers("sqlite")  # test_by_hand.py runs on every store

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SECRET = b"It's a Secret to Everybody"


@pytest.fixture
def channel(server):
    """The channel as its consumer knows it."""
    _, read, send = new_keys()
    server.channels.update((read, send))
    return "/" + read


def to(channel):
    """The channel as its service knows it."""
    return "/" + after(channel[1:])


def mac(algorithm, *parts):
    return hmac.new(SECRET, b"".join(parts), algorithm)


def received(server, channel):
    """The newest update, whole: what a consumer has to check a signature with."""
    return server.get(channel + "?ts=-1&view=full").updates[-1]


def send(server, channel, body, headers, query=""):
    """Pushes an event; returns what a consumer gets, and the raw bytes of it."""
    reply = server.post(to(channel) + query, body, headers)
    assert reply.status in (200, 204), reply
    update = received(server, channel)
    assert server.get(channel + "?ts=-1").updates == [update["body"]]
    return update, update["raw"].encode()


def test_github(server, channel):
    body = '{"zen":"Keep it logically awesome.","hook_id":1,"hook":{"events":["push"]}}'.encode()
    headers = {
        **JSON,
        "X-GitHub-Event": "ping",
        "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "X-Hub-Signature-256": "sha256=" + mac("sha256", body).hexdigest(),
    }
    update, raw = send(server, channel, body, headers)
    assert update["body"]["hook_id"] == 1
    assert update["headers"]["x-github-event"] == "ping"
    assert update["headers"]["x-hub-signature-256"] == "sha256=" + mac("sha256", raw).hexdigest()


def test_github_as_a_form(server, channel):
    body = urlencode({"payload": '{"zen":"Design for failure."}'}).encode()
    headers = {**FORM, "X-Hub-Signature-256": "sha256=" + mac("sha256", body).hexdigest()}
    update, raw = send(server, channel, body, headers)
    assert json.loads(update["body"]["payload"]) == {"zen": "Design for failure."}
    assert update["headers"]["x-hub-signature-256"] == "sha256=" + mac("sha256", raw).hexdigest()


def test_gitlab(server, channel):
    headers = {**JSON, "X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": "t0ken", "Idempotency-Key": "f5e5"}
    update, _ = send(server, channel, '{"object_kind":"push","ref":"refs/heads/main"}', headers)
    assert update["body"]["object_kind"] == "push"
    assert (update["headers"]["x-gitlab-token"], update["headers"]["idempotency-key"]) == ("t0ken", "f5e5")


def test_stripe(server, channel):
    body = b'{\n  "id": "evt_1",\n  "type": "charge.succeeded",\n  "data": {"object": {"amount": 100}}\n}'
    signature = "t=1795506304,v1=" + mac("sha256", b"1795506304.", body).hexdigest()
    headers = {"Content-Type": "application/json; charset=utf-8", "Stripe-Signature": signature}
    update, raw = send(server, channel, body, headers)
    assert update["body"]["type"] == "charge.succeeded"
    fields = dict(field.split("=") for field in update["headers"]["stripe-signature"].split(","))
    assert fields["v1"] == mac("sha256", fields["t"].encode(), b".", raw).hexdigest()


def test_slack(server, channel):
    hello = '{"token":"x","challenge":"3eZbrw1aBm2rZgRN","type":"url_verification"}'
    reply = server.post(to(channel), hello, JSON)
    assert (reply.status, reply.text) == (200, "3eZbrw1aBm2rZgRN")
    body = b'{"type":"event_callback","event_id":"Ev1","event":{"type":"app_mention","text":"hi"}}'
    signature = "v0=" + mac("sha256", b"v0:1795506304:", body).hexdigest()
    headers = {**JSON, "X-Slack-Request-Timestamp": "1795506304", "X-Slack-Signature": signature}
    update, raw = send(server, channel, body, headers)
    at = update["headers"]["x-slack-request-timestamp"].encode()
    assert update["headers"]["x-slack-signature"] == "v0=" + mac("sha256", b"v0:", at, b":", raw).hexdigest()
    reply = server.post(to(channel) + "?.reply=", "command=%2Fweather&text=94070", FORM)
    assert (reply.status, reply.body) == (200, b"")
    assert received(server, channel)["body"] == {"command": "/weather", "text": "94070"}


def test_telegram(server, channel):
    headers = {**JSON, "X-Telegram-Bot-Api-Secret-Token": "S3CRET"}
    body = '{"update_id":10000,"message":{"message_id":1,"chat":{"id":-1001234567890},"text":"/start"}}'
    update, _ = send(server, channel, body, headers)
    assert update["body"]["update_id"] == 10000
    assert update["headers"]["x-telegram-bot-api-secret-token"] == "S3CRET"


def test_discord_behind_a_program_that_checks(server, channel):
    headers = {**JSON, "X-Signature-Ed25519": "00" * 64, "X-Signature-Timestamp": "1795506304"}
    reply = server.post(to(channel) + "?.status=204", '{"version":1,"application_id":"1","type":0}', headers)
    assert (reply.status, reply.body) == (204, b"")
    assert received(server, channel)["body"]["type"] == 0


def twilio_signature(address, fields):
    text = address + "".join(name + value for name, value in sorted(fields))
    return base64.b64encode(mac("sha1", text.encode()).digest()).decode()


def test_twilio(server, channel):
    address = f"https://inbox.example{to(channel)}?.status=204"
    body = urlencode({"MessageSid": "SM1", "From": "+14155551234", "To": "+18005550000", "Body": "Привет & hi"})
    headers = {**FORM, "X-Twilio-Signature": twilio_signature(address, parse_qsl(body))}
    reply = server.post(to(channel) + "?.status=204", body, headers)
    assert (reply.status, reply.body) == (204, b"")
    update = received(server, channel)
    assert update["body"] == dict(parse_qsl(body)), "the wish is not merged"
    signature = twilio_signature(address, parse_qsl(update["raw"], keep_blank_values=True))
    assert update["headers"]["x-twilio-signature"] == signature


def test_twilio_voice(server, channel):
    reply = server.post(to(channel) + "?.type=text/xml&.reply=%3CResponse/%3E", "CallSid=CA1", FORM)
    assert (reply.status, reply.text) == (200, "<Response/>")
    assert reply.headers["content-type"].startswith("text/xml")


def test_shopify(server, channel):
    body = b'{"id":820982911946154508,"total_price":"403.00"}'
    signature = base64.b64encode(mac("sha256", body).digest()).decode()
    headers = {**JSON, "X-Shopify-Topic": "orders/create", "X-Shopify-Hmac-Sha256": signature}
    update, raw = send(server, channel, body, headers)
    assert update["body"]["id"] == 820982911946154508
    assert update["headers"]["x-shopify-hmac-sha256"] == base64.b64encode(mac("sha256", raw).digest()).decode()


def test_vk(server, channel):
    reply = server.post(to(channel) + "?.reply=b41ac0de", '{"type":"confirmation","group_id":1}', JSON)
    assert (reply.status, reply.text) == (200, "b41ac0de")
    body = '{"type":"message_new","object":{},"group_id":1,"event_id":"e1","secret":"s"}'
    reply = server.post(to(channel) + "?.reply=ok", body, JSON)
    assert (reply.status, reply.text) == (200, "ok")
    assert received(server, channel)["body"] == json.loads(body)


def test_jira(server, channel):
    body = b'{"timestamp":1795506304321,"webhookEvent":"jira:issue_created","issue":{"key":"TEST-1"}}'
    headers = {
        **JSON,
        "X-Atlassian-Webhook-Identifier": "w1",
        "X-Hub-Signature": "sha256=" + mac("sha256", body).hexdigest(),
    }
    update, raw = send(server, channel, body, headers)
    assert update["body"]["issue"]["key"] == "TEST-1"
    assert update["headers"]["x-hub-signature"] == "sha256=" + mac("sha256", raw).hexdigest()


def test_grafana_and_alertmanager(server, channel):
    body = b'{"version":"4","groupKey":"{}:{}","status":"firing","receiver":"r","alerts":[{"status":"firing"}]}'
    signature = mac("sha256", b"1795506304:", body).hexdigest()
    headers = {**JSON, "X-Grafana-Alerting-Signature": signature, "X-Grafana-Time": "1795506304"}
    update, raw = send(server, channel, body, headers)
    at = update["headers"]["x-grafana-time"].encode()
    assert update["headers"]["x-grafana-alerting-signature"] == mac("sha256", at, b":", raw).hexdigest()
    assert server.request("PUT", to(channel) + "/v1/alerts", body, JSON).status == 200
    update = received(server, channel)
    assert (update["method"], update["path"], update["body"]["status"]) == ("PUT", "/v1/alerts", "firing")


def test_uptime_kuma(server, channel):
    event = {"heartbeat": {"status": 0, "msg": "timeout"}, "monitor": {"name": "shop"}, "msg": "[shop] down"}
    update, _ = send(server, channel, json.dumps(event), JSON)
    assert update["body"] == event
    body = f'--b\r\nContent-Disposition: form-data; name="data"\r\n\r\n{json.dumps(event)}\r\n--b--\r\n'
    update, _ = send(server, channel, body, {"Content-Type": "multipart/form-data; boundary=b"})
    assert json.loads(update["body"]["data"]) == event


def test_home_assistant(server, channel):
    update, _ = send(server, channel, '{"entity":"door","state":"on"}', JSON)
    assert update["body"]["state"] == "on"
    assert server.get(to(channel) + "/pushUpdates?door=open").status == 200
    assert received(server, channel)["body"] == {"door": "open"}


def test_n8n(server, channel):
    body = (
        '--b\r\nContent-Disposition: form-data; name="data"; filename="report.csv"\r\n'
        "Content-Type: text/csv\r\n\r\na,b\r\n--b--\r\n"
    )
    update, _ = send(server, channel, body, {"Content-Type": "multipart/form-data; boundary=b"})
    assert update["body"] == {
        "data": {"filename": "report.csv", "content_type": "text/csv", "size": 3, "body": "a,b"}
    }


def test_every_recipe_is_played():
    recipes = {path.stem.replace("-", "_") for path in (REPOSITORY / "docs/recipes").glob("*.md")} - {"README"}
    tests = [name.removeprefix("test_") for name in globals() if name.startswith("test_")]
    assert len(recipes) == 14
    assert not {recipe for recipe in recipes if not any(test.startswith(recipe) for test in tests)}
