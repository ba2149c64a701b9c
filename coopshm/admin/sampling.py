"""Looking at caches again and again: what they are, and what they do per second.

A cache stays attached between two looks, so that a look costs what it costs to read some counters. That a segment was
replaced is seen by its name, without asking the core, which would tell the segment's processes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import NamedTuple

from .. import keys
from .._describe import slowest
from .._segment import FlightInfo, Segment
from ..errors import CoopshmError
from ..objects import Place, existing
from ..observe import MissingError, attach, path
from ..rates import hit_ratio, per_second, seconds_between
from ..stats import Stats, collect

__all__ = ["Sample", "Sampler"]


class Slow(NamedTuple):
    """A computation that took long: of its key's the longest that is remembered."""

    key: str
    seconds: float
    ended: float  # seconds since 1970
    pid: int


class Sample(NamedTuple):
    """One look at one cache.

    Attributes:
        rates: per second since the last look at the same segment: hits (of both kinds), misses, computations, waits,
            failures, bypasses. None at the first look.
        hit_ratio: of the look-ups since then; None if there were none.
        error: why nothing else is known; then the others are None or empty.
    """

    place: Place
    stats: Stats | None
    rates: dict[str, float] | None
    hit_ratio: float | None
    flights: list[FlightInfo]
    slowest: list[Slow]
    error: CoopshmError | None


class _Watched:
    """An attached cache, and the last look at it."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.last: tuple[float, Stats] | None = None


class Sampler:
    """Looks at some caches of a namespace, or at all there are at the moment."""

    def __init__(self, namespace: str, caches: Sequence[str] = ()) -> None:
        self._namespace = namespace
        self._caches = caches
        self._watched: dict[Place, _Watched] = {}

    def look(self, clock: float | None = None) -> list[Sample]:
        """Return a sample of each cache, by name. One that there is not, or not any more, only if it was asked for.

        Args:
            clock: when that is, in monotonic seconds. Default: now, for each.
        """
        places = [Place(self._namespace, cache) for cache in self._caches] or existing(self._namespace)
        samples = []
        for place in places:
            try:
                samples.append(self._sample(place, clock))
            except MissingError as exc:
                self._forget(place)
                if self._caches:
                    samples.append(Sample(place, None, None, None, [], [], exc))
            except CoopshmError as exc:
                self._forget(place)
                samples.append(Sample(place, None, None, None, [], [], exc))
        for place in set(self._watched) - set(places):
            self._forget(place)
        return samples

    def _sample(self, place: Place, clock: float | None) -> Sample:
        watched = self._watched.get(place)
        if watched is not None and not _is_current(place, watched.segment):
            self._forget(place)
            watched = None
        if watched is None:
            watched = self._watched[place] = _Watched(attach(place))
        now = time.monotonic() if clock is None else clock
        stats, flights = collect(place.cache, watched.segment), watched.segment.flights()
        rates = ratio = None
        if watched.last is not None:
            then, before = watched.last
            rates = per_second(before, stats, seconds_between(then, now))
            rates["hits"] += rates.pop("hot_hits")
            ratio = hit_ratio(rates["hits"], rates["misses"])
        watched.last = now, stats
        return Sample(place, stats, rates, ratio, flights, _slowest(watched.segment), None)

    def _forget(self, place: Place) -> None:
        watched = self._watched.pop(place, None)
        if watched is not None:
            watched.segment.forget()


def _slowest(segment: Segment) -> list[Slow]:
    found: dict[str, Slow] = {}
    for info in slowest(segment):
        key = keys.preview(info.key, total=info.key_bytes)
        found.setdefault(key, Slow(key, info.ns / 1e9, info.at_ns / 1e9, info.pid))
    return list(found.values())


def _is_current(place: Place, segment: Segment) -> bool:
    try:
        return os.path.samestat(os.stat(path(place)), segment.status())
    except OSError:
        return False
