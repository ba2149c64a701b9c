"""Attaching to a cache as an observer: who only looks on, and what an operator does from outside.

What the configuration says of a cache does not matter here: an existing segment has its own settings. The
object may be anything that somebody put under the name, so what is read from it can turn out to be nonsense.
"""

from __future__ import annotations

import os
import stat

from ._codes import OBSERVER
from ._open import open_segment
from ._segment import Segment
from .config import CacheConfig, segment_name
from .errors import SegmentError
from .objects import SHM, Place, existing

__all__ = ["MissingError", "UnfinishedError", "attach", "check_finished", "missing", "path"]


class MissingError(SegmentError):
    """There is no segment of this cache."""


class UnfinishedError(SegmentError):
    """A segment is being created, or its creator died before it had finished."""


def attach(place: Place) -> Segment:
    """Attach to the segment of a cache as an observer.

    Raises:
        MissingError: there is none; the message lists those that exist.
        UnfinishedError: there is none yet.
        SegmentError: it cannot be used; see the other subclasses.
    """
    check_finished(place)
    try:
        return open_segment(place.namespace, CacheConfig(place.cache), b"", OBSERVER, create=False)
    except FileNotFoundError:
        raise missing(place) from None


def check_finished(place: Place) -> None:
    """Raise UnfinishedError if opening the segment would mean to finish it."""
    if _is_blank(place):
        raise UnfinishedError(
            f"{place} is being created, or its creator died; the next process that opens it creates it anew"
        )


def missing(place: Place) -> MissingError:
    """Return the error for a cache that has no segment, to be raised."""
    here = [other.cache for other in existing(place.namespace)]
    if here:
        hint = f"there are {', '.join(here)}"
    elif namespaces := sorted({other.namespace for other in existing()}):
        hint = f"it has no caches at all; namespaces with caches are {', '.join(namespaces)}"
    else:
        hint = "there are no caches on this host at all"
    return MissingError(f"namespace {place.namespace!r} has no cache {place.cache!r}: {hint}")


def path(place: Place) -> str:
    """Return where the object of a cache is, or would be."""
    return SHM + segment_name(*place)


def _is_blank(place: Place) -> bool:
    """The third word of a segment is its state, which its creator stores last; until then it is zero."""
    try:
        fd = os.open(path(place), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False  # what is wrong with it, opening it properly will tell
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return False
        head = os.pread(fd, 24, 0)
        return len(head) in (0, 24) and not any(head[16:])
    finally:
        os.close(fd)
