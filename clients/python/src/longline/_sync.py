"""The client for programs without asyncio.

Whatever waits here can be ended from another thread at once: a read by shutting its socket down, a connect and a
name's resolution by looking at a flag twenty times a second, a backoff by a lock that is opened.

A signal's handler may call stop() and close() too, between any two steps of the thread that it interrupts. So they
wait for nothing that this thread may hold.
"""

from __future__ import annotations

import http.client
import os
import selectors
import socket
import ssl
import threading
import time
import weakref
from collections import deque
from types import TracebackType
from typing import Any, Callable, Deque, Dict, Generic, Iterator, List, Mapping, Optional, Tuple, Type, TypeVar

from ._protocol import (
    BACKOFF_FIRST_S,
    IDLE_MAX_S,
    Address,
    Cursor,
    Entry,
    LonglineError,
    Page,
    Reply,
    log_error,
    log_missed,
    log_reset,
    push_body,
    pushed_ts,
)

Item = TypeVar("Item")

CONNECT_SLICE_S = 0.05


class Stopped(Exception):
    """What was under way has been given up because stop() was called. Never reaches the user."""


class Channel:
    """One channel of a longline server.

    url      the channel's address. A query in it goes with every push, and so into every update.
    timeout  how many seconds the server may be silent: while connecting and pushing, and beyond a poll's own wait
    headers  sent with every request, for a proxy that wants them
    context  for https, where Python's default is not right

    May be used by several threads. A subscription belongs to the thread that iterates it; stop() and close() to all.
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
        self._idle: List[Connection] = []
        self._subscriptions: weakref.WeakSet[Subscription[Any]] = weakref.WeakSet()
        self._closed = False

    def push(self, update: object) -> int:
        """Stores an update (anything that json.dumps makes an object or an array of) and returns its ts.

        Raises LonglineError where it was not stored, or where that is not known (status 0, some of 503).
        It is not tried again by itself: it could be stored twice.
        """
        body = push_body(update)
        with self._lock:
            if self._closed:
                raise LonglineError(0, "the channel has been closed")
            connection = (self._idle or [self._connection()]).pop()
        reply = connection.request("POST", self._address.target(), body, self._timeout)
        with self._lock:
            surplus = bool(self._idle)
            if not surplus:
                self._idle.append(connection)
            if surplus or self._closed:
                connection.close()
        return pushed_ts(reply)

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
    ) -> Subscription[Any]:
        """Iterates over the updates after `ts`, in order, and waits for more, until stop() or close().

        ts         the last update that was handled; 0: all that are kept; -K: the last K
        sleep      how long one poll waits, in seconds, up to 60
        limit      how many updates one poll brings at most
        on_missed  called with a number: so many updates were gone before they could be read
        on_reset   called with the channel's newest ts: the ts asked for was ahead of it
        on_error   called with a LonglineError before what failed is tried again
        backoff    the first wait after an error, in seconds; it doubles up to 30

        What has no callback is logged, by the logger "longline".

        Raises LonglineError for what cannot get better by trying again: a status of 400, 404 and the like.
        """
        cursor = Cursor(ts, sleep, limit, False, backoff)
        return self._subscribe(cursor, lambda entry: entry.update, on_missed, on_reset, on_error)

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
    ) -> Subscription[Entry]:
        """As updates(), but each with its ts and exact text; with full=True also with the request that brought it."""
        cursor = Cursor(ts, sleep, limit, full, backoff)
        return self._subscribe(cursor, lambda entry: entry, on_missed, on_reset, on_error)

    def stop(self) -> None:
        """Ends every subscription of the channel, also those that wait, and at once. From any thread."""
        with self._lock:
            subscriptions = list(self._subscriptions)
        for subscription in subscriptions:
            subscription.stop()

    def close(self) -> None:
        """stop(), and the end of the channel's connections. A push after it raises; a subscription is over at once."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            subscriptions = list(self._subscriptions)
        for connection in idle:
            connection.close()
        for subscription in subscriptions:
            subscription.close()

    def __enter__(self) -> Channel:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def _connection(self) -> Connection:
        return Connection(self._address, self._timeout, self._headers, self._context)

    def _subscribe(
        self,
        cursor: Cursor,
        pick: Callable[[Entry], Item],
        on_missed: Optional[Callable[[int], object]],
        on_reset: Optional[Callable[[int], object]],
        on_error: Optional[Callable[[LonglineError], object]],
    ) -> Subscription[Item]:
        subscription = Subscription(
            self._connection(), self._address, cursor, self._timeout, pick, on_missed, on_reset, on_error
        )
        with self._lock:
            self._subscriptions.add(subscription)
            closed = self._closed
        if closed:
            subscription.stop()
        return subscription


class Subscription(Generic[Item], Iterator[Item]):
    """The iterator of Channel.updates() and Channel.entries(). A context manager too: its end is the subscription's."""

    def __init__(
        self,
        connection: Connection,
        address: Address,
        cursor: Cursor,
        timeout: float,
        pick: Callable[[Entry], Item],
        on_missed: Optional[Callable[[int], object]],
        on_reset: Optional[Callable[[int], object]],
        on_error: Optional[Callable[[LonglineError], object]],
    ) -> None:
        self._connection = connection
        self._address = address
        self._cursor = cursor
        self._timeout = timeout
        self._pick = pick
        self._on_missed = on_missed
        self._on_reset = on_reset
        self._on_error = on_error
        self._events: Deque[Callable[[], object]] = deque()
        self._entries: Deque[Entry] = deque()
        self._page_ts: Optional[int] = None
        self._given: Optional[int] = None
        self._lock = threading.RLock()
        self._in_use = False

    @property
    def ts(self) -> int:
        """The last update that was handled: start with it the next time.

        It moves on when the next update is asked for. Inside the loop that is the one before the update at hand.
        """
        return self._cursor.ts

    def __iter__(self) -> Subscription[Item]:
        return self

    def __next__(self) -> Item:
        with self._lock:
            self._in_use = True
        try:
            return self._next()
        finally:
            with self._lock:
                self._in_use = False
            if self._connection.stopped:
                self.close()

    def _next(self) -> Item:
        if self._given is not None:
            self._cursor.ts, self._given = self._given, None
        try:
            while not self._connection.stopped:
                if self._events:
                    self._events.popleft()()
                elif self._entries:
                    entry = self._entries.popleft()
                    self._given = entry.ts
                    return self._pick(entry)
                elif self._page_ts is not None:
                    self._cursor.ts, self._page_ts = self._page_ts, None
                else:
                    self._take(self._poll())
        except Stopped:
            pass
        raise StopIteration

    def stop(self) -> None:
        """Ends the subscription, also while it waits, and at once. From any thread."""
        self._connection.stop()

    def close(self) -> None:
        """stop(), and the end of the connection, which a loop that uses it just now closes itself."""
        self._connection.stop()
        with self._lock:
            if not self._in_use:
                self._connection.close()

    def __enter__(self) -> Subscription[Item]:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self._connection.close()

    def _poll(self) -> Page:
        """Polls until there is a good reply."""
        while True:
            began = time.monotonic()
            try:
                target = self._address.target(self._cursor.query())
                page = self._cursor.page(
                    self._connection.request("GET", target, None, self._cursor.sleep + self._timeout)
                )
                delay = self._cursor.rest(page, time.monotonic() - began)
                if not delay:
                    return page
            except LonglineError as error:
                delay = self._cursor.delay(error)
                self._report(error, delay)
            self._connection.wait(delay)

    def _report(self, error: LonglineError, delay: float) -> None:
        if self._on_error is None:
            log_error(error, delay)
        elif not self._connection.stopped:
            self._on_error(error)

    def _take(self, page: Page) -> None:
        on_missed, on_reset = self._on_missed or log_missed, self._on_reset or log_reset
        self._page_ts = page.ts
        self._entries.extend(page.entries)
        if page.entries and self._cursor.ts < 0:  # what "the last K" are is known now
            self._cursor.ts = page.ts - len(page.entries)
        if page.reset:
            self._events.append(lambda: on_reset(page.ts))
        if page.missed:
            self._events.append(lambda: on_missed(page.missed))


class Connection:
    """One HTTP connection that is kept, and made again where it broke. stop() ends whatever it does, for good."""

    def __init__(
        self, address: Address, timeout: float, headers: Dict[str, str], context: Optional[ssl.SSLContext]
    ) -> None:
        self._address = address
        self._timeout = timeout
        self._headers = headers
        self._context = context
        self._socket: Optional[socket.socket] = None
        self._http: Optional[http.client.HTTPConnection] = None
        self._used_at = 0.0
        self.stopped = False
        self._gate = threading.Lock()  # held until stop()
        self._gate.acquire()

    def request(self, method: str, target: str, body: Optional[bytes], timeout: float) -> Reply:
        """The reply. Raises LonglineError (status 0) where there is no whole one, Stopped where stop() was called."""
        try:
            if self._http is None or not self._fresh():
                self.close()
                self._http = self._open()
            assert self._socket
            self._socket.settimeout(timeout)
            headers = {**self._headers, **({"Content-Type": "application/json"} if body is not None else {})}
            self._http.request(method, target, body, headers)
            response = self._http.getresponse()
            # http.client lets go of the socket when the reply is the last one.
            last = self._http.sock is None
            reply = Reply(response.status, lower_case(response.getheaders()), response.read())
            self._used_at = time.monotonic()
            if last:
                self.close()
        except BaseException as error:
            self.close()
            if isinstance(error, Exception) and self.stopped:
                raise Stopped from None
            if isinstance(error, (OSError, http.client.HTTPException)):
                raise LonglineError(0, str(error) or type(error).__name__) from error
            raise
        return reply

    def wait(self, seconds: float) -> None:
        """Waits; raises Stopped where stop() was called."""
        if self.stopped or self._gate.acquire(timeout=seconds):
            raise Stopped

    def stop(self) -> None:
        self.stopped = True
        try:
            self._gate.release()
        except RuntimeError:
            pass  # It has been stopped before.
        sock = self._socket
        if sock is not None:
            try:
                # Not SSLSocket's, which would take the TLS state away from a thread that reads.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self) -> None:
        http, self._http = self._http, None
        sock, self._socket = self._socket, None
        if http is not None:
            http.close()
        if sock is not None:
            sock.close()

    def _fresh(self) -> bool:
        """Whether the kept connection still looks good: not idle for long, and not ended by the server."""
        if time.monotonic() - self._used_at > IDLE_MAX_S or self._socket is None:
            return False
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            return not selector.select(0)

    def _open(self) -> http.client.HTTPConnection:
        sock = self._connect()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context:
            sock = self._context.wrap_socket(
                sock, server_hostname=self._address.host, do_handshake_on_connect=False
            )
            self._hold(sock)
            sock.settimeout(self._timeout)
            sock.do_handshake()
        connection = http.client.HTTPConnection(self._address.host, self._address.port)
        connection.sock = sock
        # A connection that was lost is made again here, not behind our back.
        connection.auto_open = 0
        return connection

    def _hold(self, sock: socket.socket) -> None:
        """From here on stop() knows the socket; it may have been called just before."""
        self._socket = sock
        if self.stopped:
            raise Stopped

    def _connect(self) -> socket.socket:
        """A connected socket: the first of the host's addresses that answers."""
        failure: OSError = OSError("the host has no address")
        for family, kind, protocol, _, address in self._resolve():
            sock = socket.socket(family, kind, protocol)
            try:
                self._hold(sock)
                self._connect_to(sock, address)
                self._hold(sock)  # stop() does not end a connect that has not begun
                return sock
            except OSError as error:
                failure = error
                self.close()
        raise failure

    def _connect_to(self, sock: socket.socket, address: Any) -> None:
        deadline = time.monotonic() + self._timeout
        sock.setblocking(False)
        try:
            sock.connect(address)
            return
        except BlockingIOError:
            pass
        with selectors.DefaultSelector() as selector:
            selector.register(sock, selectors.EVENT_WRITE)
            while not selector.select(CONNECT_SLICE_S):
                if self.stopped:
                    raise Stopped
                if time.monotonic() > deadline:
                    raise TimeoutError("the host does not answer")
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))

    def _resolve(self) -> List[Tuple[Any, ...]]:
        """The host's addresses. A thread of its own asks: getaddrinfo can hang for long and cannot be interrupted."""
        deadline = time.monotonic() + self._timeout
        found: List[Tuple[Any, ...]] = []
        failures: List[OSError] = []
        done = threading.Event()

        def resolve() -> None:
            try:
                found.extend(socket.getaddrinfo(self._address.host, self._address.port, type=socket.SOCK_STREAM))
            except (OSError, UnicodeError) as error:
                failures.append(error if isinstance(error, OSError) else OSError("the host's name is no name"))
            done.set()

        threading.Thread(target=resolve, name="longline-resolve", daemon=True).start()
        while not done.wait(CONNECT_SLICE_S):
            if self.stopped:
                raise Stopped
            if time.monotonic() > deadline:
                raise TimeoutError("the host's name could not be resolved in time")
        if failures:
            raise failures[0]
        return found


def lower_case(headers: List[Tuple[str, str]]) -> Dict[str, str]:
    return {name.lower(): value for name, value in headers}
