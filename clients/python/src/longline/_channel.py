"""What the sync and the asyncio classes have in common: everything that does not wait."""

from __future__ import annotations

import ssl
import threading
import time
import weakref
from typing import Any, Callable, Dict, Generic, List, Mapping, Optional, Tuple, TypeVar

from ._feed import Callbacks, Feed
from ._protocol import BACKOFF_FIRST_S, IDLE_MAX_S, Address, Body, Cursor, Entry, LonglineError

Link = TypeVar("Link", bound="ConnectionBase")
Item = TypeVar("Item")
Updates = TypeVar("Updates")
Entries = TypeVar("Entries")


class ConnectionBase:
    """One HTTP connection. It is kept alive, and reopened if it broke."""

    def __init__(
        self, address: Address, timeout: float, headers: Dict[str, str], context: Optional[ssl.SSLContext]
    ) -> None:
        self._address = address
        self._timeout = timeout
        self._headers = headers
        self._context = context
        self._used_at = 0.0

    def _fields(self, body: Optional[Body]) -> Dict[str, str]:
        """The header fields of a request."""
        return self._headers if body is None else {**self._headers, "Content-Type": body.type}

    def _is_young(self) -> bool:
        """Whether it was used recently enough to be reused."""
        return time.monotonic() - self._used_at <= IDLE_MAX_S


class SubscriptionBase(Generic[Item, Link]):
    """An iterator over updates. It is a context manager too, which ends the subscription."""

    def __init__(self, connection: Link, feed: Feed[Item]) -> None:
        self._connection = connection
        self._feed = feed

    @property
    def ts(self) -> int:
        """The last update that was handled: the value to start from next time.

        It advances when the next update is asked for, so inside the loop it is still the one before
        the current update.
        """
        return self._feed.ts

    def stop(self) -> None:
        raise NotImplementedError

    def close(self) -> Any:
        raise NotImplementedError


class ChannelBase(Generic[Link, Updates, Entries]):
    """One channel of a longline server.

    Link is the class of its connections; Updates and Entries are what updates() and entries()
    return. The lock guards what stop() and close() touch. The asyncio half does not need it.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 15.0,
        headers: Optional[Mapping[str, str]] = None,
        context: Optional[ssl.SSLContext] = None,
    ) -> None:
        self._address = Address(url)
        self._timeout = timeout
        self._headers = self._address.headers(headers or {})
        self._context = (context or ssl.create_default_context()) if self._address.tls else None
        self._lock = threading.RLock()
        self._idle: List[Link] = []
        self._subscriptions: weakref.WeakSet[SubscriptionBase[Any, Link]] = weakref.WeakSet()
        self._closed = False

    def updates(
        self,
        ts: int = 0,
        sleep: float = 60,
        limit: int = 100,
        *,
        on_missed: Optional[Callable[[int], object]] = None,
        on_reset: Optional[Callable[[int], object]] = None,
        on_error: Optional[Callable[[LonglineError], object]] = None,
        backoff: float = BACKOFF_FIRST_S,
    ) -> Updates:
        """Iterates over the updates after `ts`, and waits for more until stop() or close().

        ts         the last update that was handled; 0: start with the oldest kept; -K: the last K
        sleep      how long one poll waits, in seconds, up to 60
        limit      how many updates one poll may bring
        on_missed  called with a count: that many updates were deleted before they could be read
        on_reset   called with the channel's newest ts, because the ts asked for was ahead of it
        on_error   called with a LonglineError before the poll is tried again
        backoff    the first wait after an error, in seconds; it doubles up to 30

        An event without a callback is logged by the logger "longline".

        Raises LonglineError if trying again cannot help, as after a 400 or a 404.
        """
        cursor = Cursor(ts, sleep, limit, False, backoff)
        callbacks = Callbacks(on_missed, on_reset, on_error)
        subscription: Updates = self._subscribe(cursor, lambda entry: entry.update, callbacks)
        return subscription

    def entries(
        self,
        ts: int = 0,
        sleep: float = 60,
        limit: int = 100,
        *,
        full: bool = False,
        on_missed: Optional[Callable[[int], object]] = None,
        on_reset: Optional[Callable[[int], object]] = None,
        on_error: Optional[Callable[[LonglineError], object]] = None,
        backoff: float = BACKOFF_FIRST_S,
    ) -> Entries:
        """Like updates(), but each comes with its ts and its exact text.

        With full=True it also comes with the request that pushed it.
        """
        cursor = Cursor(ts, sleep, limit, full, backoff)
        callbacks = Callbacks(on_missed, on_reset, on_error)
        subscription: Entries = self._subscribe(cursor, lambda entry: entry, callbacks)
        return subscription

    def stop(self) -> None:
        """Ends every subscription of the channel at once, also one that waits."""
        with self._lock:
            subscriptions = list(self._subscriptions)
        for subscription in subscriptions:
            subscription.stop()

    # --- for the subclasses ---

    def _connect(self) -> Link:
        """A new connection, not yet open."""
        raise NotImplementedError

    def _subscription(self, feed: Feed[Any]) -> Any:
        """A new subscription to the feed."""
        raise NotImplementedError

    def _subscribe(self, cursor: Cursor, pick: Callable[[Entry], object], callbacks: Callbacks) -> Any:
        subscription = self._subscription(Feed(self._address, self._timeout, cursor, pick, callbacks))
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
        """Keeps the connection for the next push. Returns False if the caller must close it.

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
