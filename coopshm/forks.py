"""What a forked child must not inherit: locks that a thread it does not have may hold, and what threads agreed on.

Python's own fork hooks do not run when a C program forks without telling Python (uWSGI may). So what belongs to one
process is kept under a number that the core counts up in each forked child.

Nor may threads that became greenlets inherit it: gunicorn's gevent worker patches `threading` long after its master has
imported and opened what it will use. A lock from before does not keep greenlets apart, since it knows only the one
thread in which they all run, or blocks that thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from ._segment import forks

__all__ = ["PerProcess", "forks"]

T = TypeVar("T")


class PerProcess(Generic[T]):
    """Called, returns this process's own object: made by `make` when first needed, and made anew in a forked child.

    And when gevent patches: so `make` must look up what it calls in `threading` each time.
    """

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[tuple[int, Callable[[], int]], T] = {}

    def __call__(self) -> T:
        process = forks(), threading.get_ident  # another function once it tells greenlets apart
        made = self._made.get(process)
        if made is None:
            # Atomic, so that all threads get the same. (A lock here would need the same care as what it protects.)
            made = self._made.setdefault(process, self._make())
        return made
