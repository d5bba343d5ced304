"""The client for programs with asyncio: HTTP/1.1 over asyncio's streams.

stop() cancels the task that a subscription waits with; nothing here waits without one.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import ssl
import time
import weakref
from collections import deque
from types import TracebackType
from typing import (
    Any,
    AsyncIterator,
    Awaitable,
    Callable,
    Deque,
    Dict,
    Generic,
    List,
    Mapping,
    Optional,
    Tuple,
    Type,
    TypeVar,
)

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
Result = TypeVar("Result")

HEAD_MAX = 65536
READ_SIZE = 65536


class AsyncChannel:
    """Channel for asyncio. The arguments are the same; callbacks may be functions or coroutine functions.

    All calls are for the event loop's thread; from another one: loop.call_soon_threadsafe(channel.stop).
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
        self._idle: List[AsyncConnection] = []
        self._subscriptions: weakref.WeakSet[AsyncSubscription[Any]] = weakref.WeakSet()
        self._closed = False

    async def push(self, update: object) -> int:
        """Stores an update and returns its ts; as Channel.push."""
        body = push_body(update)
        if self._closed:
            raise LonglineError(0, "the channel has been closed")
        connection = self._idle.pop() if self._idle else self._connection()
        reply = await connection.request("POST", self._address.target(), body, self._timeout)
        if self._idle or self._closed:
            connection.abort()
        else:
            self._idle.append(connection)
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
    ) -> AsyncSubscription[Any]:
        """As Channel.updates, for `async for`."""
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
    ) -> AsyncSubscription[Entry]:
        """As Channel.entries, for `async for`."""
        cursor = Cursor(ts, sleep, limit, full, backoff)
        return self._subscribe(cursor, lambda entry: entry, on_missed, on_reset, on_error)

    def stop(self) -> None:
        """Ends every subscription of the channel, also those that wait, and at once."""
        for subscription in list(self._subscriptions):
            subscription.stop()

    async def close(self) -> None:
        """stop(), and the end of the channel's connections. A push after it raises; a subscription is over at once."""
        self._closed = True
        idle, self._idle = self._idle, []
        ends = [subscription.close() for subscription in self._subscriptions]
        await asyncio.gather(*ends, *(connection.close() for connection in idle))

    async def __aenter__(self) -> AsyncChannel:
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()

    def _connection(self) -> AsyncConnection:
        return AsyncConnection(self._address, self._timeout, self._headers, self._context)

    def _subscribe(
        self,
        cursor: Cursor,
        pick: Callable[[Entry], Item],
        on_missed: Optional[Callable[[int], object]],
        on_reset: Optional[Callable[[int], object]],
        on_error: Optional[Callable[[LonglineError], object]],
    ) -> AsyncSubscription[Item]:
        subscription = AsyncSubscription(
            self._connection(), self._address, cursor, self._timeout, pick, on_missed, on_reset, on_error
        )
        self._subscriptions.add(subscription)
        if self._closed:
            subscription.stop()
        return subscription


class AsyncSubscription(Generic[Item], AsyncIterator[Item]):
    """The iterator of AsyncChannel's updates() and entries(). A context manager too: its end is the subscription's."""

    def __init__(
        self,
        connection: AsyncConnection,
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
        self._events: Deque[Tuple[Callable[[int], object], int]] = deque()
        self._entries: Deque[Entry] = deque()
        self._page_ts: Optional[int] = None
        self._given: Optional[int] = None
        self._stopped = False
        self._waits: Optional[asyncio.Future[Any]] = None

    @property
    def ts(self) -> int:
        """The last update that was handled: start with it the next time.

        It moves on when the next update is asked for. Inside the loop that is the one before the update at hand.
        """
        return self._cursor.ts

    def __aiter__(self) -> AsyncSubscription[Item]:
        return self

    async def __anext__(self) -> Item:
        if self._given is not None:
            self._cursor.ts, self._given = self._given, None
        while not self._stopped:
            if self._events:
                callback, number = self._events.popleft()
                await call(callback, number)
            elif self._entries:
                entry = self._entries.popleft()
                self._given = entry.ts
                return self._pick(entry)
            elif self._page_ts is not None:
                self._cursor.ts, self._page_ts = self._page_ts, None
            else:
                try:
                    page = await self._poll()
                except asyncio.CancelledError:
                    self._connection.abort()
                    raise
                if page is not None:
                    self._take(page)
        self._connection.abort()
        raise StopAsyncIteration

    def stop(self) -> None:
        """Ends the subscription, also while it waits, and at once."""
        self._stopped = True
        if self._waits is not None:
            self._waits.cancel()

    async def close(self) -> None:
        """stop(), and the end of the connection."""
        self.stop()
        await self._connection.close()

    async def __aenter__(self) -> AsyncSubscription[Item]:
        return self

    async def __aexit__(
        self, kind: Optional[Type[BaseException]], value: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        await self.close()

    async def _poll(self) -> Optional[Page]:
        """One poll; None where it came to nothing and the wait after that is over, or where stop() was called."""
        target = self._address.target(self._cursor.query())
        began = time.monotonic()
        try:
            reply = await self._until_stopped(
                self._connection.request("GET", target, None, self._cursor.sleep + self._timeout)
            )
            if reply is None:
                return None
            page = self._cursor.page(reply)
            delay = self._cursor.rest(page, time.monotonic() - began)
            if not delay:
                return page
        except LonglineError as error:
            delay = self._cursor.delay(error)
            if self._on_error is None:
                log_error(error, delay)
            else:
                await call(self._on_error, error)
        await self._until_stopped(asyncio.sleep(delay))
        return None

    async def _until_stopped(self, work: Awaitable[Result]) -> Optional[Result]:
        """The work's result; None where stop() cancelled it."""
        task = asyncio.ensure_future(work)
        if self._stopped:
            task.cancel()
        self._waits = task
        try:
            await done(task)
        finally:
            self._waits = None
        return None if task.cancelled() else task.result()

    def _take(self, page: Page) -> None:
        self._page_ts = page.ts
        self._entries.extend(page.entries)
        if page.entries and self._cursor.ts < 0:  # what "the last K" are is known now
            self._cursor.ts = page.ts - len(page.entries)
        if page.reset:
            self._events.append((self._on_reset or log_reset, page.ts))
        if page.missed:
            self._events.append((self._on_missed or log_missed, page.missed))


class AsyncConnection:
    """One HTTP connection that is kept, and made again where it broke."""

    def __init__(
        self, address: Address, timeout: float, headers: Dict[str, str], context: Optional[ssl.SSLContext]
    ) -> None:
        self._address = address
        self._timeout = timeout
        self._headers = headers
        self._context = context
        self._reader: Optional[asyncio.StreamReader] = None
        self._writer: Optional[asyncio.StreamWriter] = None
        self._used_at = 0.0

    async def request(self, method: str, target: str, body: Optional[bytes], timeout: float) -> Reply:
        """The reply. Raises LonglineError with status 0 where there is no whole one."""
        try:
            if not self._fresh():
                self.abort()
                await within(self._open(), self._timeout)
            assert self._reader and self._writer
            self._writer.write(request_bytes(method, target, self._headers, body))
            await within(self._writer.drain(), timeout)
            reply, stays = await read_reply(self._reader, timeout)
            self._used_at = time.monotonic()
            if not stays:
                self.abort()
        except asyncio.TimeoutError as error:
            self.abort()
            raise LonglineError(0, "the server does not answer") from error
        except (OSError, EOFError, asyncio.LimitOverrunError, ValueError) as error:
            self.abort()
            raise LonglineError(0, str(error) or type(error).__name__) from error
        except BaseException:
            self.abort()
            raise
        return reply

    def abort(self) -> Optional[asyncio.StreamWriter]:
        """Ends the connection; its socket is closed soon after. Returns its writer, where there was one."""
        writer, self._reader, self._writer = self._writer, None, None
        if writer is not None:
            writer.transport.abort()
        return writer

    async def close(self) -> None:
        """Ends the connection; its socket has been closed then."""
        writer = self.abort()
        if writer is not None:
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(
            self._address.host,
            self._address.port,
            ssl=self._context,
            limit=HEAD_MAX,
            # An address that does not answer holds up those behind it no longer than this.
            happy_eyeballs_delay=0.25,
        )

    def _fresh(self) -> bool:
        """Whether the kept connection still looks good: not idle for long, and not ended by the server."""
        if self._reader is None or self._writer is None or time.monotonic() - self._used_at > IDLE_MAX_S:
            return False
        return not (self._reader.at_eof() or self._reader.exception() or self._writer.is_closing())


async def done(task: asyncio.Future[Any], timeout: Optional[float] = None) -> None:
    """Waits for the task. It does not outlive the wait: not the time, and not the caller, who may be cancelled."""
    try:
        await asyncio.wait({task}, timeout=timeout)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


async def within(work: Awaitable[Result], timeout: float) -> Result:
    """The work's result, or asyncio.TimeoutError. (asyncio.wait_for can swallow a cancellation, up to Python 3.11.)"""
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
        fields.update({"Content-Type": "application/json", "Content-Length": str(len(body))})
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1") + (body or b"")


async def read_reply(reader: asyncio.StreamReader, timeout: float) -> Tuple[Reply, bool]:
    """The next reply, and whether the connection stays. `timeout` is for each time that the server is waited for."""
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
    """So many bytes, or all until the connection's end."""
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
