"""Webhooks as services send them: Telegram, Slack, Twilio, and GitHub.

GitHub's are all the examples in @octokit/webhooks-examples.
"""

import hashlib
import hmac
import json
from urllib.parse import quote, urlencode

import pytest

from http_client import request_bytes
from longline_server import REPOSITORY
from swarm import push_all

EXAMPLES = REPOSITORY / "tests/node_modules/@octokit/webhooks-examples"


def github_payloads():
    """Every example payload as (event, compact text) and (event, pretty-printed text)."""
    files = sorted(EXAMPLES.glob("*/index.json"))
    assert files, f"no payloads: run `npm ci` in {REPOSITORY / 'tests'}"
    payloads = []
    for file in files:
        for event in json.loads(file.read_text()):
            for example in event["examples"]:
                payloads.append((event["name"], json.dumps(example, separators=(",", ":"), ensure_ascii=False)))
                payloads.append((event["name"], json.dumps(example, indent=2)))
    return payloads


def read_texts(server, channel, count):
    """The texts of all updates of a channel, read one update a page."""
    texts = []
    for ts in range(count):
        body = server.get(f"{channel}?ts={ts}&limit=1").text
        start = body.index('"updates":[') + len('"updates":[')
        texts.append(body[start : body.rindex("]")])
    return texts


def test_every_github_payload_comes_back_byte_for_byte(serve):
    payloads = github_payloads()
    assert len(payloads) > 1400
    server = serve(CHANNEL_STORAGE_MAXSIZE=2000)
    channel = server.channel()
    requests = [
        request_bytes("POST", channel, text, {"Content-Type": "application/json", "X-GitHub-Event": event})
        for event, text in payloads
    ]
    replies = push_all(server.address, requests, connections=1, depth=32)
    assert [(reply.status, reply.total) for reply in replies] == [(200, i + 1) for i in range(len(payloads))]
    assert read_texts(server, channel, len(payloads)) == [text for _, text in payloads]


def test_github_payloads_read_in_pages_with_their_raw_text_and_event(serve):
    payloads = github_payloads()[::7]
    server = serve()
    channel = server.channel()
    for event, text in payloads:
        signature = "sha256=" + hmac.new(b"k", text.encode(), hashlib.sha256).hexdigest()
        server.push(channel + "?via=hook", text, {"X-GitHub-Event": event, "X-Hub-Signature-256": signature})
    items, ts = [], 0
    while ts < len(payloads):
        reply = server.get(f"{channel}?ts={ts}&view=full")
        items += reply.updates
        ts = reply.ts
    for (event, text), item in zip(payloads, items, strict=True):
        assert item["raw"] == text
        assert item["body"] == {**json.loads(text), "via": "hook"}
        assert item["headers"]["x-github-event"] == event
        signature = "sha256=" + hmac.new(b"k", item["raw"].encode(), hashlib.sha256).hexdigest()
        assert item["headers"]["x-hub-signature-256"] == signature


def test_a_github_form_webhook(server, channel):
    """GitHub's other content type: the JSON in a form field."""
    _, text = max(github_payloads(), key=lambda payload: len(payload[1]))
    server.push(channel, urlencode({"payload": text}), {"Content-Type": "application/x-www-form-urlencoded"})
    (update,) = server.get(channel).updates
    assert update == {"payload": text}


TELEGRAM = [
    # ids of 52 bits, a supergroup's negative id, text with escapes as Telegram sends them
    r'{"update_id":803512946,"message":{"message_id":4503599627370495,"from":{"id":4503599627370494,"is_bot":false,'
    r'"first_name":"\u0410\u043d\u043d\u0430 \ud83d\ude0e","language_code":"ru"},"chat":{"id":-1001234567890123,'
    r'"title":"\"Q\" \\ \/","type":"supergroup"},"date":1700000000,"text":"\u043f\u0440\u0438\u0432\u0435\u0442\n\ud83d\udc69\u200d\ud83d\udc67"}}',
    '{"update_id":803512947,\n"message":{"message_id":1,"chat":{"id":4503599627370495,"type":"private"},'
    '"text":"/start 😀👩‍👩‍👧 ‮rtl‬ \\u0000","entities":[{"offset":0,"length":6,"type":"bot_command"}]}}',
    '{"update_id":803512948,"callback_query":{"id":"1234567890123456789","chat_instance":"-9223372036854775808","data":"a=1&b=%20+"}}',
    '{"update_id":803512949,"message":{"location":{"latitude":59.934280,"longitude":-0.0,"horizontal_accuracy":1.50e1}}}',
]


@pytest.mark.parametrize("update", TELEGRAM)
def test_telegram_updates_come_back_byte_for_byte(server, channel, update):
    server.push(channel, update, {"Content-Type": "application/json", "X-Telegram-Bot-Api-Secret-Token": "t"})
    assert read_texts(server, channel, 1) == [update]
    server.push(channel + "?bot=mine", update)
    assert read_texts(server, channel, 2)[1] == update[:-1] + ',"bot":"mine"}'


def test_a_slack_interaction(server, channel):
    payload = json.dumps({"type": "block_actions", "user": {"id": "U1", "name": "zoë"}, "actions": [{"value": "a&b=c+d %"}]})
    server.push(channel, "payload=" + quote(payload, safe=""), {"Content-Type": "application/x-www-form-urlencoded"})
    (update,) = server.get(channel).updates
    assert update == {"payload": payload}
    assert json.loads(update["payload"])["actions"][0]["value"] == "a&b=c+d %"


def test_a_slack_command_and_its_signature(server, channel):
    form = "token=x&team_id=T1&channel_name=directmessage&command=%2Fweather&text=94070+%26+more&response_url=https%3A%2F%2Fhooks.example%2Fc%2F1"
    base = f"v0:1531420618:{form}".encode()
    signature = "v0=" + hmac.new(b"8f742231b10e8888abcd99yyyzzz85a5", base, hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Slack-Request-Timestamp": "1531420618",
        "X-Slack-Signature": signature,
    }
    server.push(channel, form, headers)
    (item,) = server.get(channel + "?view=full").updates
    assert item["body"]["command"] == "/weather" and item["body"]["text"] == "94070 & more"
    signed = f"v0:{item['headers']['x-slack-request-timestamp']}:{item['raw']}".encode()
    assert item["headers"]["x-slack-signature"] == "v0=" + hmac.new(
        b"8f742231b10e8888abcd99yyyzzz85a5", signed, hashlib.sha256
    ).hexdigest()


def test_a_twilio_message(server, channel):
    fields = {
        "ToCountry": "US",
        "SmsMessageSid": "SM" + "0" * 32,
        "NumMedia": "0",
        "Body": "Grüße & 50% + 😀\nsecond line",
        "From": "+14155238886",
        "To": "whatsapp:+14155550100",
        "Empty": "",
    }
    content_type = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    server.push(channel, urlencode(fields), content_type)
    assert server.get(channel).updates == [fields]


def test_an_uptime_ping_whose_query_is_the_update(server, channel):
    server.push(channel + "?i=server1&alive=1", b"")
    assert server.get(channel).updates == [{"i": "server1", "alive": "1"}]
