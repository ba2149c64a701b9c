"""py-lmdb on /dev/shm, without syncing: a read transaction for each look-up, so that each sees what others stored."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from .protocol import Client, Expression, Peer, Place, Running, dumps

__all__ = ["PEER"]


class _Lmdb(Client):
    def __init__(self, place: Place) -> None:
        self._env = importlib.import_module("lmdb").open(
            str(place.folder / "lmdb"),
            map_size=2 * place.room + 512 * place.items + (64 << 20),
            sync=False,
            metasync=False,
            writemap=True,
            readahead=False,
            max_readers=place.processes + 8,
        )

    def put(self, key: str, value: object) -> None:
        with self._env.begin(write=True) as transaction:
            transaction.put(key.encode(), dumps(value))

    def get(self, key: str) -> object:
        value: object = self._env.begin().get(key.encode())
        return value

    def hit(self, key: str, value: object) -> Expression:
        names = {"begin": self._env.begin, "key": key.encode(), "loads": pickle.loads}
        get = "begin().get(key)"
        return (get if type(value) is bytes else f"loads({get})"), names

    def fill(self, n: int) -> None:
        with self._env.begin(write=True) as transaction:
            for at in range(n):
                transaction.put(b"entry:%d" % at, b"%d" % at)

    def clear(self) -> None:
        with self._env.begin(write=True) as transaction:
            transaction.drop(self._env.open_db(None, txn=transaction), delete=False)


@contextmanager
def _start(place: Place) -> Iterator[Running]:
    (place.folder / "lmdb").mkdir(exist_ok=True)
    yield Running(partial(_Lmdb, place))


PEER = Peer("py-lmdb", _start, ("lmdb",), raw=True)
