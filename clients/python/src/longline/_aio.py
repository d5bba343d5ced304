"""The client for programs with asyncio: HTTP/1.1 over asyncio's streams.

Everything that waits here does so in a task, which stop() cancels.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import ssl
import time
from types import TracebackType
from typing import (
    Any,
    AsyncIterator,
    Awaitable,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    Optional,
    SupportsIndex,
    Tuple,
    Type,
    TypeVar,
)

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
Result = TypeVar("Result")

HEAD_MAX = 65536
READ_SIZE = 65536
SEND_SIZE = 65536


class AsyncClient(ClientBase["AsyncConnection"]):
    """What AsyncChannel and AsyncChannels have in common."""

    async def close(self) -> None:
        """Calls stop() and closes the connections.

        After that every request raises, and a new subscription ends at once.
        """
        idle, subscriptions = self._shut()
        ends = [subscription.close() for subscription in subscriptions]
        await asyncio.gather(*ends, *(connection.close() for connection in idle))

    async def __aenter__(self: Me) -> Me:
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()

    def _connect(self) -> AsyncConnection:
        return AsyncConnection(*self._peer())

    async def _request(self, method: str, target: str, body: Optional[Body] = None) -> Reply:
        connection = self._take_connection()
        reply = await connection.request(method, target, body, self._timeout)
        if not self._keep_connection(connection):
            connection.abort()
        return reply


class AsyncChannel(
    AsyncClient, ChannelBase["AsyncConnection", "AsyncSubscription[Any]", "AsyncSubscription[Entry]"]
):
    """Channel for asyncio: the same arguments, and callbacks may also be coroutine functions.

    Call it from the event loop's thread only. To stop it from another one:
    loop.call_soon_threadsafe(channel.stop).
    """

    async def push(self, update: object) -> int:
        """Stores an update and returns its ts. See Channel.push."""
        return await self._push(push_body(update))

    async def push_batch(self, updates: Iterable[object]) -> int:
        """Stores several updates, all or none. See Channel.push_batch."""
        return await self._push(batch_body(updates))

    async def consumers(self) -> List[Consumer]:
        """The consumers that have a name. See Channel.consumers."""
        return consumers_of(await self._request("GET", self._address.below("/consumers")))

    async def forget_consumer(self, name: str) -> None:
        """Lets the server forget a consumer's place. See Channel.forget_consumer."""
        reply = await self._request("DELETE", self._consumer_target(name))
        if reply.status != 200:
            raise error_of(reply)

    async def purge(self, upto: SupportsIndex = LAST_TS) -> int:
        """Removes the updates up to the ts `upto`, or all, for good. See Channel.purge."""
        return gone_of(await self._request("DELETE", self._purge_target(upto)))

    async def _push(self, body: Body) -> int:
        return pushed_ts(await self._request("POST", self._address.target(), body), body)

    def _subscription(self, feed: ChannelFeed[Item]) -> AsyncSubscription[Item]:
        return AsyncSubscription(self._connect(), feed)


class AsyncChannels(
    AsyncClient,
    ChannelsBase["AsyncConnection", "AsyncChannelsSubscription[Any]", "AsyncChannelsSubscription[Entry]"],
):
    """Channels for asyncio, as AsyncChannel is Channel."""

    def _subscription(self, feed: ChannelsFeed[Tuple[str, Item]]) -> AsyncChannelsSubscription[Item]:
        return AsyncChannelsSubscription(self._connect(), feed)


class AsyncLoop(SubscriptionBase[Item, "AsyncConnection"], AsyncIterator[Item]):
    """An iterator that waits for updates."""

    def __init__(self, connection: AsyncConnection, feed: Feed[Item]) -> None:
        super().__init__(connection, feed)
        self._stopped = False
        self._waits: Optional[asyncio.Future[Any]] = None

    def __aiter__(self: Me) -> Me:
        return self

    async def __anext__(self) -> Item:
        self._feed.resume()
        while not self._stopped:
            step = self._feed.next()
            if isinstance(step, Give):
                return step.item
            if isinstance(step, Tell):
                await call(step.callback, step.argument)
            elif isinstance(step, Rest):
                await self._until_stopped(asyncio.sleep(step.seconds))
            else:
                await self._poll(step)
        self._connection.abort()
        raise StopAsyncIteration

    def stop(self) -> None:
        """Ends the subscription at once, also while it waits."""
        self._stopped = True
        if self._waits is not None:
            self._waits.cancel()

    async def close(self) -> None:
        """Calls stop() and closes the connection."""
        self.stop()
        await self._connection.close()

    async def __aenter__(self: Me) -> Me:
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()

    async def _poll(self, ask: Ask) -> None:
        request = self._connection.request("POST" if ask.body else "GET", ask.target, ask.body, ask.timeout_s)
        try:
            reply = await self._until_stopped(request)
        except LonglineError as error:
            self._feed.failed(error, self._connection.waited_s())
        else:
            if reply is not None:
                self._feed.replied(reply, self._connection.waited_s())

    async def _until_stopped(self, work: Awaitable[Result]) -> Optional[Result]:
        """The work's result, or None if stop() cancelled it.

        If the caller is cancelled, the connection is closed.
        """
        task = asyncio.ensure_future(work)
        if self._stopped:
            task.cancel()
        self._waits = task
        try:
            await done(task)
        except asyncio.CancelledError:
            self._connection.abort()
            raise
        finally:
            self._waits = None
        return None if task.cancelled() else task.result()


class AsyncSubscription(OnePlace, AsyncLoop[Item]):
    """What AsyncChannel's updates() and entries() return: an iterator, and a context manager."""


class AsyncChannelsSubscription(ManyPlaces, AsyncLoop[Tuple[str, Item]]):
    """What AsyncChannels' updates() and entries() return: an iterator, and a context manager."""


class AsyncConnection(ConnectionBase):
    """A connection over asyncio's streams."""

    def __init__(self, *peer: Any) -> None:
        super().__init__(*peer)
        self._reader: Optional[asyncio.StreamReader] = None
        self._writer: Optional[asyncio.StreamWriter] = None

    async def request(self, method: str, target: str, body: Optional[Body], timeout: float) -> Reply:
        """Sends a request and returns the reply.

        Raises LonglineError with status 0 if no complete reply comes.
        """
        self._sent_at = None
        is_kept = self._fresh()
        try:
            if not is_kept:
                self.abort()
                await within(self._open(), self._timeout)
            assert self._reader and self._writer
            data = request_bytes(method, self._target(target), self._fields(body), None if body is None else body.data)
            await send(self._writer, data, timeout)
            self._sent_at = time.monotonic()
            reply, stays = await read_reply(self._reader, timeout)
            self._used_at = time.monotonic()
            if not stays:
                self.abort()
        except asyncio.TimeoutError as error:
            self.abort()
            raise no_reply(error, is_kept, "the server does not answer") from error
        except (OSError, EOFError, asyncio.LimitOverrunError, ValueError) as error:
            self.abort()
            raise no_reply(error, is_kept) from error
        except BaseException:
            self.abort()
            raise
        return reply

    def abort(self) -> Optional[asyncio.StreamWriter]:
        """Drops the connection; its socket is closed soon after. Returns its writer, if any."""
        writer, self._reader, self._writer = self._writer, None, None
        if writer is not None:
            writer.transport.abort()
        return writer

    async def close(self) -> None:
        """Drops the connection and waits until its socket is closed."""
        writer = self.abort()
        if writer is not None:
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(HEAD_MAX)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.create_connection(
            lambda: protocol,
            self._host,
            self._port,
            ssl=None if self._tunnel else self._context,
            # How long to wait for one address before the next one is tried.
            happy_eyeballs_delay=0.25,
        )
        if self._tunnel:
            try:
                reader, protocol, transport = await self._dig(reader, transport, self._tunnel)
            except BaseException:
                transport.abort()
                raise
        self._reader = reader
        self._writer = asyncio.StreamWriter(transport, protocol, reader, loop)

    async def _dig(self, reader: asyncio.StreamReader, transport: Any, proxy: Proxy) -> Tuple[Any, Any, Any]:
        """Asks the proxy for a tunnel to the host, and speaks TLS in it."""
        transport.write(self._connect_bytes(proxy))
        _, status, _ = parse_head(await reader.readuntil(b"\r\n\r\n"))
        if not 200 <= status < 300:
            raise TunnelError(status)
        reader = asyncio.StreamReader(HEAD_MAX)
        protocol = asyncio.StreamReaderProtocol(reader)
        assert self._context
        tls = await asyncio.get_running_loop().start_tls(
            transport, protocol, self._context, server_hostname=self._address.host
        )
        assert tls
        protocol.connection_made(tls)
        return reader, protocol, tls

    def _fresh(self) -> bool:
        """Whether the connection can be reused: recently used, and not closed by the server."""
        if self._reader is None or self._writer is None or not self._is_young():
            return False
        return not (self._reader.at_eof() or self._reader.exception() or self._writer.is_closing())


async def done(task: asyncio.Future[Any], timeout: Optional[float] = None) -> None:
    """Waits for the task. It ends with the wait: when the time is up or the caller is cancelled."""
    try:
        await asyncio.wait({task}, timeout=timeout)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


async def within(work: Awaitable[Result], timeout: float) -> Result:
    """The work's result. Raises asyncio.TimeoutError when the time is up.

    Up to Python 3.11 asyncio.wait_for may swallow a cancellation.
    """
    task = asyncio.ensure_future(work)
    await done(task, timeout)
    if task.cancelled():
        raise asyncio.TimeoutError
    return task.result()


async def call(callback: Callable[[Any], object], argument: object) -> None:
    result = callback(argument)
    if inspect.isawaitable(result):
        await result


def request_bytes(method: str, target: str, headers: Mapping[str, str], body: Optional[bytes]) -> bytes:
    fields = dict(headers)
    if body is not None:
        fields["Content-Length"] = str(len(body))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + (body or b"")


async def send(writer: asyncio.StreamWriter, data: bytes, timeout: float) -> None:
    """Sends the data. `timeout` limits each wait for the server to take some of it."""
    for at in range(0, len(data), SEND_SIZE):
        writer.write(data[at : at + SEND_SIZE])
        await within(writer.drain(), timeout)


async def read_reply(reader: asyncio.StreamReader, timeout: float) -> Tuple[Reply, bool]:
    """Reads a reply; also returns whether the connection stays open.

    `timeout` limits each wait for the server, not the whole reply.
    """
    status = 100
    while 100 <= status < 200:
        head = await within(reader.readuntil(b"\r\n\r\n"), timeout)
        version, status, headers = parse_head(head)
    stays = version == "HTTP/1.1" and "close" not in headers.get("connection", "").lower()
    if status in (204, 304):
        body = b""
    elif "chunked" in headers.get("transfer-encoding", "").lower():
        body = await read_chunks(reader, timeout)
    elif "content-length" in headers:
        body = await read_exactly(reader, int(headers["content-length"]), timeout)
    else:
        body, stays = await read_exactly(reader, None, timeout), False
    return Reply(status, headers, body), stays


def parse_head(head: bytes) -> Tuple[str, int, Dict[str, str]]:
    line, *fields = head.decode("latin-1").split("\r\n")[:-2]
    version, _, rest = line.partition(" ")
    if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
        raise ValueError("the reply is not HTTP")
    headers: Dict[str, str] = {}
    for field in fields:
        name, _, value = field.partition(":")
        headers[name.strip().lower()] = value.strip()
    return version, int(rest[:3]), headers


async def read_exactly(reader: asyncio.StreamReader, size: Optional[int], timeout: float) -> bytes:
    """Reads that many bytes, or everything up to the connection's end."""
    parts = []
    left = size
    while left is None or left > 0:
        part = await within(reader.read(READ_SIZE if left is None else min(left, READ_SIZE)), timeout)
        if not part:
            if left is None:
                break
            raise EOFError("the connection ended in the middle of a reply")
        parts.append(part)
        if left is not None:
            left -= len(part)
    return b"".join(parts)


async def read_chunks(reader: asyncio.StreamReader, timeout: float) -> bytes:
    parts = []
    while True:
        line = await within(reader.readuntil(b"\r\n"), timeout)
        size = int(line.split(b";")[0].strip(), 16)
        if size == 0:
            break
        parts.append(await read_exactly(reader, size, timeout))
        if await read_exactly(reader, 2, timeout) != b"\r\n":
            raise ValueError("a chunk does not end where it should")
    # The trailers.
    while await within(reader.readuntil(b"\r\n"), timeout) != b"\r\n":
        pass
    return b"".join(parts)
