"""What both clients know about longline's protocol. Nothing here reads, writes or waits.

A Cursor is the position of a subscription. It says what to ask for next, turns a reply into a Page,
and decides after an error whether to try again, and when:

    good reply              at once, with the reply's ts; the backoff starts over
    429, 503                after Retry-After (at most 60 s), if there is one
    408, 5xx, no reply or a broken one
                            after 0.5 s, 1, 2, ... 30, each times 0.5 to 1
    any other status        never: the error is raised
    empty reply, at once    after as long as after a first error
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
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, SupportsIndex, Tuple
from urllib.parse import quote, urlsplit

SLEEP_MAX_S = 60.0
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0
RETRY_AFTER_MAX_S = 60.0

# A connection that has been idle for longer is not reused: the server, or a proxy, may be about to
# close it.
IDLE_MAX_S = 30.0

log = logging.getLogger("longline")


class LonglineError(Exception):
    """A request that failed.

    status       the reply's status; 0 if no complete reply came (`__cause__` then says why)
    description  what the server said, or the client's own words
    retry_after  how many seconds the server asks us to wait; None if it does not
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
    """One update. The fields below `text` are only set with full=True."""

    ts: int
    update: Any
    #: The update's JSON exactly as stored: key order, duplicate keys, numbers as written, escapes.
    text: str
    #: When it was stored, in milliseconds since 1970; 0 if unknown.
    at: Optional[int] = None
    method: Optional[str] = None
    #: The query of the push, undecoded.
    query: Optional[str] = None
    #: The headers of the push, names in lower case.
    headers: Optional[Dict[str, str]] = None
    #: The body of the push, byte for byte: what a sender signs.
    raw: Optional[bytes] = None
    #: What stands below the channel in the push's path; None if nothing does.
    path: Optional[str] = None
    #: The sender's address, `from` in the protocol; None if it is not known.
    from_: Optional[str] = None
    #: The ts of the update that this one repeats; None if it repeats none.
    same_as: Optional[int] = None


@dataclass(frozen=True)
class Reply:
    """A complete HTTP reply; header names are in lower case."""

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
    """A channel's address in its parts. The server merges its query into every update pushed."""

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
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host.encode("idna").decode("ascii")
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    def headers(self, more: Mapping[str, str]) -> Dict[str, str]:
        """The headers of every request. Raises ValueError for one that HTTP cannot carry."""
        for name, value in more.items():
            if not _header_name.fullmatch(name) or not _header_value.fullmatch(value):
                raise ValueError(f"the header {name!r} cannot be sent")
        return {"Host": self.authority, "Accept": "application/json", "User-Agent": "longline-python", **more}

    def target(self, query: str = "") -> str:
        query = "&".join(filter(None, (self.query, query)))
        return f"{self.path}?{query}" if query else self.path


class Cursor:
    """How far a subscription has come, and how long its next backoff is."""

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
        """The page that a reply holds. Raises LonglineError if it holds none."""
        if not 200 <= reply.status < 300:
            raise error_of(reply)
        try:
            page = parse_page(reply.body.decode("utf-8"), self.full)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise LonglineError(0, "the reply is not one of longline's") from error
        self._step = self._first
        return page

    def rest(self, page: Page, took_s: float) -> float:
        """The seconds to wait before the next poll; 0 unless the reply was empty and came at once.

        A server that is shutting down, or a proxy that does not wait, answers like that. Without a
        pause the client would spin.
        """
        if took_s < self._first and page == Page(self.ts, 0, False, []):
            return jitter(self._first)
        return 0

    def delay(self, error: LonglineError) -> float:
        """The seconds to wait before asking again. Raises the error if asking again cannot help."""
        if error.status in (429, 503) and error.retry_after:
            return min(error.retry_after, RETRY_AFTER_MAX_S)
        if error.status in (0, 408, 429) or error.status >= 500:
            step = self._step
            self._step = min(2 * step, BACKOFF_MAX_S)
            return jitter(step)
        raise error


def jitter(seconds: float) -> float:
    """Between half and all of it: clients that failed together must not come back together."""
    return seconds * random.uniform(0.5, 1)


class Body(NamedTuple):
    """What a push sends."""

    data: bytes
    type: str
    #: How many updates a batch has; None if it is not a batch.
    count: Optional[int] = None


def push_body(update: object) -> Body:
    return Body(json_bytes(update), "application/json")


def batch_body(updates: Iterable[object]) -> Body:
    lines = [json_bytes(update) for update in updates]
    return Body(b"\n".join(lines), "application/x-ndjson", len(lines))


def json_bytes(update: object) -> bytes:
    """The update's JSON text, in one line."""
    text = json.dumps(update, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        # A string holds half a surrogate pair, which JSON can express and UTF-8 cannot.
        return json.dumps(update, separators=(",", ":"), allow_nan=False).encode("ascii")


def pushed_ts(reply: Reply, body: Body) -> int:
    """The ts that a push was given.

    Raises LonglineError if it was given none, or if the server did not take a batch for one.
    """
    if reply.status != 200:
        raise error_of(reply)
    total = reply.headers.get("x-total-updates", "")
    if not is_digits(total):
        raise LonglineError(reply.status, "the reply is not one of longline's")
    if body.count is not None:
        check_batch(reply, body.count)
    return int(total)


def check_batch(reply: Reply, size: int) -> None:
    count = reply.headers.get("x-updates")
    if count is None:
        raise LonglineError(reply.status, "the server does not know batches; it has stored the text as one update")
    if not is_digits(count) or int(count) > size:  # fewer: the address has .once, and some had come before
        raise LonglineError(reply.status, f"the server has stored {count} updates, not {size}")


def error_of(reply: Reply) -> LonglineError:
    try:
        description = json.loads(reply.body)["error_description"]
    except (ValueError, TypeError, KeyError, RecursionError):
        description = None
    if not isinstance(description, str):
        description = f"the server answered with status {reply.status}"
        if 300 <= reply.status < 400:
            # Name only the host that it leads to: the path is the channel's secret.
            where = re.match(r"https?://[^/?#@]+", reply.headers.get("location", ""))
            description += "; redirects are not followed, give the address that it leads to"
            description += f", at {where[0]}" if where else ""
    after = reply.headers.get("retry-after", "").strip()
    return LonglineError(reply.status, description, float(after) if is_digits(after) else None)


def no_reply(cause: BaseException) -> LonglineError:
    """The error for a request that got no complete reply."""
    return LonglineError(0, str(cause) or type(cause).__name__)


def is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


def log_error(error: LonglineError, delay: float) -> None:
    log.warning("%s; the next try is in %.1f s", error, delay)


def log_missed(count: int) -> None:
    log.warning("%d updates are no longer kept and have been missed", count)


def log_reset(ts: int) -> None:
    log.warning("the channel has begun anew; going on from ts %d", ts)


# --- parsing JSON so that each update keeps its exact text ---

#: A value and its text.
Cut = Tuple[Any, str]


def parse_int(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        # Python refuses to parse an int of thousands of digits. Such an update must not end a
        # subscription.
        return decimal.Decimal(text)


_decoder = json.JSONDecoder(parse_int=parse_int)
_space = re.compile(r"[ \t\n\r]*")


def parse_page(text: str, full: bool = False) -> Page:
    """Parses a reply. Raises ValueError, TypeError or KeyError if it is not longline's."""
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
    known = item.get("path"), item.get("from"), item.get("same_as")
    return Entry(ts, body, body_text, item["at"], item["method"], item["query"], item["headers"], raw, *known)


def cut_object(text: str, at: int, array: str = "") -> Tuple[Dict[str, Cut], int]:
    """The members of the object at `at`, each with its text, and where the object ends.

    If the member named `array` is an array, it is cut too: its value is what cut_array returns.
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
    """The elements of the array at `at`, each with its text, and where the array ends."""
    found: List[Cut] = []
    at = step_over("[", text, at)
    while text[at : at + 1] != "]":
        value, end = _decoder.raw_decode(text, at)
        found.append((value, text[at:end]))
        at = next_item(text, end, "]")
    return found, at + 1


def next_item(text: str, at: int, closing: str) -> int:
    """Goes from the end of an item to the next item, or to the closing bracket."""
    at = skip_space(text, at)
    return at if text[at : at + 1] == closing else step_over(",", text, at)


def step_over(character: str, text: str, at: int) -> int:
    """Steps over the character and the white space after it."""
    if text[at : at + 1] != character:
        raise ValueError(f"{character!r} is missing")
    return skip_space(text, at + 1)


def skip_space(text: str, at: int) -> int:
    found = _space.match(text, at)
    return found.end() if found else at
