#!/usr/bin/env python3
"""The Python half of a Telegram bot. It answers /sum and leaves the rest to the other half.

    BOT_TOKEN=… bot.py READ_URL APPNAME CURSOR_FILE

APPNAME tells the bots on one channel apart. It is in the webhook's address: SEND_URL?appname=APPNAME.
Set TELEGRAM to try it with another Bot API.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

# The client of this checkout. Delete this line if you have installed it with pip.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "clients/python/src"))
from longline import Channel

API = os.environ.get("TELEGRAM", "https://api.telegram.org")
TOKEN = os.environ.get("BOT_TOKEN")

PAUSES_S = (1, 2, 4)


def sum_of(words):
    try:
        return str(sum(int(word) for word in words))
    except ValueError:
        return "Like this: /sum 1 2 3"


COMMANDS = {"/sum": sum_of}


def answer_to(text):
    """The answer to a message, or None if it is not for us. In groups a command is /sum@the_bot."""
    command, *words = text.split()
    handler = COMMANDS.get(command.partition("@")[0])
    return handler and handler(words)


def is_refused(error):
    """Whether Telegram would refuse it again, as for an unknown chat. 429 only means "too many"."""
    return isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500 and error.code != 429


def send_message(chat_id, text):
    """Tries again after each of the pauses, and then raises the last error."""
    body = json.dumps({"chat_id": chat_id, "text": text}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{API}/bot{TOKEN}/sendMessage", body, headers)
    for pause_s in (*PAUSES_S, None):
        try:
            return urllib.request.urlopen(request, timeout=30).close()
        except OSError as error:
            if pause_s is None or is_refused(error):
                raise
        time.sleep(pause_s)


def handle(update, appname):
    """Ignores other kinds of updates (edits, buttons) and those for other bots."""
    if update.get("appname") != appname or "text" not in update.get("message", {}):
        return
    message = update["message"]
    answer = answer_to(message["text"])
    if answer:
        send_message(message["chat"]["id"], answer)
        print(f"{message['text']} -> {answer}", flush=True)


def load(cursor):
    """The ts of the last update, and the epoch of the data that it belongs to."""
    ts, _, epoch = (cursor.read_text() if cursor.exists() else "0").strip().partition(" ")
    return int(ts), epoch


def save(cursor, ts, epoch):
    """Writes the file so that it has the old place or the new one, never half of it."""
    new = cursor.with_name(cursor.name + ".new")
    new.write_text(f"{ts} {epoch}\n")
    new.replace(cursor)


def main(url, appname, cursor_file):
    cursor = Path(cursor_file)
    ts, epoch = load(cursor)
    entries = Channel(url).entries(ts=ts, epoch=epoch)
    for entry in entries:
        try:
            handle(entry.update, appname)
        except Exception as error:  # One bad update must not stop the rest.
            print(f"update {entry.ts} is not answered: {error!r}", file=sys.stderr, flush=True)
        save(cursor, entry.ts, entries.epoch)


if __name__ == "__main__":
    if len(sys.argv) != 4 or not TOKEN:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        pass
