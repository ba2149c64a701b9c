"""Sizes, ages and tables as people read them."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["age", "count", "percent", "size", "table"]


def size(number: int) -> str:
    """Return a number of bytes in the unit that leaves 1 to 1024."""
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    value, unit = float(number), units.pop(0)
    while units and value >= 1023.95:  # would be shown as 1024.0
        value, unit = value / 1024, units.pop(0)
    return f"{number} B" if unit == "B" else f"{value:.1f} {unit}"


def percent(part: int, whole: int) -> str:
    """Return what part of `whole` it is; anything above nothing shows as more than nothing."""
    share = 100 * part / whole if whole else 0.0
    return "<0.1 %" if 0 < share < 0.1 else f"{share:.1f} %"


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


def count(number: int, singular: str, plural: str) -> str:
    """Return the number with its noun."""
    return f"{number} {singular if number == 1 else plural}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> str:
    """Return lines of aligned columns; `align` has an `l` or `r` for each."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def cell(text: str, width: int, side: str) -> str:
        return text.rjust(width) if side == "r" else text.ljust(width)

    def row(line: Sequence[str]) -> str:
        return "  ".join(cell(*column) for column in zip(line, widths, align, strict=True)).rstrip()

    return "\n".join(row(line) for line in lines)
