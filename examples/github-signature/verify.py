#!/usr/bin/env python3
"""Acts on webhooks that GitHub has signed with your secret, and refuses all others.

    GITHUB_SECRET=… verify.py READ_URL CURSOR_FILE
"""

import hashlib
import hmac
import json
import os
import sys
from pathlib import Path

# The client of this checkout. Delete this line if you have installed it with pip.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "clients/python/src"))
from longline import Channel


def is_signed(raw, signature, secret):
    """Whether `signature`, the header's value, is GitHub's for exactly these bytes."""
    expected = "sha256=" + hmac.new(secret, raw, hashlib.sha256).hexdigest()
    # Compare bytes: compare_digest only takes ASCII text, and a forger may send anything.
    return hmac.compare_digest(expected.encode(), signature.encode())


def act(event, payload):
    """Your code goes here. Only `payload` is signed; the event's name is no more than a hint."""
    repository = payload.get("repository") or {}
    print("accepted", event, payload.get("action", "-"), repository.get("full_name", "-"), flush=True)


def payload_of(raw):
    """The signed object, or None. The webhook's content type must be application/json."""
    try:
        payload = json.loads(raw)
    except ValueError:
        return None
    return payload if isinstance(payload, dict) else None


def load(cursor):
    """The ts of the last update, and the epoch of the data that it belongs to."""
    ts, _, epoch = (cursor.read_text() if cursor.exists() else "0").strip().partition(" ")
    return int(ts), epoch


def save(cursor, ts, epoch):
    """Writes the file so that it has the old place or the new one, never half of it."""
    new = cursor.with_name(cursor.name + ".new")
    new.write_text(f"{ts} {epoch}\n")
    new.replace(cursor)


def main(url, cursor_file):
    secret = os.environ.get("GITHUB_SECRET", "").encode()
    if not secret:
        sys.exit("GITHUB_SECRET is empty: without it anybody can sign")
    cursor = Path(cursor_file)
    ts, epoch = load(cursor)

    entries = Channel(url).entries(ts=ts, full=True, epoch=epoch)
    for entry in entries:
        signature = entry.headers.get("x-hub-signature-256")
        if signature is None:
            print(f"REFUSED {entry.ts}: no signature", flush=True)
        elif not is_signed(entry.raw, signature, secret):
            print(f"REFUSED {entry.ts}: the signature is wrong", flush=True)
        # Not entry.update: the query of the address is merged into it, and nobody signed the query.
        elif (payload := payload_of(entry.raw)) is None:
            print(f"REFUSED {entry.ts}: no JSON object", flush=True)
        else:
            act(entry.headers.get("x-github-event", "-"), payload)
        save(cursor, entry.ts, entries.epoch)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        pass
