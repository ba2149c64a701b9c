"""warp_cache with its shared backend: a decorator; entries lie in /dev/shm, in slots of the largest value's size.

Processes that create its file at the same moment die of it, so one process, which does nothing else, is first.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ..procs import workers
from .protocol import Client, Expression, Peer, Place, Running

__all__ = ["PEER"]


class _Warp(Client):
    def __init__(self, place: Place) -> None:
        self._compute: Callable[[], object] = lambda: None

        def lookup(key: str) -> object:
            return self._compute()

        # The file is named after the function, and so shared by all that decorate one of that name.
        lookup.__module__, lookup.__qualname__ = place.namespace, "lookup"
        module = importlib.import_module("warp_cache")
        decorate = module.cache(max_size=place.items, backend="shared", max_value_size=place.largest + 1024)
        self._lookup = decorate(lookup)

    def put(self, key: str, value: object) -> None:
        self.ask(key, lambda: value)

    def get(self, key: str) -> object:
        return self._lookup.get(key)

    def ask(self, key: str, compute: Callable[[], object]) -> object:
        self._compute = compute
        return self._lookup(key)

    def fill(self, n: int) -> None:
        for at in range(n):
            self._lookup(f"entry:{at}")

    def hit(self, key: str, value: object) -> Expression:
        if self._lookup.get(key) is None:
            raise RuntimeError("warp_cache did not store the value")  # a look-up would compute it each time
        return "lookup(key)", {"lookup": self._lookup, "key": key}

    def clear(self) -> None:
        self._lookup.cache_clear()


def _creator(connect: Callable[[], Client]) -> Callable[[None], None]:
    connect()
    return lambda message: message


@contextmanager
def _start(place: Place) -> Iterator[Running]:
    connect = partial(_Warp, place)
    try:
        with workers(1, partial(_creator, connect)):
            pass
        yield Running(connect)
    finally:
        for path in Path("/dev/shm").glob(f"warp_cache_{place.namespace}*"):
            path.unlink(missing_ok=True)


PEER = Peer("warp_cache, shared", _start, ("warp_cache",))
