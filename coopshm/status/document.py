"""What the status page shows, as one JSON document. Times are seconds since the epoch, ages and durations seconds."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version as release

from .._describe import RowInfo
from ..objects import Place
from ..stats import Histogram, Stats
from ..versions import encode_version
from .history import History, Reset
from .look import Details, Flight, Look

__all__ = ["make", "quantile"]

#: Seconds over which the rates of the overview are means.
_RECENT = 10.0


def make(looks: Sequence[Look], history: History, namespace: str | None) -> dict[str, object]:
    """Return the document: all caches, and the details of the first one that has any."""
    details = [
        _detail(look.place, look.numbers.stats, look.details, history)
        for look in looks
        if look.numbers and look.details
    ]
    return {
        "release": release("coopshm"),
        "host": socket.gethostname(),
        "namespace": namespace,
        "at": time.time(),
        "caches": [_summary(look, history) for look in looks],
        "detail": details[0] if details else None,
    }


def _summary(look: Look, history: History) -> dict[str, object]:
    place = look.place._asdict()
    if look.numbers is None:
        return {**place, "error": look.error}
    stats = look.numbers.stats
    return {
        **place,
        "error": None,
        "version": encode_version(stats.version).decode(),
        "generation": stats.generation,
        "entries": stats.entries,
        "max_items": stats.max_items,
        "bytes_used": stats.bytes_used,
        "memory_limit": stats.memory_limit,
        "full": stats.full,
        "processes": stats.processes,
        "flights": stats.flights,
        "waiters": stats.waiters,
        "hits": stats.hits + stats.hot_hits,
        "misses": stats.misses,
        "recent": history.recent(look.place, _RECENT),
        "cluster": look.numbers.standing.as_dict(),
    }


def _detail(place: Place, stats: Stats, details: Details, history: History) -> dict[str, object]:
    return {
        **place._asdict(),
        "created_at": stats.created_at,
        "reserved_bytes": stats.reserved_bytes,
        "pinned_bytes": stats.pinned_bytes,
        "takeovers": stats.takeovers,
        "bypasses": dict(stats.bypasses),
        "compute": _histogram(stats.compute),
        "wait": _histogram(stats.wait),
        "flights": [asdict(flight) for flight in details.flights],
        "slowest": [asdict(slow) for slow in details.slowest],
        "chunks": [chunk._asdict() for chunk in details.chunks],
        "processes": [_process(row, details.flights) for row in details.rows],
        "resets": [_reset(reset) for reset in history.resets(place)],
        "series": history.series(place),
    }


def _process(row: RowInfo, flights: Sequence[Flight]) -> dict[str, object]:
    return {
        "pid": row.pid,
        "role": row.role,
        "since": row.since_ns / 1e9,
        "computing": sum(flight.pid == row.pid for flight in flights),
        "view_pins": row.view_pins,
        "write_pins": row.write_pins,
        "pinned_bytes": row.pinned_bytes,
    }


def _reset(reset: Reset) -> dict[str, object]:
    former = None if reset.former is None else encode_version(reset.former).decode()
    return {**asdict(reset), "former": former, "version": encode_version(reset.version).decode()}


def _histogram(times: Histogram) -> dict[str, object]:
    """Return a distribution, with an estimate of its quantiles: each lies somewhere in a bucket."""
    return {**times.as_dict(), "p50": quantile(times, 0.5), "p99": quantile(times, 0.99)}


def quantile(times: Histogram, share: float) -> float:
    """Return how long, in seconds, a share of all took at most, as far as the buckets tell; 0 if there were none."""
    for bound, below in times.buckets:
        if below and below >= share * times.count:
            return min(bound, times.max)
    return 0.0
