"""A subscription without its connection: it decides what to do next, and others do it.

The subscriptions take a step from next(), carry it out, and take the next one:

    Ask   poll; pass the reply to replied(), or the error to failed()
    Tell  call a callback
    Give  hand an item to the caller; it counts as handled when the caller comes back (resume())
    Rest  wait before the next poll

Nothing here reads, writes or waits.
"""

from __future__ import annotations

import functools
import json
from collections import deque
from dataclasses import dataclass
from typing import Any, Callable, Deque, Dict, Generic, Optional, TypeVar, Union

from ._cursor import Cursor, Position
from ._pace import Pace
from ._protocol import (
    Address,
    Body,
    Entry,
    LonglineError,
    Page,
    Reply,
    log_cut,
    log_error,
    log_missed,
    log_reset,
    page_of,
    pages_of,
)

Item = TypeVar("Item")


@dataclass(frozen=True)
class Ask:
    target: str
    timeout_s: float
    body: Optional[Body] = None


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
class Move:
    """A cursor has come this far as soon as all the steps before this one are done."""

    cursor: Cursor
    to: Position


@dataclass(frozen=True)
class Callbacks:
    """The user's callbacks. An event without one is logged."""

    on_missed: Optional[Callable[..., object]]
    on_reset: Optional[Callable[..., object]]
    on_error: Optional[Callable[[LonglineError], object]]


class Feed(Generic[Item]):
    """The steps of one subscription. `full` says that the polls ask for view=full."""

    def __init__(self, address: Address, timeout: float, pace: Pace, full: bool, callbacks: Callbacks) -> None:
        self._address = address
        self._timeout = timeout
        self._pace = pace
        self._full = full
        self._callbacks = callbacks
        self._steps: Deque[Union[Tell, Give[Item], Move]] = deque()
        self._rest_s = 0.0
        self._waits = True  # whether the last poll was to wait

    def resume(self) -> None:
        """The caller is back: the last item is handled, and an interrupted rest is over."""
        self._move()
        self._rest_s = 0

    def next(self) -> Union[Ask, Tell, Give[Item], Rest]:
        self._move()
        if self._steps:
            step = self._steps.popleft()
            assert not isinstance(step, Move)
            return step
        if self._rest_s:
            rest, self._rest_s = Rest(self._rest_s), 0
            return rest
        return self._ask()

    def replied(self, reply: Reply, waited_s: float) -> None:
        """Takes the reply to a poll, and how long the server had the request.

        Raises LonglineError if asking again cannot help.
        """
        try:
            is_idle = self._take(reply)
        except LonglineError as error:
            self.failed(error, waited_s)
        else:
            self._rest_s = self._pace.replied(is_idle, waited_s if self._waits else 0)

    def failed(self, error: LonglineError, waited_s: float) -> None:
        """Takes the error of a poll; `waited_s` is 0 if the server never had the request.

        Raises it if asking again cannot help.
        """
        self._rest_s, is_told = self._pace.failed(error, waited_s if self._waits else 0)
        if is_told:
            self._steps.append(self._tell_error(error, self._rest_s))
        else:
            log_cut(self._address.authority, waited_s, self._pace.sleep_s)

    # --- for the subclasses ---

    def _tell_error(self, error: LonglineError, delay: float) -> Tell:
        return Tell(self._callbacks.on_error or functools.partial(log_error, self._address.authority, delay=delay), error)

    def _logging(self, log: Callable[[str, Any], None]) -> Callable[[Any], None]:
        return functools.partial(log, self._address.authority)

    def _ask(self) -> Ask:
        raise NotImplementedError

    def _take(self, reply: Reply) -> bool:
        """Queues the steps of a reply. Returns whether it says nothing new.

        Raises LonglineError if it is an error.
        """
        raise NotImplementedError

    def _queue(self, cursor: Cursor, page: Page, on_missed: Any, on_reset: Any, pick: Callable[[Entry], Item]) -> bool:
        """Queues the steps of a page. Returns whether it says nothing new."""
        is_idle = cursor.is_idle(page)
        end = cursor.take(page)
        if not (page.reset or page.missed or page.entries):
            cursor.move(end)  # It need not wait until the updates of other channels are handled.
            return is_idle
        if page.reset:
            self._steps.append(Tell(on_reset, page.ts))
        if page.missed:
            self._steps.append(Tell(on_missed, page.missed))
        for entry in page.entries:
            self._steps.append(Give(pick(entry)))
            self._steps.append(Move(cursor, Position(entry.ts, end.epoch)))
        self._steps.append(Move(cursor, end))
        return is_idle

    def _move(self) -> None:
        while self._steps and isinstance(self._steps[0], Move):
            move = self._steps.popleft()
            assert isinstance(move, Move)
            move.cursor.move(move.to)


class ChannelFeed(Feed[Item]):
    """The steps of a subscription to one channel. `pick` turns an entry into what the caller gets."""

    def __init__(
        self,
        address: Address,
        timeout: float,
        pace: Pace,
        full: bool,
        callbacks: Callbacks,
        cursor: Cursor,
        wanted: str,
        pick: Callable[[Entry], Item],
    ) -> None:
        super().__init__(address, timeout, pace, full, callbacks)
        self.cursor = cursor
        self._wanted = wanted
        self._pick = pick

    def _ask(self) -> Ask:
        self._waits = self.cursor.may_wait()
        sleep = f"&sleep={self._pace.sleep_text()}" if self._waits else ""
        query = f"{self.cursor.query()}{sleep}{self._wanted}&epoch={self.cursor.position.epoch}"
        return Ask(self._address.target(query.lstrip("&")), self._timeout + (self._pace.sleep_s if self._waits else 0))

    def _take(self, reply: Reply) -> bool:
        calls = self._callbacks
        on_missed, on_reset = calls.on_missed or self._logging(log_missed), calls.on_reset or self._logging(log_reset)
        return self._queue(self.cursor, page_of(reply, self._full), on_missed, on_reset, self._pick)


class ChannelsFeed(Feed[Item]):
    """The steps of a subscription to several channels of a server.

    `pick` turns a channel's name and an entry into what the caller gets.
    """

    def __init__(
        self,
        address: Address,
        timeout: float,
        pace: Pace,
        full: bool,
        callbacks: Callbacks,
        cursors: Dict[str, Cursor],
        wanted: str,
        pick: Callable[[str, Entry], Item],
    ) -> None:
        super().__init__(address, timeout, pace, full, callbacks)
        self.cursors = cursors
        self._wanted = wanted
        self._pick = pick

    def _ask(self) -> Ask:
        self._waits = all(cursor.may_wait() for cursor in self.cursors.values())
        sleep = f"&sleep={self._pace.sleep_text()}" if self._waits else ""
        query = f"{sleep}{self._wanted}&epoch=".lstrip("&")
        positions = {name: position_of(cursor) for name, cursor in self.cursors.items()}
        body = Body(json.dumps(positions).encode(), "application/json")
        timeout_s = self._timeout + (self._pace.sleep_s if self._waits else 0)
        return Ask(self._address.below(f"/-/poll?{query}"), timeout_s, body)

    def _take(self, reply: Reply) -> bool:
        pages = pages_of(reply, self._full)
        return all([self._take_channel(name, page) for name, page in pages.items() if name in self.cursors])

    def _take_channel(self, name: str, page: Union[Page, LonglineError]) -> bool:
        calls = self._callbacks
        if isinstance(page, LonglineError):
            self._steps.append(self._tell_error(page, 0))
            return True
        on_missed = functools.partial(calls.on_missed, name) if calls.on_missed else self._logging(log_missed)
        on_reset = functools.partial(calls.on_reset, name) if calls.on_reset else self._logging(log_reset)
        return self._queue(self.cursors[name], page, on_missed, on_reset, functools.partial(self._pick, name))


def position_of(cursor: Cursor) -> object:
    """The position as a poll of several channels says it."""
    ts: object = "now" if cursor.begins_now and not cursor.is_known else cursor.position.ts
    epoch = cursor.position.epoch
    return {"ts": ts, "epoch": epoch} if epoch else ts
