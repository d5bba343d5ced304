"""The client for programs without asyncio.

Another thread can end any wait here at once. It shuts down the socket of a read and opens the lock
that a backoff waits for; a connect and a name lookup check a flag twenty times a second.

A signal handler may call stop() and close() too, between any two steps of the thread that it
interrupts. So they must not wait for anything that this thread may hold.
"""

from __future__ import annotations

import http.client
import io
import os
import selectors
import socket
import ssl
import threading
import time
from types import TracebackType
from typing import Any, Dict, Iterable, Iterator, List, Optional, SupportsIndex, Tuple, Type, TypeVar

from ._channel import (
    LAST_TS,
    ChannelBase,
    ChannelsBase,
    ClientBase,
    ConnectionBase,
    ManyPlaces,
    OnePlace,
    SubscriptionBase,
    TunnelError,
)
from ._feed import Ask, ChannelFeed, ChannelsFeed, Feed, Give, Rest, Tell
from ._protocol import (
    Body,
    Consumer,
    Entry,
    LonglineError,
    Reply,
    batch_body,
    consumers_of,
    error_of,
    gone_of,
    no_reply,
    push_body,
    pushed_ts,
)
from ._proxy import Proxy

Item = TypeVar("Item")
Me = TypeVar("Me")

CONNECT_SLICE_S = 0.05
WAIT_STEP_S = 0.5
SEND_SIZE = 65536


class Stopped(Exception):
    """stop() was called, and what was under way has been abandoned. Never reaches the user."""


class Client(ClientBase["Connection"]):
    """What Channel and Channels have in common."""

    def close(self) -> None:
        """Calls stop() and closes the connections.

        After that every request raises, and a new subscription ends at once.
        """
        idle, subscriptions = self._shut()
        for connection in idle:
            connection.close()
        for subscription in subscriptions:
            subscription.close()

    def __enter__(self: Me) -> Me:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def _connect(self) -> Connection:
        return Connection(*self._peer())

    def _request(self, method: str, target: str, body: Optional[Body] = None) -> Reply:
        connection = self._take_connection()
        reply = connection.request(method, target, body, self._timeout)
        if not self._keep_connection(connection):
            connection.close()
        return reply


class Channel(Client, ChannelBase["Connection", "Subscription[Any]", "Subscription[Entry]"]):
    """One channel of a longline server.

    url      the channel's address. A query in it becomes part of every update pushed.
    timeout  how many seconds the server may be silent while connecting and pushing, and beyond a
             poll's own wait
    headers  sent with every request, for a proxy that needs them
    context  for https, if Python's default does not fit
    proxy    "http://[user:password@]host:port"; "" for none. Without it HTTP_PROXY, HTTPS_PROXY and
             NO_PROXY count

    Several threads may share a channel. A subscription belongs to the thread that iterates it, but
    any thread may call stop() and close().
    """

    def push(self, update: object) -> int:
        """Stores an update and returns its ts. json.dumps must make an object or an array of it.

        Otherwise it raises TypeError, and nothing is sent.
        Raises LonglineError if it was not stored, or may not have been (status 0, some 503s).
        It never tries again by itself, because that could store the update twice.
        """
        return self._push(push_body(update))

    def push_batch(self, updates: Iterable[object]) -> int:
        """Stores several updates, all or none, and returns the ts of the last; they are in a row.

        At most 10,000, and not larger than the server's MAX_BODY. Otherwise it is like push().
        A server that does not know batches stores the text as one update; then this raises
        LonglineError with status 200.
        """
        return self._push(batch_body(updates))

    def consumers(self) -> List[Consumer]:
        """The consumers that have a name, sorted by it: how far they are, and when they last polled."""
        return consumers_of(self._request("GET", self._address.below("/consumers")))

    def forget_consumer(self, name: str) -> None:
        """Lets the server forget a consumer's place. It is no error if it knows none of this name."""
        reply = self._request("DELETE", self._consumer_target(name))
        if reply.status != 200:
            raise error_of(reply)

    def purge(self, upto: SupportsIndex = LAST_TS) -> int:
        """Removes the updates up to the ts `upto`, or all, from the server for good.

        Returns the ts up to which they are gone, 0 if there were none. The channel counts on, and
        consumers that have not read them are told by on_missed.
        """
        return gone_of(self._request("DELETE", self._purge_target(upto)))

    def _push(self, body: Body) -> int:
        return pushed_ts(self._request("POST", self._address.target(), body), body)

    def _subscription(self, feed: ChannelFeed[Item]) -> Subscription[Item]:
        return Subscription(self._connect(), feed)


class Channels(Client, ChannelsBase["Connection", "ChannelsSubscription[Any]", "ChannelsSubscription[Entry]"]):
    """Several channels of a longline server, read in one loop.

    url is the server's address; the rest is as for Channel.
    """

    def _subscription(self, feed: ChannelsFeed[Tuple[str, Item]]) -> ChannelsSubscription[Item]:
        return ChannelsSubscription(self._connect(), feed)


class Loop(SubscriptionBase[Item, "Connection"], Iterator[Item]):
    """An iterator that waits for updates."""

    def __init__(self, connection: Connection, feed: Feed[Item]) -> None:
        super().__init__(connection, feed)
        self._lock = threading.RLock()
        self._in_use = False

    def __iter__(self: Me) -> Me:
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
        self._feed.resume()
        try:
            while not self._connection.stopped:
                step = self._feed.next()
                if isinstance(step, Give):
                    return step.item
                if isinstance(step, Tell):
                    step.callback(step.argument)
                elif isinstance(step, Rest):
                    self._connection.wait(step.seconds)
                else:
                    self._poll(step)
        except Stopped:
            pass
        raise StopIteration

    def _poll(self, ask: Ask) -> None:
        try:
            reply = self._connection.request("POST" if ask.body else "GET", ask.target, ask.body, ask.timeout_s)
        except LonglineError as error:
            self._feed.failed(error, self._connection.waited_s())
        else:
            self._feed.replied(reply, self._connection.waited_s())

    def stop(self) -> None:
        """Ends the subscription at once, also while it waits. May be called from any thread."""
        self._connection.stop()

    def close(self) -> None:
        """Calls stop() and closes the connection. A loop that is using it closes it itself."""
        self._connection.stop()
        with self._lock:
            if not self._in_use:
                self._connection.close()

    def __enter__(self: Me) -> Me:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self._connection.close()


class Subscription(OnePlace, Loop[Item]):
    """What Channel.updates() and Channel.entries() return: an iterator, and a context manager."""


class ChannelsSubscription(ManyPlaces, Loop[Tuple[str, Item]]):
    """What Channels.updates() and Channels.entries() return: an iterator, and a context manager."""


class Connection(ConnectionBase):
    """A connection over http.client. stop() ends for good whatever it is doing."""

    def __init__(self, *peer: Any) -> None:
        super().__init__(*peer)
        self._socket: Optional[socket.socket] = None
        self._http: Optional[http.client.HTTPConnection] = None
        self.stopped = False
        self._gate = threading.Lock()  # held until stop()
        self._gate.acquire()

    def request(self, method: str, target: str, body: Optional[Body], timeout: float) -> Reply:
        """Sends a request and returns the reply.

        Raises LonglineError with status 0 if no complete reply comes, and Stopped after stop().
        """
        self._sent_at = None
        target = self._target(target)
        is_kept = False
        try:
            is_kept = self._fresh()
            if self._http is None or not is_kept:
                self.close()
                self._http = self._open()
            assert self._socket
            self._socket.settimeout(timeout)
            if body is None:
                self._http.request(method, target, headers=self._fields(body))
            else:
                # In pieces, because the timeout is for each call that sends.
                fields = {**self._fields(body), "Content-Length": str(len(body.data))}
                self._http.request(method, target, io.BytesIO(body.data), fields)
            self._sent_at = time.monotonic()
            response = self._http.getresponse()
            # http.client drops the socket if this reply is the last one.
            last = self._http.sock is None
            ends_with_connection = response.length is None and not response.chunked
            reply = Reply(response.status, lower_case(response.getheaders()), response.read())
            if ends_with_connection and not reply.body:
                # http.client takes a connection that ends in the head for the head's end.
                raise ConnectionError("the connection ended in the head of a reply")
            self._used_at = time.monotonic()
            if last:
                self.close()
        except BaseException as error:
            self.close()
            if isinstance(error, Exception) and self.stopped:
                raise Stopped from None
            if isinstance(error, (OSError, http.client.HTTPException)):
                raise no_reply(error, is_kept) from error
            raise
        return reply

    def wait(self, seconds: float) -> None:
        """Waits. Raises Stopped as soon as stop() is called.

        In steps: Python hears a signal that comes just before it blocks only when it wakes up.
        """
        ends_at = time.monotonic() + seconds
        while (left := ends_at - time.monotonic()) > 0 and not self.stopped:
            if self._gate.acquire(timeout=min(left, WAIT_STEP_S)):
                break
        if self.stopped:
            raise Stopped

    def stop(self) -> None:
        self.stopped = True
        try:
            self._gate.release()
        except RuntimeError:
            pass  # It was stopped before.
        sock = self._socket
        if sock is not None:
            try:
                # Not SSLSocket's shutdown: it would drop the TLS state that a reading thread uses.
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
        """Whether the connection can be reused: recently used, and not closed by the server."""
        if self._socket is None or not self._is_young():
            return False
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            return not selector.select(0)

    def _open(self) -> http.client.HTTPConnection:
        sock = self._connect()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(self._timeout)
        if self._tunnel:
            self._dig(sock, self._tunnel)
        if self._context:
            sock = self._context.wrap_socket(sock, server_hostname=self._address.host, do_handshake_on_connect=False)
            self._hold(sock)
            sock.do_handshake()
        connection = http.client.HTTPConnection(self._address.host, self._address.port, blocksize=SEND_SIZE)
        connection.sock = sock
        # We reopen a lost connection ourselves; http.client must not.
        connection.auto_open = 0
        return connection

    def _dig(self, sock: socket.socket, proxy: Proxy) -> None:
        """Asks the proxy for a tunnel to the host."""
        sock.sendall(self._connect_bytes(proxy))
        with http.client.HTTPResponse(sock, method="CONNECT") as response:
            response.begin()
            if not 200 <= response.status < 300:
                raise TunnelError(response.status)

    def _hold(self, sock: socket.socket) -> None:
        """Lets stop() see the socket. Raises Stopped if it was called before."""
        self._socket = sock
        if self.stopped:
            raise Stopped

    def _connect(self) -> socket.socket:
        """A socket connected to the first of the host's addresses that answers."""
        failure: OSError = OSError("the host has no address")
        for family, kind, protocol, _, address in self._resolve():
            sock = socket.socket(family, kind, protocol)
            try:
                self._hold(sock)
                self._connect_to(sock, address)
                self._hold(sock)  # stop() cannot end a connect that has not begun
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
        """The host's addresses. getaddrinfo may hang, uninterruptibly, so it runs in a thread."""
        deadline = time.monotonic() + self._timeout
        found: List[Tuple[Any, ...]] = []
        failures: List[OSError] = []
        done = threading.Event()

        def resolve() -> None:
            try:
                found.extend(socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM))
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
