"""UltraDict: each process has the whole dict, and reads the others' changes from a stream in shared memory.

So a hit hands out the very object that the process keeps, as lru_cache does and hot objects with "share" do. One dict,
with its shared lock, without which processes that were not forked from one another may not write. Its files
have names of its own making besides the one asked for; what is left of them at the end is removed.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from .protocol import Client, Expression, Peer, Place, Running

__all__ = ["PEER"]


class _UltraDict(Client):
    def __init__(self, name: str, create: bool, buffer_size: int, dump_size: int) -> None:
        make = importlib.import_module("UltraDict").UltraDict
        size = {"buffer_size": buffer_size, "full_dump_size": dump_size} if create else {}
        self._dict = make(name=name, create=create, shared_lock=True, auto_unlink=False, **size)

    def put(self, key: str, value: object) -> None:
        self._dict[key] = value

    def get(self, key: str) -> object:
        value: object = self._dict.get(key)
        return value

    def hit(self, key: str, value: object) -> Expression:
        return "ultra[key]", {"ultra": self._dict, "key": key}

    def clear(self) -> None:
        self._dict.clear()


@contextmanager
def _start(place: Place) -> Iterator[Running]:
    buffer_size = 2 * place.room + 256 * place.items + (1 << 20)
    connect = partial(_UltraDict, place.namespace, buffer_size=buffer_size, dump_size=buffer_size)
    first = connect(create=True)
    try:
        yield Running(partial(connect, create=False))
    finally:
        del first
        for path in Path("/dev/shm").glob(f"{place.namespace}*"):
            path.unlink(missing_ok=True)


PEER = Peer("UltraDict", _start, ("UltraDict", "atomics"))
