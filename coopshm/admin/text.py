"""What commands print, as plain text: sizes, ages, and blocks of lines and tables.

A command composes blocks; here they become plain text, for pipes and dumb terminals, and in pretty.py colours and
bars for people. So both always say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..errors import count

__all__ = [
    "Block",
    "Cell",
    "Line",
    "Table",
    "age",
    "count",
    "fill",
    "number",
    "percent",
    "plain",
    "printable",
    "rate",
    "size",
]


class Cell(NamedTuple):
    """A piece of text.

    Attributes:
        text: in one line.
        style: one of pretty.STYLES, "" for none.
        share: 0 to 1, for what is shown with a bar where that is possible.
    """

    text: str
    style: str = ""
    share: float | None = None


class Line(NamedTuple):
    """One line, or several, of one style."""

    text: str
    style: str = ""


class Table(NamedTuple):
    """Aligned columns. `align` has an `l` or `r` for each; of the last one as much is shown as there is room for."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    align: str
    title: str = ""


Block = Line | Table


def plain(blocks: Sequence[Block]) -> str:
    """Return blocks as text without any control characters, without a line feed at its end."""
    texts = []
    for block in blocks:
        if isinstance(block, Line):
            texts.append(block.text)
        else:
            texts += [*([block.title] if block.title else []), *_rows(block)]
    return "\n".join(texts)


def _rows(table: Table) -> list[str]:
    cells = [table.header, *([cell if isinstance(cell, str) else cell.text for cell in row] for row in table.rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(table.header))]

    def padded(text: str, width: int, side: str) -> str:
        return text.rjust(width) if side == "r" else text.ljust(width)

    return [
        "  ".join(padded(*column) for column in zip(row, widths, table.align, strict=True)).rstrip() for row in cells
    ]


def printable(text: str) -> str:
    """Return `text` with everything escaped that a terminal might obey, line feeds apart."""
    if text.replace("\n", "").isprintable():
        return text
    return "".join(
        char if char == "\n" or char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def size(nbytes: float) -> str:
    """Return a number of bytes in the unit that leaves 1 to 1024."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    value, unit = float(nbytes), units.pop(0)
    while units and value >= 1023.95:  # would be shown as 1024.0
        value, unit = value / 1024, units.pop(0)
    return f"{nbytes:.0f} B" if unit == "B" else f"{value:.1f} {unit}"


def number(value: int) -> str:
    """Return a whole number with its digits in groups."""
    return f"{value:,}"


def rate(value: float) -> str:
    """Return a number per second; anything above nothing shows as more than nothing."""
    if value == 0 or value >= 99.95:
        return f"{value:,.0f}"
    return "<0.1" if value < 0.05 else f"{value:.1f}"


def percent(part: float, whole: float) -> str:
    """Return what part of `whole` it is; anything above nothing shows as more than nothing."""
    share = 100 * part / whole if whole else 0.0
    return "<0.1 %" if 0 < share < 0.1 else f"{share:.1f} %"


def fill(used: int, limit: int) -> Cell:
    """Return how full something is: worth a look from 90 %."""
    share = used / limit if limit else 0.0
    return Cell(percent(used, limit), "bad" if share >= 0.99 else "warn" if share >= 0.9 else "good", min(share, 1.0))


def age(seconds: float) -> str:
    """Return a duration in one unit or two."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
