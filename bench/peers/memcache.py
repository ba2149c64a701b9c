"""memcached on a unix socket, by pylibmc, which pickles what is not bytes, str or int by itself."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from .protocol import Client, Expression, Peer, Place, Running
from .server import serving

__all__ = ["PEER"]


class _Memcached(Client):
    for_threads = False

    def __init__(self, address: Path) -> None:
        self._client = importlib.import_module("pylibmc").Client([str(address)], binary=True)

    def put(self, key: str, value: object) -> None:
        if not self._client.set(key, value):
            raise RuntimeError("memcached did not store the value")

    def get(self, key: str) -> object:
        value: object = self._client.get(key)
        return value

    def hit(self, key: str, value: object) -> Expression:
        return "get(key)", {"get": self._client.get, "key": key}

    def fill(self, n: int) -> None:
        for first in range(0, n, 1000):
            self._client.set_multi({f"entry:{at}": at for at in range(first, min(n, first + 1000))})

    def clear(self) -> None:
        self._client.flush_all()


@contextmanager
def _start(place: Place) -> Iterator[Running]:
    address = place.folder / "memcached.sock"
    largest = max(2, (place.largest >> 20) * 2)
    megabytes = 64 + 4 * (place.room >> 20) + (place.items >> 12) + largest
    command = ["memcached", "-s", str(address), "-I", f"{largest}m", "-m", str(megabytes), "-c", "500"]
    command += ["-u", "root"] if os.getuid() == 0 else []
    with serving(command, address, place.folder / "memcached.log"):
        yield Running(partial(_Memcached, address))


PEER = Peer("memcached", _start, ("pylibmc",), ("memcached",))
