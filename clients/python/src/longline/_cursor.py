"""Where a subscription is in a channel, and how a poll says so."""

from __future__ import annotations

import datetime
import math
import operator
import re
import time
from typing import Iterable, NamedTuple, Optional, SupportsIndex, Union
from urllib.parse import quote

from ._protocol import Page

Since = Union[str, float, datetime.datetime, datetime.timedelta]
Where = Union[str, Iterable[str]]

UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}

_ago = re.compile(r"(\d+)([smhd])", re.ASCII)


class Position(NamedTuple):
    """Behind the update `ts` of the data that `epoch` names; "" is an epoch that is not known."""

    ts: int
    epoch: str


class Cursor:
    """How far a subscription has come.

    `is_known` says whether that is `position`. It is not until the first reply to a subscription
    that begins now, at a time, before the last K updates, or where the server says.
    """

    def __init__(
        self,
        ts: Union[SupportsIndex, str, None] = None,
        since: Optional[Since] = None,
        name: Optional[str] = None,
        epoch: str = "",
    ) -> None:
        if ts is not None and since is not None:
            raise ValueError("a subscription begins at a ts or at a time, not at both")
        self.name = name
        self.begins_now = ts == "now"
        self._since = None if since is None else since_text(since)
        self._since_at: Optional[float] = None  # when it was first said
        start = 0 if ts is None or self.begins_now else operator.index(ts)  # type: ignore[arg-type]
        self.position = Position(start, epoch)
        self.is_known = start >= 0 and not self.begins_now and since is None and (ts is not None or name is None)
        self.lag: Optional[int] = None

    def query(self) -> str:
        """The parameters that say where a poll begins; "" if the server knows."""
        if self.is_known or self.position.ts:
            return f"ts={self.position.ts:d}"
        if self.begins_now:
            return "ts=now"
        return f"since={quote(self._since_now(), safe='')}" if self._since else ""

    def may_wait(self) -> bool:
        """Whether a poll may wait.

        Not before it is known where "now", "ten minutes ago" or "the last K" is: what comes between
        a poll that is cut and the next one would be lost.
        """
        return self.is_known or not (self.begins_now or self._since or self.position.ts < 0)

    def is_idle(self, page: Page) -> bool:
        """Whether the page says nothing new."""
        return self.is_known and (page.ts, page.missed, page.reset, page.entries) == (self.position.ts, 0, False, [])

    def take(self, page: Page) -> Position:
        """Takes a page. Returns the position behind it; the cursor gets there by move()."""
        epoch = self.position.epoch if page.epoch is None else page.epoch
        if page.lag is not None:
            self.lag = page.lag
        if page.entries and not self.is_known:
            self.move(Position(page.entries[0].ts - 1, epoch))
        return Position(page.ts, epoch)

    def move(self, to: Position) -> None:
        self.position = to
        self.is_known = True

    def _since_now(self) -> str:
        """The start in time. A span of time up to now grows while nobody answers."""
        assert self._since
        now = time.monotonic()
        if self._since_at is None:
            self._since_at = now
        ago, grown_s = _ago.fullmatch(self._since), math.ceil(now - self._since_at)
        return f"{int(ago[1]) * UNIT_S[ago[2]] + grown_s}s" if ago and grown_s else self._since


def since_text(since: Since) -> str:
    """The value of the parameter. Text is the server's to judge."""
    if isinstance(since, str):
        return since
    if isinstance(since, datetime.timedelta):
        return f"{math.ceil(since.total_seconds())}s"
    return f"{since.timestamp() if isinstance(since, datetime.datetime) else since:.3f}".rstrip("0").rstrip(".")


def where_query(where: Optional[Where]) -> str:
    """The parameters of the conditions, each with a leading "&"."""
    conditions = [where] if isinstance(where, str) else where or ()
    return "".join(f"&where={quote(condition, safe='')}" for condition in conditions)


def wanted(limit: int, full: bool, where: Optional[Where] = None, name: Optional[str] = None) -> str:
    """The parameters of a poll that stay the same, each with a leading "&"."""
    if limit < 1:
        raise ValueError("limit is a whole number from 1")
    view = "&view=full" if full else ""
    consumer = f"&as={quote(name, safe='')}" if name is not None else ""
    return f"&limit={limit:d}{view}{where_query(where)}{consumer}"
