"""What is told through `logging`, to the logger "coopshm": docs/operating.md lists the events.

Each record has an attribute `coopshm`, a dict of the event's name, the cache, its namespace, and the event's own
fields, for those who format logs as JSON or filter them. Nothing is told on the way of a hit, and of what happens often
only the first time in a generation: the statistics have the rest.
"""

from __future__ import annotations

import logging
import os
from typing import Final

from . import _codes, _describe
from ._segment import Segment

__all__ = ["bypass", "noticed", "repaired", "reset", "tell"]

log = logging.getLogger("coopshm")

_LOCKS: Final = (
    ("write", "process %d died while it held the write lock; repaired"),
    ("reset", "process %d died in the middle of a reset, which either took effect as a whole or not at all"),
)

#: Why a call went on without the cache, by the statistic that counts it. Not here: what "full" and "lost" tell of.
_BYPASSES: Final[dict[str, str]] = {
    "too_large": "the value is larger than memory_limit",
    "lock": "the write lock is held by a process that does not run (stopped?); continue or kill it",
    "rows": f"no row in the process table: more than {_codes.ROWS} processes, or no right to open the object",
    "flights": f"more than {_codes.FLIGHTS} computations in flight",
    "slots": "no free slot in the index; raise max_items",
    "waiters": f"more than {_codes.NODES} threads wait",
    "forked": "the computation belongs to the parent of this process",
    "encode": "what the computation came to cannot be handed on to those who wait",
    "decode": "what is stored cannot be decoded here",
    "timeout": "another computation of it takes too long",
}
_CAUSES: Final = {at: name[len("bypass_") :] for name, at in _codes.STATS.items() if name.startswith("bypass_")}


def tell(level: int, event: str, segment: Segment, text: str, *args: object, **fields: object) -> None:
    """Log an event of a segment's cache."""
    if log.isEnabledFor(level):
        _, namespace, cache = segment.name.split(":", 2)
        about = {"event": event, "cache": cache, "namespace": namespace, **fields}
        log.log(level, "%s: " + text, segment.label, *args, extra={"coopshm": about}, stacklevel=2)


def bypass(segment: Segment, stat: int, key: str, first: bool, why: object = None) -> None:
    """Tell of a call that goes on without the cache, or whose value is not stored.

    Args:
        stat: which statistic counts it.
        key: a preview.
        first: whether people are to be told; those who debug are told of each.
        why: what was raised.
    """
    level = logging.WARNING if first else logging.DEBUG
    cause = _CAUSES[stat]
    if cause not in _BYPASSES or not log.isEnabledFor(level):
        return
    holder = segment.describe().lock_pid if cause == "lock" else 0
    reason = f"{_BYPASSES[cause]} (process {holder})" if holder else str(why or _BYPASSES[cause])
    fields = {"holder_pid": holder} if cause == "lock" else {}
    text = "key %s: without the cache: %s"
    tell(level, "bypass", segment, text, key, reason, key=key, cause=cause, reason=reason, **fields)


def repaired(segment: Segment) -> None:
    """Tell of locks that this process has taken from dead ones since it last told."""
    for lock, (name, text) in enumerate(_LOCKS):
        times, pid = segment.stolen(lock)
        if times:
            tell(logging.WARNING, "repair", segment, text, pid, lock=name, dead_pid=pid, times=times)


def reset(segment: Segment, cause: str, former: object, version: object) -> None:
    """Tell of a reset that this process has done."""
    if not log.isEnabledFor(logging.INFO):
        return  # what follows would be a tenth of the reset
    tell(
        logging.INFO,
        "reset",
        segment,
        "reset from %r to %r (%s), generation %d",
        former,
        version,
        cause,
        generation := segment.generation(),
        cause=cause,
        generation=generation,
        former=former,
        version=version,
        pid=os.getpid(),
        uid=os.geteuid(),
    )


def noticed(segment: Segment) -> None:
    """Tell that this process has come to a new generation. The first one on the host tells it to more people."""
    if not log.isEnabledFor(logging.INFO) or segment.gone():
        return  # and leaves it to those who tell; a destroyed segment is left, which is told in its turn
    found = _describe.last_reset(segment)
    if found.pid == os.getpid():
        return
    level = logging.INFO if segment.tell_once(found.generation) else logging.DEBUG
    tell(
        level,
        "noticed",
        segment,
        "noticed generation %d: process %d (uid %d) has reset it from %r to %r",
        found.generation,
        found.pid,
        found.uid,
        found.former,
        found.version,
        **found._asdict(),
    )
