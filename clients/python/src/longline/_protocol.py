"""What both clients know of longline's protocol. Nothing here reads, writes or waits.

A subscription is a Cursor. It says what to ask for next, makes a Page of a reply, and decides after an error
whether to try again and when:

    good reply        the next cursor is the reply's ts; the backoff begins anew
    429, 503          after Retry-After (at most 60 s), where there is one
    408, 5xx, no or a broken reply
                      after 0.5 s, 1, 2, ... 30, each times 0.5 to 1
    anything else     the error is the caller's
    nothing new, and at once
                      after as long as after a first error
"""

from __future__ import annotations

import base64
import decimal
import json
import logging
import operator
import random
import re
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, SupportsIndex, Tuple
from urllib.parse import quote, urlsplit

SLEEP_MAX_S = 60.0
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0
RETRY_AFTER_MAX_S = 60.0

# A kept connection is not used again when it has been idle for longer: the server, or a proxy, may just be closing it.
IDLE_MAX_S = 30.0


log = logging.getLogger("longline")


class LonglineError(Exception):
    """A request that failed.

    status       the reply's status; 0 when there was no whole reply (`__cause__` then says why)
    description  the server's words, or the client's
    retry_after  the seconds that the server asks to wait, where it does
    """

    def __init__(self, status: int, description: str, retry_after: Optional[float] = None) -> None:
        super().__init__(status, description, retry_after)
        self.status = status
        self.description = description
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.status} {self.description}" if self.status else self.description


@dataclass(frozen=True)
class Entry:
    """One update. What stands below `text` is there with full=True only."""

    ts: int
    update: Any
    #: The update's JSON exactly as the server keeps it: key order, duplicate keys, number text, escapes.
    text: str
    #: When it was stored: milliseconds since 1970; 0 where that is not known.
    at: Optional[int] = None
    method: Optional[str] = None
    #: The query of the push, undecoded.
    query: Optional[str] = None
    #: The headers of the push, names in lower case.
    headers: Optional[Dict[str, str]] = None
    #: The body of the push, byte for byte: what a sender signs.
    raw: Optional[bytes] = None


@dataclass(frozen=True)
class Reply:
    """A whole HTTP reply; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Page:
    """The reply to a poll."""

    ts: int
    missed: int
    reset: bool
    entries: List[Entry]


_header_name = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
_header_value = re.compile(r"[\t -~\x80-\xff]*")


class Address:
    """A channel's address, taken apart. Its query belongs to the pushes: the server merges it into each update."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("a channel's address begins with http:// or https:// and a host")
        if parts.username is not None:
            raise ValueError("a user in the address is not supported; give headers={'Authorization': ...}")
        self.tls = parts.scheme == "https"
        self.host = parts.hostname
        self.port = parts.port or (443 if self.tls else 80)
        self.path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
        self.query = quote(parts.query, safe="/%:@!$&'()*+,;=~?")

    @property
    def authority(self) -> str:
        """For the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host.encode("idna").decode("ascii")
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    def headers(self, more: Mapping[str, str]) -> Dict[str, str]:
        """Those of every request. Raises ValueError for one that HTTP cannot say."""
        for name, value in more.items():
            if not _header_name.fullmatch(name) or not _header_value.fullmatch(value):
                raise ValueError(f"the header {name!r} cannot be sent")
        return {"Host": self.authority, "Accept": "application/json", "User-Agent": "longline-python", **more}

    def target(self, query: str = "") -> str:
        query = "&".join(filter(None, (self.query, query)))
        return f"{self.path}?{query}" if query else self.path


class Cursor:
    """Where a subscription is, and how patient it has become."""

    def __init__(self, ts: SupportsIndex, sleep: float, limit: int, full: bool, backoff: float) -> None:
        if not 0 < sleep <= SLEEP_MAX_S:
            raise ValueError(f"sleep is more than 0 and at most {SLEEP_MAX_S:g} seconds")
        if limit < 1:
            raise ValueError("limit is a whole number from 1")
        self.ts = operator.index(ts)
        self.sleep = max(sleep, 0.001)
        self.full = full
        sleep_text = f"{self.sleep:.3f}".rstrip("0").rstrip(".")
        self._rest = f"&sleep={sleep_text}&limit={limit:d}{'&view=full' if full else ''}"
        self._first = backoff
        self._step = backoff

    def query(self) -> str:
        return f"ts={self.ts:d}{self._rest}"

    def page(self, reply: Reply) -> Page:
        """What the reply says; raises LonglineError where that is nothing good."""
        if not 200 <= reply.status < 300:
            raise error_of(reply)
        try:
            page = parse_page(reply.body.decode("utf-8"), self.full)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise LonglineError(0, "the reply is not one of longline's") from error
        self._step = self._first
        return page

    def rest(self, page: Page, took_s: float) -> float:
        """The seconds to wait after a reply that says nothing and came at once (from a server that ends, or a proxy
        that does not wait), so as not to spin; 0 after any other, which is to be handed on.
        """
        if took_s < self._first and page == Page(self.ts, 0, False, []):
            return jitter(self._first)
        return 0

    def delay(self, error: LonglineError) -> float:
        """The seconds to wait before the same question is asked again. Raises the error when it must not be."""
        if error.status in (429, 503) and error.retry_after:
            return min(error.retry_after, RETRY_AFTER_MAX_S)
        if error.status in (0, 408, 429) or error.status >= 500:
            step = self._step
            self._step = min(2 * step, BACKOFF_MAX_S)
            return jitter(step)
        raise error


def jitter(seconds: float) -> float:
    """Half to all of it: clients that failed together must not come back together."""
    return seconds * random.uniform(0.5, 1)


def push_body(update: object) -> bytes:
    text = json.dumps(update, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        # Half a surrogate pair in a string: JSON can say it, UTF-8 cannot.
        return json.dumps(update, separators=(",", ":"), allow_nan=False).encode("ascii")


def pushed_ts(reply: Reply) -> int:
    """The id that a push got; raises LonglineError where it got none."""
    if reply.status != 200:
        raise error_of(reply)
    total = reply.headers.get("x-total-updates", "")
    if not is_digits(total):
        raise LonglineError(reply.status, "the reply is not one of longline's")
    return int(total)


def error_of(reply: Reply) -> LonglineError:
    try:
        description = json.loads(reply.body)["error_description"]
    except (ValueError, TypeError, KeyError, RecursionError):
        description = None
    if not isinstance(description, str):
        description = f"the server answered with status {reply.status}"
        if 300 <= reply.status < 400:
            # Of where it leads to only the host is told: the path is the channel's secret.
            where = re.match(r"https?://[^/?#@]+", reply.headers.get("location", ""))
            description += "; redirects are not followed, give the address that it leads to"
            description += f", at {where[0]}" if where else ""
    after = reply.headers.get("retry-after", "").strip()
    return LonglineError(reply.status, description, float(after) if is_digits(after) else None)


def is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


def log_error(error: LonglineError, delay: float) -> None:
    log.warning("%s; the next try is in %.1f s", error, delay)


def log_missed(count: int) -> None:
    log.warning("%d updates are no longer kept and have been missed", count)


def log_reset(ts: int) -> None:
    log.warning("the channel has begun anew; going on from ts %d", ts)


# --- JSON, with each update's own text ---

#: A value and its own text.
Cut = Tuple[Any, str]


def parse_int(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        # Python refuses to make an int of thousands of digits. One such update must not end a subscription.
        return decimal.Decimal(text)


_decoder = json.JSONDecoder(parse_int=parse_int)
_space = re.compile(r"[ \t\n\r]*")


def parse_page(text: str, full: bool = False) -> Page:
    """Takes a reply apart. Raises ValueError, TypeError or KeyError where it is none."""
    fields, end = cut_object(text, skip_space(text, 0), array="updates")
    if skip_space(text, end) != len(text):
        raise ValueError("there is text behind the reply")
    ts, missed, items = fields["ts"][0], fields.get("missed", (0, ""))[0], fields["updates"][0]
    if not isinstance(ts, int) or not isinstance(missed, int) or not isinstance(items, list):
        raise TypeError("ts, missed or updates is of another type")
    first = ts - len(items) + 1
    numbered = ((first + index, value, item_text) for index, (value, item_text) in enumerate(items))
    entries = [full_entry(*item) if full else Entry(*item) for item in numbered]
    return Page(ts, missed, fields.get("reset", (False, ""))[0] is True, entries)


def full_entry(ts: int, item: Any, text: str) -> Entry:
    """The entry of an item of view=full."""
    raw = base64.b64decode(item["raw_base64"]) if "raw_base64" in item else item["raw"].encode("utf-8")
    body, body_text = cut_object(text, 0)[0]["body"]
    return Entry(ts, body, body_text, item["at"], item["method"], item["query"], item["headers"], raw)


def cut_object(text: str, at: int, array: str = "") -> Tuple[Dict[str, Cut], int]:
    """The members of the object at `at`, each with its own text, and where the object ends.

    An array that is the member `array` is taken apart in turn: its value is that of cut_array.
    """
    found: Dict[str, Cut] = {}
    at = step_over("{", text, at)
    while text[at : at + 1] != "}":
        key, at = _decoder.raw_decode(text, at)
        if not isinstance(key, str):
            raise ValueError("a key is no string")
        at = step_over(":", text, skip_space(text, at))
        if key == array and text[at : at + 1] == "[":
            value, end = cut_array(text, at)
        else:
            value, end = _decoder.raw_decode(text, at)
        found[key] = value, text[at:end]
        at = next_item(text, end, "}")
    return found, at + 1


def cut_array(text: str, at: int) -> Tuple[List[Cut], int]:
    """The elements of the array at `at`, each with its own text, and where the array ends."""
    found: List[Cut] = []
    at = step_over("[", text, at)
    while text[at : at + 1] != "]":
        value, end = _decoder.raw_decode(text, at)
        found.append((value, text[at:end]))
        at = next_item(text, end, "]")
    return found, at + 1


def next_item(text: str, at: int, closing: str) -> int:
    """From the end of an item to the next one, or to the closing bracket."""
    at = skip_space(text, at)
    return at if text[at : at + 1] == closing else step_over(",", text, at)


def step_over(character: str, text: str, at: int) -> int:
    """Steps over the character and the space behind it."""
    if text[at : at + 1] != character:
        raise ValueError(f"{character!r} is missing")
    return skip_space(text, at + 1)


def skip_space(text: str, at: int) -> int:
    found = _space.match(text, at)
    return found.end() if found else at
