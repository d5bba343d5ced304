"""Tests of what takes how long: tried again when they fail, which is told. Other work on the machine may delay anything. Only tests of a bound in time are such: what is tried again could hide a race.

A conftest.py imports the hooks; `pytest.mark.timed` marks such a test.
"""

from _pytest.runner import runtestprotocol

TRIES = 3
again = []  # what was tried again, and why


def pytest_runtest_protocol(item, nextitem):
    if not item.get_closest_marker("timed"):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for left in reversed(range(TRIES)):
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if not left or not any(report.failed for report in reports):
            break
        again.extend(f"{report.nodeid}\n{report.longreprtext}" for report in reports if report.failed)
        item._initrequest()  # it gets new fixtures
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_terminal_summary(terminalreporter):
    for text in again:
        terminalreporter.section("tried again")
        terminalreporter.line(text)
