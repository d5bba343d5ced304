#!/usr/bin/env python3
"""A stand-in for Telegram: a Bot API with setWebhook and sendMessage, and a user of the bots.

    sender.py [PORT]

Each line of stdin is `TOKEN TEXT`: the user writes TEXT to that bot, and it is posted to the bot's
webhook as Telegram would post it. Each answer of a bot is a line on stdout:
{"bot":TOKEN,"chat_id":…,"text":…}.
"""

import json
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

# Telegram's ids have up to 52 bits.
USER_ID = 2**52 - 1


class Telegram:
    def __init__(self):
        self.webhooks = {}
        self.update_id = 803512945
        self.message_id = 2**31

    def message(self, text):
        self.message_id += 1
        return {
            "message_id": self.message_id,
            "from": {"id": USER_ID, "is_bot": False, "first_name": "Анна 😎", "username": "anna", "language_code": "ru"},
            "chat": {"id": USER_ID, "first_name": "Анна 😎", "username": "anna", "type": "private"},
            "date": int(time.time()),
            "text": text,
        }

    def write(self, token, text):
        """The user writes. The update is posted until the webhook accepts it."""
        message = self.message(text)
        if text.startswith("/"):
            message["entities"] = [{"offset": 0, "length": len(text.split()[0]), "type": "bot_command"}]
        self.update_id += 1
        self.deliver(token, {"update_id": self.update_id, "message": message})

    def deliver(self, token, update):
        body = json.dumps(update, separators=(",", ":")).encode()
        request = urllib.request.Request(self.webhooks[token], body, {"Content-Type": "application/json"})
        for pause in (0.5, 1, 2, 4, 8):
            try:
                urllib.request.urlopen(request, timeout=10).close()
                return
            except OSError as error:
                print(f"the webhook does not take it: {error}", file=sys.stderr, flush=True)
                time.sleep(pause)

    def call(self, token, method, parameters):
        """A call of the Bot API. Returns the status and the reply."""
        if method == "setWebhook":
            self.webhooks[token] = parameters["url"]
            return 200, {"ok": True, "result": True, "description": "Webhook was set"}
        if method == "sendMessage":
            if str(parameters.get("chat_id")) != str(USER_ID):
                return 400, {"ok": False, "error_code": 400, "description": "Bad Request: chat not found"}
            line = json.dumps({"bot": token, "chat_id": USER_ID, "text": parameters["text"]})
            print(line + "\n", end="", flush=True)  # at once: another thread may print as well
            return 200, {"ok": True, "result": self.message(parameters["text"])}
        return 404, {"ok": False, "error_code": 404, "description": "Not Found"}


def bot_api(telegram):
    """Serves /bot<token>/<method>, with the parameters in the query, a form or JSON."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            target = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            parameters = dict(parse_qsl(target.query))
            is_json = self.headers.get_content_type() == "application/json"
            parameters.update(json.loads(body) if is_json else parse_qsl(body))
            token, _, method = target.path.removeprefix("/bot").partition("/")
            status, reply = telegram.call(token, method, parameters)
            text = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST

        def log_message(self, *_):
            pass

    return Handler


def main(port=8081):
    telegram = Telegram()
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), bot_api(telegram))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"Bot API at http://127.0.0.1:{server.server_address[1]}", flush=True)
    for line in sys.stdin:
        token, _, text = line.strip().partition(" ")
        if token in telegram.webhooks and text:
            telegram.write(token, text)
        else:
            print(f"no bot {token} has set its webhook, or no text", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        pass
