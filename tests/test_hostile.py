"""Bytes of a live segment are changed from outside while worker processes use it.

tests/hostile holds the C core to an error or a miss; this holds what users call to it: `cached` answers with the right
value, or raises a CoopshmError, and no process crashes. Bytes of *values* are another matter: who may write to the
segment is trusted (P9), so values have no checksum, and a wrong byte in one is noticed only if it cannot be decoded.

Where words lie follows csrc/layout.h. The semaphores' bytes, which are the C library's, are left alone.
"""

from __future__ import annotations

import mmap
import random
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pytest

import coopshm
from tests.procs import WATCHDOG, Child

WORKERS = 3
CALLS = 600
KEYS = 40

_GEOMETRY = struct.Struct("<18Q")
_SLOT = struct.Struct("<4Q")
_FULL = 3  # the state of a slot
_HEADER, _EPOCHS, _EPOCH = 15424, 640, 4320
_DOORBELL = range(544, 576)
_CHUNK, _FLIGHT, _NODE, _OUTCOME, _ROW = 16, 256, 64, 64, 4096
_GENERATION, _WRITE_LOCK, _NEXT_SERIAL = 256, 320, 448

Settings = dict[str, Any]


class Victim:
    """The segment of cache `c`, mapped by somebody who knows where everything is."""

    def __init__(self, namespace: str) -> None:
        with Path(f"/dev/shm/coopshm:{namespace}:c").open("r+b") as file:
            geometry = _GEOMETRY.unpack(file.read(64 + _GEOMETRY.size)[64:])
            self.map = mmap.mmap(file.fileno(), geometry[16])
        self.slots, self.chunks = geometry[5:7]
        self.chunks_at, self.flights_at, self.nodes_at, self.outcomes_at = geometry[8:12]
        self.slots_at, self.log_at, self.rows_at, self.arena_at = geometry[12:16]

    def word(self, at: int) -> int:
        return int.from_bytes(self.map[at : at + 8], "little")

    def put(self, at: int, word: int) -> None:
        self.map[at : at + 8] = (word & (1 << 64) - 1).to_bytes(8, "little")

    def entries(self) -> Iterator[int]:
        """Where entries lie, of whatever generation."""
        for slot in range(self.slots):
            ctl, _, place, _ = _SLOT.unpack_from(self.map, self.slots_at + slot * _SLOT.size)
            at = self.arena_at + (place & (1 << 36) - 1) * 16
            if ctl & 15 == _FULL and at + 256 <= len(self.map):
                yield at

    def some_slot(self, chance: random.Random) -> int:
        """A slot in use, if there is one: most are not."""
        used = [slot for slot in range(self.slots) if self.word(self.slots_at + slot * _SLOT.size)]
        return chance.choice(used or [0])


Where = Callable[[Victim, random.Random], int | None]


def noticeable(victim: Victim, chance: random.Random) -> int | None:
    """The offset of a word that may say anything without a wrong value coming of it.

    That leaves out what decides which space is free, who is alive and who holds what: if two publish into the same
    space at the same time, it is the values that are damaged. It also leaves out the headers of entries: by the time
    one is overwritten, a reset may have put a value there.
    """
    few = chance.randrange(16)
    match chance.randrange(8):
        case 0:
            at = chance.randrange(_GENERATION, _EPOCHS, 8)
            return None if at in (_GENERATION, _WRITE_LOCK, _NEXT_SERIAL) or at in _DOORBELL else at
        case 1:  # not run, holes_used, holes
            inside = chance.choice([0, *range(16, 40, 8), *range(48, 120, 8)])
            return _EPOCHS + chance.randrange(2) * _EPOCH + inside
        case 2:  # backed
            return victim.chunks_at + chance.randrange(victim.chunks) * _CHUNK + 8
        case 3:  # not serial, owner, term, given_up, reserved
            inside = chance.choice([*range(32, 64, 8), *range(72, 256, 8)])
            return victim.flights_at + few * _FLIGHT + inside
        case 4:
            return victim.nodes_at + few * _NODE + chance.randrange(0, 32, 8)
        case 5:  # not writer, taken
            return victim.outcomes_at + few * _OUTCOME + chance.choice([0, *range(16, 48, 8), 56])
        case 6:
            return victim.slots_at + victim.some_slot(chance) * _SLOT.size + chance.randrange(0, _SLOT.size, 8)
        case _:  # not the incarnation, not pins
            return victim.rows_at + chance.randrange(WORKERS) * _ROW + chance.randrange(8, 1776, 8)


def anything(victim: Victim, chance: random.Random) -> int | None:
    """The offset of any word, but those of semaphores and of pages that may not be there."""
    if chance.randrange(2):
        return noticeable(victim, chance)
    entries = list(victim.entries())
    if entries and chance.randrange(4) == 0:
        return chance.choice(entries) + chance.randrange(0, 256, 8)
    rows = (victim.rows_at, victim.rows_at + WORKERS * _ROW)
    parts = ((0, _HEADER), (victim.chunks_at, victim.log_at), (victim.slots_at, victim.log_at), rows)
    at = chance.randrange(*chance.choice(parts)) // 8 * 8
    in_node = victim.nodes_at <= at < victim.outcomes_at and (at - victim.nodes_at) % _NODE >= 32
    return None if in_node or at in _DOORBELL else at


def damage(victim: Victim, where: Where, chance: random.Random) -> None:
    at = where(victim, chance)
    if at is None:
        return
    old = victim.word(at)
    words = [old ^ 1 << chance.randrange(64), 0, (1 << 64) - 1, old + 1, chance.getrandbits(64), chance.randrange(50)]
    victim.put(at, chance.choice(words))


# ---- workers


def value_of(n: int) -> object:
    """The value of key `n`, of all kinds."""
    return (
        f"bytes {n} ".encode() * 50,
        f"text {n} ä" * 30,
        {"id": n, "tags": [str(n)] * 20},
        [n] * 100,
        {"rows": [{"n": n, "x": n / 3}] * 30},
    )[n % 5]


def plain_value_of(n: int) -> object:
    """The same of those that JSON can take, so that damaged bytes are not run as a pickle."""
    return value_of(n if n % 5 else n + 1)


def work(
    conn: Connection, settings: Settings, value: Callable[[int], object], hostile_values: bool, index: int
) -> Counter[str]:
    """Ask for keys at random; tell after every few calls. Returns how often what came of it."""
    coopshm.configure(settings)
    chance, counts = random.Random(index), Counter[str]()

    def compute(n: int) -> object:
        counts["computed"] += 1
        return coopshm.NoCache(value(n)) if n % 10 == 9 and chance.randrange(2) else value(n)

    def call(n: int) -> None:
        cache = coopshm.open("c")
        match chance.randrange(60):
            case 0:
                cache.keys()
            case 1:
                cache.stats()
            case 2:
                cache.verify()
            case 3 if index == 0:
                cache.reset(chance.randrange(1000))
            case 4:
                assert hostile_values or cache.get(n, value(n)) == value(n)
            case _:
                assert cache.cached(n, lambda: compute(n)) == value(n) or hostile_values
                counts["answered"] += 1

    for i in range(CALLS):
        try:
            call(chance.randrange(KEYS))
        except coopshm.CoopshmError as exc:
            counts[type(exc).__name__] += 1
        if i % 5 == 0:
            conn.send(i)
    return counts


def attack(workers: list[Child], namespace: str, where: Where) -> Counter[str]:
    """Damage some words whenever a worker has got on, until all have ended. Returns what the workers counted."""
    chance, total = random.Random(1), Counter[str]()
    victim: Victim | None = None
    working: dict[Any, Child] = {worker.conn: worker for worker in workers}
    while working:
        ready = wait(list(working), WATCHDOG)
        assert ready, "all workers hang"
        for conn in ready:
            message = working[conn].conn.recv()  # EOFError: the worker crashed
            if isinstance(message, int):
                if victim is None or chance.randrange(20) == 0:  # they may have gone on with another object
                    victim = find_victim(namespace) or victim
                for _ in range(3 if victim else 0):
                    damage(victim, where, chance)
            else:
                good, result = message
                assert good, result
                total += result
                del working[conn]
    for worker in workers:
        worker.process.join(WATCHDOG)
        assert worker.process.exitcode == 0
    return total


def find_victim(namespace: str) -> Victim | None:
    try:
        return Victim(namespace)
    except (OSError, ValueError, struct.error):  # between two objects, or one that is being made
        return None


@pytest.mark.parametrize("hot", [True, False])
def test_damage_outside_of_values_is_an_error_or_a_miss(
    settings: Callable[..., Settings], namespace: str, hot: bool
) -> None:
    config = settings(memory_limit="1 MiB", hot_objects=hot)
    workers = [Child(work, config, value_of, False, index) for index in range(WORKERS)]
    counts = attack(workers, namespace, noticeable)
    assert counts["answered"] > WORKERS * CALLS / 2, counts
    assert counts["computed"] > KEYS, counts


def test_no_damage_crashes_a_process_or_raises_anything_else(settings: Callable[..., Settings], namespace: str) -> None:
    config = settings(memory_limit="1 MiB", serializer="json", hot_objects=False)
    workers = [Child(work, config, plain_value_of, True, index) for index in range(WORKERS)]
    counts = attack(workers, namespace, anything)
    assert counts["computed"] > KEYS, counts
