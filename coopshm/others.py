"""Caches of this host that this process does not use itself.

A search for cycles follows the computations that wait for one another, in whatever process and cache. When it comes
to a cache that this process is not attached to, it attaches as an observer and goes on. That is rare: such a cycle
spans at least three caches.
"""

from __future__ import annotations

import os
import threading

from . import _codes
from ._codes import OBSERVER
from ._open import open_segment
from ._segment import Call, Segment
from .config import CacheConfig, segment_name
from .errors import CoopshmError
from .forks import PerProcess
from .objects import SHM, existing

__all__ = ["search_on"]

#: By inode, for as long as the process lives: a mapping is never undone, so none is made twice.
_observed: dict[int, Segment] = {}
_lock = PerProcess(lambda: threading.RLock())  # reentrant: a signal handler or a destructor may ask for a value


def search_on(segment: Segment, call: Call) -> int:
    """Finish the search for cycles that a claim began. Returns JOINED or CYCLE."""
    code: int = _codes.JOINED
    seen = 0
    while code == _codes.JOINED and (id := segment.unknown_cache()) not in (0, seen) and _observe(id):
        code, seen = segment.search_again(call), id
    return code


def _observe(id: int) -> bool:
    """Attach to the segment with this id; False when it is not found, or not to be had."""
    with _lock():
        for place in existing():
            try:
                found = os.stat(SHM + segment_name(*place), follow_symlinks=False)
                inode = found.st_ino
                if found.st_uid not in (0, os.geteuid()):
                    continue
                if inode not in _observed:
                    config = CacheConfig(place.cache)
                    _observed[inode] = open_segment(place.namespace, config, b"", OBSERVER, create=False)
            except (CoopshmError, OSError):
                continue
            if _observed[inode].id == id:
                return True
        return False
