"""SIGKILL at each system call by which the server writes, syncs, renames, deletes or answers, one run each.

CALLS=n takes each nth of them; script/torture takes every one. The short form takes two of each scenario.
"""

import os

import pytest

from scenarios import SCENARIOS, Call

CALLS = int(os.environ.get("CALLS", 0))
SOME = {
    "Work": (Call("pwrite64", 9), Call("write", 5, False)),
    "WorkWithoutUring": (Call("write", 12, False),),
    "Stop": (Call("pwrite64", 4), Call("unlink", 1)),
    "Sweep": (Call("pwrite64", 4), Call("fdatasync", 2)),
    "Copy": (Call("pwrite64", 200), Call("fdatasync", 17)),
    "LiveUpgrade": (Call("pwrite64", 9), Call("write", 2, False)),
    "FirstStart": (Call("pwrite64", 3), Call("openat", 5)),
    "StartAfterKill": (Call("pwrite64", 4), Call("fdatasync", 2)),
    "OldFile": (Call("pwrite64", 20), Call("fdatasync", 3)),
}


def chosen(scenario):
    if not CALLS:
        return SOME[type(scenario).__name__]
    calls = scenario.all_calls()
    assert calls
    return calls[CALLS // 2 :: CALLS]


@pytest.mark.parametrize("kind", SCENARIOS)
def test_killed_at_a_call(start, tmp_path, kind):
    scenario = kind(start, tmp_path)
    calls, killed = chosen(scenario), 0
    for call in calls:
        try:
            scenario.run_with(call, f"signal=SIGKILL:when={call.nth}")
            killed += scenario.was_killed()
            scenario.end()
            scenario.server.start()
            scenario.check()
        except AssertionError as error:
            raise AssertionError(f"SIGKILL at {call}: {error}") from error
    print(f"{kind.__name__}: {killed} kills at {len(calls)} calls")
    # One more or less of a kind comes with maintenance, which comes when it likes.
    assert killed >= len(calls) * 0.8
