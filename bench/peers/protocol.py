"""What an adapter consists of: a Peer is started in a Place; each process connects to what is Running, as a Client.

    with peer.start(place) as running:               # a server, files: whatever all processes share
        client = running.connect()                   # here
        with running.workers(8, partial(target, running.connect)) as workers: ...   # or in others

Names and arguments of the peers' own libraries are looked up by importlib, without types: which of them are
installed must not change what mypy says about this package.
"""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from .. import procs

__all__ = ["Client", "Expression", "Peer", "Place", "Running", "dumps"]

M = TypeVar("M")
A = TypeVar("A")

#: A statement, and the names in it.
Expression = tuple[str, dict[str, object]]


class Place(NamedTuple):
    """Where a peer is to live, and what it has to hold."""

    folder: Path  # on /dev/shm, the run's own
    namespace: str  # nobody else's
    items: int = 64
    largest: int = 4096  # bytes, of one value
    room: int = 4 * 1024 * 1024  # bytes, of all values
    processes: int = 1  # that use it at once, at most


class Client(ABC):
    """A peer as one process uses it. Keys are str."""

    #: Threads may share it; if not, each needs one of its own.
    for_threads = True

    @abstractmethod
    def put(self, key: str, value: object) -> None: ...

    @abstractmethod
    def get(self, key: str) -> object:
        """Return the value, None if there is none."""

    @abstractmethod
    def hit(self, key: str, value: object) -> Expression:
        """Return what a user would write to get the value of `key`, which is stored and is a `value`.

        Anything that can be bound or encoded once, beforehand, is: the peer's best case.
        """

    @abstractmethod
    def clear(self) -> None: ...

    def fill(self, n: int) -> None:
        """Store `n` small entries; in bulk, where the peer can."""
        for at in range(n):
            self.put(f"entry:{at}", at)

    def ask(self, key: str, compute: Callable[[], object]) -> object:
        """Return the value, which is computed and stored if there is none: as everybody writes it first."""
        value = self.get(key)
        if value is None:
            value = compute()
            self.put(key, value)
        return value

    def asking(self) -> Callable[[str, Callable[[], object]], object]:
        """Return the function that `ask` is, as directly as it can be called."""
        return self.ask


class Running:
    """A started peer.

    Attributes:
        connect: makes a Client, in this or, being picklable, in another process.
        here: it can be connected to from this process; if not, only from its workers.
    """

    def __init__(self, connect: Callable[[], Client], here: bool = True) -> None:
        self.connect: Final = connect
        self.here: Final = here

    def workers(
        self, n: int, target: Callable[[], Callable[[M], A]]
    ) -> AbstractContextManager[Sequence[procs.Asked[M, A]]]:
        """Start `n` processes that can connect; see procs.workers."""
        return procs.workers(n, target)


class Peer(NamedTuple):
    """A way to cache, by its name in the tables.

    `modules` and `programs` have to be there; `raw` says that it stores bytes and nothing else, so that whoever uses it
    pickles other values.
    """

    name: str
    start: Callable[[Place], AbstractContextManager[Running]]
    modules: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    raw: bool = False

    def label(self, value: object) -> str:
        return f"{self.name} + pickle" if self.raw and type(value) is not bytes else self.name


def dumps(value: object) -> bytes:
    """What a raw peer stores for `value`: bytes are themselves, the rest is pickled."""
    return value if type(value) is bytes else pickle.dumps(value, protocol=5)
