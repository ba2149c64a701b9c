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
from ..stats import Stats, collect

__all__ = ["RATES", "Sample", "Sampler"]

#: What is shown per second: the name, and the statistics whose sum it is.
RATES: dict[str, tuple[str, ...]] = {
    "hits": ("hits", "hot_hits"),
    "misses": ("misses",),
    "computations": ("computations",),
    "waits": ("waits",),
    "failures": ("failures",),
}


class Slow(NamedTuple):
    """A computation that took long: of its key's the longest that is remembered."""

    key: str
    seconds: float
    ended: float  # seconds since 1970
    pid: int


class Sample(NamedTuple):
    """One look at one cache.

    Attributes:
        rates: per second since the last look at the same segment, by the names of RATES, and "bypasses". None at the
            first look.
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
    """An attached cache, and what it had counted when it was last looked at."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.at_ns = 0
        self.counts: dict[str, int] = {}


class Sampler:
    """Looks at some caches of a namespace, or at all there are at the moment."""

    def __init__(self, namespace: str, caches: Sequence[str] = ()) -> None:
        self._namespace = namespace
        self._caches = caches
        self._watched: dict[Place, _Watched] = {}

    def look(self) -> list[Sample]:
        """Return a sample of each cache, by name. One that there is not, or not any more, only if it was asked for."""
        places = [Place(self._namespace, cache) for cache in self._caches] or existing(self._namespace)
        samples = []
        for place in places:
            try:
                samples.append(self._sample(place))
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

    def _sample(self, place: Place) -> Sample:
        watched = self._watched.get(place)
        if watched is not None and not _is_current(place, watched.segment):
            self._forget(place)
            watched = None
        if watched is None:
            watched = self._watched[place] = _Watched(attach(place))
        now, stats, flights = time.monotonic_ns(), collect(place.cache, watched.segment), watched.segment.flights()
        counts = {name: sum(getattr(stats, field) for field in fields) for name, fields in RATES.items()}
        counts["bypasses"] = sum(stats.bypasses.values())
        rates = ratio = None
        if watched.at_ns:
            seconds = max(now - watched.at_ns, 1) / 1e9
            # What is counted never goes back; what a damaged row says may.
            gained = {name: max(0, count - watched.counts[name]) for name, count in counts.items()}
            rates = {name: count / seconds for name, count in gained.items()}
            looked = gained["hits"] + gained["misses"]
            ratio = gained["hits"] / looked if looked else None
        watched.at_ns, watched.counts = now, counts
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
