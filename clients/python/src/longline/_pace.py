"""How long the next poll may wait, and when it follows.

    good reply              at once, with the reply's ts; the backoff starts over
    empty reply, at once    after as long as after a first error
    cut by a proxy          at once, and shorter; from the third in a row on after up to 0.5 s
    a kept connection broke at once, over a new one
    429, 503                after Retry-After (at most 60 s), if there is one, times 1 to 1.5
    longline's own 4xx      never: the error is raised
    all else                after 0.5 s, 1, 2, ... 30, each times 0.5 to 1

Proxies end what is silent for long: by closing, by a reset, by a 502 or a 504. On a quiet channel
this happens to every poll, and it loses nothing, so it is no failure. The next poll asks for three
quarters of the time that this one reached, and those that then last their whole time grow again.
So two are hardly ever cut in a row while longline is there: a second one is told, once, since it may
be a proxy's only word of a server that is gone.
Only longline's own word that a request is wrong is final: a 404 without it is a proxy's, and passes.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from ._protocol import LonglineError

SLEEP_S = 25.0
SLEEP_MAX_S = 3600.0
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0
RETRY_AFTER_MAX_S = 60.0

# A poll that ends after less has not waited: that is a failure.
CUT_AFTER_S = 0.5
# Whatever is alive has answered this long after the poll's own time.
CUT_LATE_S = 5.0
CUT_SLEEP_MIN_S = 1.0
CUT_PAUSE_S = 0.5


class Pause(NamedTuple):
    """How long to wait after a poll that got no good reply, and whether somebody must be told."""

    seconds: float
    is_told: bool


class Pace:
    """`sleep_s` is how long the next poll may wait, and `first_s` the first wait after an error."""

    def __init__(self, sleep: float, backoff: float) -> None:
        if not 0 < sleep <= SLEEP_MAX_S:
            raise ValueError(f"sleep is more than 0 and at most {SLEEP_MAX_S:g} seconds")
        self.sleep_s = self._sleep_max_s = max(sleep, 0.001)
        self._first_s = self._step_s = backoff
        self._cuts = 0  # in a row

    def sleep_text(self) -> str:
        return f"{self.sleep_s:.3f}".rstrip("0").rstrip(".")

    def replied(self, is_empty: bool, waited_s: float) -> float:
        """Takes a good reply to a poll that waited for so long. Returns the seconds before the next.

        A server that is shutting down, or a proxy that does not wait, sends empty replies at once.
        Without a pause the client would spin.
        """
        self._step_s = self._first_s
        self._cuts = 0
        if is_empty and waited_s < self._first_s:
            return jitter(self._first_s)
        if waited_s >= 0.75 * self.sleep_s:
            self.sleep_s = min(1.25 * self.sleep_s, self._sleep_max_s)
        return 0

    def failed(self, error: LonglineError, waited_s: float) -> Pause:
        """Takes the error of a poll; `waited_s` is 0 for one that was not to wait.

        Raises the error if asking again cannot help.
        """
        if error.is_final:
            raise error
        if error.is_cut and CUT_AFTER_S <= waited_s <= self.sleep_s + CUT_LATE_S:
            self._shorten(waited_s)
            self._step_s = self._first_s  # It was heard: the next error is a first one.
            self._cuts += 1
            return Pause(jitter(CUT_PAUSE_S) if self._cuts > 2 else 0, self._cuts == 2)
        if error.is_cut and error.is_stale:
            return Pause(0, False)  # The next one goes over a new connection.
        if error.is_silence and waited_s:
            self._shorten(self.sleep_s)
        if error.status in (429, 503) and error.retry_after:
            # They were all told the same, and must not come back together.
            return Pause(min(error.retry_after, RETRY_AFTER_MAX_S) * random.uniform(1, 1.5), True)
        step_s = self._step_s
        self._step_s = min(2 * step_s, BACKOFF_MAX_S)
        return Pause(jitter(step_s), True)

    def _shorten(self, reached_s: float) -> None:
        self.sleep_s = min(self.sleep_s, max(0.75 * reached_s, CUT_SLEEP_MIN_S))


def jitter(seconds: float) -> float:
    """Between half and all of it: clients that failed together must not come back together."""
    return seconds * random.uniform(0.5, 1)
