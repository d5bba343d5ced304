"""The report's tables: their rows, the goals of a row, and how a figure is written."""

from dataclasses import dataclass

NOTHING = "–"


@dataclass(frozen=True)
class Unit:
    """How a figure is written: its format, its suffix, and the factor that converts it."""

    form: str
    suffix: str = ""
    factor: float = 1

    def __call__(self, value):
        return NOTHING if value is None else format(value * self.factor, self.form) + self.suffix

    def goal(self, value):
        return f"{value * self.factor:g}{self.suffix}"


RATE = Unit(",.0f", "/s")
MICROSECONDS = Unit(".1f", " µs")
NANOSECONDS = Unit(".0f", " ns")
MILLISECONDS = Unit(".3f", " ms", 1 / 1000)  # of a figure in microseconds
BYTES = Unit(",.0f", " B")
MEBIBYTES = Unit(",.0f", " MiB", 1 / 2**20)
COUNT = Unit(",.2f")


def figure_text(name, value):
    """A figure in a progress line. Its name tells its unit."""
    words = name.split("_")
    if "us" in words:
        unit = MICROSECONDS if value < 1000 else MILLISECONDS
    elif "bytes" in words:
        unit = BYTES if value < 2**20 else MEBIBYTES
    else:
        unit = RATE if words[-1] in ("rate", "second") else COUNT
    label = " ".join(word for word in words if word not in ("us", "bytes"))
    return f"{label} {unit(value)}"


@dataclass
class Row:
    """One line of the table: two figures, their ratio, and a goal that is met or not."""

    what: str
    ours: str
    peer: str = NOTHING
    ratio: str = NOTHING
    goal: str = NOTHING
    met: bool | None = None

    HEAD = ("what", "longline", "peer", "ratio", "goal", "met")

    def cells(self):
        met = NOTHING if self.met is None else "yes" if self.met else "**no**"
        return [self.what, self.ours, self.peer, self.ratio, self.goal, met]


def compare(what, unit, ours, peer, at_least=None, at_most=None):
    """A row of two figures. Its goal, if any, bounds their ratio."""
    row = Row(what, unit(ours), unit(peer))
    if ours is None or peer is None:
        return row
    ratio = ours / peer
    row.ratio = f"{ratio:.2f}"
    if at_least is not None:
        row.goal, row.met = f"≥ {at_least}", ratio >= at_least
    elif at_most is not None:
        row.goal, row.met = f"≤ {at_most}", ratio <= at_most
    return row


def markdown(head, rows):
    """A Markdown table that is readable as plain text too."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = []
    for row in [head, ["-" * width for width in widths], *rows]:
        cells = (cell.ljust(width) for cell, width in zip(row, widths))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
