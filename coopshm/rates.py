"""How fast the counters of a cache grow, from two looks at it."""

from __future__ import annotations

from typing import Final

from .stats import Stats

__all__ = ["COUNTED", "hit_ratio", "per_second", "seconds_between"]

#: Fields of `Stats` whose growth is told. With them comes that of "bypasses", whatever their cause.
COUNTED: Final = ("hits", "hot_hits", "misses", "computations", "waits", "failures")

#: Two looks count as at least this far apart, in seconds: a rate is then too low, not beyond measure.
_LEAST: Final = 1e-3


def seconds_between(before: float, after: float) -> float:
    """Return the time between two looks at the monotonic clock, in seconds."""
    return max(after - before, _LEAST)


def per_second(before: Stats, after: Stats, seconds: float) -> dict[str, float]:
    """Return the growth of COUNTED and of "bypasses" per second, by name.

    What is counted never goes back; what a damaged row says may, and then counts as no growth.

    Args:
        before, after: of the same segment.
        seconds: between them, as `seconds_between` says it.
    """
    return {name: max(0, _count(after, name) - _count(before, name)) / seconds for name in (*COUNTED, "bypasses")}


def hit_ratio(hits: float, misses: float) -> float | None:
    """Return what part of the look-ups were hits; None if there were none."""
    return hits / (hits + misses) if hits + misses else None


def _count(stats: Stats, name: str) -> int:
    return sum(stats.bypasses.values()) if name == "bypasses" else int(getattr(stats, name))
