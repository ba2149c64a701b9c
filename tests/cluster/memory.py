"""A host of the cluster in memory: a segment as a dict, workers as tasks. What the relay contract is tested over.

It behaves as the segment does (relay.py, docs/architecture.md), and keeps the history by which it is judged: every
value says when and under which stamp it was computed; `check` compares that with the resets made here.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from coopshm.cluster.relay import (
    Batch,
    Delivered,
    Ended,
    Entry,
    KeyId,
    Kind,
    MovedError,
    NodeState,
    Origin,
    Relay,
    ResetFailedError,
    StaleError,
    Stamp,
    Standing,
)

#: A clock that all hosts share, and no node can see.
TICKS = itertools.count(1)

AGAIN = object()


async def _nothing() -> None: ...


class FnError(Exception):
    """Raised by computations of tests; crosses hosts as its text."""


@dataclass(eq=False)
class Flight:
    stamp: Stamp
    generation: int
    fn: Callable[[], Awaitable[Any]]
    done: asyncio.Future[Any]
    timer: asyncio.TimerHandle | None = None
    computing: asyncio.Task[None] | None = None
    granted: bool = False
    held: bool = False
    wanted: bool = False


class MemoryHost:
    """Cache `c` of one host. Its tests are its workers: they call `cached` and `reset`."""

    def __init__(self, node: str, lease_timeout: float, room: int = 10**9, version: bytes = b"1") -> None:
        self.node = node
        self.name = "c"
        self.lease_timeout = lease_timeout
        self.room = room
        self.segment = 0
        self.relay: Relay | None = None
        self.here = True
        self.locked = False  # who has the write lock is stopped
        self.stamp = Stamp(0, version, "")
        self.own = 0
        self.generation = 1
        self.reset_at = 0
        self.log: list[tuple[Entry, Origin]] = []
        self.places: dict[KeyId, int] = {}
        self.flights: dict[KeyId, Flight] = {}
        self.acknowledgements: dict[str, tuple[int, NodeState]] = {}
        self.on_reset: Callable[[Stamp], Awaitable[None]] | None = None
        self.adopted: list[Stamp] = []
        self.computations: list[tuple[bytes, Stamp]] = []
        self.timeouts = 0
        self.faults: list[str] = []
        self._reset_lock = asyncio.Lock()
        self._news = asyncio.Event()

    # -- for the relay

    @property
    def origin(self) -> str:
        return f"{self.node}#{self.segment}"

    def standing(self) -> Standing | None:
        return Standing(self.stamp, self.origin, self.own, self.generation) if self.here else None

    async def adopt(self, stamp: Stamp, instead_of: Standing) -> None:
        async with self._reset_lock:
            if self.standing() != instead_of:
                raise MovedError
            if self.on_reset is not None:
                try:
                    await self.on_reset(stamp)
                except FnError as exc:
                    raise ResetFailedError from exc
            if self.standing() != instead_of:  # started cold or lost meanwhile
                raise MovedError
            if stamp <= self.stamp:
                self.faults.append(f"went back from {self.stamp} to {stamp}")
            self.adopted.append(stamp)
            if stamp.node == self.origin:
                self.own = stamp.counter
            self._flip(stamp)
            if self.relay is not None:
                self.relay.moved(self.name)  # before the relay knows that it is done: it may be told so
            for _ in range(len(self.adopted) % 4):  # and by then much may have been said and heard
                await asyncio.sleep(0)

    async def deliver(self, stamp: Stamp, entry: Entry) -> Delivered:
        await asyncio.sleep(0)
        if not self.here or self.locked:
            return Delivered.GONE
        if stamp != self.stamp:
            return Delivered.STALE
        if entry.key_id in self.places:
            return Delivered.KNOWN
        flight = self.flights.get(entry.key_id)
        entry = entry._replace(payload=bytes(entry.payload))
        waiting = flight is not None and flight.computing is None
        if entry.kind is not Kind.VALUE:
            if flight is not None and waiting:
                self._finish(entry.key_id, flight, entry)
                return Delivered.PASSED
            return Delivered.UNWANTED
        if flight is not None and not waiting:
            return Delivered.JOINED
        stored = self._store(entry, Origin.ALL)
        if flight is not None:
            self._finish(entry.key_id, flight, entry)
            return Delivered.STORED if stored else Delivered.PASSED
        return Delivered.STORED if stored else Delivered.FULL

    def find(self, stamp: Stamp, key_id: KeyId) -> Entry | None:
        place = self.places.get(key_id) if self.here and stamp == self.stamp else None
        return self.log[place][0] if place is not None else None

    async def read(self, generation: int, position: int, origin: Origin, max_bytes: int, max_entries: int) -> Batch:
        await asyncio.sleep(0)
        self._current(generation)
        taken: list[tuple[int, Entry]] = []
        size = 0
        while position < len(self.log) and len(taken) < max_entries and (not taken or size < max_bytes):
            entry, made = self.log[position]
            if origin is Origin.ALL or made is Origin.LOCAL:
                taken.append((position, entry._replace(payload=memoryview(entry.payload))))
                size += len(entry.payload)
            position += 1
        return Batch(taken, position, position >= len(self.log))

    async def changed(self, generation: int, position: int) -> None:
        while self._current(generation) and position >= len(self.log):
            self._news.clear()
            await self._news.wait()

    def _current(self, generation: int) -> bool:
        if not self.here or generation != self.generation:
            raise StaleError
        return True

    def grant(self, stamp: Stamp, key_id: KeyId) -> None:
        flight = self.flights.get(key_id)
        if stamp == self.stamp and flight is not None and flight.computing is None:
            flight.granted = True
            self._compute(key_id, flight)
        elif self.relay is not None and not (flight is not None and flight.granted):  # too late
            asyncio.get_running_loop().call_soon(self._granted_late, stamp, key_id)

    def _granted_late(self, stamp: Stamp, key_id: KeyId) -> None:
        if self.relay is not None and key_id not in self.flights:
            ended = Ended.STORED if self.find(stamp, key_id) is not None else Ended.ABANDONED
            self.relay.ended(self.name, stamp, key_id, ended)

    def hold(self, stamp: Stamp, key_id: KeyId) -> None:
        flight = self.flights.get(key_id)
        if stamp == self.stamp and flight is not None:
            flight.held = True

    def want(self, stamp: Stamp, key_id: KeyId) -> None:
        flight = self.flights.get(key_id)
        if stamp == self.stamp and flight is not None:
            flight.wanted = True

    def acknowledged(self, node: str, covers: int, state: NodeState) -> None:
        self.acknowledgements[node] = (covers, state)

    # -- the segment

    def _store(self, entry: Entry, origin: Origin) -> bool:
        if len(self.places) >= self.room:
            return False
        value = json.loads(bytes(entry.payload))
        if tuple(value["stamp"]) != (self.stamp.counter, self.stamp.version.decode(), self.stamp.node):
            self.faults.append(f"{entry.key!r} was computed under {value['stamp']}, stored under {self.stamp}")
        if value["tick"] <= self.reset_at:
            self.faults.append(f"{entry.key!r} was computed at {value['tick']}, before the reset at {self.reset_at}")
        self.places[entry.key_id] = len(self.log)
        self.log.append((entry, origin))
        self._news.set()
        return True

    def _flip(self, stamp: Stamp) -> None:
        if stamp.node == self.origin and stamp != self.stamp:
            self.reset_at = next(TICKS)
        self.stamp = stamp
        self.generation += 1
        self.log, self.places = [], {}
        flights, self.flights = self.flights, {}
        for key_id, flight in flights.items():
            self._finish(key_id, flight, AGAIN)
        self._news.set()
        self._moved()

    def _moved(self) -> None:
        if self.relay is not None:
            relay = self.relay
            asyncio.get_running_loop().call_soon(lambda: relay is self.relay and relay.moved(self.name))

    def _finish(self, key_id: KeyId, flight: Flight, outcome: object) -> None:
        if self.flights.get(key_id) is flight:
            del self.flights[key_id]
        if flight.timer is not None:
            flight.timer.cancel()
        if not flight.done.done():
            flight.done.set_result(outcome)

    # -- workers

    async def cached(self, key: bytes, fn: Callable[[], Awaitable[Any]], nested: bool = False) -> Any:
        """The value of `key`, as `coopshm.cached` in a worker."""
        while True:
            place = self.places.get(key)
            if place is not None:
                return self._value(self.log[place][0])
            flight = self.flights.get(key)
            if flight is None:
                loop = asyncio.get_running_loop()
                flight = self.flights[key] = Flight(self.stamp, self.generation, fn, loop.create_future())
                if self.relay is None:
                    self._compute(key, flight)
                else:
                    flight.timer = loop.call_later(self.lease_timeout, self._timeout, key, flight)
                    self.relay.ask(self.name, self.stamp, key, nested)
            elif nested and self.relay is not None:
                self.relay.ask(self.name, self.stamp, key, True)
            outcome = await asyncio.shield(flight.done)
            if outcome is not AGAIN:
                return self._value(outcome)

    @staticmethod
    def _value(entry: Entry) -> Any:
        value = json.loads(bytes(entry.payload))
        if entry.kind is Kind.FAILURE:
            raise FnError(value["value"])
        return value["value"]

    def _timeout(self, key: KeyId, flight: Flight) -> None:
        if flight.computing is None and not flight.held and self.flights.get(key) is flight:
            self.timeouts += 1
            self._compute(key, flight)
            if self.relay is not None:
                self.relay.withdrawn(self.name, flight.stamp, key)

    def sidecar_died(self) -> None:
        """Workers see it at once: whoever waits computes, and nobody asks any more."""
        self.relay = None
        for key, flight in list(self.flights.items()):
            if flight.computing is None:
                self._compute(key, flight)

    def kill_workers(self) -> None:
        """All that compute on this host are killed; nobody else here waits for them."""
        for key, flight in list(self.flights.items()):
            if flight.computing is not None:
                flight.computing.cancel()
                self._finish(key, flight, AGAIN)
                self._ended(key, flight, Ended.ABANDONED)

    def _compute(self, key: KeyId, flight: Flight) -> None:
        self.computations.append((key, flight.stamp))
        flight.computing = asyncio.ensure_future(self._run(key, flight))

    async def _run(self, key: KeyId, flight: Flight) -> None:
        made: dict[str, Any] = {"tick": next(TICKS)}
        made["stamp"] = (flight.stamp.counter, flight.stamp.version.decode(), flight.stamp.node)
        kind = Kind.VALUE
        try:
            made["value"] = await flight.fn()
        except FnError as exc:
            kind, made["value"] = Kind.FAILURE, str(exc)
        if flight.generation != self.generation or self.flights.get(key) is not flight:
            return
        entry = Entry(key, key, 1, kind, json.dumps(made).encode())
        stored = kind is Kind.VALUE and self._store(entry, Origin.LOCAL)
        if kind is Kind.VALUE and not stored:
            kind = Kind.UNCACHED
        self._finish(key, flight, entry)
        self._ended(key, flight, Ended.STORED if stored else entry._replace(key=b"", kind=kind))

    def _ended(self, key: KeyId, flight: Flight, outcome: Entry | Ended) -> None:
        if flight.granted and self.relay is not None:
            self.relay.ended(self.name, flight.stamp, key, outcome)

    # -- what else happens to a host

    async def reset(self, version: bytes = b"1") -> Stamp:
        """By a worker of this host."""
        async with self._reset_lock:
            stamp = Stamp(self.stamp.counter + 1, version, self.origin)
            self.own = stamp.counter
            self._flip(stamp)
            return stamp

    def start_cold(self) -> None:
        """As a cache with lifetime = "app" does: empty, under the same stamp."""
        self._flip(self.stamp)

    def lose_segment(self) -> None:
        """As a reboot does."""
        self.segment += 1
        self.own = self.reset_at = 0
        self._flip(Stamp(0, b"1", ""))

    def make_again(self) -> None:
        """Destroyed, and made again at once: as it was in the beginning, but for its name."""
        self.lose_segment()
        self.generation = 1

    def vanish(self) -> None:
        """No process has the cache any more."""
        self.here = False
        self._moved()

    def forget(self, key: KeyId) -> None:
        """Whoever waits for it is killed, and the sidecar has not seen it yet."""
        flight = self.flights.pop(key)
        if flight.timer is not None:
            flight.timer.cancel()

    def close(self) -> None:
        """Nobody waits any more."""
        self.relay = None
        for key in list(self.flights):
            self.forget(key)

    def flight(self, key: KeyId) -> Flight:
        """The flight of a key; one that nothing has happened to if there is none."""
        return self.flights.get(key) or Flight(self.stamp, 0, _nothing, asyncio.get_running_loop().create_future())

    def stored(self) -> set[KeyId]:
        return set(self.places)
