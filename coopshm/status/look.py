"""Attached to the caches of a namespace, for as long as they exist.

A server looks every second for months, meanwhile caches come and go. So a segment is attached to once, and when it
has been destroyed it is forgotten, with its memory: a mapping would keep that of a destroyed segment.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .. import _describe, keys
from .._describe import ChunkInfo, ResetInfo, RowInfo
from .._segment import Segment
from ..errors import CoopshmError
from ..forks import PerProcess
from ..objects import Place, existing
from ..observe import MissingError, attach
from ..resets import Standing, standing
from ..stats import Stats, collect

__all__ = ["Details", "Flight", "Look", "Numbers", "Slow", "Watch"]


@dataclass(frozen=True)
class Flight:
    """A computation in flight."""

    key: str  # as a Python literal, shortened
    pid: int
    age_seconds: float
    waiters: int
    attended: bool  # its owner lives and has not given up
    takeovers: int  # owners before this one, which died


@dataclass(frozen=True)
class Slow:
    """A computation that took long."""

    key: str  # as a Python literal, shortened
    seconds: float
    at: float  # when it ended; seconds since the epoch
    pid: int


@dataclass(frozen=True)
class Numbers:
    """What one look at a cache counts."""

    stats: Stats
    reset: ResetInfo  # the last one
    oldest_flight_seconds: float  # 0: there is none
    standing: Standing  # in the cluster


@dataclass(frozen=True)
class Details:
    """What there is to see in a cache beyond that."""

    flights: list[Flight]
    slowest: list[Slow]
    chunks: list[ChunkInfo]
    rows: list[RowInfo]  # of live processes


@dataclass(frozen=True)
class Look:
    """One look at one cache: its numbers, or why there are none."""

    place: Place
    numbers: Numbers | None = None
    details: Details | None = None
    error: str | None = None


class Watch:
    """Looks at caches. Thread-safe; goes through a fork."""

    def __init__(self, namespace: str | None, caches: Sequence[str] = ()) -> None:
        """Args:
        namespace: whose caches; None for those of all namespaces.
        caches: their names, if not all that exist are meant. Needs a namespace.
        """
        self.namespace = namespace
        self._places = [Place(namespace, cache) for cache in caches] if namespace is not None else []
        self._lock = PerProcess(threading.Lock)
        self._attached: dict[Place, Segment] = {}

    def looks(self, detailed: Callable[[Place], bool] = lambda place: False) -> list[Look]:
        """Look at each cache, sorted by place.

        A cache that cannot be read has an error instead of numbers. One that does not exist is left out, unless it was
        asked for by name.

        Args:
            detailed: which caches to look at in detail.
        """
        with self._lock():
            places = self._places or existing(self.namespace)
            for place in self._attached.keys() - places:
                self._attached.pop(place).forget()
            looks = [self._look(place, detailed(place)) for place in places]
        return [look for look in looks if look is not None]

    def close(self) -> None:
        """Let go of everything. The next look attaches anew."""
        with self._lock():
            while self._attached:
                self._attached.popitem()[1].forget()

    def _look(self, place: Place, detailed: bool) -> Look | None:
        try:
            segment = self._segment(place)
            return Look(place, _numbers(place, segment), _details(segment) if detailed else None)
        except MissingError as exc:
            return Look(place, error=str(exc)) if self._places else None
        except CoopshmError as exc:
            return Look(place, error=str(exc))

    def _segment(self, place: Place) -> Segment:
        segment = self._attached.get(place)
        if segment is not None and segment.gone():
            self._attached.pop(place).forget()
            segment = None
        if segment is None:
            segment = self._attached[place] = attach(place)
        return segment


def _numbers(place: Place, segment: Segment) -> Numbers:
    stats, now = collect(place.cache, segment), time.monotonic_ns()
    oldest = max((_age(flight.started_ns, now) for flight in segment.flights()), default=0.0)
    return Numbers(stats, _describe.last_reset(segment), oldest, standing(segment))


def _details(segment: Segment) -> Details:
    now = time.monotonic_ns()
    return Details(
        flights=[
            Flight(
                key=keys.preview(flight.key, total=flight.key_bytes),
                pid=flight.pid,
                age_seconds=_age(flight.started_ns, now),
                waiters=flight.waiters,
                attended=flight.alive,
                takeovers=flight.takeovers,
            )
            for flight in sorted(segment.flights(), key=lambda flight: flight.started_ns)
        ],
        slowest=[
            Slow(keys.preview(slow.key, total=slow.key_bytes), slow.ns / 1e9, slow.at_ns / 1e9, slow.pid)
            for slow in _describe.slowest(segment)
        ],
        chunks=_describe.chunks(segment),
        rows=[row for row in _describe.rows(segment) if row.alive],
    )


def _age(started_ns: int, now_ns: int) -> float:
    return max(0, now_ns - started_ns) / 1e9
