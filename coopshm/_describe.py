"""What there is to see of a segment: its processes, chunks, slowest computations, last reset, counts. With types.

Nothing here takes a lock or a row, and nobody notices it. Numbers of a busy cache may be of slightly different moments;
what damaged bytes say may be nonsense, but no more than that.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from . import _codes
from ._codes import STATS
from ._segment import Segment
from .versions import decode_version

__all__ = [
    "BUCKETS",
    "ROLES",
    "ChunkInfo",
    "Durations",
    "ResetInfo",
    "RowInfo",
    "SlowInfo",
    "chunks",
    "counts",
    "durations",
    "last_reset",
    "rows",
    "slowest",
]

ROLES: Final[dict[int, str]] = {
    _codes.ATTACHING: "attaching",
    _codes.APP: "app",
    _codes.OBSERVER: "observer",
    _codes.SIDECAR: "sidecar",
}

#: Upper bounds of the distributions' buckets, in seconds; the last one is infinite.
BUCKETS: Final = (*_codes.BUCKETS, float("inf"))


class Durations(NamedTuple):
    """How long things took."""

    total_ns: int
    max_ns: int
    buckets: tuple[int, ...]  # how many there are in each of BUCKETS, and in none below


class RowInfo(NamedTuple):
    """A row of the process table: a process, or what a dead one counted."""

    row: int
    alive: bool
    pid: int  # of the process that has it, or had it last; so are:
    role: str  # one of ROLES
    since_ns: int  # wall clock
    view_pins: int  # views that it holds, once per chunk; like the next three 0 when it is dead
    write_pins: int  # values that it is writing, once per chunk
    pinned_chunks: int
    pinned_bytes: int
    counts: dict[str, int]  # by all processes that ever had the row; so are:
    compute: Durations
    wait: Durations


class ChunkInfo(NamedTuple):
    """A chunk of the arena."""

    bytes: int
    entered: bool  # in use in this generation
    allocated_bytes: int  # in this generation, of entries and for values that are being written
    backed: bool  # its pages are taken from /dev/shm
    view_pins: int  # by views of live processes
    write_pins: int  # by live processes that write


class SlowInfo(NamedTuple):
    """A computation that took long."""

    key: bytes  # its first bytes; `key_bytes` is the length of the whole
    key_bytes: int
    ns: int
    at_ns: int  # when it ended; wall clock
    generation: int
    pid: int


class ResetInfo(NamedTuple):
    """Who began the generation in force."""

    generation: int
    at_ns: int  # wall clock
    pid: int
    uid: int
    version: object
    former: object  # the version before; None when it is not known (any more)


def rows(segment: Segment) -> list[RowInfo]:
    """Return all rows that were ever used."""
    return [
        RowInfo(
            row=i.row,
            alive=bool(i.alive),
            pid=i.pid,
            role=ROLES.get(i.role, "unknown"),
            since_ns=i.since_ns,
            view_pins=i.view_pins,
            write_pins=i.write_pins,
            pinned_chunks=i.pinned_chunks,
            pinned_bytes=i.pinned_bytes,
            counts=counts(i),
            compute=durations(i.compute),
            wait=durations(i.wait),
        )
        for i in segment.rows()
    ]


def chunks(segment: Segment) -> list[ChunkInfo]:
    """Return the chunks of the arena, in their order."""
    return [
        ChunkInfo(i.bytes, bool(i.entered), i.allocated_bytes, bool(i.backed), i.view_pins, i.write_pins)
        for i in segment.chunks()
    ]


def slowest(segment: Segment) -> list[SlowInfo]:
    """Return computations that took long, at most 20 of them, the slowest first.

    Each row remembers the eight slowest of its current generation, and older ones while there is room. A key may be in
    several rows, once in each.
    """
    return [
        SlowInfo(bytes(i.key)[: i.key_bytes], i.key_bytes, i.ns, i.at_ns, i.generation, i.pid)
        for i in segment.slowest()
    ]


def last_reset(segment: Segment) -> ResetInfo:
    """Return who began the generation in force: by creating the segment, if it is the first."""
    info = segment.last_reset()
    return ResetInfo(
        generation=info.generation,
        at_ns=info.at_ns,
        pid=info.pid,
        uid=info.uid,
        version=_version(b"".join(info.version[0 : info.version_bytes])),
        former=_version(b"".join(info.former[0 : info.former_bytes])),
    )


def _version(data: bytes) -> object:
    try:
        return decode_version(data)
    except ValueError:
        return None


def counts(info: Any) -> dict[str, int]:
    """Return the counts of a csm_info or csm_row_info by their names."""
    return {stat: int(info.stats[at]) for stat, at in STATS.items()}


def durations(times: Any) -> Durations:
    """Return a csm_durations."""
    return Durations(times.total_ns, times.max_ns, tuple(times.buckets))
