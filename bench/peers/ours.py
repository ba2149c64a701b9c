"""coopshm, by the protocol of its peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import coopshm

from ..common import Config
from .protocol import Client, Expression, Peer, Place, Running

__all__ = ["HOT", "OFF", "PEERS", "SHARE"]

_INDEX = 64  # bytes an entry, beside key and value


class _Ours(Client):
    def __init__(self, config: Config) -> None:
        coopshm.configure(config)
        self.cache = coopshm.open("bench")

    def put(self, key: str, value: object) -> None:
        self.cache.cached(key, lambda: value)

    def get(self, key: str) -> object:
        return self.cache.get(key)

    def ask(self, key: str, compute: Callable[[], object]) -> object:
        return self.cache.cached(key, compute)

    def asking(self) -> Callable[[str, Callable[[], object]], object]:
        return self.cache.cached

    def hit(self, key: str, value: object) -> Expression:
        names: dict[str, object] = {"cached": self.cache.cached, "key": key, "make": lambda: value}
        return "cached(key, make)", names

    def clear(self) -> None:
        self.cache.reset()


@contextmanager
def _start(place: Place, hot: bool | str) -> Iterator[Running]:
    settings = {
        "memory_limit": max(4 << 20, 2 * place.room + 4 * _INDEX * place.items),
        "max_items": place.items + 1024,
        "hot_objects": hot,
    }
    # A namespace for each, so that one process can use several.
    config = {"namespace": f"{place.namespace}-{hot}".lower(), "caches": {"bench": settings}}
    yield Running(partial(_Ours, config))


HOT = Peer("Cache.cached", partial(_start, hot=True))
SHARE = Peer("Cache.cached, hot objects: share", partial(_start, hot="share"))
OFF = Peer("Cache.cached, hot objects: off", partial(_start, hot=False))
PEERS = (HOT, SHARE, OFF)
