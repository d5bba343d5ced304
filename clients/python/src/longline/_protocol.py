"""What both clients know about longline's protocol. Nothing here reads, writes or waits."""

from __future__ import annotations

import asyncio
import base64
import decimal
import json
import logging
import operator
import re
import socket
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple, Union
from urllib.parse import quote, urlsplit

# A connection that has been idle for longer is not reused: the server, or a proxy, may be about to
# close it.
IDLE_MAX_S = 30.0

log = logging.getLogger("longline")


class LonglineError(Exception):
    """A request that failed.

    status       the reply's status; 0 if no complete reply came (`__cause__` then says why)
    description  what the server said, or the client's own words
    retry_after  how many seconds the server asks us to wait; None if it does not
    channel      which of several channels it is about; None if it is about the request
    """

    #: longline itself says that the request is wrong: asking again cannot help.
    is_final = False
    #: Something between us and longline ended the request.
    is_cut = False
    #: It went over a connection that had been kept, and that had perhaps been closed by then.
    is_stale = False
    #: Nothing came in time.
    is_silence = False
    channel: Optional[str] = None

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
    #: The body of the push, byte for byte: what a sender signs. Of a compressed one, the plain bytes.
    raw: Optional[bytes] = None
    #: What stands below the channel in the push's path; None if nothing does.
    path: Optional[str] = None
    #: The sender's address, `from` in the protocol; None if it is not known.
    from_: Optional[str] = None
    #: The ts of the update that this one repeats; None if it repeats none.
    same_as: Optional[int] = None
    #: The body as it came, if it was compressed and the server has kept it: some senders sign that.
    coded: Optional[bytes] = None


@dataclass(frozen=True)
class Consumer:
    """A consumer whose place in a channel the server keeps."""

    name: str
    #: The last update that it has confirmed.
    ts: int
    #: How many have come after that.
    lag: int
    #: When it last polled, in milliseconds since 1970.
    at: int


@dataclass(frozen=True)
class Reply:
    """A complete HTTP reply; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Page:
    """The reply to a poll, or what it says of one of several channels."""

    ts: int
    missed: int
    reset: bool
    entries: List[Entry]
    epoch: Optional[str] = None
    lag: Optional[int] = None


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
        host = f"[{self.host}]" if ":" in self.host else self.ascii_host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    @property
    def ascii_host(self) -> str:
        return self.host.encode("idna").decode("ascii")

    def headers(self, more: Mapping[str, str]) -> Dict[str, str]:
        """The headers of every request. Raises ValueError for one that HTTP cannot carry."""
        for name, value in more.items():
            if not _header_name.fullmatch(name) or not _header_value.fullmatch(value):
                raise ValueError(f"the header {name!r} cannot be sent")
        return {"Host": self.authority, "Accept": "application/json", "User-Agent": "longline-python", **more}

    def target(self, query: str = "") -> str:
        query = "&".join(filter(None, (self.query, query)))
        return f"{self.path}?{query}" if query else self.path

    def below(self, path: str) -> str:
        """The target of what stands below the address, without the address' query."""
        return self.path.rstrip("/") + path


@dataclass(frozen=True)
class Body:
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
    if text[0] not in "{[":  # the server would keep it as text
        raise TypeError("an update is what json.dumps makes an object or an array of")
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
        raise not_longlines(reply.status)
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
        body = json.loads(reply.body)
        own = body["ok"] is False and body["error_code"] == reply.status
        description = body["error_description"]
    except (ValueError, TypeError, KeyError, RecursionError):
        own, description = False, None
    if not isinstance(description, str):
        description = f"the server answered with status {reply.status}"
        if 300 <= reply.status < 400:
            # Name only the host that it leads to: the path is the channel's secret.
            where = re.match(r"https?://[^/?#@]+", reply.headers.get("location", ""))
            description += "; redirects are not followed, give the address that it leads to"
            description += f", at {where[0]}" if where else ""
    after = reply.headers.get("retry-after", "").strip()
    error = LonglineError(reply.status, description, float(after) if is_digits(after) else None)
    error.is_final = own and 400 <= reply.status < 500 and reply.status not in (408, 425, 429)
    error.is_cut = not own and (reply.status >= 500 or reply.status == 408) and not error.retry_after
    return error


def no_reply(cause: BaseException, is_stale: bool, description: str = "") -> LonglineError:
    """The error for a request that got no complete reply."""
    error = LonglineError(0, description or str(cause) or type(cause).__name__)
    error.is_silence = isinstance(cause, (TimeoutError, socket.timeout, asyncio.TimeoutError))
    error.is_cut = not error.is_silence
    error.is_stale = is_stale
    return error


def not_longlines(status: int) -> LonglineError:
    """The error for a reply that something else has sent."""
    return LonglineError(status, "the reply is not one of longline's")


def is_digits(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 18


# `authority` is the server's host and port: the address's path is the channel's secret.


def log_error(authority: str, error: LonglineError, delay: float) -> None:
    log.warning("longline (%s): %s; the next try is in %.1f s", authority, error, delay)


def log_missed(authority: str, count: int) -> None:
    log.warning("longline (%s): %d updates are no longer kept and have been missed", authority, count)


def log_reset(authority: str, ts: int) -> None:
    log.warning("longline (%s): the channel's data is not what it was; going on from ts %d", authority, ts)


def log_cut(authority: str, waited_s: float, sleep_s: float) -> None:
    log.debug("longline (%s): a poll was cut after %.1f s; the next one waits %.1f s", authority, waited_s, sleep_s)


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


#: Cuts the value at a place of a text: returns it, and where it ends.
Cutter = Callable[[str, int], Tuple[Any, int]]


def page_of(reply: Reply, full: bool) -> Page:
    """The page that a reply holds. Raises LonglineError if it holds none."""
    try:
        return parse_page(fields_of(reply, cut_array, "updates"), full)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise not_longlines(0) from error


def pages_of(reply: Reply, full: bool) -> Dict[str, Union[Page, LonglineError]]:
    """What a reply says of several channels. Raises LonglineError if it says nothing."""
    try:
        fields = fields_of(reply, cut_channels, "channels")
        return {name: parse_channel(name, cuts, full) for name, (cuts, _) in fields["channels"][0].items()}
    except (ValueError, TypeError, KeyError, RecursionError, AttributeError) as error:
        raise not_longlines(0) from error


def fields_of(reply: Reply, cut: Cutter, only: str) -> Dict[str, Cut]:
    """The members of a good reply, as cut_object() cuts them. Raises LonglineError for an error."""
    if not 200 <= reply.status < 300:
        raise error_of(reply)
    text = reply.body.decode("utf-8")
    fields, end = cut_object(text, skip_space(text, 0), cut, only)
    if skip_space(text, end) != len(text):
        raise ValueError("there is text behind the reply")
    return fields


def consumers_of(reply: Reply) -> List[Consumer]:
    """The consumers of a channel. Raises LonglineError if the reply does not tell them."""
    if reply.status != 200:
        raise error_of(reply)
    try:
        names = Consumer.__dataclass_fields__
        return [Consumer(**{name: item[name] for name in names}) for item in json.loads(reply.body)["consumers"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise not_longlines(200) from error


def gone_of(reply: Reply) -> int:
    """The ts up to which a purge has removed the updates. Raises LonglineError if the reply does not tell it."""
    if reply.status != 200:
        raise error_of(reply)
    try:
        return operator.index(json.loads(reply.body)["gone"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise not_longlines(200) from error


def parse_channel(name: str, fields: Dict[str, Cut], full: bool) -> Union[Page, LonglineError]:
    if "error_code" not in fields:
        return parse_page(fields, full)
    error = LonglineError(int(fields["error_code"][0]), str(fields["error_description"][0]))
    error.channel = name
    return error


def parse_page(fields: Dict[str, Cut], full: bool) -> Page:
    """The page of a reply's members. Raises ValueError, TypeError or KeyError if it is none."""

    def number(name: str) -> int:
        value = fields.get(name, (0, ""))[0]
        if not isinstance(value, int):
            raise TypeError(f"{name} is of another type")
        return value

    fields["ts"]  # must be there
    ts, items = number("ts"), fields["updates"][0]
    if not isinstance(items, list):
        raise TypeError("updates is of another type")
    # Of those that were skipped it is not said where they are. So that nobody who goes on from an
    # update misses one, it has the least ts that it can have, and the last one has the reply's.
    first = ts - number("skipped") - len(items) + 1
    numbers = [*range(first, first + len(items) - 1), ts]
    entries = [full_entry(*item) if full else Entry(n, *item) for n, item in zip(numbers, items)]
    epoch = fields.get("epoch", (None, ""))[0]
    return Page(
        ts,
        number("missed"),
        fields.get("reset", (False, ""))[0] is True,
        entries,
        epoch if isinstance(epoch, str) else None,
        number("lag") if "lag" in fields else None,
    )


def full_entry(item: Any, text: str) -> Entry:
    """The entry of an item of view=full, which knows its ts."""
    raw = base64.b64decode(item["raw_base64"]) if "raw_base64" in item else item["raw"].encode("utf-8")
    coded = base64.b64decode(item["coded_base64"]) if "coded_base64" in item else None
    body, body_text = cut_object(text, 0)[0]["body"]
    ts = operator.index(item["ts"])
    known = item.get("path"), item.get("from"), item.get("same_as"), coded
    return Entry(ts, body, body_text, item["at"], item["method"], item["query"], item["headers"], raw, *known)


def cut_object(text: str, at: int, cut: Optional[Cutter] = None, only: str = "") -> Tuple[Dict[str, Cut], int]:
    """The members of the object at `at`, each with its text, and where the object ends.

    `cut` cuts the members; if `only` is given, only the one of this name.
    """
    found: Dict[str, Cut] = {}
    at = step_over("{", text, at)
    while text[at : at + 1] != "}":
        key, at = _decoder.raw_decode(text, at)
        if not isinstance(key, str):
            raise ValueError("a key is no string")
        at = step_over(":", text, skip_space(text, at))
        value, end = cut(text, at) if cut and only in ("", key) else _decoder.raw_decode(text, at)
        found[key] = value, text[at:end]
        at = next_item(text, end, "}")
    return found, at + 1


def cut_page(text: str, at: int) -> Tuple[Dict[str, Cut], int]:
    return cut_object(text, at, cut_array, "updates")


def cut_channels(text: str, at: int) -> Tuple[Dict[str, Cut], int]:
    return cut_object(text, at, cut_page)


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
