"""Redis on a unix socket, by redis-py; and dogpile.cache in front of it, with the Redis lock.

dogpile computes a key once for all processes: who does not get the lock asks again after a sleep, 100 ms unless
another is chosen.
"""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from .protocol import Client, Expression, Peer, Place, Running, dumps
from .server import serving

__all__ = ["DOGPILE", "DOGPILE_MS", "PEER"]


class _Redis(Client):
    def __init__(self, address: Path) -> None:
        self._redis = importlib.import_module("redis").Redis(unix_socket_path=str(address))

    def put(self, key: str, value: object) -> None:
        self._redis.set(key, dumps(value))

    def get(self, key: str) -> object:
        value: object = self._redis.get(key)
        return value

    def hit(self, key: str, value: object) -> Expression:
        names = {"get": self._redis.get, "key": key, "loads": pickle.loads}
        return ("get(key)" if type(value) is bytes else "loads(get(key))"), names

    def fill(self, n: int) -> None:
        for first in range(0, n, 1000):
            self._redis.mset({f"entry:{at}": at for at in range(first, min(n, first + 1000))})

    def clear(self) -> None:
        self._redis.flushdb()  # waits until all is freed


class _Dogpile(Client):
    def __init__(self, address: Path, sleep: float) -> None:
        arguments = {"url": f"unix://{address}", "distributed_lock": True, "thread_local_lock": False}
        region = importlib.import_module("dogpile.cache").make_region()
        self._region = region.configure("dogpile.cache.redis", arguments={**arguments, "lock_sleep": sleep})

    def put(self, key: str, value: object) -> None:
        self._region.set(key, value)

    def get(self, key: str) -> object:
        value: object = self._region.get(key)
        return value or None  # its NO_VALUE is false

    def ask(self, key: str, compute: Callable[[], object]) -> object:
        value: object = self._region.get_or_create(key, compute)
        return value

    def hit(self, key: str, value: object) -> Expression:
        names = {"get": self._region.get_or_create, "key": key, "make": lambda: value}
        return "get(key, make)", names

    def clear(self) -> None:
        self._region.invalidate()


@contextmanager
def _start(place: Place, connect: Callable[[Path], Client], name: str) -> Iterator[Running]:
    address = place.folder / f"{name}.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(address), "--dir", str(place.folder)]
    command += ["--save", "", "--appendonly", "no", "--daemonize", "no", "--maxclients", "500"]
    with serving(command, address, place.folder / f"{name}.log"):
        yield Running(partial(connect, address))


PEER = Peer("Redis", partial(_start, connect=_Redis, name="redis"), ("redis",), ("redis-server",), raw=True)
DOGPILE = Peer(
    "dogpile.cache + Redis lock (polls each 100 ms, its default)",
    partial(_start, connect=partial(_Dogpile, sleep=0.1), name="dogpile"),
    ("dogpile.cache", "redis"),
    ("redis-server",),
)
DOGPILE_MS = Peer(
    "dogpile.cache + Redis lock (polls each 1 ms)",
    partial(_start, connect=partial(_Dogpile, sleep=0.001), name="dogpile-ms"),
    ("dogpile.cache", "redis"),
    ("redis-server",),
)
