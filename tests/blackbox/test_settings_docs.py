"""docs/settings.md says of each setting what the program says: its flag, default, unit, bounds and choices."""

import re

import pytest

from commands import is_refused, run
from longline_server import REPOSITORY

pytestmark = pytest.mark.providers("sqlite")  # nothing is served

PAGE = (REPOSITORY / "docs/settings.md").read_text("utf-8")
UNITS = {"bytes": r"in bytes|on the bytes", "MiB": r"in MiB", "milliseconds": r"(?i)milliseconds", "seconds": r"(?i)\bseconds\b"}


def told():
    """Of each setting in `longline help serve`: its flag, its default and what it is."""
    found = re.findall(r"^  ([A-Z_]+), --([a-z-]+)  \(default: (.*)\)\n((?:      .*\n)+)", run("help", "serve").stdout, re.M)
    return {name: (flag, default, " ".join(about.split())) for name, flag, default, about in found}


def documented():
    """Of each heading that is a setting: its line of facts, and what follows."""
    found = re.findall(r"^### ([A-Z_]+)\n\n(`--[^\n]*)\n\n(.*?)(?=^##|\Z)", PAGE, re.M | re.S)
    return {name: (facts.split(" · "), text) for name, facts, text in found}


TOLD, DOCUMENTED = told(), documented()
# Those whose last fact is what they take.
BOUNDED = [name for name, (facts, _) in DOCUMENTED.items() if not facts[-1].startswith(("default", "in "))]


def unit_of(about):
    return next((unit for unit, pattern in UNITS.items() if re.search(pattern, about)), None)


def accepts(flag):
    """What the program says that it takes: "1 to 3600", "`off` or `on`", or None if it does not start for another reason."""
    line = is_refused(run("serve", "--listen", "127.0.0.1:70000", f"--{flag}", "\x01"), 2)
    number = re.search(r"takes a whole number from (\d+ to \d+)", line)
    words = re.search(rf"--{flag} takes ((?:\w+, )*\w+ or \w+), not", line)
    return number[1] if number else re.sub(r"\b(?!or\b)(\w+)", r"`\1`", words[1]) if words else None


def test_every_setting_is_on_the_page_and_no_other():
    assert len(TOLD) > 35
    assert sorted(DOCUMENTED) == sorted(TOLD)
    assert re.findall(r"^### (.*)$", PAGE, re.M) == list(DOCUMENTED)


@pytest.mark.parametrize("name", TOLD)
def test_a_setting_is_what_the_page_says(name):
    flag, default, about = TOLD[name]
    (said_flag, said_default, *more), text = DOCUMENTED[name]
    assert said_flag == f"`--{flag}`"
    assert said_default == ("default none" if default == "none" else f"default `{default}`")
    units = [fact.removeprefix("in ") for fact in more if fact.startswith("in ")]
    assert units == ([unit] if (unit := unit_of(about)) else [])
    assert "**Change it** " in text
    assert accepts(flag) == (more[-1] if name in BOUNDED else None)
