"""multiprocessing.Manager().dict: a dict in a process of its own, asked through a socket, which pickles."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.managers import DictProxy, SyncManager
from pathlib import Path

from .protocol import Client, Expression, Peer, Place, Running

__all__ = ["PEER"]

_AUTHKEY = b"coopshm bench"  # the socket is in a folder that nobody else can enter

_shared: dict[str, object] = {}


def _the_dict() -> dict[str, object]:
    """Return, in the manager's process, the one dict."""
    return _shared


class _Manager(SyncManager):
    """A manager whose `shared` is the same dict for everybody who connects."""


def _end_with_parent() -> None:
    """Have the manager's process, where this is called, end when the bench has ended, however it did."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None, "this is no child"
        parent.join()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


_Manager.register("shared", _the_dict, DictProxy)


class _Dict(Client):
    def __init__(self, address: Path) -> None:
        manager = _Manager(str(address), _AUTHKEY)
        manager.connect()
        # A proxy made in a process whose own key differs authenticates with that one.
        multiprocessing.current_process().authkey = _AUTHKEY
        self._manager = manager
        self._dict: DictProxy[str, object] = manager.shared()  # type: ignore[attr-defined]

    def put(self, key: str, value: object) -> None:
        self._dict[key] = value

    def get(self, key: str) -> object:
        return self._dict.get(key)

    def hit(self, key: str, value: object) -> Expression:
        return "get(key)", {"get": self._dict.get, "key": key}

    def fill(self, n: int) -> None:
        self._dict.update({f"entry:{at}": at for at in range(n)})

    def clear(self) -> None:
        self._dict.clear()


@contextmanager
def _start(place: Place) -> Iterator[Running]:
    address = place.folder / "manager.sock"
    manager = _Manager(str(address), _AUTHKEY, ctx=multiprocessing.get_context("forkserver"))
    manager.start(_end_with_parent)
    try:
        yield Running(partial(_Dict, address))
    finally:
        manager.shutdown()


PEER = Peer("multiprocessing.Manager().dict", _start)
