"""What a forked child must not inherit: locks that a thread it does not have may hold, and what threads agreed on.

Python's own fork hooks do not run when a C program forks without telling Python (uWSGI may). So what belongs to one
process is kept under a number that the core counts up in each forked child.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from ._segment import forks

__all__ = ["PerProcess", "forks"]

T = TypeVar("T")


class PerProcess(Generic[T]):
    """Called, returns this process's own object: made by `make` when first needed, and made anew in a forked child."""

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: dict[int, T] = {}

    def __call__(self) -> T:
        process = forks()
        made = self._made.get(process)
        if made is None:
            # Atomic, so that all threads get the same. (A lock here would need the same care as what it protects.)
            made = self._made.setdefault(process, self._make())
        return made
