"""How fast a client must stop."""

import pytest

STOP_S = 0.1
TRIES = 20


def check_stops_at_once(stop, tries=TRIES):
    """stop() stops a client and returns how many seconds that took.

    The machine has other work to do, so the best of a few tries counts.
    """
    times_s = []
    for _ in range(tries):
        times_s.append(stop())
        if times_s[-1] <= STOP_S:
            return
    pytest.fail(f"stopped after {times_s} s, {STOP_S} are allowed")
