"""diskcache on /dev/shm: SQLite for small values, files for large ones; it pickles by itself.

With its lock, a key is computed once for all processes: who does not hold the lock asks again every millisecond.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from .protocol import Client, Expression, Peer, Place, Running

__all__ = ["LOCKED", "PEER"]


class _Disk(Client):
    def __init__(self, place: Place) -> None:
        self._module = importlib.import_module("diskcache")
        # A minute of patience with SQLite's lock: with 64 processes, the default of a second raises Timeout.
        self._cache = self._module.Cache(str(place.folder / type(self).__name__), eviction_policy="none", timeout=60)

    def put(self, key: str, value: object) -> None:
        self._cache.set(key, value)

    def get(self, key: str) -> object:
        value: object = self._cache.get(key)
        return value

    def hit(self, key: str, value: object) -> Expression:
        return "get(key)", {"get": self._cache.get, "key": key}

    def fill(self, n: int) -> None:
        with self._cache.transact():
            super().fill(n)

    def clear(self) -> None:
        self._cache.clear()


class _Locked(_Disk):
    def ask(self, key: str, compute: Callable[[], object]) -> object:
        value = self.get(key)
        if value is None:
            with self._module.Lock(self._cache, f"lock:{key}"):
                value = super().ask(key, compute)
        return value


@contextmanager
def _start(place: Place, client: type[_Disk]) -> Iterator[Running]:
    client(place)  # creates the files, so that no two processes do
    yield Running(partial(client, place))


PEER = Peer("diskcache", partial(_start, client=_Disk), ("diskcache",))
LOCKED = Peer("diskcache + its Lock (polls each 1 ms)", partial(_start, client=_Locked), ("diskcache",))
