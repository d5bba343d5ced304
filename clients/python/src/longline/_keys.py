"""The three keys of a channel: r_ may do all, v_ reads and w_ sends. Each is derived from the one before, and none back."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from typing import NamedTuple, Optional
from urllib.parse import urlsplit

_prefixes = ("r_", "v_", "w_")
_letters = "abcdefghijklmnopqrstuvwxyz234567"
_key_size = 26
#: A path whose last part is a key.
_path = re.compile(r"(?P<before>(?:.*/)?)(?P<key>[rvw]_[a-z2-7]{26})(?P<after>/*)", re.DOTALL)


class Keys(NamedTuple):
    """The addresses of a new channel."""

    #: It may do everything. Keep it.
    url: str
    #: It reads. For those who may see the updates.
    read_only_url: str
    #: It sends. For the service whose webhooks you want.
    send_only_url: str


def new_keys(base: str) -> Keys:
    """Makes the addresses of a new channel on the server at `base`. Nothing is sent to it."""
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a server's address begins with http:// or https:// and a host")
    key = "r_" + "".join(secrets.choice(_letters) for _ in range(_key_size))
    keys = key, next_key(key), next_key(next_key(key))
    base_path = parts.path.rstrip("/")
    return Keys(*(parts._replace(path=f"{base_path}/{one}", fragment="").geturl() for one in keys))


def url_of_kind(url: str, prefix: str) -> Optional[str]:
    """The same address with the channel's key of this kind; None if the address cannot tell it.

    The fragment goes: no server is told it, and it may be a key.
    """
    parts = urlsplit(url)
    found = _path.fullmatch(parts.path)
    if not found:
        return None
    key = found["key"]
    if _prefixes.index(key[:2]) > _prefixes.index(prefix):
        return None
    while key[:2] != prefix:
        key = next_key(key)
    return parts._replace(path=found["before"] + key + found["after"], fragment="").geturl()


def next_key(key: str) -> str:
    """The key that may do less: of r_ the v_, of v_ the w_."""
    digest = hashlib.sha256(f"longline:{key}".encode("ascii")).digest()
    prefix = _prefixes[_prefixes.index(key[:2]) + 1]
    return prefix + base64.b32encode(digest).decode("ascii")[:_key_size].lower()
