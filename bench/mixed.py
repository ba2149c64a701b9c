"""how many hits a second are there while another process stores?

One process stores new keys, with values of 1 KiB, without pause; one or three others ask for one key that is
stored, and get a value of 1 KiB. Beforehand, all is cleared. Where 1 + 3 processes share 2 cores, the hits
are those of the share that the scheduler gives to the readers; "no writer" has the same readers with the
writer asleep. A process that stores through a server leaves the core to the server for much of the time, and
stores the less. Each contender's row of writes says how many it stored meanwhile: few writes disturb nobody.
For coopshm, a store is a `Cache.cached` that computes; for peers that only store, it is that alone.
"""

from __future__ import annotations

import itertools
import os
import timeit
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

from . import peers
from .common import MIB, Bench, Sample, Table
from .peers import PEERS
from .peers.ours import HOT, OFF
from .peers.protocol import Client, Peer, Running
from .procs import CLOCK, Asked, sleep_until
from .values import KIB

_KEY = "product:42"
_CALLS = 100
#: Entries that a round may store; then the writer goes on with the first key again.
_ITEMS = 100_000

#: clear, write or read; from when on, and for how long.
Question = tuple[str, int, int]

SITUATIONS = {"1 reader": (1, False), "1 reader, 1 writer": (1, True), "3 readers, 1 writer": (3, True)}


def _member(connect: Callable[[], Client]) -> Callable[[Question], float]:
    client = connect()
    client.put(_KEY, KIB)
    statement, names = client.hit(_KEY, KIB)
    timer = timeit.Timer(statement, globals=names)
    numbers = itertools.count()

    def clear() -> float:
        nonlocal numbers
        client.clear()
        numbers = itertools.count()
        client.put(_KEY, KIB)
        return 0.0

    def write(start: int, duration: int) -> float:
        done = 0
        sleep_until(start)
        while CLOCK() < start + duration:
            client.put(f"key:{next(numbers) % _ITEMS}", KIB)
            done += 1
        return done / (CLOCK() - start) * 1e9

    def read(start: int, duration: int) -> float:
        timer.timeit(1)
        done = 0
        sleep_until(start)
        while CLOCK() < start + duration:
            timer.timeit(_CALLS)
            done += _CALLS
        rate = done / (CLOCK() - start) * 1e9
        if client.get(_KEY) != KIB:
            raise RuntimeError("the entry is gone: these were no hits")
        return rate

    def answer(question: Question) -> float:
        what, start, duration = question
        return clear() if what == "clear" else (write if what == "write" else read)(start, duration)

    return answer


class _Contender:
    def __init__(self, peer: Peer, members: Sequence[Asked[Question, float]]) -> None:
        self.peer = peer
        self.writer, *self.readers = members
        self.hits: dict[str, list[float]] = {}
        self.writes: dict[str, list[float]] = {}

    def round(self, duration: int) -> None:
        for situation, (n_readers, writing) in SITUATIONS.items():
            self.writer.send(("clear", 0, 0))
            self.writer.receive()
            start = CLOCK() + 5_000_000
            for reader in self.readers[:n_readers]:
                reader.send(("read", start, duration))
            if writing:
                self.writer.send(("write", start, duration))
            rate = sum(reader.receive() for reader in self.readers[:n_readers])
            self.hits.setdefault(situation, []).append(rate)
            if writing:
                self.writes.setdefault(situation, []).append(self.writer.receive())


def run(bench: Bench) -> list[Table]:
    duration = bench.pick(200_000_000, 20_000_000)
    room = 2 * _ITEMS * len(KIB)
    asked = [HOT, OFF, *PEERS]
    if not bench.has_room(room * (len(asked) + 1), "everything"):
        return []
    contenders: list[_Contender] = []
    with ExitStack() as stack:
        running = stack.enter_context(
            peers.started(bench, asked, items=2 * _ITEMS, largest=len(KIB), room=room + 64 * MIB, processes=4)
        )
        for peer, started in running.items():
            peers.attempt(bench, peer, "starting", partial(_start, stack, contenders, peer, started))
        for _ in bench.rounds(7, 2):
            contenders = [
                one for one in contenders if peers.attempt(bench, one.peer, "a round", partial(one.round, duration))
            ]
    hits = [Sample(one.peer.name, s, values) for one in contenders for s, values in one.hits.items()]
    writes = [Sample(one.peer.name, s, values) for one in contenders for s, values in one.writes.items()]
    quiet = next(iter(SITUATIONS))
    title = f"Hits on {len(os.sched_getaffinity(0))} cores"
    return [
        Table(title, "hits a second, by all readers", hits, quiet, contender_is="while there are", plot="shared"),
        Table("Stored meanwhile", "a second", writes, contender_is="while there are"),
    ]


def _start(stack: ExitStack, contenders: list[_Contender], peer: Peer, running: Running) -> None:
    members = stack.enter_context(running.workers(4, partial(_member, running.connect)))
    contenders.append(_Contender(peer, members))
