"""functools.lru_cache: what the process itself can do. No other process sees it, every caller gets the same object."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .protocol import Client, Expression, Peer, Place, Running

__all__ = ["PEER"]

_MAXSIZE = 1 << 20


class _Lru(Client):
    def __init__(self) -> None:
        self._compute: Callable[[], object] = lambda: None

        @functools.lru_cache(maxsize=_MAXSIZE)
        def lookup(key: str) -> object:
            return self._compute()

        self._lookup = lookup

    def put(self, key: str, value: object) -> None:
        self.ask(key, lambda: value)

    def get(self, key: str) -> object:
        return self.ask(key, lambda: None)

    def ask(self, key: str, compute: Callable[[], object]) -> object:
        self._compute = compute
        return self._lookup(key)

    def hit(self, key: str, value: object) -> Expression:
        return "lookup(key)", {"lookup": self._lookup, "key": key}

    def clear(self) -> None:
        self._lookup.cache_clear()


@contextmanager
def _start(place: Place) -> Iterator[Running]:
    yield Running(_Lru)


PEER = Peer("functools.lru_cache", _start)
