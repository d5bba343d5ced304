"""A disk that fails: each call on the files of the data gets EIO, ENOSPC or EDQUOT, once or from then on.

Never a 200 for what is not stored; no crash, no hang; nothing that was refused comes back; and within
five seconds after the fault, pushes work again, without a restart.

IO_CALLS=n takes each nth call; script/torture takes every one. The short form takes a few of each scenario.
"""

import itertools
import os

import pytest

from longline_server import SLOW, wait_until
from scenarios import SCENARIOS, Call, FirstStart, Stop

IO_CALLS = int(os.environ.get("IO_CALLS", 0))
ERRORS = ("EIO", "ENOSPC", "EDQUOT")
LATELY = ("", "+")  # strace's words for once, and from then on
WELL_AGAIN_S = 20 if SLOW else 5
SOME = {
    "Work": ((Call("pwrite64", 9), "ENOSPC", "+"), (Call("fdatasync", 3), "EIO", "")),
    "Stop": ((Call("fdatasync", 1), "EIO", "+"),),
    "Sweep": ((Call("pwrite64", 4), "EDQUOT", ""),),
    "Copy": ((Call("pwrite64", 120), "EIO", "+"), (Call("ftruncate", 1), "ENOSPC", "")),
    "LiveUpgrade": ((Call("openat", 2), "EIO", "+"), (Call("openat", 5), "EIO", "+")),
    "FirstStart": ((Call("openat", 4), "EIO", ""), (Call("mmap", 1), "EIO", "+")),
    "StartAfterKill": tuple((Call("openat", nth), "EIO", "") for nth in (4, 5, 6)) + ((Call("pwrite64", 4), "ENOSPC", "+"),),
    "OldFile": ((Call("fdatasync", 3), "EIO", ""),),
}
KINDS = [kind for kind in SCENARIOS if kind.__name__ in SOME]


def chosen(scenario):
    if not IO_CALLS:
        return SOME[type(scenario).__name__]
    calls = [call for call in scenario.all_calls() if call.is_of_file]
    tried = list(itertools.product(calls, ERRORS, LATELY))
    return tried[IO_CALLS // 2 :: IO_CALLS]


def is_well(scenario):
    """A push works."""
    script = scenario.script
    script.push(script.plain)
    return isinstance(script.plain.told[script.number], int) and scenario.server.get("/-/health").status == 200


def try_one(scenario, call, error, lately):
    """Returns how many requests were refused meanwhile."""
    server = scenario.server
    log_start = server.log_path.stat().st_size
    scenario.run_with(call, f"error={error}:when={call.nth}{lately}")
    if isinstance(scenario, Stop):
        assert server.wait_for_exit() == 0
        scenario.let_go()
        server.start()
    elif isinstance(scenario, FirstStart) and scenario.is_dead:
        assert server.wait_for_exit() == 1
        last = server.log(log_start).splitlines()[-1]
        assert last.startswith("longline: "), f"not one clear line: {last}"
        server.start()
    else:
        assert not scenario.is_dead, f"it died: {server.process.returncode}"
        scenario.let_go()
    wait_until(lambda: is_well(scenario), "pushes to work again", WELL_AGAIN_S)
    refused = scenario.script.refusals
    scenario.check()
    server.kill9()
    server.start()
    scenario.check()
    scenario.end()
    return refused


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_that_fails(start, tmp_path, kind):
    scenario = kind(start, tmp_path)
    scenario.may_fail = True
    tried = chosen(scenario)
    refused = sum(attempt(scenario, *case) for case in tried)
    print(f"{kind.__name__}: {len(tried)} faults, {refused} requests refused")


def attempt(scenario, call, error, lately):
    try:
        return try_one(scenario, call, error, lately)
    except AssertionError as failure:
        raise AssertionError(f"{error} at {call}{' and from then on' if lately else ''}: {failure}") from failure
