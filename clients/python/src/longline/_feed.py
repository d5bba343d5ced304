"""A subscription without its connection: it decides what to do next, and others do it.

Subscription and AsyncSubscription take a step from next(), carry it out, and take the next one:

    Ask   poll; pass the reply to replied(), or the error to failed()
    Tell  call a callback
    Give  hand an item to the caller; it counts as handled when the caller comes back (resume())
    Rest  wait before the next poll

Nothing here reads, writes or waits.
"""

from __future__ import annotations

import functools
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Callable, Deque, Generic, Optional, TypeVar, Union

from ._protocol import Address, Cursor, Entry, LonglineError, Reply, log_error, log_missed, log_reset

Item = TypeVar("Item")


@dataclass(frozen=True)
class Ask:
    target: str
    timeout_s: float


@dataclass(frozen=True)
class Tell:
    callback: Callable[[Any], object]
    argument: object


@dataclass(frozen=True)
class Give(Generic[Item]):
    item: Item


@dataclass(frozen=True)
class Rest:
    seconds: float


@dataclass(frozen=True)
class Callbacks:
    """The user's callbacks. An event without one is logged."""

    on_missed: Optional[Callable[[int], object]]
    on_reset: Optional[Callable[[int], object]]
    on_error: Optional[Callable[[LonglineError], object]]


class Feed(Generic[Item]):
    """The steps of one subscription. `pick` turns an entry into what the caller gets."""

    def __init__(
        self,
        address: Address,
        timeout: float,
        cursor: Cursor,
        pick: Callable[[Entry], Item],
        callbacks: Callbacks,
    ) -> None:
        self._address = address
        self._timeout = timeout
        self._cursor = cursor
        self._pick = pick
        self._callbacks = callbacks
        self._tells: Deque[Tell] = deque()
        self._entries: Deque[Entry] = deque()
        self._page_ts: Optional[int] = None  # the ts of the current page
        self._given_ts: Optional[int] = None  # the ts of the entry that the caller has
        self._rest_s = 0.0
        self._asked_at = 0.0

    @property
    def ts(self) -> int:
        return self._cursor.ts

    def resume(self) -> None:
        """The caller is back: the last item is handled, and an interrupted rest is over."""
        if self._given_ts is not None:
            self._cursor.ts, self._given_ts = self._given_ts, None
        self._rest_s = 0

    def next(self) -> Union[Ask, Tell, Give[Item], Rest]:
        if self._tells:
            return self._tells.popleft()
        if self._entries:
            entry = self._entries.popleft()
            self._given_ts = entry.ts
            return Give(self._pick(entry))
        if self._page_ts is not None:
            self._cursor.ts, self._page_ts = self._page_ts, None
        if self._rest_s:
            rest, self._rest_s = Rest(self._rest_s), 0
            return rest
        self._asked_at = time.monotonic()
        return Ask(self._address.target(self._cursor.query()), self._cursor.sleep + self._timeout)

    def replied(self, reply: Reply) -> None:
        """Takes the reply to a poll. Raises LonglineError if asking again cannot help."""
        try:
            page = self._cursor.page(reply)
        except LonglineError as error:
            self.failed(error)
            return
        self._rest_s = self._cursor.rest(page, time.monotonic() - self._asked_at)
        self._page_ts = page.ts
        self._entries.extend(page.entries)
        if page.entries and self._cursor.ts < 0:  # now we know where "the last K" begin
            self._cursor.ts = page.ts - len(page.entries)
        if page.reset:
            self._tells.append(Tell(self._callbacks.on_reset or log_reset, page.ts))
        if page.missed:
            self._tells.append(Tell(self._callbacks.on_missed or log_missed, page.missed))

    def failed(self, error: LonglineError) -> None:
        """Takes the error of a poll. Raises it if asking again cannot help."""
        delay = self._cursor.delay(error)
        self._rest_s = delay
        self._tells.append(Tell(self._callbacks.on_error or functools.partial(log_error, delay=delay), error))
