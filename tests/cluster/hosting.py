"""A host without a cluster: a relay that a test plays itself, workers and a sidecar in processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import coopshm
from coopshm import config as configuration
from coopshm.cluster.host import SegmentHost
from coopshm.cluster.keyids import key_id_of
from coopshm.cluster.relay import Ended, Entry, Host, KeyId, Kind, Relay, Stamp, Status
from coopshm.keys import encode_key
from coopshm.values import codec
from tests.conftest import clean
from tests.procs import Child, Tally

#: Longer than any test; for waits that must not end by the clock.
LONG = 10.0


class Heard(Relay):
    """Notes all that a host says, and says nothing by itself but what `answer` does."""

    def __init__(self, answer: Callable[[Stamp, KeyId], None] | None = None) -> None:
        self.asks: list[tuple[Stamp, KeyId, bool]] = []
        self.ends: list[tuple[Stamp, KeyId, Entry | Ended]] = []
        self.withdrawals: list[tuple[Stamp, KeyId]] = []
        self.moves = 0
        self.answer = answer

    def ask(self, cache: str, stamp: Stamp, key_id: KeyId, nested: bool) -> None:
        self.asks.append((stamp, key_id, nested))
        if self.answer is not None:
            self.answer(stamp, key_id)

    def ended(self, cache: str, stamp: Stamp, key_id: KeyId, outcome: Entry | Ended) -> None:
        self.ends.append((stamp, key_id, outcome))

    def withdrawn(self, cache: str, stamp: Stamp, key_id: KeyId) -> None:
        self.withdrawals.append((stamp, key_id))

    def moved(self, cache: str) -> None:
        self.moves += 1

    async def start(self, hosts: Mapping[str, Host]) -> None: ...
    async def stop(self, drain: float) -> None: ...
    async def reload(self, nodes: Sequence[str]) -> None: ...
    def status(self) -> Status:
        return Status("node", [], {})


@contextlib.asynccontextmanager
async def hosted(settings: dict[str, Any], lease_timeout: float = LONG) -> AsyncIterator[tuple[SegmentHost, Heard]]:
    """A host of cache `c` on this event loop, attached if there is a segment."""
    heard = Heard()
    config = configuration.load(settings)
    host = SegmentHost(config.namespace, config.caches["c"], "node", lease_timeout, heard)
    await host.start()
    try:
        yield host, heard
    finally:
        await host.stop()


def stamp_of(host: SegmentHost) -> Stamp:
    standing = host.standing()
    assert standing is not None
    return standing.stamp


def encoded(key: object) -> KeyId:
    return encode_key(key)


def entry(key: object, value: object) -> Entry:
    """As another host hands it on."""
    format, pieces = codec("pickle").encode(value)
    data = encoded(key)
    return Entry(key_id_of(data), data, format, Kind.VALUE, b"".join(pieces))


def left_clean(settings: dict[str, Any]) -> bool:
    """Nothing is left in cache `c`, looked at from this process."""
    coopshm.configure(settings)
    return clean(coopshm.open("c"))


# ---- workers


class FailingError(Exception):
    """What a worker's fn raises."""


def _compute(kind: str, key: object, tally: Tally) -> object:
    tally.add(repr(key))
    if kind == "fail":
        raise FailingError(f"{key} failed")
    if kind == "uncached":
        return coopshm.NoCache(f"uncached {key}")
    if kind == "large":
        return b"y" * 400_000
    if kind == "nested":
        return ("outer", coopshm.cached("c", ("inner", key), lambda: _compute("value", ("inner", key), tally)))
    return f"computed {key}"


def _wait_told(conn: Connection, kind: str, key: object, tally: Tally) -> object:
    conn.send(("computing", key))
    conn.recv()
    return _compute(kind, key, tally)


def work(conn: Connection, settings: dict[str, Any], tally: Tally) -> None:
    """Does what it is told, in turn: (kind, key, options) -> ("got", value) or ("raised", type, text)."""
    coopshm.configure(settings)
    coopshm.open("c")
    conn.send("ready")
    while (order := conn.recv()) is not None:
        kind, key, options = order
        conn.send(answer_to(conn, kind, key, options, tally))


def answer_to(conn: Connection, kind: str, key: object, options: dict[str, Any], tally: Tally) -> tuple[object, ...]:
    if kind == "reset":
        return ("got", coopshm.reset("c"))
    if kind == "version":
        return ("got", coopshm.version("c"))
    if kind == "destroy":
        coopshm.open("c").destroy()
        return ("got", None)
    if kind == "tasks":
        return ("got", asyncio.run(_two_tasks(key, tally)))
    slow = options.pop("slow", False)
    fn = (lambda: _wait_told(conn, kind, key, tally)) if slow else (lambda: _compute(kind, key, tally))
    try:
        return ("got", coopshm.cached("c", key, fn, **options))
    except Exception as exc:
        return ("raised", type(exc).__name__, str(exc))


async def _two_tasks(key: object, tally: Tally) -> list[object]:
    """Of two that ask for one key, the second has no time."""

    async def compute() -> object:
        return _compute("value", key, tally)

    cache = coopshm.open("c")
    return await asyncio.gather(cache.acached(key, compute), cache.acached(key, compute, timeout=0))


class Worker:
    def __init__(self, settings: dict[str, Any], tally: Tally) -> None:
        self.child = Child(work, settings, tally)
        assert self.child.receive() == "ready"

    def ask(self, key: object, kind: str = "value", **options: Any) -> asyncio.Task[Any]:
        """Have it ask; the task has what it said."""
        self.child.send((kind, key, options))
        return asyncio.create_task(asyncio.to_thread(self.child.receive))

    async def say(self, kind: str) -> Any:
        return (await self.ask(None, kind))[1]


async def worker(settings: dict[str, Any], tally: Tally) -> Worker:
    return await asyncio.to_thread(Worker, settings, tally)


# ---- a sidecar in a process of its own


def be_sidecar(conn: Connection, settings: dict[str, Any], policy: str, lease_timeout: float) -> None:
    """Answers each question by `policy`: "grant", "hold", "nothing"; tells of each when it has."""

    async def main() -> None:
        async with hosted(settings, lease_timeout) as (host, heard):

            def answer(stamp: Stamp, key_id: KeyId) -> None:
                if policy == "grant":
                    host.grant(stamp, key_id)
                elif policy == "hold":
                    host.hold(stamp, key_id)
                conn.send(key_id)

            heard.answer = answer
            conn.send("ready")
            await asyncio.to_thread(conn.recv)

    asyncio.run(main())


async def sidecar(settings: dict[str, Any], policy: str, lease_timeout: float) -> Child:
    child = Child(be_sidecar, settings, policy, lease_timeout)
    assert await asyncio.to_thread(child.receive) == "ready"
    return child
