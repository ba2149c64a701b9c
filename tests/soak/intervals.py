"""Stretches of time, and what they cover: what judges hangs takes away all time that has a reason."""

from __future__ import annotations

from collections.abc import Iterable

Interval = tuple[int, int]


def covered(intervals: Iterable[Interval], begin: int, end: int) -> int:
    """Length of what the intervals, which may overlap, cover of [begin, end]."""
    total, at = 0, begin
    for first, last in sorted(intervals):
        first, last = max(first, at), min(last, end)
        if last > first:
            total += last - first
            at = last
    return total
