"""Prints how much of src/ fuzzers reach, from what `llvm-cov export -summary-only` says.

usage: coverage.py TARGET=FILE… ; the last one is all of them together, and is shown by file, too."""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2] / "src"


def files_of(path):
    """Name in src/ → the counts of its lines and branches."""
    found = {}
    for file in json.loads(Path(path).read_text())["data"][0]["files"]:
        name = Path(file["filename"])
        if name.is_relative_to(ROOT) and name.suffix == ".c":
            found[str(name.relative_to(ROOT))] = file["summary"]
    return found


def share(summaries, kind):
    covered = sum(summary[kind]["covered"] for summary in summaries)
    count = sum(summary[kind]["count"] for summary in summaries)
    return f"{covered:6} of {count:6} ({100 * covered / max(count, 1):3.0f} %)"


def line(name, summaries):
    print(f"{name:24} lines {share(summaries, 'lines')}   branches {share(summaries, 'branches')}")


targets = [word.split("=") for word in sys.argv[1:]]
for target, path in targets:
    line(target, files_of(path).values())
print()
for name, summary in sorted(files_of(targets[-1][1]).items()):
    line(name, [summary])
