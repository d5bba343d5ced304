"""What the sync and the asyncio classes have in common: everything that does not wait."""

from __future__ import annotations

import functools
import operator
import ssl
import threading
import time
import weakref
from typing import Any, Callable, Dict, Generic, List, Literal, Mapping, Optional, SupportsIndex, Tuple, TypeVar, Union
from urllib.parse import quote

from ._cursor import Cursor, Since, Where, wanted
from ._feed import Callbacks, ChannelFeed, ChannelsFeed, Feed
from ._keys import url_of_kind
from ._pace import BACKOFF_FIRST_S, SLEEP_S, Pace
from ._protocol import IDLE_MAX_S, Address, Body, Entry, LonglineError
from ._proxy import Proxy, find_proxy, parse_proxy


Link = TypeVar("Link", bound="ConnectionBase")
Item = TypeVar("Item")
Updates = TypeVar("Updates")
Entries = TypeVar("Entries")

Now = Literal["now"]

#: The greatest ts that there can be.
LAST_TS = 2**63 - 1

#: What a connection is made with.
Peer = Tuple[Address, float, Dict[str, str], Optional[ssl.SSLContext], Optional[Proxy]]


class ConnectionBase:
    """One HTTP connection. It is kept alive, and reopened if it broke."""

    def __init__(
        self,
        address: Address,
        timeout: float,
        headers: Dict[str, str],
        context: Optional[ssl.SSLContext],
        proxy: Optional[Proxy],
    ) -> None:
        self._address = address
        self._timeout = timeout
        self._headers = headers
        self._context = context
        self._proxy = proxy
        # With https the proxy only passes bytes on, to the host that CONNECT names.
        self._tunnel = proxy if address.tls else None
        self._host, self._port = (proxy.host, proxy.port) if proxy else (address.host, address.port)
        self._used_at = 0.0
        self._sent_at: Optional[float] = None

    def waited_s(self) -> float:
        """How long ago the last request was sent; 0 if it was not."""
        return 0 if self._sent_at is None else max(time.monotonic() - self._sent_at, 1e-9)

    def _target(self, target: str) -> str:
        """The target as it stands in the request."""
        return f"http://{self._address.authority}{target}" if self._proxy and not self._tunnel else target

    def _fields(self, body: Optional[Body]) -> Dict[str, str]:
        """The header fields of a request."""
        fields = dict(self._headers)
        if self._proxy and not self._tunnel and self._proxy.authorization:
            fields["Proxy-Authorization"] = self._proxy.authorization
        if body is not None:
            fields["Content-Type"] = body.type
        return fields

    def _connect_bytes(self, proxy: Proxy) -> bytes:
        """The request for a tunnel."""
        host = f"[{self._address.host}]" if ":" in self._address.host else self._address.ascii_host
        lines = [f"CONNECT {host}:{self._address.port} HTTP/1.1", f"Host: {host}:{self._address.port}"]
        if proxy.authorization:
            lines.append(f"Proxy-Authorization: {proxy.authorization}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _is_young(self) -> bool:
        """Whether it was used recently enough to be reused."""
        return time.monotonic() - self._used_at <= IDLE_MAX_S


class TunnelError(OSError):
    """The proxy does not lead to the host."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the proxy answered with status {status}")


class SubscriptionBase(Generic[Item, Link]):
    """An iterator over updates. It is a context manager too, which ends the subscription."""

    def __init__(self, connection: Link, feed: Feed[Item]) -> None:
        self._connection = connection
        self._feed = feed

    def stop(self) -> None:
        raise NotImplementedError

    def close(self) -> Any:
        raise NotImplementedError


class OnePlace:
    """The place of a subscription to one channel."""

    _feed: Any

    @property
    def ts(self) -> int:
        """The last update that was handled: the value to start from next time.

        It advances when the next update is asked for, so inside the loop it is still the one before
        the current update. It is 0 before the first reply to a subscription that began at "now", at
        a time, or where the server says.
        """
        cursor: Cursor = self._feed.cursor
        return cursor.position.ts

    @property
    def epoch(self) -> str:
        """The name of the data that `ts` belongs to; "" if the server has not said it."""
        cursor: Cursor = self._feed.cursor
        return cursor.position.epoch

    @property
    def lag(self) -> Optional[int]:
        """How many updates this consumer had not confirmed at the last reply; None without a name."""
        cursor: Cursor = self._feed.cursor
        return cursor.lag


class ManyPlaces:
    """The places of a subscription to several channels."""

    _feed: Any

    @property
    def ts(self) -> Dict[str, int]:
        """The last update of each channel that was handled: what to start from next time."""
        cursors: Dict[str, Cursor] = self._feed.cursors
        return {name: cursor.position.ts for name, cursor in cursors.items()}

    @property
    def epochs(self) -> Dict[str, str]:
        """The names of the data that `ts` belongs to."""
        cursors: Dict[str, Cursor] = self._feed.cursors
        return {name: cursor.position.epoch for name, cursor in cursors.items()}


class ClientBase(Generic[Link]):
    """What a Channel and Channels have in common.

    Link is the class of the connections. The lock guards what stop() and close() touch. The asyncio
    half does not need it.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 15.0,
        headers: Optional[Mapping[str, str]] = None,
        context: Optional[ssl.SSLContext] = None,
        proxy: Optional[str] = None,
    ) -> None:
        self._address = Address(url)
        self._url = url
        self._timeout = timeout
        self._headers = self._address.headers(headers or {})
        self._context = (context or ssl.create_default_context()) if self._address.tls else None
        if proxy is None:
            self._proxy = find_proxy(self._address.tls, self._address.host)
        else:
            self._proxy = parse_proxy(proxy) if proxy else None
        self._lock = threading.RLock()
        self._idle: List[Link] = []
        self._subscriptions: weakref.WeakSet[SubscriptionBase[Any, Link]] = weakref.WeakSet()
        self._closed = False

    def __repr__(self) -> str:
        # Not the path: it is the channel's secret.
        return f"<{type(self).__name__} of {self._address.authority}>"

    def stop(self) -> None:
        """Ends every subscription at once, also one that waits."""
        with self._lock:
            subscriptions = list(self._subscriptions)
        for subscription in subscriptions:
            subscription.stop()

    # --- for the subclasses ---

    def _peer(self) -> Peer:
        return self._address, self._timeout, self._headers, self._context, self._proxy

    def _connect(self) -> Link:
        """A new connection, not yet open."""
        raise NotImplementedError

    def _subscription(self, feed: Any) -> Any:
        """A new subscription to the feed."""
        raise NotImplementedError

    def _subscribe(self, kind: Callable[..., Feed[Any]], *parts: Any) -> Any:
        subscription = self._subscription(kind(self._address, self._timeout, *parts))
        with self._lock:
            self._subscriptions.add(subscription)
            closed = self._closed
        if closed:
            subscription.stop()
        return subscription

    def _take_connection(self) -> Link:
        """The kept connection, or a new one."""
        with self._lock:
            if self._closed:
                raise LonglineError(0, "the channel has been closed")
            return (self._idle or [self._connect()]).pop()

    def _keep_connection(self, connection: Link) -> bool:
        """Keeps the connection for the next request. Returns False if the caller must close it.

        One is enough, and after close() there must be none.
        """
        with self._lock:
            if self._idle:
                return False
            self._idle.append(connection)
            return not self._closed

    def _shut(self) -> Tuple[List[Link], List[SubscriptionBase[Any, Link]]]:
        """Marks the channel as closed. Returns what the caller must close."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            return idle, list(self._subscriptions)


class ChannelBase(ClientBase[Link], Generic[Link, Updates, Entries]):
    """One channel of a longline server. Updates and Entries are what updates() and entries() return."""

    @property
    def read_only_url(self) -> Optional[str]:
        """The address that only reads; None if this one only sends, or is a plain secret.

        It is this address with another key. The rest, the query too, stays.
        """
        return url_of_kind(self._url, "v_")

    @property
    def send_only_url(self) -> Optional[str]:
        """The address that only sends, for a service; None if this one is a plain secret."""
        return url_of_kind(self._url, "w_")

    def updates(
        self,
        ts: Union[SupportsIndex, Now, None] = None,
        sleep: float = SLEEP_S,
        limit: int = 100,
        *,
        since: Optional[Since] = None,
        where: Optional[Where] = None,
        name: Optional[str] = None,
        epoch: str = "",
        on_missed: Optional[Callable[[int], object]] = None,
        on_reset: Optional[Callable[[int], object]] = None,
        on_error: Optional[Callable[[LonglineError], object]] = None,
        backoff: float = BACKOFF_FIRST_S,
    ) -> Updates:
        """Iterates over the updates after `ts`, and waits for more until stop() or close().

        ts         the last update that was handled; 0: start with the oldest kept; -K: the last K;
                   "now": only what comes. Without it: 0 or, with a name, where that consumer is
        sleep      how long one poll waits, in seconds; the server may have a limit (60)
        limit      how many updates one poll may bring
        since      in place of ts: start with the updates stored from this time on, a datetime or
                   seconds since 1970, or that long ago, a timedelta; or text: "10m", "2026-11-29"
        where      only updates that match this condition, or all of these: "header.x-github-event:push"
        name       the server keeps this consumer's place; the poll that follows confirms
        epoch      the iterator's, stored with its ts: tells whether the data is still the same
        on_missed  called with a count: that many updates were deleted before they could be read
        on_reset   called with the ts to go on from, because the server has lost data
        on_error   called with a LonglineError before the poll is tried again
        backoff    the first wait after an error, in seconds; it doubles up to 30

        An event without a callback is logged by the logger "longline".

        Raises LonglineError if longline itself says that the request is wrong.
        """
        cursor, pace, view = Cursor(ts, since, name, epoch), Pace(sleep, backoff), bool(where)
        calls, text = Callbacks(on_missed, on_reset, on_error), wanted(limit, view, where, name)
        subscription: Updates = self._subscribe(ChannelFeed, pace, view, calls, cursor, text, get_update)
        return subscription

    def entries(
        self,
        ts: Union[SupportsIndex, Now, None] = None,
        sleep: float = SLEEP_S,
        limit: int = 100,
        *,
        full: bool = False,
        since: Optional[Since] = None,
        where: Optional[Where] = None,
        name: Optional[str] = None,
        epoch: str = "",
        on_missed: Optional[Callable[[int], object]] = None,
        on_reset: Optional[Callable[[int], object]] = None,
        on_error: Optional[Callable[[LonglineError], object]] = None,
        backoff: float = BACKOFF_FIRST_S,
    ) -> Entries:
        """Like updates(), but each comes with its ts and its exact text.

        With full=True it also comes with the request that pushed it.
        """
        cursor, pace, view = Cursor(ts, since, name, epoch), Pace(sleep, backoff), full or bool(where)
        calls, text = Callbacks(on_missed, on_reset, on_error), wanted(limit, view, where, name)
        pick = get_entry if full else get_text
        subscription: Entries = self._subscribe(ChannelFeed, pace, view, calls, cursor, text, pick)
        return subscription

    # --- for the subclasses ---

    def _consumer_target(self, name: str) -> str:
        return f"{self._address.path}?as={quote(name, safe='')}"

    def _purge_target(self, upto: SupportsIndex) -> str:
        ts = operator.index(upto)  # None, by a slip, must not purge all
        return self._address.path if ts == LAST_TS else f"{self._address.path}?upto={ts}"


class ChannelsBase(ClientBase[Link], Generic[Link, Updates, Entries]):
    """Several channels of a longline server, read in one loop."""

    def updates(
        self,
        ts: Mapping[str, Union[SupportsIndex, Now]],
        sleep: float = SLEEP_S,
        limit: int = 100,
        *,
        where: Optional[Where] = None,
        epochs: Optional[Mapping[str, str]] = None,
        on_missed: Optional[Callable[[str, int], object]] = None,
        on_reset: Optional[Callable[[str, int], object]] = None,
        on_error: Optional[Callable[[LonglineError], object]] = None,
        backoff: float = BACKOFF_FIRST_S,
    ) -> Updates:
        """Iterates over (channel, update) of up to 64 channels, and waits for more until stop().

        `ts` has a channel's name (the last part of its address, decoded) and where to start in it.
        The callbacks get the name of the channel first; on_error finds it in error.channel.
        The rest is as for Channel.updates().
        """
        cursors, pace, view = cursors_of(ts, epochs), Pace(sleep, backoff), bool(where)
        calls, text = Callbacks(on_missed, on_reset, on_error), wanted(limit, view, where)
        pick = functools.partial(pick_of_channel, get_update)
        subscription: Updates = self._subscribe(ChannelsFeed, pace, view, calls, cursors, text, pick)
        return subscription

    def entries(
        self,
        ts: Mapping[str, Union[SupportsIndex, Now]],
        sleep: float = SLEEP_S,
        limit: int = 100,
        *,
        full: bool = False,
        where: Optional[Where] = None,
        epochs: Optional[Mapping[str, str]] = None,
        on_missed: Optional[Callable[[str, int], object]] = None,
        on_reset: Optional[Callable[[str, int], object]] = None,
        on_error: Optional[Callable[[LonglineError], object]] = None,
        backoff: float = BACKOFF_FIRST_S,
    ) -> Entries:
        """Like updates(), with (channel, Entry)."""
        cursors, pace, view = cursors_of(ts, epochs), Pace(sleep, backoff), full or bool(where)
        calls, text = Callbacks(on_missed, on_reset, on_error), wanted(limit, view, where)
        pick = functools.partial(pick_of_channel, get_entry if full else get_text)
        subscription: Entries = self._subscribe(ChannelsFeed, pace, view, calls, cursors, text, pick)
        return subscription


def cursors_of(
    ts: Mapping[str, Union[SupportsIndex, Now]], epochs: Optional[Mapping[str, str]]
) -> Dict[str, Cursor]:
    if not ts:
        raise ValueError("a subscription to no channel would wait for ever")
    return {name: Cursor(start, epoch=(epochs or {}).get(name, "")) for name, start in ts.items()}


def get_update(entry: Entry) -> Any:
    return entry.update


def get_entry(entry: Entry) -> Entry:
    return entry


def get_text(entry: Entry) -> Entry:
    """The entry without what only full=True asks for.

    With conditions, polls ask for view=full in any case: only that says which updates match.
    """
    return Entry(entry.ts, entry.update, entry.text)


def pick_of_channel(pick: Callable[[Entry], Any], name: str, entry: Entry) -> Tuple[str, Any]:
    return name, pick(entry)
