"""Keys of a channel, derived by a program of our own: what longline derives must be the same."""

import base64
import hashlib
import secrets

LETTERS = "abcdefghijklmnopqrstuvwxyz234567"


def after(key):
    """The key that follows: of r_ the v_ one, of v_ the w_ one."""
    digest = hashlib.sha256(b"longline:" + key.encode()).digest()
    return {"r": "v_", "v": "w_"}[key[0]] + base64.b32encode(digest).decode().lower()[:26]


def new_keys():
    """The three keys of a new channel: r_, v_ and w_."""
    key = "r_" + "".join(secrets.choice(LETTERS) for _ in range(26))
    return key, after(key), after(after(key))
