"""Looks in a row: how fast the counters of each cache grow, and which resets were seen.

Kept in this process only, for the last few minutes; a monitoring system keeps them longer (see coopshm.metrics).
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..objects import Place
from ..rates import COUNTED, per_second, seconds_between
from ..stats import Stats
from .look import Look, Numbers, Watch

__all__ = ["GAUGED", "History", "Reset", "Sampler"]

#: Fields of `Stats` that are kept as they are.
GAUGED = ("bytes_used", "entries", "flights", "waiters", "pinned_chunks")

#: How many samples are kept of a cache, and how many resets.
SAMPLES = 300
RESETS = 100


@dataclass(frozen=True)
class Reset:
    """A reset that was seen, or the last one of several that came between two looks."""

    at: float  # seconds since the epoch
    generation: int  # the one that began
    resets: int  # since the look before
    former: object  # version; None if it is not known
    version: object
    pid: int  # who reset
    uid: int


@dataclass(frozen=True)
class _Sample:
    clock: float  # monotonic
    at: float  # seconds since the epoch
    numbers: Numbers

    @property
    def stats(self) -> Stats:
        return self.numbers.stats


@dataclass
class _Kept:
    """What is kept of one segment."""

    samples: deque[_Sample] = field(default_factory=lambda: deque(maxlen=SAMPLES + 1))
    resets: deque[Reset] = field(default_factory=lambda: deque(maxlen=RESETS))


class History:
    """The last looks. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[Place, _Kept] = {}

    def add(self, looks: Sequence[Look], clock: float | None = None) -> None:
        """Take in what was just seen; caches that are not in it are forgotten.

        Args:
            clock: when that was, in monotonic seconds. Default: now.
        """
        now = time.monotonic() if clock is None else clock
        with self._lock:
            for place in self._kept.keys() - {look.place for look in looks}:
                del self._kept[place]
            for look in looks:
                if look.numbers is not None:
                    self._add(look.place, _Sample(now, time.time(), look.numbers))

    def _add(self, place: Place, new: _Sample) -> None:
        kept = self._kept.setdefault(place, _Kept())
        last = kept.samples[-1] if kept.samples else None
        if last is not None and last.stats.created_at != new.stats.created_at:
            kept = self._kept[place] = _Kept()  # another segment, whose counters began at zero
        elif last is not None and new.stats.generation > last.stats.generation:
            number, reset = new.stats.generation - last.stats.generation, new.numbers.reset
            kept.resets.append(
                Reset(
                    at=reset.at_ns / 1e9,
                    generation=reset.generation,
                    resets=number,
                    former=reset.former,
                    version=reset.version,
                    pid=reset.pid,
                    uid=reset.uid,
                )
            )
        kept.samples.append(new)

    def series(self, place: Place) -> dict[str, list[float]]:
        """Return a cache's last few minutes: `at`, the rates of COUNTED and of bypasses, and GAUGED; by name."""
        with self._lock:
            samples = list(self._kept[place].samples) if place in self._kept else []
        pairs = list(itertools.pairwise(samples))

        grown = [per_second(a.stats, b.stats, seconds_between(a.clock, b.clock)) for a, b in pairs]
        return {
            "at": [b.at for _, b in pairs],
            **{name: [rates[name] for rates in grown] for name in (*COUNTED, "bypasses")},
            **{name: [float(getattr(b.stats, name)) for _, b in pairs] for name in GAUGED},
        }

    def recent(self, place: Place, seconds: float) -> dict[str, float] | None:
        """Return the mean rates of the last so many seconds. None, if there is one sample at most."""
        with self._lock:
            samples = list(self._kept[place].samples) if place in self._kept else []
        recent = [sample for sample in samples if sample.clock >= samples[-1].clock - seconds]
        if len(recent) < 2:
            return None
        first, last = recent[0], recent[-1]
        return per_second(first.stats, last.stats, seconds_between(first.clock, last.clock))

    def resets(self, place: Place) -> list[Reset]:
        """Return the resets of a cache that were seen, the newest first."""
        with self._lock:
            return list(reversed(self._kept[place].resets)) if place in self._kept else []


class Sampler:
    """A thread that looks at regular intervals. A context manager."""

    def __init__(self, watch: Watch, history: History, interval: float) -> None:
        self._watch, self._history, self._interval = watch, history, interval
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="coopshm-sampler", daemon=True)

    def __enter__(self) -> Sampler:
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._interval):
            self._sample()

    def _sample(self) -> None:
        self._history.add(self._watch.looks())
